//! What must be true after a migration: its verify file's checks, in a read-only transaction.

pub(crate) mod in_psql;

use anyhow::Context as _;
use postgres::types::{FromSql, Type};
use serde::Serialize;

use crate::database::{Database, set_search_path};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::script::Script;
use crate::migration::source::Migration;
use crate::migration::sql::{Statement, position};

/// How a check is written.
pub(crate) const SHAPE: &str = "a check returns two columns, `check` (text) and `ok` (boolean): SELECT 'what must be true' AS check, … AS ok";

/// One check's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Checked {
    pub(crate) version: i64,
    pub(crate) check: String,
    pub(crate) ok: bool,
}

/// Runs the verify files of these migrations. NULL is not ok.
///
/// # Errors
/// If a check cannot be run, or its columns are not `(check text, ok boolean)`. A check that does
/// not hold is no error: see [`failed`].
pub(crate) fn run<'a>(
    db: &mut Database,
    migrations: impl IntoIterator<Item = &'a Migration>,
) -> Result<Vec<Checked>> {
    let mut transaction = db.client.build_transaction().read_only(true).start()?;
    // Checks are the user's, and name things as migrations do.
    transaction.batch_execute(&set_search_path(&db.server.search_path))?;
    transaction.batch_execute("SET LOCAL row_security = on")?;
    let mut checked = Vec::new();
    for migration in migrations {
        let Some(script) = migration.checks()? else {
            continue;
        };
        for statement in &script.statements {
            let (line, column) = position(&script.text, statement.range.start);
            let place = || format!("{}:{line}:{column}", script.path.display());
            let text = statement.text(&script.text);
            let rows = transaction
                .query_typed(text, &[])
                .with_context(|| format!("cannot run the check at {}", place()))?;
            if rows.is_empty() {
                checked.push(no_row(migration.version, script, statement));
            }
            for row in rows {
                let types: Vec<&Type> = row.columns().iter().map(|column| column.type_()).collect();
                if !matches!(types[..], [check, &Type::BOOL] if String::accepts(check)) {
                    return Err(Failure::usage(format!("not a check: {}", place()))
                        .cause("its columns are not `check` (text) and `ok` (boolean)")
                        .hint(SHAPE)
                        .hint(Hint::again("then"))
                        .into());
                }
                checked.push(Checked {
                    version: migration.version,
                    check: row.get::<_, Option<String>>(0).unwrap_or_default(),
                    ok: row.get::<_, Option<bool>>(1).unwrap_or(false),
                });
            }
        }
    }
    Ok(checked)
}

/// A check that found nothing to judge, such as an index that is not there, does not hold.
pub(crate) fn no_row(version: i64, script: &Script, statement: &Statement) -> Checked {
    let (line, column) = position(&script.text, statement.range.start);
    Checked {
        version,
        check: format!(
            "the check at {}:{line}:{column} returns a row",
            script.path.display()
        ),
        ok: false,
    }
}

/// The failure that a check does not hold, if one does not.
pub(crate) fn failed(attempted: &str, checked: &[Checked]) -> Option<Failure> {
    let failing: Vec<&Checked> = checked.iter().filter(|checked| !checked.ok).collect();
    if failing.is_empty() {
        return None;
    }
    let mut failure = Failure::finding(format!(
        "{attempted}: {} of {} {} not hold",
        failing.len(),
        crate::ui::plural(checked.len() as u64, "check"),
        if failing.len() == 1 { "does" } else { "do" },
    ));
    for check in failing {
        failure = failure.cause(format!("{}: {}", check.version, check.check));
    }
    Some(failure)
}
