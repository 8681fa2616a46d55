//! What a transaction has destroyed, before it commits: it is in a backup of this run, or is backed up now, or
//! a person agrees to lose it.

use super::runner::Runner;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::migration::source::Migration;
use crate::runbook::guard::Destroyed;

impl Runner<'_> {
    /// Whether all that a transaction has destroyed is kept, or not to be. If not, it was rolled back,
    /// what it destroys was backed up, and it may be tried again.
    ///
    /// # Errors
    /// If something cannot be backed up, or a person does not want to lose it.
    pub(super) fn settles(
        &mut self,
        migration: &Migration,
        destroyed: &[Destroyed],
    ) -> Result<bool> {
        let not_backed_up = self.guard.not_backed_up(destroyed);
        if not_backed_up.is_empty() {
            return Ok(true);
        }
        let stem = &migration.stem;
        if self.guard.no_backup() && self.ctx.ui.assumes_yes() {
            for destroyed in &not_backed_up {
                self.ctx.ui.warn(format_args!(
                    "`{stem}` destroys what is in no backup: {destroyed}"
                ));
            }
            return Ok(true);
        }
        // Nobody waits for our locks while a backup is taken, or a person thinks.
        self.psql.roll_back()?;
        let rolled_back = format!("`{stem}` was rolled back: it has changed nothing");
        let not_backed_up = match self
            .guard
            .not_empty(&mut self.psql.db.client, not_backed_up)
        {
            Ok(not_backed_up) => not_backed_up,
            // A policy or a missing right is in the way of looking: it may hold anything.
            Err(_) if self.guard.no_backup() => self.guard.not_backed_up(destroyed),
            Err(error) => {
                let failure = failures::from_error(&error).state(rolled_back);
                return Err(failure
                    .hint(Hint::again_with("or accept the loss", "--no-backup"))
                    .into());
            }
        };
        if not_backed_up.is_empty() {
            return Ok(false);
        }
        for destroyed in &not_backed_up {
            self.ctx
                .ui
                .info("Guard", format_args!("`{stem}` destroys {destroyed}"));
        }
        if self.guard.no_backup() {
            self.ask_to_lose(stem, &rolled_back)?;
            self.guard.accept_loss(&not_backed_up);
            return Ok(false);
        }
        self.ctx
            .ui
            .more("it was rolled back, to back that up first");
        let taken = self
            .guard
            .back_up_all(self.ctx, self.psql.db, &not_backed_up)
            .map_err(|error| {
                failures::from_error(
                    &error.context(format!("cannot back up what `{stem}` destroys")),
                )
                .state(rolled_back)
                .hint(Hint::again_with("or accept the loss", "--no-backup"))
            })?;
        for backup in &taken {
            backup.announce(&self.ctx.ui);
        }
        Ok(false)
    }

    /// Asks a person whether to lose for good what was just shown.
    ///
    /// # Errors
    /// If they do not want to, or nobody can be asked.
    fn ask_to_lose(&self, stem: &str, rolled_back: &str) -> Result {
        let question = format!("Apply `{stem}`, and lose that for good?");
        let agreed = self
            .ctx
            .ui
            .confirm(&question)
            .map_err(|error| failures::from_error(&error).state(rolled_back))?;
        if agreed {
            return Ok(());
        }
        Err(Failure::failed(format!("`{stem}` was not run"))
            .cause("the answer was no")
            .state(rolled_back)
            .hint("with a backup: run it again without --no-backup")
            .into())
    }
}
