//! What a run did, for `--json` and the summary.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::backup::CompletedBackup;
use super::lock_wait::LockStats;
use super::plan::Plan;
use super::verify::Checked;
use crate::migration::source::{Direction, Migration};
use crate::options::RunOptions;
use crate::ui;

/// What a run did, in the command contract's shape.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) run: RunFacts,
    pub(crate) backups: Vec<CompletedBackup>,
    pub(crate) steps: Vec<StepFacts>,
    pub(crate) verified: Vec<Checked>,
    /// Whether this was only a plan.
    pub(crate) dry_run: bool,
    #[serde(skip)]
    pub(crate) summary: Vec<Line>,
}

/// The run as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct RunFacts {
    /// By the server's clock.
    pub(crate) started_at: Timestamp,
    /// `up` or `down`.
    pub(crate) direction: &'static str,
    pub(crate) duration_ms: f64,
    /// The most tries that a migration took.
    pub(crate) lock_attempts: u32,
    pub(crate) lock_wait_ms: f64,
}

/// One migration of the run.
#[derive(Debug, Serialize)]
pub(crate) struct StepFacts {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) duration_ms: f64,
    pub(crate) lock_attempts: u32,
}

/// A row of the summary.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) what: String,
    pub(super) time: Duration,
}

impl Line {
    pub(super) fn new(what: String, time: Duration) -> Line {
        Line { what, time }
    }
}

impl Outcome {
    pub(super) fn of(
        started_at: Timestamp,
        direction: Direction,
        started: Instant,
        options: &RunOptions,
    ) -> Outcome {
        Outcome {
            run: RunFacts {
                started_at,
                direction: match direction {
                    Direction::Up => "up",
                    Direction::Down => "down",
                },
                duration_ms: milliseconds(started.elapsed()),
                lock_attempts: 0,
                lock_wait_ms: 0.0,
            },
            backups: Vec::new(),
            steps: Vec::new(),
            verified: Vec::new(),
            dry_run: options.dry_run,
            summary: Vec::new(),
        }
    }

    /// What a run would do: its changes, none of which took any time.
    pub(super) fn planned(
        started_at: Timestamp,
        plan: &Plan<'_>,
        started: Instant,
        options: &RunOptions,
    ) -> Outcome {
        let mut outcome = Outcome::of(started_at, plan.direction, started, options);
        for change in &plan.changes {
            outcome.add(change.migration, LockStats::default(), "Planned");
        }
        outcome
    }

    pub(super) fn backed_up(&mut self, backup: &CompletedBackup, time: Duration) {
        let what = format!("Backed up {}", backup.summary());
        self.summary.push(Line::new(what, time));
    }

    pub(super) fn add(&mut self, migration: &Migration, lock_stats: LockStats, verb: &str) {
        self.run.lock_attempts = self.run.lock_attempts.max(lock_stats.lock_attempts);
        self.run.lock_wait_ms += milliseconds(lock_stats.lock_wait);
        self.steps.push(StepFacts {
            version: migration.version,
            name: migration.name.clone(),
            duration_ms: milliseconds(lock_stats.duration),
            lock_attempts: lock_stats.lock_attempts,
        });
        self.summary.push(Line::new(
            format!(
                "{verb} {} {}{}",
                migration.version,
                migration.name,
                tries(lock_stats)
            ),
            lock_stats.duration,
        ));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

pub(super) fn tries(lock_stats: LockStats) -> String {
    match lock_stats.lock_attempts {
        0 | 1 => String::new(),
        tries => format!(
            " ({tries} tries, {} for the lock)",
            ui::time(lock_stats.lock_wait)
        ),
    }
}
