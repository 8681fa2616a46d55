//! What every command works with: where it prints, what is configured, which database is meant.

use std::cell::OnceCell;
use std::time::Duration;

use pg_connect::ConnInfo;

use crate::config::{Config, Origin};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::source::Folder;
use crate::tools::Tools;
use crate::ui::Ui;

/// Where nobody says how long to wait for a server, libpq waits for ever: a command in a pipeline
/// must not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What every command works with.
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) config: Config,
    /// How our sessions call themselves on the server: `xtask db-migrate`.
    pub(crate) application_name: String,
    tools: OnceCell<Tools>,
    /// Where the private server was found running, or was started, by this command.
    pub(crate) private_server: OnceCell<ConnInfo>,
}

impl Context {
    pub(crate) fn new(mut ui: Ui, config: Config, command: &str) -> Context {
        ui.invocation.program.clone_from(&config.settings.command);
        interrupt::look_with(ui.invocation.command("db-status"));
        Context {
            ui,
            config,
            application_name: format!("xtask {command}"),
            tools: OnceCell::new(),
            private_server: OnceCell::new(),
        }
    }

    /// The PostgreSQL programs of this machine, looked for when they are first needed.
    pub(crate) fn tools(&self) -> &Tools {
        self.tools
            .get_or_init(|| Tools::find(self.config.path.as_ref(), self.config.pg_bin_dir()))
    }

    /// Looks again, after an installation.
    pub(crate) fn forget_tools(&mut self) {
        self.tools = OnceCell::new();
    }

    /// The migrations on disk; names the files that are no migration and look like one.
    ///
    /// # Errors
    /// If the folder cannot be understood.
    pub(crate) fn folder(&self) -> Result<Folder> {
        let folder = self.load_folder()?;
        for ignored in &folder.ignored {
            self.ui.warn(format_args!("{ignored}; {}", ignored.hint));
        }
        Ok(folder)
    }

    /// The same in silence, for who looks at it again.
    ///
    /// # Errors
    /// If the folder cannot be understood.
    pub(crate) fn load_folder(&self) -> Result<Folder> {
        let shown = self.config.shown(&self.config.migrations);
        let folder = Folder::load(&self.config.migrations, &shown)?;
        Ok(folder.with_baseline(self.config.settings.baseline))
    }

    /// The configured database, before it is connected to.
    ///
    /// # Errors
    /// If none is configured, or the address is malformed.
    pub(crate) fn target(&self) -> Result<(ConnInfo, Origin)> {
        let Some((url, origin)) = self.config.database_url()? else {
            return Err(Failure::usage("no database is configured")
                .cause("there is no --database-url, no DATABASE_URL in the environment, and none in `.env`")
                .hint("name your database: export DATABASE_URL=postgres://USER@HOST:5432/DATABASE")
                .hint(Hint::to("or make a private one for development", "db-setup"))
                .into());
        };
        Ok((self.resolve(&url)?, origin))
    }

    /// Reads a connection string as libpq would.
    ///
    /// # Errors
    /// If it is malformed.
    pub(crate) fn resolve(&self, url: &str) -> Result<ConnInfo> {
        let mut info = ConnInfo::resolve(url, &self.config.env, self.config.os_user.as_deref())
            .map_err(|error| {
                Failure::from(error).hint(Hint::to("then look whether it works", "db-doctor"))
            })?;
        if info.setting("connect_timeout").is_none() {
            info.connect_timeout = Some(CONNECT_TIMEOUT);
        }
        for warning in info.warnings() {
            self.ui.warn(warning);
        }
        Ok(info)
    }
}
