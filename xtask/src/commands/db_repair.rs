//! `db-repair`: an applied file that was edited since. Shows what changed, and records its new checksum if
//! it is the same SQL.

use std::time::Duration;

use clap::Args;

use super::args::{Output, lock_deadline};
use crate::Context;
use crate::database::{Database, history, lock};
use crate::error::{Failure, Result};
use crate::hex;
use crate::hint::Hint;
use crate::migration::plan;
use crate::options::Locks;
use crate::runbook::preflight::{self, Planned, When};
use crate::runbook::repair::{self, Findings, Restamp};
use crate::ui;

/// Arguments of `db-repair`.
#[derive(Args, Debug)]
pub struct Repair {
    /// Look at this migration only
    #[arg(value_name = "VERSION")]
    version: Option<i64>,
    /// Show what would be recorded; record nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for another run to end, and for locks on the history
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    lock_deadline: Duration,
    /// Terminate the server sessions that a killed run left behind, instead of waiting for them
    #[arg(long)]
    end_orphans: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Repair) -> Result {
    let folder = ctx.folder()?;
    let mut db = ctx.connect_with(flags.lock_deadline)?;
    let history = history::read_known(&mut db)?;
    let rows = &history.applied;
    if let Some(version) = flags.version {
        plan::check_known(
            version,
            &folder,
            &rows.iter().map(|row| row.version).collect(),
        )?;
    }
    let chosen = |version| flags.version.is_none_or(|only| only == version);
    for row in rows
        .iter()
        .filter(|row| !row.success && chosen(row.version))
    {
        ctx.ui.warn(format_args!(
            "`{}` is recorded as failed, which this does not repair",
            row.version
        ));
        ctx.ui.hint(Hint::run("db-status"));
    }
    let mut findings = repair::examine(&folder, &ctx.config.migrations, rows, flags.version)?;
    findings.dry_run = flags.dry_run;
    print(ctx, &findings);
    if !flags.dry_run && !findings.restamps.is_empty() {
        record(ctx, flags, &mut db, &history.table.name, &findings.restamps)?;
    }
    ctx.ui.json(&findings)?;
    if !findings.refusals.is_empty() {
        return Err(refused(findings).into());
    }
    match (findings.restamps.is_empty(), flags.dry_run) {
        (true, _) => ctx.ui.status(
            "Finished",
            "nothing to repair: applied files are as they were applied",
        ),
        (false, true) => ctx.ui.status("Finished", "nothing was recorded"),
        (false, false) => ctx.ui.hint(Hint::run("db-status")),
    }
    Ok(())
}

fn print(ctx: &Context, findings: &Findings) {
    for restamp in &findings.restamps {
        let (path, found_in) = (restamp.path.display(), &restamp.found_in);
        ctx.ui.info(
            "Compared",
            format_args!("`{path}` is the SQL that was applied, found in `{found_in}`"),
        );
        ctx.ui.data(&restamp.diff);
    }
    for refusal in &findings.refusals {
        if let Some(diff) = &refusal.diff {
            ctx.ui.data(diff);
        }
    }
}

/// Asks, and writes the checksums of what was compared, under the lock of a run.
fn record(
    ctx: &Context,
    flags: &Repair,
    db: &mut Database,
    table: &str,
    restamps: &[Restamp],
) -> Result {
    preflight::before(When::Repair, ctx, db, &Planned::default())?;
    let checksums = ui::plural(restamps.len() as u64, "new checksum");
    let question = format!("Record {checksums} in the history of `{}`?", db.server.name);
    if !ctx.ui.confirm(&question)? {
        return Err(Failure::failed("not recorded")
            .cause("the answer was no")
            .state("nothing was changed")
            .hint(Hint::run("db-repair --dry-run"))
            .into());
    }
    let locks = Locks {
        lock_deadline: flags.lock_deadline,
        end_orphans: flags.end_orphans,
        ..Locks::default()
    };
    lock::acquire(db, locks, &ctx.ui)?;
    let checksums: Vec<(i64, &[u8], &[u8])> = restamps
        .iter()
        .map(|restamp| (restamp.version, &restamp.from[..], &restamp.to[..]))
        .collect();
    history::restamp(&mut db.client, table, &checksums)?;
    for Restamp {
        version,
        from,
        to,
        path,
        ..
    } in restamps
    {
        let short = |checksum: &[u8]| hex::encode(&checksum[..checksum.len().min(4)]);
        ctx.ui.status(
            "Recorded",
            format_args!(
                "{version}: SHA-384 `{}…` of `{}`, instead of `{}…`",
                short(to),
                path.display(),
                short(from)
            ),
        );
    }
    Ok(())
}

fn refused(findings: Findings) -> Failure {
    let mut failure = Failure::finding(format!(
        "cannot repair {}",
        ui::plural(findings.refusals.len() as u64, "migration")
    ));
    let several = findings.refusals.len() > 1;
    for refusal in findings.refusals {
        failure = failure.cause(refusal.why);
        for hint in refusal.hints {
            let hint = match several && !hint.goes_on() {
                true => hint.about(&format!("`{}`", refusal.version)),
                false => hint,
            };
            if !failure.hints.contains(&hint) {
                failure = failure.hint(hint);
            }
        }
    }
    let recorded = findings.restamps.len() as u64;
    failure.state(match (recorded, findings.dry_run) {
        (0, _) | (_, true) => "nothing was changed".to_owned(),
        (recorded, false) => format!("{} recorded", ui::plural(recorded, "new checksum")),
    })
}
