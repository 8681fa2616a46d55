//! What must be true after a migration: its verify file's checks, in a read-only transaction.

pub(crate) mod in_psql;

use postgres::error::DbError;
use postgres::types::{FromSql, Type};
use postgres::{Row, Transaction};
use serde::Serialize;

use crate::database::{Database, set_search_path};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::script::{Problem, Script};
use crate::migration::source::{File, Migration};
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
/// not hold, or cannot be read, is no error: see [`failed`].
pub(crate) fn run<'a>(
    db: &mut Database,
    migrations: impl IntoIterator<Item = &'a Migration>,
) -> Result<Vec<Checked>> {
    let mut transaction = begin(db)?;
    let mut checked = Vec::new();
    for migration in migrations {
        let script = match migration.verify.as_ref().map(File::script) {
            None => continue,
            Some(Ok(script)) => script,
            Some(Err(problems)) => {
                checked.extend(
                    problems
                        .iter()
                        .map(|problem| unreadable(migration, problem)),
                );
                continue;
            }
        };
        for statement in &script.statements {
            let (line, column) = position(&script.text, statement.range.start);
            let place = format!("{}:{line}:{column}", script.path.display());
            match transaction.query_typed(statement.text(&script.text), &[]) {
                Ok(rows) if rows.is_empty() => {
                    checked.push(no_row(migration.version, script, statement));
                }
                Ok(rows) => {
                    for row in rows {
                        checked.push(of_row(migration.version, &row, &place)?);
                    }
                }
                // What it asks for may be gone; the others are asked nevertheless.
                Err(error) => {
                    let said = error.as_db_error().filter(is_the_checks_own);
                    let Some(said) = said.map(|said| said.message().to_owned()) else {
                        let what = format!("cannot run the check at {place}");
                        return Err(anyhow::Error::from(error).context(what));
                    };
                    // What it asks for may be gone; the others are asked nevertheless.
                    checked.push(Checked {
                        version: migration.version,
                        check: format!("the check at {place} can be run: {said}"),
                        ok: false,
                    });
                    transaction.rollback()?;
                    transaction = begin(db)?;
                }
            }
        }
    }
    Ok(checked)
}

fn begin(db: &mut Database) -> Result<Transaction<'_>> {
    let mut transaction = db.client.build_transaction().read_only(true).start()?;
    // Checks are the user's, and name things as migrations do.
    transaction.batch_execute(&set_search_path(&db.server.search_path))?;
    transaction.batch_execute("SET LOCAL row_security = on")?;
    Ok(transaction)
}

fn of_row(version: i64, row: &Row, place: &str) -> Result<Checked> {
    let types: Vec<&Type> = row.columns().iter().map(|column| column.type_()).collect();
    if !matches!(types[..], [check, &Type::BOOL] if String::accepts(check)) {
        return Err(Failure::usage(format!("not a check: {place}"))
            .cause("its columns are not `check` (text) and `ok` (boolean)")
            .hint(SHAPE)
            .hint(Hint::again("then"))
            .into());
    }
    Ok(Checked {
        version,
        check: row.get::<_, Option<String>>(0).unwrap_or_default(),
        ok: row.get::<_, Option<bool>>(1).unwrap_or(false),
    })
}

/// Whether an error is one of the check itself: of its names (class 42), its values (21, 22) or its code (P0).
/// Others, such as a lock that could not be had, say nothing about what it checks.
fn is_the_checks_own(error: &&DbError) -> bool {
    ["21", "22", "42", "P0"]
        .iter()
        .any(|class| error.code().code().starts_with(class))
}

/// Of a file that cannot be read nobody knows whether its checks hold.
fn unreadable(migration: &Migration, problem: &Problem) -> Checked {
    Checked {
        version: migration.version,
        check: format!("its checks can be read: {problem}"),
        ok: false,
    }
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
