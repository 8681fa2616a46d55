//! Taking a backup, from the lock on the table to the file under its name.

use std::fs::File;
use std::io::Seek as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use postgres::error::SqlState;

use super::Taken;
use super::dump::{Snapshot, dump};
use super::folder::{clean, file_safe, in_the_folder, keep, make_folder, partial_file};
use super::manifest::Manifest;
use super::proof;
use crate::Context;
use crate::database::Database;
use crate::database::activity;
use crate::database::catalog::Relation;
use crate::error::{Failure, Result};
use crate::interrupt;
use crate::options::{Proof, ProofOptions};
use crate::runbook::{lock_wait, preflight};
use crate::ui;

/// How long a try to lock the table waits before it is looked who is in the way.
const LOCK_TRY: Duration = Duration::from_millis(500);

/// Dumps a table and proves the dump.
///
/// # Errors
/// If the folder cannot be written, pg_dump fails, or the proof does. Nothing of a failed backup is
/// left.
pub(crate) fn take(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    flags: ProofOptions,
) -> Result<Taken> {
    take_into_folder(ctx, db, table, flags).map_err(in_the_folder)
}

fn take_into_folder(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    flags: ProofOptions,
) -> Result<Taken> {
    let started = Instant::now();
    let qualified = table.qualified();
    let attempted = || format!("cannot back up `{qualified}`");
    let pg_dump = ctx
        .tools()
        .pg_dump(db.server.major())
        .with_context(attempted)?;
    let folder = &ctx.config.backups;
    make_folder(folder, &ctx.ui)?;
    clean(folder, &ctx.ui)?;
    preflight::room(folder, std::slice::from_ref(table))?;
    let proof = flags.of(table.bytes);
    if proof != flags.proof {
        ctx.ui.info(
            "Notice",
            format_args!(
                "{qualified} is {}, above the limit of {}: proving its row count only (--proof-limit)",
                ui::bytes(table.bytes),
                ui::bytes(flags.proof_limit),
            ),
        );
    }
    let mut partial = partial_file(folder, &format!(".{}_backup_", file_safe(&table.name)))?;
    let out = partial.as_file_mut();
    let snapshot =
        dump_locked(ctx, db, table, &pg_dump.program, proof, out).with_context(attempted)?;
    if let Some(rows) = snapshot.missed_rows {
        ctx.ui.warn(format_args!(
            "`{qualified}` holds no row, and held some {} by the server's statistics: if that is news, look before anything relies on this backup",
            ui::count(rows)
        ));
    }
    partial
        .as_file()
        .sync_all()
        .with_context(|| format!("cannot flush the backup in `{}`", folder.display()))?;

    let Snapshot { dump, .. } = &snapshot;
    let mut manifest = Manifest {
        file: String::new(),
        table: qualified.clone(),
        table_oid: Some(table.oid),
        rows: dump.rows,
        bytes: dump.bytes,
        sha256: dump.sha256.clone(),
        proof,
        content_hash: snapshot.content_hash,
        columns: snapshot.columns,
        primary_key: Some(snapshot.primary_key),
        sequences: snapshot.sequences,
        created_at: snapshot.at,
        wal_lsn: snapshot.wal.lsn,
        timeline: snapshot.wal.timeline,
        database: db.server.name.clone(),
        database_oid: snapshot.identity.oid,
        system_identifier: snapshot.identity.system_identifier,
        host: db.server.host.clone(),
        port: db.server.port,
        server_version: db.server.server_version.clone(),
        pg_dump_version: pg_dump.version.to_string(),
        command: ctx.application_name.clone(),
        run_started_at: db.server.clock,
    };
    let file = keep(partial, folder, &mut manifest)?;
    Ok(Taken {
        file: ctx.config.shown(&file),
        table: qualified,
        rows: manifest.rows,
        bytes: manifest.bytes,
        sha256: manifest.sha256,
        proof,
        took: started.elapsed(),
    })
}

/// Locks the table, then looks at it. TRUNCATE and what rewrites a table are not MVCC-safe (PostgreSQL
/// manual, "Caveats"): a snapshot from before such a transaction's commit sees an empty table.
///
/// pg_dump asks for the same lock by itself, after us. An ALTER of somebody else that stands in line
/// between the two waits for us, pg_dump for it, and we for pg_dump: a circle that the server does not
/// see, with every login behind that ALTER. So as long as pg_dump has not begun to write, for which it
/// has its lock, we make way for whoever waits for ours, and begin anew after them.
fn dump_locked(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    program: &Path,
    proof: Proof,
    out: &mut File,
) -> Result<Snapshot> {
    let deadline = Instant::now() + db.lock_wait;
    loop {
        let outcome = begin_locked(ctx, db, table, deadline)
            .and_then(|()| dump(ctx, db, table, program, proof, out));
        // Where this fails the session has ended, and its lock with it.
        let _ = db.client.batch_execute("ROLLBACK");
        if let Some(snapshot) = outcome? {
            return Ok(snapshot);
        }
        ctx.ui.info(
            "Waiting",
            format_args!(
                "made way for a session that waits to change {}",
                table.qualified()
            ),
        );
        out.set_len(0)?;
        out.rewind()?;
    }
}

/// Begins the transaction of a dump: the lock first. `LOCK TABLE` takes no snapshot; the first query
/// after it does.
///
/// Whoever reads stands in line behind those who want the table for themselves alone, and nobody
/// behind a reader; so this waits in line, for a moment at a time, and looks who is in the way.
fn begin_locked(ctx: &Context, db: &mut Database, table: &Relation, deadline: Instant) -> Result {
    let qualified = table.qualified();
    let mut named: Vec<activity::Session> = Vec::new();
    let progress = ctx.ui.progress("Waiting");
    loop {
        if interrupt::requested() {
            return Err(Failure::interrupted("stopped during the backup").into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match db.client.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}
             SET LOCAL lock_timeout = {};
             LOCK TABLE ONLY {qualified} IN ACCESS SHARE MODE;
             SET LOCAL lock_timeout = {}",
            proof::set_text_settings(),
            left.min(LOCK_TRY).as_millis().max(1),
            db.lock_wait.as_millis(),
        )) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Where this fails, the error says why.
        let _ = db.client.batch_execute("ROLLBACK");
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(error).context("cannot lock the table for reading");
        }
        let in_the_way = activity::exclusive_holders(&mut db.client, table.oid)?;
        if left.is_zero() {
            let failure = Failure::busy(format!(
                "cannot lock `{qualified}` for reading within {}",
                ui::time(db.lock_wait)
            ))
            .sqlstate("55P03");
            let again = format!("cargo {}", ctx.application_name);
            return Err(lock_wait::name(failure, &in_the_way, &again).into());
        }
        for session in in_the_way {
            if !named.iter().any(|known| known.is_same(&session)) {
                ctx.ui.info(
                    "Waiting",
                    format_args!("{qualified} is locked by {session}"),
                );
                named.push(session);
            }
        }
        progress.update(format_args!(
            "for the lock on {qualified}; {} left",
            ui::time(left)
        ));
    }
}
