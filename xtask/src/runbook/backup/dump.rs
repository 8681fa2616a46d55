//! One dump.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::types::Type;

use super::manifest::{ManifestColumn, ManifestSequence};
use super::proof::{self, Content};
use super::scratch::{Loader, Scratch};
use crate::Context;
use crate::database::activity;
use crate::database::catalog::{self, Identity, Relation, WalPosition};
use crate::database::{Database, KEEP_ALIVE_EVERY};
use crate::error::{Failure, Result};
use crate::interrupt;
use crate::options::Proof;
use crate::tools::pg_dump;
use crate::ui;

/// How often progress is looked at while pg_dump runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How many bytes are written before the disk is asked to take them.
const FLUSH_EVERY: u64 = 16 << 20;

/// How often it is looked whether somebody waits for our lock, while pg_dump may not have its own.
const MAKE_WAY_EVERY: Duration = Duration::from_millis(20);

/// What was dumped, and the table in the dump's own snapshot.
pub(super) struct Snapshot {
    pub(super) dump: pg_dump::Dump,
    pub(super) content_hash: Option<String>,
    pub(super) columns: Vec<ManifestColumn>,
    pub(super) primary_key: Vec<String>,
    pub(super) sequences: Vec<ManifestSequence>,
    pub(super) at: Timestamp,
    pub(super) wal: WalPosition,
    pub(super) identity: Identity,
    /// How many rows the table had by the statistics, where it has none.
    pub(super) missed_rows: Option<u64>,
}

/// pg_dump writes and the scratch loads the same bytes, side by side; then the table, in the dump's own
/// snapshot, and what was loaded are counted and hashed, side by side again, and compared. In a
/// transaction of [`begin_locked`]; none where it made way for somebody.
pub(super) fn dump(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    program: &Path,
    proof: Proof,
    out: &mut File,
) -> Result<Option<Snapshot>> {
    let qualified = table.qualified();
    let (target, lock_wait) = (db.target.clone(), db.lock_wait);
    let client = &mut db.client;
    let row = client.query_typed_one(
        "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(),
                pg_catalog.to_regclass($2::text)::oid IS NOT DISTINCT FROM $1,
                (SELECT greatest(reltuples::int8, pg_catalog.pg_stat_get_live_tuples(oid), 0)
                 FROM pg_catalog.pg_class WHERE oid = $1)",
        &[(&table.oid, Type::OID), (&qualified, Type::TEXT)],
    )?;
    let (snapshot, at): (String, Timestamp) = (row.get(0), row.get(1));
    if !row.get::<_, bool>(2) {
        return Err(
            Failure::failed(format!("`{qualified}` is another table now"))
                .cause("it was replaced while the backup waited for it")
                .hint(format!("look at it, then: cargo {}", ctx.application_name))
                .into(),
        );
    }
    let expected_rows = row.get::<_, Option<i64>>(3).unwrap_or(0) as u64;
    let wal = catalog::wal_position(client)?;
    let identity = catalog::identity(client)?;
    let sequences = catalog::owned_sequences(client, table.oid)?;
    let primary_key = catalog::primary_key(client, table.oid)?;
    let mut columns = catalog::columns(client, table.oid)?;
    columns.retain(|column| !column.generated);

    let give_up = AtomicBool::new(false);
    let request = pg_dump::Request {
        pg_dump: program,
        target: &target,
        application_name: &ctx.application_name,
        table: &qualified,
        snapshot: &snapshot,
        lock_wait,
        options: &proof::text_options(),
        encoding: proof::dump_encoding(&db.server.encoding),
        give_up: &give_up,
    };
    let mut scratch = match proof {
        Proof::Restore => Some(Scratch::make(ctx, &target, &db.server, &columns)?),
        Proof::Rows | Proof::None => None,
    };
    let on_disk = out.try_clone()?;
    let mut copies = Copies {
        file: out,
        scratch: match &mut scratch {
            Some(scratch) => Some(scratch.loader(&columns)?),
            None => None,
        },
    };
    let started = Instant::now();
    let progress = ctx.ui.progress("Backup");
    let (rows_so_far, bytes_so_far) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut looked = Instant::now();
    let dumped = std::thread::scope(|scope| -> Result<_> {
        let dump = scope.spawn(|| -> Result<pg_dump::Dump> {
            let dump = pg_dump::run(&request, &mut copies, &mut |rows, bytes| {
                rows_so_far.store(rows, Ordering::Relaxed);
                bytes_so_far.store(bytes, Ordering::Relaxed);
            })?;
            if let Some(loader) = copies.scratch {
                loader.finish()?;
            }
            Ok(dump)
        });
        let show = || {
            std::thread::sleep(LOOK_EVERY);
            let rows = rows_so_far.load(Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f64();
            progress.update(format_args!(
                "{qualified}: {} rows, {}, {} rows/s",
                ui::count(rows),
                ui::bytes(bytes_so_far.load(Ordering::Relaxed)),
                ui::count((rows as f64 / seconds) as u64),
            ));
        };
        while !dump.is_finished() && bytes_so_far.load(Ordering::Relaxed) == 0 {
            show();
            if looked.elapsed() >= MAKE_WAY_EVERY {
                looked = Instant::now();
                // Where this cannot be asked, beginning anew finds out why.
                if activity::somebody_waits_for_us(client, table.oid).unwrap_or(true) {
                    give_up.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        let counted = match proof {
            Proof::Rows if !give_up.load(Ordering::Relaxed) => {
                Some(proof::count(client, &qualified, &columns).context("cannot read the table"))
            }
            _ => None,
        };
        let mut flushed = 0;
        while !dump.is_finished() {
            show();
            // The server ends a transaction that is idle for long, as one of a client that is gone.
            if looked.elapsed() >= KEEP_ALIVE_EVERY {
                looked = Instant::now();
                let _ = client.batch_execute("");
            }
            // On its way to the disk while pg_dump is at work; whether it arrived is for the flush at
            // the end to say.
            let written = bytes_so_far.load(Ordering::Relaxed);
            if written - flushed >= FLUSH_EVERY {
                flushed = written;
                let _ = on_disk.sync_data();
            }
        }
        let dump = dump
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that runs pg_dump panicked"))?;
        match dump {
            _ if interrupt::requested() => {
                Err(Failure::interrupted("stopped during the backup").into())
            }
            Err(_) if give_up.load(Ordering::Relaxed) => Ok(None),
            Ok(dump) => Ok(Some((dump, counted.transpose()?))),
            // The server's own word (it has an SQLSTATE) before pg_dump's.
            Err(error) => {
                counted.transpose()?;
                let read = format!("SELECT FROM ONLY {qualified} LIMIT 0");
                client
                    .batch_execute(&read)
                    .context("cannot read the table")?;
                proof::connect(ctx, &target)?;
                Err(error)
            }
        }
    })?;
    let Some((dump, held)) = dumped else {
        return Ok(None);
    };
    let (held, restored) = match &mut scratch {
        Some(scratch) => {
            progress.update("comparing what was restored");
            let (held, restored) = std::thread::scope(|scope| {
                let (place, canceller) = (scratch.place.clone(), scratch.canceller.clone());
                let restored = scope.spawn(|| scratch.content(&columns));
                let held =
                    proof::content(client, &qualified, &columns).context("cannot read the table");
                if interrupt::requested() {
                    let _ = canceller.cancel();
                }
                // The lock and the snapshot are kept until both have been read.
                let mut read = Instant::now();
                while !restored.is_finished() {
                    std::thread::sleep(LOOK_EVERY);
                    if read.elapsed() >= KEEP_ALIVE_EVERY {
                        read = Instant::now();
                        let _ = client.batch_execute("");
                    }
                }
                let restored = restored
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that reads it panicked")))
                    .with_context(|| format!("cannot read the scratch {place}"));
                (held, restored)
            });
            if interrupt::requested() {
                return Err(Failure::interrupted("stopped during the backup").into());
            }
            ctx.ui
                .detail(format_args!("restored {} and compared", scratch.place));
            (Some(held?), Some(restored?))
        }
        None => (held, None),
    };
    drop(progress);
    drop(scratch);
    compare(&qualified, &dump, held.as_ref(), restored.as_ref())?;
    Ok(Some(Snapshot {
        missed_rows: Some(expected_rows).filter(|rows| dump.rows == 0 && *rows > 0),
        dump,
        content_hash: restored.map(|content| content.hash),
        columns: columns
            .into_iter()
            .enumerate()
            .map(|(place, column)| ManifestColumn {
                name: column.name,
                type_name: column.type_name,
                number: Some(column.number),
                values: held.as_ref().map(|held| held.values[place]),
            })
            .collect(),
        primary_key,
        sequences: sequences
            .into_iter()
            .filter_map(|sequence| {
                Some(ManifestSequence {
                    last_value: sequence.last_value?,
                    column: sequence.column,
                })
            })
            .collect(),
        at,
        wal,
        identity,
    }))
}

/// The dump's bytes go to the file, and its rows to the scratch.
struct Copies<'a> {
    file: &'a mut File,
    scratch: Option<Loader<'a>>,
}

impl pg_dump::Sink for Copies<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result {
        Ok(self.file.write_all(bytes)?)
    }

    fn columns(&mut self, list: &str) -> Result {
        match &mut self.scratch {
            Some(loader) => loader.columns(list),
            None => Ok(()),
        }
    }

    fn rows(&mut self, rows: &[u8]) -> Result {
        match &mut self.scratch {
            Some(loader) => loader.rows(rows),
            None => Ok(()),
        }
    }
}

/// What the table held against what the dump holds, and against what came out of the scratch.
fn compare(
    table: &str,
    dump: &pg_dump::Dump,
    held: Option<&Content>,
    restored: Option<&Content>,
) -> Result {
    let Some(held) = held else { return Ok(()) };
    let found = match restored {
        Some(restored) if restored != held => Some((restored.rows, "restored")),
        _ if dump.rows != held.rows => Some((dump.rows, "dumped")),
        _ => None,
    };
    let Some((rows, how)) = found else {
        return Ok(());
    };
    Err(Failure::failed(format!("the backup of `{table}` is not good"))
        .cause(if rows == held.rows {
            format!("all {} rows came back, but not as the table has them", ui::count(rows))
        } else {
            format!("{} of {} rows were {how}", ui::count(rows), ui::count(held.rows))
        })
        .state("the file was removed")
        .hint("cargo xtask db-backup")
        .hint("if it fails again, another pg_dump may do better: PG_BIN_DIR=/path/to/bin cargo xtask db-backup")
        .into())
}
