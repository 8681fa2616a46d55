//! How far something is that takes long: a live bar on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use super::Ui;
use crate::redact::visible;

/// Where a progress display has no terminal, one plain line this often.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Shows how far something is; gone when dropped.
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    verb: &'static str,
    bar: Option<indicatif::ProgressBar>,
    last_line: Cell<Instant>,
}

impl Ui {
    /// A display of something that takes long: a live bar on a terminal, plain lines elsewhere.
    pub(crate) fn progress(&self, verb: &'static str) -> Progress<'_> {
        let bar = self.live.then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            if let Ok(style) =
                indicatif::ProgressStyle::with_template("{prefix:>12.cyan.bold} {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(verb);
            bar
        });
        Progress {
            ui: self,
            verb,
            bar,
            last_line: Cell::new(Instant::now()),
        }
    }
}

impl Progress<'_> {
    /// Says how far it is. Cheap to call often: `what` is only rendered when it is shown.
    pub(crate) fn update(&self, what: impl Display) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(visible(&what.to_string()).into_owned());
                bar.tick();
            }
            None if self.last_line.get().elapsed() >= PLAIN_PROGRESS_EVERY => {
                self.last_line.set(Instant::now());
                self.ui.info(self.verb, what);
            }
            None => {}
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
