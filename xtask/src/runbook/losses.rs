//! What scripts are going to destroy, as far as their statements say, with counts. This is a forecast: it
//! saves a second try, and decides nothing (see `guard`).

use std::collections::BTreeSet;

use postgres::Client;

use crate::database::Database;
use crate::database::catalog::{self, Relation};
use crate::error::Result;
use crate::failures::sqlstate;
use crate::migration::effects::{Effect, ObjectName};
use crate::migration::former_names::FormerNames;
use crate::migration::script::Script;
use crate::migration::source::Direction;
use crate::migration::sql::{Statement, position};
use crate::ui;

/// Something that a script destroys.
struct Loss {
    what: Lost,
    /// Whether it takes effect at once, outside a transaction.
    outside_transaction: bool,
    /// Whether it is a column that an earlier statement adds: it need not be there now.
    is_added: bool,
}

enum Lost {
    Table(ObjectName),
    Column(ObjectName, String),
    /// `ALTER COLUMN … TYPE`: its values are converted.
    ColumnType(ObjectName, String),
    Index(ObjectName),
    /// `DELETE` and `TRUNCATE`: some or all rows.
    Rows(ObjectName),
    /// `UPDATE` in a down file.
    Values(ObjectName),
    Schema(String),
    Object(String, ObjectName),
    /// Its first word and its place.
    Unknown(String),
}

/// What will be destroyed, as far as it is known.
#[derive(Default)]
pub(super) struct Forecast {
    /// For people, in the order of the statements.
    pub(super) lines: Vec<String>,
    /// The tables that hold what is destroyed.
    pub(super) tables: Vec<Relation>,
}

/// Counts what these scripts destroy of what exists now, in the order in which they run.
pub(super) fn forecast<'a>(
    db: &mut Database,
    scripts: impl IntoIterator<Item = &'a Script>,
    direction: Direction,
) -> Result<Forecast> {
    let losses = losses(scripts, direction, db.server.schema.as_deref());
    let mut forecast = Forecast::default();
    for loss in losses {
        forecast.count(db, loss)?;
    }
    Ok(forecast)
}

fn losses<'a>(
    scripts: impl IntoIterator<Item = &'a Script>,
    direction: Direction,
    schema: Option<&str>,
) -> Vec<Loss> {
    let mut names = FormerNames::new(schema);
    let mut added = BTreeSet::new();
    let mut losses = Vec::new();
    for script in scripts {
        for (statement, effects) in script.effects() {
            for effect in effects {
                let lost = lost(&names, script, statement, &effect, direction);
                losses.extend(lost.map(|what| Loss {
                    is_added: matches!(&what, Lost::Column(table, column) if added.contains(&(table.clone(), column.clone()))),
                    what,
                    outside_transaction: !script.transactional,
                }));
                if let Effect::AddColumn { table, column, .. } = &effect
                    && let Some(table) = names.before(table)
                {
                    added.insert((table, column.clone()));
                }
                names.apply(&effect);
            }
        }
    }
    losses
}

fn lost(
    names: &FormerNames<'_>,
    script: &Script,
    statement: &Statement,
    effect: &Effect,
    direction: Direction,
) -> Option<Lost> {
    Some(match effect {
        Effect::DropTable { table, .. } => Lost::Table(names.before(table)?),
        Effect::DropColumn { table, column, .. } => {
            Lost::Column(names.before(table)?, column.clone())
        }
        Effect::AlterColumnType { table, column } => {
            Lost::ColumnType(names.before(table)?, column.clone())
        }
        Effect::DropIndex { name, .. } => Lost::Index(name.clone()),
        Effect::Truncate { table } | Effect::Delete { table } => Lost::Rows(names.before(table)?),
        Effect::Update { table } if direction == Direction::Down => {
            Lost::Values(names.before(table)?)
        }
        Effect::DropSchema { schema, .. } => Lost::Schema(schema.clone()),
        Effect::DropObject { kind, name } => Lost::Object(kind.clone(), name.clone()),
        Effect::Opaque => Lost::Unknown(place(script, statement)),
        _ => return None,
    })
}

/// `` `DO` at migrations/1_a.down.sql:3:1 ``.
pub(super) fn place(script: &Script, statement: &Statement) -> String {
    let (line, column) = position(&script.text, statement.range.start);
    let first = statement.tokens[0].text(&script.text).to_uppercase();
    format!("`{first}` at {}:{line}:{column}", script.path.display())
}

impl Forecast {
    fn count(&mut self, db: &mut Database, loss: Loss) -> Result {
        let line = match loss.what {
            Lost::Table(name) => match catalog::find(db, &name)? {
                Some(table) => self.rows(&mut db.client, table, "table")?,
                None => not_there("table", &name.to_string()),
            },
            Lost::Rows(name) => match catalog::find(db, &name)? {
                Some(table) => self.rows(&mut db.client, table, "rows of table")?,
                None => not_there("rows of table", &name.to_string()),
            },
            Lost::Values(name) => match catalog::find(db, &name)? {
                Some(table) => {
                    self.rows(&mut db.client, table, "values, by an UPDATE, in table")?
                }
                None => not_there("values in table", &name.to_string()),
            },
            Lost::Column(name, column) => match self.values(db, &name, &column, "column")? {
                Some(line) => line,
                None if loss.is_added => {
                    format!("column `{name}.{column}`, which an earlier step brings back")
                }
                None => not_there("column", &format!("{name}.{column}")),
            },
            Lost::ColumnType(name, column) => {
                let what = "values converted to another type in column";
                let line = self.values(db, &name, &column, what)?;
                line.unwrap_or_else(|| not_there(what, &format!("{name}.{column}")))
            }
            Lost::Schema(schema) => return self.schema(db, &schema),
            Lost::Index(name) => format!("index `{name}`"),
            Lost::Object(kind, name) => format!("{kind} `{name}`"),
            Lost::Unknown(place) => match loss.outside_transaction {
                true => format!(
                    "what {place} destroys cannot be previewed, and is not known before it takes effect"
                ),
                false => format!(
                    "what {place} destroys cannot be previewed; the server is asked before it is committed"
                ),
            },
        };
        self.lines.push(line);
        Ok(())
    }

    /// All rows of a table.
    fn rows(&mut self, client: &mut Client, table: Relation, what: &str) -> Result<String> {
        let name = table.qualified();
        if !matches!(table.kind, 'r' | 'p') {
            return Ok(format!("{} `{name}`", table.kind_name()));
        }
        let Some((rows, _)) = count(client, &name, None)? else {
            self.holds(table);
            return Ok(format!(
                "{what} `{name}` with rows that this role may not count"
            ));
        };
        if rows > 0 {
            self.holds(table);
        }
        Ok(format!("{what} `{name}` with {}", ui::plural(rows, "row")))
    }

    /// The values of a column; `None` if it is not there.
    fn values(
        &mut self,
        db: &mut Database,
        table: &ObjectName,
        column: &str,
        what: &str,
    ) -> Result<Option<String>> {
        let Some(found) = catalog::find(db, table)? else {
            return Ok(None);
        };
        let name = found.qualified();
        if catalog::column_number(&mut db.client, found.oid, column)?.is_none() {
            return Ok(None);
        }
        let Some((rows, values)) = count(&mut db.client, &name, Some(column))? else {
            self.holds(found);
            return Ok(Some(format!(
                "{what} `{name}.{column}`: values that this role may not count"
            )));
        };
        let line = format!(
            "{what} `{name}.{column}`: {} of {} values",
            ui::count(values),
            ui::count(rows)
        );
        if values > 0 {
            self.holds(found);
        }
        Ok(Some(line))
    }

    /// Every table in a schema. Without CASCADE the server refuses to drop a schema that has one.
    fn schema(&mut self, db: &mut Database, schema: &str) -> Result {
        self.lines.push(format!("schema `{schema}`"));
        for table in catalog::tables_of(db, schema)? {
            let line = self.rows(&mut db.client, table, "table")?;
            self.lines.push(line);
        }
        Ok(())
    }

    fn holds(&mut self, table: Relation) {
        if self.tables.iter().all(|known| known.oid != table.oid) {
            self.tables.push(table);
        }
    }
}

/// Rows and values; `None` if a policy or a missing right hides them from this role (42501).
fn count(client: &mut Client, table: &str, column: Option<&str>) -> Result<Option<(u64, u64)>> {
    match catalog::count_values(client, table, column) {
        Ok(counts) => Ok(Some(counts)),
        Err(error) if sqlstate(&error).as_deref() == Some("42501") => Ok(None),
        Err(error) => Err(error),
    }
}

fn not_there(what: &str, name: &str) -> String {
    format!("{what} `{name}`, which is not there now")
}
