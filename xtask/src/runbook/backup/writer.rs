//! pg_dump and the loader of its rows, in a thread of their own; and what the waiting thread does meanwhile:
//! it shows the progress and flushes the file.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::scratch::Loader;
use crate::error::Result;
use crate::tools::pg_dump;
use crate::ui::{self, Progress};

/// How often progress is checked while another thread works.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After how many bytes the file is flushed.
const FLUSH_EVERY: u64 = 16 << 20;

/// The thread in which pg_dump writes and its rows are loaded.
pub(super) struct Writer<'scope>(ScopedJoinHandle<'scope, Result<pg_dump::Dump>>);

impl<'scope> Writer<'scope> {
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        request: &'scope pg_dump::Request<'scope>,
        mut copies: Copies<'scope>,
        so_far: &'scope SoFar,
    ) -> Writer<'scope> {
        Writer(scope.spawn(move || {
            let dump = pg_dump::run(request, &mut copies, &mut |rows, bytes| {
                so_far.set(rows, bytes);
            })?;
            if let Some(loader) = copies.scratch {
                loader.finish()?;
            }
            Ok(dump)
        }))
    }

    pub(super) fn is_at_work(&self) -> bool {
        !self.0.is_finished()
    }

    pub(super) fn join(self) -> Result<pg_dump::Dump> {
        self.0
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that runs pg_dump panicked")))
    }
}

/// The bytes of the dump go to the file, and its rows also to the scratch table.
pub(super) struct Copies<'a> {
    pub(super) file: &'a mut File,
    pub(super) scratch: Option<Loader<'a>>,
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

/// Shared by both threads: how much is written, and whether the writer has to stop.
#[derive(Default)]
pub(super) struct SoFar {
    rows: AtomicU64,
    bytes: AtomicU64,
    pub(super) give_up: AtomicBool,
}

impl SoFar {
    fn set(&self, rows: u64, bytes: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// pg_dump writes only after it has its lock.
    pub(super) fn has_begun(&self) -> bool {
        self.bytes() > 0
    }

    pub(super) fn give_up(&self) {
        self.give_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn gave_up(&self) -> bool {
        self.give_up.load(Ordering::Relaxed)
    }
}

/// The progress line.
pub(super) struct ProgressLine<'a> {
    table: &'a str,
    so_far: &'a SoFar,
    progress: &'a Progress<'a>,
    started: Instant,
}

impl<'a> ProgressLine<'a> {
    pub(super) fn new(
        table: &'a str,
        so_far: &'a SoFar,
        progress: &'a Progress<'a>,
    ) -> ProgressLine<'a> {
        ProgressLine {
            table,
            so_far,
            progress,
            started: Instant::now(),
        }
    }

    /// Waits for a moment, then shows the progress.
    pub(super) fn wait_and_show(&self) {
        std::thread::sleep(LOOK_EVERY);
        let rows = self.so_far.rows();
        let seconds = self.started.elapsed().as_secs_f64();
        self.progress.update(format_args!(
            "{}: {} rows, {}, {} rows/s",
            self.table,
            ui::count(rows),
            ui::bytes(self.so_far.bytes()),
            ui::count((rows as f64 / seconds) as u64),
        ));
    }
}

/// Flushes the file while pg_dump works, so that the last flush, whose result counts, is short.
pub(super) struct Flusher {
    file: File,
    flushed: u64,
}

impl Flusher {
    pub(super) fn of(file: &File) -> Result<Flusher> {
        Ok(Flusher {
            file: file.try_clone()?,
            flushed: 0,
        })
    }

    pub(super) fn note_written(&mut self, written: u64) {
        if written - self.flushed >= FLUSH_EVERY {
            self.flushed = written;
            let _ = self.file.sync_data();
        }
    }
}
