//! `db-backup`: take and prove a backup, apart from a migration.

use serde::Serialize;

use crate::Context;
use crate::database::history;
use crate::error::Result;
use crate::flags::Backup;
use crate::migration::plan;
use crate::runbook::backup::{self, Backups, Taken};
use crate::runbook::preflight::Touched;
use crate::ui;

#[derive(Serialize)]
struct Report {
    backups: Vec<Taken>,
}

pub(crate) fn run(ctx: &Context, flags: &Backup) -> Result {
    let folder = ctx.folder()?;
    let mut db = ctx.connect()?;
    let names = if flags.tables.is_empty() {
        let applied = history::read_known(&mut db)?;
        let pending = plan::up(&folder, &applied, None, true)?;
        let touched = Touched::by(pending.iter().map(|migration| &migration.up));
        let named: Vec<String> = touched.backup.iter().map(ToString::to_string).collect();
        if named.is_empty() {
            vec![backup::DEFAULT_TABLE.to_owned()]
        } else {
            named
        }
    } else {
        flags.tables.clone()
    };
    // All are looked up before the first is dumped.
    let relations = names
        .iter()
        .map(|name| backup::table(&mut db, name))
        .collect::<Result<Vec<_>>>()?;
    let backups = Backups {
        config: &ctx.config,
        tools: ctx.tools(),
        ui: &ctx.ui,
        proof: flags.proof,
        application_name: &ctx.application_name,
    };
    let mut report = Report {
        backups: Vec::new(),
    };
    for relation in &relations {
        let taken = backups.take(&mut db, relation)?;
        ctx.ui.status(
            "Backed up",
            format_args!(
                "{}: {}, {}",
                taken.table,
                ui::plural(taken.rows, "row"),
                ui::bytes(taken.bytes)
            ),
        );
        ctx.ui.command(&backup::command(
            &taken.table,
            &taken.file.display().to_string(),
        ));
        ctx.ui.data(taken.file.display());
        report.backups.push(taken);
    }
    ctx.ui.json(&report)
}
