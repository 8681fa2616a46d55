//! What a run prints when it is done: the summary table and the next steps; the Markdown report and the
//! notification.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::backup::{self, Found};
use super::outcome::Outcome;
use super::plan::Plan;
use crate::Context;
use crate::database::Database;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::source::Direction;
use crate::options::Reports;
use crate::shell::shell_word;
use crate::ui;

/// How long a backup is kept by default, as in the guide that this replaces.
pub(crate) const KEEP_BACKUPS: Duration = Duration::from_secs(7 * 24 * 3600);
/// A notification must not hold up the end of a run.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks that the report can be written, before anything changes.
///
/// # Errors
/// If its folder is not there, or the file is a folder.
pub(crate) fn check(reports: &Reports) -> Result {
    let Some(file) = &reports.report else {
        return Ok(());
    };
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let cause = match folder {
        Some(folder) if !folder.is_dir() => format!("there is no folder `{}`", folder.display()),
        _ if file.is_dir() => "it is a folder".to_owned(),
        _ => return Ok(()),
    };
    Err(
        Failure::usage(format!("cannot write the report `{}`", file.display()))
            .cause(cause)
            .hint(Hint::again_with("", "--report migration.md"))
            .into(),
    )
}

/// After a run: summary, next steps, report, notification.
///
/// # Errors
/// If the report cannot be written; the run itself is done. A notification that fails only warns.
pub(crate) fn finish(
    ctx: &Context,
    db: &Database,
    plan: &Plan<'_>,
    outcome: &Outcome,
    reports: &Reports,
) -> Result {
    let (title, next) = match plan.direction {
        Direction::Up => (
            format!("Migrated {}", db.server),
            after_migration(ctx, plan, outcome)?,
        ),
        Direction::Down => (
            format!("Rolled back {}", db.server),
            vec![way_forward(ctx, outcome)],
        ),
    };
    print_summary(ctx, outcome, &next);
    if let Some(url) = &reports.notify
        && let Err(error) = notify(url, &title, outcome)
    {
        ctx.ui.warn(format_args!(
            "the notification was not delivered: {error:#}"
        ));
    }
    write(ctx, &title, outcome, &next, reports)
}

/// What is left for a person to do: what the migrations say, and which backups may go.
fn after_migration(ctx: &Context, plan: &Plan<'_>, outcome: &Outcome) -> Result<Vec<String>> {
    let now = outcome.run.started_at;
    let prune = ctx.ui.invocation.command("db-backups prune");
    let mut next: Vec<String> = plan
        .changes
        .iter()
        .flat_map(|change| change.script.directives.next.iter().cloned())
        .collect();
    if !outcome.backups.is_empty() {
        next.push(format!(
            "from {}, if all is well, the backup may be deleted: {prune}",
            day(now + KEEP_BACKUPS),
        ));
    }
    let found = backup::list(&ctx.config.backups, &ctx.ui)?;
    let known = |found: &mut Found| Ok(found.state);
    let due = backup::prunable(found, KEEP_BACKUPS, now, known)?.delete;
    if !due.is_empty() {
        next.push(format!(
            "{} may be deleted already: {prune}",
            ui::plural(due.len() as u64, "old backup")
        ));
    }
    Ok(next)
}

/// After a rollback: how to apply it again, with the values that it had.
fn way_forward(ctx: &Context, outcome: &Outcome) -> String {
    let migrate = ctx.ui.invocation.command("db-migrate");
    let restores = restores(ctx, outcome);
    match restores.is_empty() {
        true => format!("to apply it again: {migrate}"),
        false => format!(
            "to apply it again, with every value that it had:\n        {migrate}{}",
            restores.concat()
        ),
    }
}

/// The commands that restore the backups of a rollback: one command, because tables may refer to each other;
/// but one after the other if a table was backed up twice.
fn restores(ctx: &Context, outcome: &Outcome) -> Vec<String> {
    let files: Vec<String> = outcome
        .backups
        .iter()
        .map(|backup| shell_word(backup.file.display()))
        .collect();
    let mut tables: Vec<&str> = outcome.backups.iter().map(|of| &*of.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let commands = match tables.len() == files.len() && !files.is_empty() {
        true => vec![files.join(" ")],
        false => files,
    };
    let command = |files: &String| {
        let command = ctx.ui.invocation.command(&format!("db-restore {files}"));
        format!("\n        {command}")
    };
    commands.iter().map(command).collect()
}

fn print_summary(ctx: &Context, outcome: &Outcome, next: &[String]) {
    ctx.ui.data(format_args!("\n{}", summary(outcome)));
    if !next.is_empty() {
        let items: Vec<String> = next.iter().map(|item| format!("  [ ] {item}")).collect();
        ctx.ui
            .data(format_args!("\nNext steps:\n{}", items.join("\n")));
    }
}

/// If there was nothing to do, the report says so, and replaces that of an earlier run. No notification.
pub(crate) fn nothing_done(
    ctx: &Context,
    db: &Database,
    outcome: &Outcome,
    reports: &Reports,
) -> Result {
    let title = format!("Nothing to do in {}", db.server);
    write(ctx, &title, outcome, &[], reports)
}

fn write(
    ctx: &Context,
    title: &str,
    outcome: &Outcome,
    next: &[String],
    reports: &Reports,
) -> Result {
    let Some(file) = &reports.report else {
        return Ok(());
    };
    std::fs::write(file, markdown(title, outcome, next)).with_context(|| {
        format!(
            "cannot write the report `{}`; the run itself is done",
            file.display()
        )
    })?;
    ctx.ui.status("Reported", file.display());
    Ok(())
}

fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = outcome
        .summary
        .iter()
        .enumerate()
        .map(|(index, line)| {
            vec![
                (index + 1).to_string(),
                line.what.clone(),
                ui::time(line.time),
            ]
        })
        .collect();
    let total = Duration::from_secs_f64(outcome.run.duration_ms / 1000.0);
    rows.push(vec!["Total".to_owned(), String::new(), ui::time(total)]);
    rows
}

const HEADER: [&str; 3] = ["Step", "What was done", "Time"];

fn summary(outcome: &Outcome) -> String {
    ui::table(&HEADER, &rows(outcome))
}

fn markdown(title: &str, outcome: &Outcome, next: &[String]) -> String {
    let mut text = format!("# {title}\n\n{}\n\n", outcome.run.started_at);
    text.push_str(&format!("| {} |\n|---|---|---|\n", HEADER.join(" | ")));
    for row in rows(outcome) {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    if !outcome.verified.is_empty() {
        text.push_str("\n## Verified\n\n");
        for checked in &outcome.verified {
            let mark = if checked.ok { 'x' } else { ' ' };
            text.push_str(&format!(
                "- [{mark}] {} ({})\n",
                checked.check, checked.version
            ));
        }
    }
    if !next.is_empty() {
        text.push_str("\n## Next steps\n\n");
        for item in next {
            text.push_str(&format!("- [ ] {item}\n"));
        }
    }
    text
}

/// Posts the summary in the shape that Slack's incoming webhooks take.
fn notify(url: &str, title: &str, outcome: &Outcome) -> Result {
    let text = format!("{title}\n```\n{}\n```", summary(outcome));
    // The connections to PostgreSQL use the same provider.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(NOTIFY_TIMEOUT))
        .tls_config(tls)
        .build()
        .into();
    let body = json!({ "text": text }).to_string();
    // Everybody who knows the URL can post to it, so errors do not repeat it.
    agent
        .post(url)
        .header("content-type", "application/json")
        .send(body)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace(url, "…")))?;
    Ok(())
}

fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}
