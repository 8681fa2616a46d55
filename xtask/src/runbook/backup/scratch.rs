//! The scratch table into which a dump is restored for proof, and loading rows into a table with COPY.
//!
//! It takes no lock that another session waits for, and runs no user's code: columns of types that are not
//! PostgreSQL's own are text in the scratch table, because reading such a value may run code of the type's
//! owner (a domain's CHECK) with the rights of the role that takes the backup.
//!
//! If a private server runs beside the target, the scratch table is in a database of its own there.
//! Otherwise it is a temporary table, which is not written to the WAL and disappears with its session.
//! Only if the role may not create one is it in a database on the target's server, because `DROP DATABASE`
//! forces an immediate checkpoint (PostgreSQL's `dbcommands.c`), which slows a busy server.

use std::io::Write as _;

use anyhow::Context as _;
use postgres::types::Type;
use postgres::{Client, CopyInWriter};

use super::proof::{Content, connect, content, dump_encoding};
use crate::Context;
use crate::database::Server;
use crate::database::catalog::Column;
use crate::database::connect::Canceller;
use crate::dev::server;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::migration::effects::{ObjectName, split_names};
use crate::migration::quote::quote_identifier;
use crate::tools::{self, pg_dump};
use pg_connect::ConnInfo;

/// How the name of a scratch database begins; the pid of the server session that owns it and a nonce follow.
const SCRATCH_DATABASE: &str = "xtask_scratch_";

/// A table to load a dump into, in a transaction that never commits. Dropping this removes it.
pub(crate) struct Scratch {
    client: Client,
    /// Cancels its query from another thread.
    pub(crate) canceller: Canceller,
    table: &'static str,
    /// Where it is, for people.
    pub(crate) place: String,
    /// Dropped after the session in it has ended.
    _database: Option<ScratchDatabase>,
}

/// A database to be dropped, and the session that owns it.
struct ScratchDatabase {
    owner: Client,
    name: String,
}

impl Drop for ScratchDatabase {
    fn drop(&mut self) {
        // If this fails, the next backup finds the database by its name and drops it.
        let _ = self.owner.batch_execute(&format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            self.name
        ));
    }
}

impl Scratch {
    /// Makes a scratch table with these columns in the first place that allows it.
    ///
    /// # Errors
    /// If no place does, with the reason of each.
    pub(crate) fn make(ctx: &Context, source: &Server, columns: &[Column]) -> Result<Scratch> {
        let target = &source.target;
        let mut reasons = Vec::new();
        let mut note_reason = |place: &str, error: &anyhow::Error| {
            let failure = failures::from_error(error);
            ctx.ui
                .detail(format_args!("no scratch {place}: {}", failure.one_line()));
            reasons.push(format!("{place}: {}", failure.one_line()));
        };
        let place = "on the private server";
        let private = server::private_target(ctx, target).and_then(|private| match private {
            Some(private) => {
                Scratch::database(ctx, &private, Some(source), columns, place).map(Some)
            }
            None => Ok(None),
        });
        match private {
            Ok(Some(scratch)) => return Ok(scratch),
            Ok(None) => {}
            Err(error) => note_reason(place, &error),
        }
        let place = "in a temporary table";
        match Scratch::temporary(ctx, target, columns, place) {
            Ok(scratch) => return Ok(scratch),
            // The other places need a connection too.
            Err(error) if is_out_of_connections(&error) => return Err(error),
            Err(error) => note_reason(place, &error),
        }
        let place = "in a database of its own";
        match Scratch::database(ctx, target, None, columns, place) {
            Ok(scratch) => return Ok(scratch),
            Err(error) => note_reason(place, &error),
        }
        let mut failure = Failure::failed("there is no place to restore the backup and prove it");
        failure.causes = reasons;
        Err(failure
            .hint(format!(
                "let the role make temporary tables: psql -U postgres -c 'GRANT TEMPORARY ON DATABASE {} TO {}'",
                ObjectName { schema: None, name: source.name.clone() },
                ObjectName { schema: None, name: source.user.clone() },
            ))
            .hint(Hint::to("or compare the row count only", "db-backup --proof rows"))
            .into())
    }

    fn temporary(
        ctx: &Context,
        target: &ConnInfo,
        columns: &[Column],
        place: &str,
    ) -> Result<Scratch> {
        let connection = connect(ctx, target)?;
        let canceller = connection.canceller();
        let mut client = connection.client;
        let definition = definition(columns, scratch_type);
        client.batch_execute(&format!(
            "BEGIN; CREATE TEMPORARY TABLE xtask_scratch ({definition})"
        ))?;
        Ok(Scratch {
            client,
            canceller,
            table: "pg_temp.xtask_scratch",
            place: place.to_owned(),
            _database: None,
        })
    }

    /// In a database of its own.
    fn database(
        ctx: &Context,
        target: &ConnInfo,
        source: Option<&Server>,
        columns: &[Column],
        place: &str,
    ) -> Result<Scratch> {
        let mut owner = connect(ctx, target)?.client;
        let row = owner.query_typed_one(
            "SELECT pg_catalog.pg_backend_pid(),
                    pg_catalog.current_setting('server_version_num')::int4 / 10000,
                    pg_catalog.current_setting('server_encoding')",
            &[],
        )?;
        let (pid, major, encoding): (i32, i32, String) = (row.get(0), row.get(1), row.get(2));
        if let Some(source) = source
            && source.major() != major as u32
        {
            // It may write or hash a value differently.
            anyhow::bail!("it is PostgreSQL {major}");
        }
        drop_leftovers(&mut owner)?;
        let name = format!("{SCRATCH_DATABASE}{pid}_{}", tools::nonce()?);
        let encoding = source.map_or(&encoding, |source| &source.encoding);
        owner.batch_execute(&format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))?;
        let inside = target.with_dbname(&name);
        let database = ScratchDatabase { owner, name };
        let connection = connect(ctx, &inside)?;
        let mut scratch = Scratch {
            canceller: connection.canceller(),
            client: connection.client,
            table: "public.scratch",
            place: place.to_owned(),
            _database: Some(database),
        };
        scratch.client.batch_execute(&format!(
            "BEGIN; CREATE UNLOGGED TABLE public.scratch ({})",
            definition(columns, scratch_type)
        ))?;
        Ok(scratch)
    }

    /// Begins to load rows.
    pub(crate) fn loader(&mut self, columns: &[Column]) -> Result<Loader<'_>> {
        Loader::begin(&mut self.client, self.table, columns)
    }

    /// What was loaded.
    pub(crate) fn content(&mut self, columns: &[Column]) -> Result<Content> {
        content(&mut self.client, self.table, columns)
    }
}

fn is_out_of_connections(error: &anyhow::Error) -> bool {
    failures::from_error(error).sqlstate.as_deref() == Some("53300")
}

/// Drops the scratch databases of killed runs: those whose owning session has ended.
fn drop_leftovers(client: &mut Client) -> Result {
    let rows = client.query_typed(
        "SELECT datname::text FROM pg_catalog.pg_database
         WHERE datname ~ ('^' || $1::text || '[0-9]+_')
           AND pg_catalog.pg_has_role(datdba, 'USAGE')
           AND pg_catalog.split_part(datname, '_', 3)::int4
               NOT IN (SELECT pid FROM pg_catalog.pg_stat_activity)",
        &[(&SCRATCH_DATABASE, Type::TEXT)],
    )?;
    for row in &rows {
        let name: String = row.get(0);
        let drop = format!("DROP DATABASE IF EXISTS {}", quote_identifier(&name));
        client
            .batch_execute(&drop)
            .with_context(|| format!("cannot drop `{name}`, which a killed run has left"))?;
    }
    Ok(())
}

/// The type of a column of the scratch table: its own if every server of this version reads it alike,
/// otherwise `text`, as its values are in the dump.
fn scratch_type(column: &Column) -> &str {
    match column.portable {
        true => &column.type_name,
        false => "text",
    }
}

/// `"id" bigint, …`: columns without constraints.
pub(crate) fn definition<'c>(
    columns: &'c [Column],
    type_of: impl Fn(&'c Column) -> &'c str,
) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", quote_identifier(&column.name), type_of(column)))
        .collect();
    columns.join(", ")
}

/// Loads rows into a table with COPY: data, never SQL.
pub(crate) struct Loader<'a> {
    copy: CopyInWriter<'a>,
    columns: Vec<String>,
}

impl<'a> Loader<'a> {
    /// Begins to load rows of these columns into a table that was made in the session's current
    /// transaction; with `FREEZE`, the next reader of the rows need not write hint bits.
    pub(crate) fn begin(
        client: &'a mut Client,
        table: &str,
        columns: &[Column],
    ) -> Result<Loader<'a>> {
        let columns: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let list: Vec<String> = columns.iter().map(|name| quote_identifier(name)).collect();
        let list = match list.is_empty() {
            true => String::new(),
            false => format!("({})", list.join(", ")),
        };
        let row =
            client.query_typed_one("SELECT pg_catalog.current_setting('server_encoding')", &[])?;
        let encoding = dump_encoding(row.get(0));
        let copy = client.copy_in(&format!(
            "COPY {table} {list} FROM STDIN WITH (FREEZE, ENCODING '{encoding}')"
        ))?;
        Ok(Loader { copy, columns })
    }

    /// Ends the COPY; returns how many rows the server has stored.
    ///
    /// # Errors
    /// If the server refused one.
    pub(crate) fn finish(self) -> Result<u64> {
        Ok(self.copy.finish()?)
    }
}

impl pg_dump::Sink for Loader<'_> {
    fn bytes(&mut self, _: &[u8]) -> Result {
        Ok(())
    }

    fn columns(&mut self, list: &str) -> Result {
        let names: Option<Vec<String>> = split_names(list)
            .unwrap_or_default()
            .iter()
            .map(|written| ObjectName::parse(written).map(|name| name.name))
            .collect();
        if names.as_ref() == Some(&self.columns) {
            return Ok(());
        }
        Err(Failure::failed("the dump has other columns than the table")
            .cause(format!("the dump has: {list}"))
            .cause(format!("expected: {}", self.columns.join(", ")))
            .into())
    }

    fn rows(&mut self, rows: &[u8]) -> Result {
        // The server's error is inside the `io::Error`.
        self.copy.write_all(rows).map_err(|error| {
            match error
                .into_inner()
                .map(|inner| inner.downcast::<postgres::Error>())
            {
                Some(Ok(error)) => anyhow::Error::new(*error),
                Some(Err(error)) => anyhow::anyhow!(error),
                None => anyhow::anyhow!("the connection was lost while rows were loaded"),
            }
        })
    }
}
