//! The failure table: what an SQLSTATE or an errno means for a migration, and the command to run
//! next. Keyed by code only, never by text: servers speak the user's language.

use std::io::ErrorKind;

use private_server::Platform;

use crate::error::{Failure, Kind};
use crate::hint::Hint;
use crate::interrupt;

/// One row: the code, what it means here, and what to do. The hints are given the table that the
/// migration is about, or nothing.
struct Row {
    sqlstate: &'static str,
    kind: Kind,
    cause: &'static str,
    hints: fn(&str) -> Vec<Hint>,
}

const fn row(sqlstate: &'static str, cause: &'static str, hints: fn(&str) -> Vec<Hint>) -> Row {
    Row {
        sqlstate,
        kind: Kind::Failed,
        cause,
        hints,
    }
}

/// Without a name `\\d` lists all tables.
fn look(purpose: &'static str, table: &str) -> Hint {
    Hint::psql(purpose, format!("\\d {table}").trim_end())
}

/// SQLSTATEs as PostgreSQL's manual lists them (appendix A).
const TABLE: &[Row] = &[
    row(
        "42501",
        "this role lacks a privilege: to alter a table it must be the owner or a superuser, to back it up it needs SELECT",
        |_| {
            vec![Hint::again_with(
                "connect as the table's owner (db-doctor shows who that is)",
                "--database-url postgres://OWNER@HOST/DATABASE",
            )]
        },
    ),
    row(
        "42701",
        "a column of that name exists already, and the statement does not say IF NOT EXISTS",
        |_| {
            vec![Hint::again(
                "if that column is the right one, write ADD COLUMN IF NOT EXISTS, let the verify file check its type, then",
            )]
        },
    ),
    row(
        "42P07",
        "a table or index of that name exists already, and the statement does not say IF NOT EXISTS",
        |table| {
            vec![
                look("check that it is the right one and valid", table),
                Hint::again("if it is, write IF NOT EXISTS, then"),
                Hint::to("if the whole schema was there before", "db-baseline"),
            ]
        },
    ),
    row(
        "42601",
        "the statement is not valid for this server; newer syntax needs a newer server",
        |_| {
            vec![
                Hint::psql("compare with the server's version", "SELECT version()"),
                Hint::again("fix the file, then"),
            ]
        },
    ),
    row(
        "25001",
        "this statement cannot run inside a transaction, and a migration is one by default",
        |_| {
            vec![Hint::again(
                "make `-- no-transaction` the first line of the file, alone with this statement, then",
            )]
        },
    ),
    Row {
        sqlstate: "55P03",
        kind: Kind::Busy,
        cause: "the table is locked by somebody else",
        hints: |_| {
            vec![
                Hint::to("see who holds it", "db-doctor"),
                Hint::again_with("wait longer", "--lock-deadline 1h"),
            ]
        },
    },
    Row {
        sqlstate: "40P01",
        kind: Kind::Busy,
        cause: "two sessions waited for each other; the server ended this one's statement",
        hints: |_| vec![Hint::again("")],
    },
    row(
        "42P01",
        "no table of that name is visible through the search path",
        |_| vec![Hint::run("db-doctor")],
    ),
    row("42703", "the table has no column of that name", |table| {
        vec![
            look("look what it has", table),
            Hint::again("fix the file, then"),
        ]
    }),
    row("42704", "no object of that name exists", |table| {
        vec![
            look("look what there is", table),
            Hint::again("fix the file, then"),
        ]
    }),
    row(
        "42809",
        "the object of that name is of a different kind",
        |_| vec![Hint::run("db-doctor")],
    ),
    row(
        "25006",
        "the server or the session accepts reads only; a standby always does",
        |_| {
            vec![Hint::again_with(
                "connect to the primary",
                "--database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'",
            )]
        },
    ),
    row("53100", "the server's disk is full", |_| {
        vec![Hint::to("free space on the server, then", "db-doctor")]
    }),
    row("53300", "the server has no connection left", |_| {
        vec![Hint::to("close some, then", "db-doctor")]
    }),
    row("57014", "the statement was cancelled on the server", |_| {
        vec![Hint::run("db-status"), Hint::again("then")]
    }),
    row(
        "57P01",
        "the server ended the connection: an administrator or a shutdown",
        |_| vec![Hint::run("db-status"), Hint::again("then")],
    ),
    row("57P03", "the server is starting or stopping", |_| {
        vec![Hint::to("wait a moment, then", "db-doctor")]
    }),
    row("23505", "a value that must be unique occurs twice", |_| {
        vec![Hint::again("fix the rows or the file, then")]
    }),
    row("23502", "a row has NULL where a value is required", |_| {
        vec![Hint::again("fill the rows first, then")]
    }),
    row("23503", "a row refers to one that does not exist", |_| {
        vec![Hint::again("fix the rows first, then")]
    }),
    row("23514", "a row breaks a check constraint", |_| {
        vec![Hint::again(
            "fix the rows first, or add the constraint NOT VALID, then",
        )]
    }),
    row("2BP01", "other objects depend on it", |_| {
        vec![Hint::again(
            "see them above, drop or change them first in the same file, then",
        )]
    }),
    row("0A000", "this server does not support that", |_| {
        vec![
            Hint::psql("compare with the server's version", "SELECT version()"),
            Hint::again("fix the file, then"),
        ]
    }),
];

/// Adds what an SQLSTATE means and what to do, unless the failure says so itself.
pub(crate) fn explain(failure: Failure) -> Failure {
    explain_about(failure, None)
}

/// As [`explain`], for a failed migration that is about this table.
pub(crate) fn explain_about(mut failure: Failure, table: Option<&str>) -> Failure {
    let Some(code) = failure.sqlstate.as_deref() else {
        return failure;
    };
    if let Some(row) = TABLE.iter().find(|row| row.sqlstate == code) {
        if failure.hints.is_empty() {
            failure.causes.push(row.cause.to_owned());
            let table = table.unwrap_or_default();
            failure.hints.extend((row.hints)(table));
        }
        if failure.kind == Kind::Failed {
            failure.kind = row.kind;
        }
    }
    failure
}

/// Any error as a failure with its causes, kind and hint.
pub(crate) fn from_error(error: &anyhow::Error) -> Failure {
    let mut failure = match error.downcast_ref::<Failure>() {
        Some(failure) => failure.clone(),
        None => from_chain(error),
    };
    // Context that was put around it says what was attempted.
    let attempted = error.to_string();
    if attempted != failure.message {
        failure = failure.attempted(attempted);
    }
    if interrupt::requested() && failure.sqlstate.as_deref() == Some("57014") {
        failure.kind = Kind::Interrupted;
    }
    explain(failure)
}

/// As [`from_error`], for showing it: there is always something to run next.
pub(crate) fn to_show(error: &anyhow::Error) -> Failure {
    let failure = from_error(error);
    match failure.hints.is_empty() {
        true => failure.hint(Hint::run("db-doctor")),
        false => failure,
    }
}

fn from_chain(error: &anyhow::Error) -> Failure {
    let mut failure = Failure::failed(error.to_string());
    for cause in error.chain().skip(1) {
        if !cause.is::<postgres::error::DbError>() {
            failure.causes.push(cause.to_string());
        }
    }
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<postgres::Error>() {
            // The crate's own message is only "db error"; what the server said is worth more.
            failure.causes.retain(|cause| *cause != error.to_string());
            if let Some(db) = error.as_db_error() {
                match failure.message == error.to_string() {
                    true => failure.message = db.message().to_owned(),
                    false => failure.causes.push(db.message().to_owned()),
                }
                failure
                    .causes
                    .extend(db.detail().map(|detail| format!("DETAIL: {detail}")));
                failure.server_hint = db.hint().map(str::to_owned);
                return failure.sqlstate(db.code().code());
            }
            if error.is_closed() {
                failure
                    .causes
                    .push("the connection to the server was lost".to_owned());
                return failure.hint(Hint::run("db-status"));
            }
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(hint) = io_hint(io.kind())
        {
            return failure.hint(hint);
        }
    }
    failure
}

/// The five characters of the server's code for an error, if it is one of the server's.
pub(crate) fn sqlstate(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let error = cause.downcast_ref::<postgres::Error>()?;
        Some(error.code()?.code().to_owned())
    })
}

/// Where backups cannot be written.
pub(crate) fn other_folder() -> Hint {
    Hint::again_with("choose a folder that you may write", "--backups DIR")
}

/// What to do about an errno, whatever the file: whoever wrote it may know more.
fn io_hint(kind: ErrorKind) -> Option<Hint> {
    let first = match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on that disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            "see who may write there"
        }
        ErrorKind::ConnectionRefused => return start_hint().map(Hint::say),
        _ => return None,
    };
    Some(Hint::to(
        format!("{first}, then see what state it is in"),
        "db-status",
    ))
}

/// The platform's command that starts an installed server.
pub(crate) fn start_hint() -> Option<String> {
    let command = Platform::detect().start_command();
    command.map(|command| command.to_string())
}
