//! A backup: pg_dump of one table on an exported snapshot, counted in that same snapshot, with a
//! manifest beside it. Restoring it, for proof or for good, has its own place.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failures;
use crate::config::Config;
use crate::database::Database;
use crate::database::catalog::{self, Relation};
use crate::error::{Failure, Result};
use crate::flags::Proof;
use crate::tools::{Tools, pg_dump};
use crate::ui::{self, Ui};

/// What is backed up where neither the command line nor a pending migration names a table.
pub(crate) const DEFAULT_TABLE: &str = "users";

/// How often progress is looked at while pg_dump runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A backup as the command contract shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Taken {
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) proof: String,
}

/// What stands beside a backup, as `<file>.json`: a backup without one is not complete.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    /// The backup's file name, without its folder.
    pub(crate) file: String,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the file, in hex.
    pub(crate) sha256: String,
    /// `rows`: as many rows as the table had in the dump's snapshot; `none`: not compared.
    pub(crate) proof: String,
    /// The server's clock at the snapshot.
    pub(crate) created_at: Timestamp,
    pub(crate) database: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) server_version: String,
    pub(crate) pg_dump_version: String,
}

/// Where backups go and how they are made.
pub(crate) struct Backups<'a> {
    pub(crate) config: &'a Config,
    pub(crate) tools: &'a Tools,
    pub(crate) ui: &'a Ui,
    pub(crate) proof: Proof,
    pub(crate) application_name: &'a str,
}

/// The command as a person would type it.
pub(crate) fn command(table: &str, file: &str) -> String {
    let arguments = pg_dump::arguments(table).join(" ");
    format!("pg_dump \"$DATABASE_URL\" {arguments} --file={file}")
}

impl Backups<'_> {
    /// Dumps a table and proves the dump.
    ///
    /// # Errors
    /// If the folder cannot be written, pg_dump fails, or the proof does. Nothing of a failed
    /// backup is left.
    pub(crate) fn take(&self, db: &mut Database, table: &Relation) -> Result<Taken> {
        let qualified = table.qualified();
        let attempted = || format!("cannot back up `{qualified}`");
        let pg_dump = self
            .tools
            .pg_dump(db.server.major())
            .with_context(attempted)?;
        let folder = &self.config.backups;
        make_folder(folder, self.ui)?;
        // 0600 whatever the umask, and gone again unless it is kept.
        let mut partial = tempfile::Builder::new()
            .prefix(&format!(".{}_backup_", file_safe(&table.name)))
            .suffix(".partial")
            .tempfile_in(folder)
            .with_context(|| {
                format!("cannot write into the backup folder `{}`", folder.display())
            })?;

        let (dump, rows, snapshot_at) = self
            .dump_and_count(db, &qualified, &pg_dump.program, partial.as_file_mut())
            .with_context(attempted)?;
        partial
            .as_file()
            .sync_all()
            .with_context(|| format!("cannot flush the backup in `{}`", folder.display()))?;
        if self.proof == Proof::Rows && dump.rows != rows {
            return Err(
                Failure::failed(format!("the backup of `{qualified}` is not whole"))
                    .cause(format!("it holds {} of {rows} rows", dump.rows))
                    .hint("cargo xtask db-backup")
                    .into(),
            );
        }

        let file = keep(partial, folder, &table.name, snapshot_at)?;
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let manifest = Manifest {
            file: name,
            table: qualified.clone(),
            rows: dump.rows,
            bytes: dump.bytes,
            sha256: dump.sha256.clone(),
            proof: proof_name(self.proof).to_owned(),
            created_at: snapshot_at,
            database: db.server.name.clone(),
            host: db.server.host.clone(),
            port: db.server.port,
            server_version: db.server.server_version.clone(),
            pg_dump_version: pg_dump.version.to_string(),
        };
        manifest
            .write(&file)
            .with_context(|| format!("cannot write the manifest of `{}`", file.display()))?;
        Ok(Taken {
            file: self.config.shown(&file),
            table: qualified,
            rows: dump.rows,
            bytes: dump.bytes,
            sha256: dump.sha256,
            proof: manifest.proof,
        })
    }

    /// pg_dump writes and we count, side by side, both in one snapshot.
    fn dump_and_count(
        &self,
        db: &mut Database,
        qualified: &str,
        program: &Path,
        out: &mut File,
    ) -> Result<(pg_dump::Dump, u64, Timestamp)> {
        let (target, lock_wait) = (db.target.clone(), db.lock_wait);
        let mut transaction = db
            .client
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()?;
        let row = transaction.query_one(
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp()",
            &[],
        )?;
        let (snapshot, snapshot_at): (String, Timestamp) = (row.get(0), row.get(1));
        let request = pg_dump::Request {
            pg_dump: program,
            target: &target,
            application_name: self.application_name,
            table: qualified,
            snapshot: &snapshot,
            lock_wait,
        };
        let progress = self.ui.progress("Backup");
        let (rows_so_far, bytes_so_far) = (AtomicU64::new(0), AtomicU64::new(0));
        let (dump, rows) = std::thread::scope(|scope| -> Result<_> {
            let dump = scope.spawn(|| {
                pg_dump::run(&request, out, &mut |rows, bytes| {
                    rows_so_far.store(rows, Ordering::Relaxed);
                    bytes_so_far.store(bytes, Ordering::Relaxed);
                })
            });
            let show = || {
                std::thread::sleep(LOOK_EVERY);
                progress.update(format_args!(
                    "{qualified}: {} rows, {}",
                    ui::count(rows_so_far.load(Ordering::Relaxed)),
                    ui::bytes(bytes_so_far.load(Ordering::Relaxed)),
                ));
            };
            // pg_dump takes its lock first. If we had ours before, an ALTER of somebody else could
            // queue between the two: it would wait for us, pg_dump for it, and we for pg_dump.
            while !dump.is_finished() && bytes_so_far.load(Ordering::Relaxed) == 0 {
                show();
            }
            let counted = (!dump.is_finished()).then(|| self.count(&mut transaction, qualified));
            while !dump.is_finished() {
                show();
            }
            let dump = dump
                .join()
                .map_err(|_| anyhow::anyhow!("the thread that runs pg_dump panicked"))?;
            match (dump, counted) {
                (Ok(dump), Some(rows)) => Ok((dump, rows?)),
                (Ok(dump), None) => Ok((dump, self.count(&mut transaction, qualified)?)),
                // The server's own word (it has an SQLSTATE) before pg_dump's.
                (Err(_), Some(Err(error))) => Err(error),
                (Err(error), _) => {
                    let lock = format!("LOCK TABLE {qualified} IN ACCESS SHARE MODE NOWAIT");
                    match transaction.batch_execute(&lock) {
                        Ok(()) => Err(error),
                        Err(error) => Err(error).context("cannot lock the table for reading"),
                    }
                }
            }
        })?;
        Ok((dump, rows, snapshot_at))
    }

    /// The table's rows in the transaction's snapshot, if the proof wants them.
    fn count(&self, transaction: &mut postgres::Transaction<'_>, qualified: &str) -> Result<u64> {
        if self.proof == Proof::None {
            return Ok(0);
        }
        let count = format!("SELECT pg_catalog.count(*) FROM {qualified}");
        let row = transaction.query_one(&count, &[]);
        Ok(row.context("cannot count the rows")?.get::<_, i64>(0) as u64)
    }
}

/// The proof's name in manifests and JSON.
pub(crate) fn proof_name(proof: Proof) -> &'static str {
    match proof {
        Proof::Rows => "rows",
        Proof::None => "none",
    }
}

/// Makes the folder, for its owner alone: backups hold password hashes.
fn make_folder(folder: &Path, ui: &Ui) -> Result {
    if folder.is_file() {
        return Err(Failure::failed(format!(
            "cannot make the backup folder `{}`",
            folder.display()
        ))
        .cause("it is a file")
        .hint(failures::OTHER_FOLDER)
        .into());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the backup folder `{}`", folder.display()))?;
    let mode = std::fs::metadata(folder)?.mode();
    if mode & 0o077 != 0 {
        ui.warn(format_args!(
            "others may look into the backup folder: chmod 700 '{}'",
            folder.display()
        ));
    }
    Ok(())
}

/// Gives the file its name, `<table>_backup_<YYYYmmdd_HHMMSS>.sql` in UTC: the first free second.
fn keep(
    mut partial: tempfile::NamedTempFile,
    folder: &Path,
    table: &str,
    at: Timestamp,
) -> Result<PathBuf> {
    let mut second = at;
    let file = loop {
        let stamp = second.strftime("%Y%m%d_%H%M%S");
        let file = folder.join(format!("{}_backup_{stamp}.sql", file_safe(table)));
        match partial.persist_noclobber(&file) {
            Ok(_) => break file,
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                partial = error.file;
                second += Duration::from_secs(1);
            }
            Err(error) => {
                return Err(error.error)
                    .with_context(|| format!("cannot name the backup `{}`", file.display()));
            }
        }
    };
    // The name itself must survive a crash too.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// A table may be named with a slash; a file may not.
fn file_safe(table: &str) -> String {
    table.replace(['/', '\0'], "_")
}

impl Manifest {
    /// `<file>.json`.
    pub(crate) fn path(file: &Path) -> PathBuf {
        let mut path = file.as_os_str().to_owned();
        path.push(".json");
        path.into()
    }

    fn write(&self, file: &Path) -> Result {
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut partial = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut partial, self)?;
        writeln!(partial)?;
        partial.as_file().sync_all()?;
        partial.persist(Manifest::path(file))?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// The complete backups in a folder, newest first.
///
/// # Errors
/// If the folder is there and cannot be read, or a manifest cannot be understood.
pub(crate) fn list(folder: &Path) -> Result<Vec<(PathBuf, Manifest)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read the backup folder `{}`", folder.display()));
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(".sql.json") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format!(
                "cannot understand the manifest `{}`",
                path.display()
            ))
            .cause(error.to_string())
            .hint(format!("look at it: cat '{}'", path.display()))
        })?;
        found.push((path.with_extension(""), manifest));
    }
    found.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.created_at));
    Ok(found)
}

/// Finds a table that can be backed up.
///
/// # Errors
/// If it does not exist, is no table, or may not be read.
pub(crate) fn table(db: &mut Database, name: &str) -> Result<Relation> {
    let parsed = crate::migration::effects::ObjectName::parse(name).ok_or_else(|| {
        Failure::usage(format!("not a table's name: `{name}`")).hint("cargo xtask db-backup users")
    })?;
    let Some(relation) = catalog::find(db, &parsed)? else {
        let elsewhere = catalog::schemas_with(db, &parsed.name)?;
        return Err(super::preflight::missing_table(db, &parsed, &elsewhere).into());
    };
    super::preflight::can_be_backed_up(db, &relation)?;
    Ok(relation)
}
