//! One attempt to dump a table. pg_dump reads it in an exported snapshot; what it writes goes to the file
//! and, for a proof by restoring, into a scratch table at the same time. Then table and scratch are
//! counted and hashed, again at the same time, and compared.
//!
//! Three sessions take part: ours holds the table's lock and the snapshot ([`SnapshotSession`]), pg_dump
//! has its own ([`Writer`]), and so has the [`Scratch`].

use std::fs::File;

use anyhow::Context as _;
use postgres::Client;

use super::job::Job;
use super::proof::{self, Content};
use super::scratch::Scratch;
use super::snapshot::{Snapshot, SnapshotSession};
use super::writer::{Copies, Flusher, LOOK_EVERY, ProgressLine, SoFar, Writer};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::options::Proof;
use crate::tools::pg_dump;
use crate::ui::{self, Progress};

/// A finished dump that has passed its comparison.
pub(super) struct Dumped {
    pub(super) snapshot: Snapshot,
    pub(super) dump: pg_dump::Dump,
    /// What the table holds in the snapshot, where it was counted.
    pub(super) held: Option<Content>,
    /// What came out of the scratch table, where the dump was restored.
    pub(super) restored: Option<Content>,
}

impl Dumped {
    /// How many rows the table had by the statistics, where it has none.
    pub(super) fn missed_rows(&self) -> Option<u64> {
        let expected = self.snapshot.expected_rows;
        (self.dump.rows == 0 && expected > 0).then_some(expected)
    }
}

/// Dumps the table that this session has locked, and compares. Returns `None` if another session
/// waits for that lock, which then goes first.
///
/// # Errors
/// If pg_dump, the scratch table or the comparison fails, or on an interrupt.
pub(super) fn dump(job: &Job<'_>, client: &mut Client, out: &mut File) -> Result<Option<Dumped>> {
    let mut session = SnapshotSession::new(job, client);
    let dump = Dump {
        job,
        options: proof::text_options(),
        snapshot: session.export()?,
    };
    let mut scratch = dump.scratch()?;
    let progress = job.ctx.ui.progress("Backup");
    let Some((written, counted)) = dump.write(&mut session, scratch.as_mut(), out, &progress)?
    else {
        return Ok(None);
    };
    let (held, restored) = match &mut scratch {
        Some(scratch) => {
            progress.update("comparing what was restored");
            let (held, restored) = dump.read_both(&mut session, scratch)?;
            (Some(held), Some(restored))
        }
        None => (counted, None),
    };
    drop(progress);
    drop(scratch);
    compare(&job.qualified, &written, held.as_ref(), restored.as_ref())?;
    Ok(Some(Dumped {
        snapshot: dump.snapshot,
        dump: written,
        held,
        restored,
    }))
}

struct Dump<'a> {
    job: &'a Job<'a>,
    /// Settings of pg_dump's session.
    options: String,
    snapshot: Snapshot,
}

impl Dump<'_> {
    fn scratch(&self) -> Result<Option<Scratch>> {
        let columns = &self.snapshot.columns;
        match self.job.proof {
            Proof::Restore => Scratch::make(self.job.ctx, self.job.server, columns).map(Some),
            Proof::Rows | Proof::None => Ok(None),
        }
    }

    /// Lets pg_dump write to the file and into the scratch table, and counts the table meanwhile if that is
    /// the proof. Returns `None` if another session waits for our lock.
    fn write(
        &self,
        session: &mut SnapshotSession<'_>,
        scratch: Option<&mut Scratch>,
        out: &mut File,
        progress: &Progress<'_>,
    ) -> Result<Option<(pg_dump::Dump, Option<Content>)>> {
        let columns = &self.snapshot.columns;
        let mut flusher = Flusher::of(out)?;
        let copies = Copies {
            file: out,
            scratch: match scratch {
                Some(scratch) => Some(scratch.loader(columns)?),
                None => None,
            },
        };
        let so_far = SoFar::default();
        let request = self.request(&so_far);
        let (written, counted) = std::thread::scope(|scope| {
            let writer = Writer::start(scope, &request, copies, &so_far);
            let line = ProgressLine::new(&self.job.qualified, &so_far, progress);
            // Until pg_dump has its own lock, a session that waits for ours goes first.
            while writer.is_at_work() && !so_far.has_begun() {
                line.wait_and_show();
                if session.is_waited_for() {
                    so_far.give_up();
                    break;
                }
            }
            let counted = match self.job.proof {
                Proof::Rows if !so_far.gave_up() => Some(session.count(columns)),
                _ => None,
            };
            while writer.is_at_work() {
                line.wait_and_show();
                session.keep_alive();
                flusher.note_written(so_far.bytes());
            }
            (writer.join(), counted)
        });
        check_interrupt()?;
        match written {
            // Even if pg_dump succeeded before it was stopped: the rows were not counted.
            _ if so_far.gave_up() => Ok(None),
            Ok(dump) => Ok(Some((dump, counted.transpose()?))),
            Err(error) => {
                counted.transpose()?;
                Err(self.server_error(session, error))
            }
        }
    }

    fn request<'r>(&'r self, so_far: &'r SoFar) -> pg_dump::Request<'r> {
        pg_dump::Request {
            pg_dump: &self.job.pg_dump.program,
            target: &self.job.server.target,
            application_name: &self.job.ctx.application_name,
            table: &self.job.qualified,
            snapshot: &self.snapshot.id,
            lock_wait: self.job.server.lock_wait,
            options: &self.options,
            encoding: proof::dump_encoding(&self.job.server.encoding),
            give_up: &so_far.give_up,
        }
    }

    /// Why pg_dump failed. The server's own error comes first, because it has an SQLSTATE.
    fn server_error(
        &self,
        session: &mut SnapshotSession<'_>,
        error: anyhow::Error,
    ) -> anyhow::Error {
        let may_read = session.check_readable();
        let may_connect = || proof::connect(self.job.ctx, &self.job.server.target);
        match may_read.and_then(|()| may_connect()) {
            Ok(_) => error,
            Err(reason) => reason,
        }
    }

    /// Reads the content of the table and of the scratch table at the same time.
    fn read_both(
        &self,
        session: &mut SnapshotSession<'_>,
        scratch: &mut Scratch,
    ) -> Result<(Content, Content)> {
        let columns = &self.snapshot.columns;
        let (place, canceller) = (scratch.place.clone(), scratch.canceller.clone());
        let (held, restored) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| scratch.content(columns));
            let held = session.content(columns);
            if interrupt::requested() {
                let _ = canceller.cancel();
            }
            // The lock and the snapshot are kept until both have been read.
            while !reader.is_finished() {
                std::thread::sleep(LOOK_EVERY);
                session.keep_alive();
            }
            let restored = reader
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that reads it panicked")))
                .with_context(|| format!("cannot read the scratch {place}"));
            (held, restored)
        });
        check_interrupt()?;
        self.job
            .ctx
            .ui
            .detail(format_args!("restored {place} and compared"));
        Ok((held?, restored?))
    }
}

/// An error after Ctrl-C or SIGTERM.
pub(super) fn check_interrupt() -> Result {
    match interrupt::requested() {
        true => Err(Failure::interrupted("stopped during the backup").into()),
        false => Ok(()),
    }
}

/// Compares what the table held with what the dump holds, and with what came out of the scratch.
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
    Err(
        Failure::failed(format!("backup verification failed for `{table}`"))
            .cause(if rows == held.rows {
                format!(
                    "all {} rows were restored, but their content is not the table's",
                    ui::count(rows)
                )
            } else {
                format!(
                    "{} of {} rows were {how}",
                    ui::count(rows),
                    ui::count(held.rows)
                )
            })
            .state("the file was removed")
            .hint(Hint::run("db-backup"))
            .hint(
                "if it fails again, another pg_dump may do better: export PG_BIN_DIR=/path/to/bin",
            )
            .into(),
    )
}
