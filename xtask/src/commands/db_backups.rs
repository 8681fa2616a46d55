//! `db-backups`: what backups there are.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::Context;
use crate::error::Result;
use crate::flags::Output;
use crate::runbook::backup;
use crate::ui;

#[derive(Serialize)]
struct Report {
    backups: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    file: PathBuf,
    table: String,
    rows: u64,
    bytes: u64,
    sha256: String,
    created_at: Timestamp,
    age_seconds: i64,
    proof: String,
    database: String,
}

pub(crate) fn run(ctx: &Context, _: &Output) -> Result {
    let now = Timestamp::now();
    let backups = backup::list(&ctx.config.backups)?
        .into_iter()
        .map(|(file, manifest)| Entry {
            file: ctx.config.shown(&file),
            table: manifest.table,
            rows: manifest.rows,
            bytes: manifest.bytes,
            sha256: manifest.sha256,
            created_at: manifest.created_at,
            age_seconds: now.duration_since(manifest.created_at).as_secs().max(0),
            proof: manifest.proof,
            database: manifest.database,
        })
        .collect();
    let report = Report { backups };
    if report.backups.is_empty() {
        ctx.ui.data(format_args!(
            "No backups in {}.",
            ctx.config.shown(&ctx.config.backups).display()
        ));
    } else {
        let rows: Vec<Vec<String>> = report
            .backups
            .iter()
            .map(|entry| {
                vec![
                    entry.file.display().to_string(),
                    entry.table.clone(),
                    entry.database.clone(),
                    ui::count(entry.rows),
                    ui::bytes(entry.bytes),
                    age(entry.age_seconds),
                    entry.proof.clone(),
                ]
            })
            .collect();
        let header = ["File", "Table", "Database", "Rows", "Size", "Age", "Proof"];
        ctx.ui.data(ui::table(&header, &rows));
    }
    ctx.ui.json(&report)
}

fn age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
