//! Takes a backup, from the lock on the table to the named file.

use std::fs::File;
use std::io::Seek as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use postgres::error::SqlState;

use super::completed::CompletedBackup;
use super::dump::{Dumped, check_interrupt, dump};
use super::folder::{clean, file_safe, in_the_folder, make_folder, partial_file};
use super::job::Job;
use super::keep::keep;
use super::manifest::{Manifest, ManifestColumn, ManifestSequence};
use super::proof;
use crate::Context;
use crate::database::Database;
use crate::database::activity;
use crate::database::catalog::Relation;
use crate::error::{Failure, Result};
use crate::options::{Proof, ProofOptions};
use crate::runbook::lock_wait;
use crate::runbook::preflight::{self, Planned, When};
use crate::ui;

/// How long one attempt to lock the table waits, before this looks who holds a lock on it.
const LOCK_TRY: Duration = Duration::from_millis(500);

/// Dumps a table and proves the dump. The run that wants it began at `run_started_at`, by the server's clock.
///
/// # Errors
/// If the folder cannot be written, pg_dump fails, or the proof does. Nothing of a failed backup is
/// left.
pub(crate) fn take(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    options: ProofOptions,
    run_started_at: Timestamp,
) -> Result<CompletedBackup> {
    take_into_folder(ctx, db, table, options, run_started_at).map_err(in_the_folder)
}

fn take_into_folder(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    options: ProofOptions,
    run_started_at: Timestamp,
) -> Result<CompletedBackup> {
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
    let planned = Planned {
        backups: vec![table.clone()],
        ..Planned::default()
    };
    preflight::before(When::Backup, ctx, db, &planned)?;
    let job = Job {
        ctx,
        server: &db.server,
        table,
        qualified: qualified.clone(),
        pg_dump,
        proof: proof_within_limit(ctx, table, options),
        run_started_at,
    };

    let mut partial = partial_file(folder, &format!(".{}_backup_", file_safe(&table.name)))?;
    let dumped = job
        .dump_locked(&mut db.client, partial.as_file_mut())
        .with_context(attempted)?;
    if let Some(rows) = dumped.missed_rows() {
        ctx.ui.warn(format_args!(
            "`{qualified}` holds no row, and held some {} by the server's statistics: if that is news, look before anything relies on this backup",
            ui::count(rows)
        ));
    }
    partial
        .as_file()
        .sync_all()
        .with_context(|| format!("cannot flush the backup in `{}`", folder.display()))?;
    let mut manifest = job.manifest(dumped);
    let file = keep(partial, folder, &mut manifest)?;
    Ok(CompletedBackup {
        file: ctx.config.shown(&file),
        table: manifest.table,
        rows: manifest.rows,
        bytes: manifest.bytes,
        sha256: manifest.sha256,
        proof: manifest.proof,
        took: started.elapsed(),
    })
}

/// Of a table above `--proof-limit` only the rows are counted.
fn proof_within_limit(ctx: &Context, table: &Relation, options: ProofOptions) -> Proof {
    let proof = options.of(table.bytes);
    if proof != options.proof {
        ctx.ui.info(
            "Notice",
            format_args!(
                "{} is {}, above the limit of {}: proving its row count only (--proof-limit)",
                table.qualified(),
                ui::bytes(table.bytes),
                ui::bytes(options.proof_limit),
            ),
        );
    }
    proof
}

impl Job<'_> {
    /// Locks the table before the snapshot is taken. TRUNCATE and rewriting ALTERs are not MVCC-safe
    /// (PostgreSQL manual, "Caveats"): a snapshot from before such a transaction's commit sees an empty table.
    ///
    /// pg_dump asks for the same lock after us. If another session's ALTER is queued between the two, it
    /// waits for us, pg_dump waits for it, and we wait for pg_dump: a deadlock that the server does not
    /// detect, and every login waits behind that ALTER. So until pg_dump has its lock, which it has when it
    /// writes, we release ours as soon as another session waits for it, and start again after that session.
    fn dump_locked(&self, client: &mut Client, out: &mut File) -> Result<Dumped> {
        let deadline = Instant::now() + self.server.lock_wait;
        loop {
            let outcome = self
                .begin_locked(client, deadline)
                .and_then(|()| dump(self, client, out));
            // If this fails, the session has ended, and its lock with it.
            let _ = client.batch_execute("ROLLBACK");
            if let Some(dumped) = outcome? {
                return Ok(dumped);
            }
            self.ctx.ui.info(
                "Waiting",
                format_args!(
                    "made way for a session that waits to change {}",
                    self.qualified
                ),
            );
            out.set_len(0)?;
            out.rewind()?;
        }
    }

    /// Begins the transaction of a dump with the lock. `LOCK TABLE` takes no snapshot; the first query after
    /// it does.
    ///
    /// A reader's lock request keeps no other reader or writer waiting, so this may queue for it: in short
    /// attempts, to see between them who holds the lock.
    fn begin_locked(&self, client: &mut Client, deadline: Instant) -> Result {
        let (ctx, qualified, lock_wait) = (self.ctx, &self.qualified, self.server.lock_wait);
        let mut named: Vec<activity::Backend> = Vec::new();
        let progress = ctx.ui.progress("Waiting");
        loop {
            check_interrupt()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match client.batch_execute(&format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}
             SET LOCAL lock_timeout = {};
             LOCK TABLE ONLY {qualified} IN ACCESS SHARE MODE;
             SET LOCAL lock_timeout = {}",
                proof::set_text_settings(),
                left.min(LOCK_TRY).as_millis().max(1),
                lock_wait.as_millis(),
            )) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // If this fails, the error above says why.
            let _ = client.batch_execute("ROLLBACK");
            if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
                return Err(error).context("cannot lock the table for reading");
            }
            let in_the_way = activity::exclusive_holders(client, self.table.oid)?;
            if left.is_zero() {
                let failure = Failure::busy(format!(
                    "cannot lock `{qualified}` for reading within {}",
                    ui::limit(lock_wait)
                ))
                .sqlstate("55P03");
                return Err(lock_wait::name(failure, &in_the_way).into());
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

    /// The manifest, without the name of the file.
    fn manifest(&self, dumped: Dumped) -> Manifest {
        let Dumped {
            snapshot,
            dump,
            held,
            restored,
        } = dumped;
        let server = self.server;
        let values = |place: usize| held.as_ref().map(|held| held.values[place]);
        Manifest {
            file: String::new(),
            table: self.qualified.clone(),
            table_oid: Some(self.table.oid),
            rows: dump.rows,
            bytes: dump.bytes,
            sha256: dump.sha256,
            proof: self.proof,
            content_hash: restored.map(|content| content.hash),
            columns: snapshot
                .columns
                .into_iter()
                .enumerate()
                .map(|(place, column)| ManifestColumn {
                    name: column.name,
                    type_name: column.type_name,
                    number: Some(column.number),
                    values: values(place),
                })
                .collect(),
            primary_key: Some(snapshot.primary_key),
            sequences: snapshot
                .sequences
                .into_iter()
                .filter_map(|sequence| {
                    Some(ManifestSequence {
                        last_value: sequence.last_value?,
                        column: sequence.column,
                    })
                })
                .collect(),
            created_at: snapshot.at,
            wal_lsn: snapshot.wal.lsn,
            timeline: snapshot.wal.timeline,
            database: server.name.clone(),
            database_oid: snapshot.identity.oid,
            system_identifier: snapshot.identity.system_identifier,
            host: server.host.clone(),
            port: server.port,
            server_version: server.server_version.clone(),
            pg_dump_version: self.pg_dump.version.to_string(),
            command: self.ctx.application_name.clone(),
            run_started_at: self.run_started_at,
        }
    }
}
