//! The stall budget: while a session of ours holds locks, it is watched who waits for them. When
//! somebody who reads, writes or takes an advisory lock has waited longer than the budget, our statement is cancelled, and its
//! transaction rolled back. What a file says decides nothing here; what happens does.

use std::time::Duration;

use postgres::Client;

use crate::database::activity::{self, Stalled};
use crate::error::Failure;
use crate::hint::Hint;
use crate::migration::effects::{self, Effect};
use crate::migration::script::Script;
use crate::migration::sql::Statement;
use crate::options::Locks;
use crate::ui;

/// How often it is looked who waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a statement that goes on is cancelled again: the first may have met the moment between
/// two statements.
const CANCEL_EVERY: Duration = Duration::from_millis(100);

/// So many are enough.
const CANCELS: u32 = 3;

/// Watches over one session while it works. Times are since it began to.
pub(crate) struct StallWatch {
    budget: Option<Duration>,
    /// What those who wait have spent behind us in a queue is bounded by this, and comes on top.
    lock_timeout: Duration,
    /// Whether those count who wait behind somebody else's DDL that waits for us: not where we build an
    /// index concurrently, which is no reason to throw it away.
    chains: bool,
    next_look: Duration,
    /// When the session was last seen to wait for a lock itself.
    queued: Option<Duration>,
    /// Who had waited too long, and when the session was last cancelled for it.
    stalled: Option<(Stalled, Duration)>,
    cancels: u32,
}

impl StallWatch {
    pub(crate) fn new(locks: Locks, chains: bool) -> StallWatch {
        StallWatch {
            budget: locks.stall_budget,
            lock_timeout: locks.lock_timeout,
            chains,
            next_look: Duration::ZERO,
            queued: None,
            stalled: None,
            cancels: 0,
        }
    }

    /// Looks who waits for the session `pid`, if it is time, and cancels what it does for whoever has
    /// waited too long. What cannot be seen now is seen the next time.
    pub(crate) fn look(&mut self, client: &mut Client, pid: i32, elapsed: Duration) {
        let Some(budget) = self.budget else { return };
        if let Some((_, cancelled)) = &mut self.stalled {
            if elapsed >= *cancelled + CANCEL_EVERY {
                *cancelled = elapsed;
                self.cancels += 1;
                // A file may catch query_canceled and go on.
                let _ = match self.cancels < CANCELS {
                    true => activity::cancel(client, pid),
                    false => activity::terminate(client, pid),
                };
            }
            return;
        }
        if elapsed < self.next_look {
            return;
        }
        self.next_look = elapsed + LOOK_EVERY;
        let Ok((queues, stalled)) = activity::stalled(client, pid, budget, self.chains) else {
            return;
        };
        if queues {
            self.queued = Some(elapsed);
        }
        let queued_lately = self.queued.is_some_and(|at| elapsed < at + budget);
        let allowed = budget
            + if queued_lately {
                self.lock_timeout
            } else {
                Duration::ZERO
            };
        if let Some(stalled) = stalled.filter(|stalled| stalled.waited >= allowed) {
            let _ = activity::cancel(client, pid);
            self.stalled = Some((stalled, elapsed));
        }
    }

    /// Who had waited too long, if the session was cancelled for it.
    pub(crate) fn stalled(self, client: &mut Client) -> Option<Stalled> {
        self.stalled.map(|(stalled, _)| stalled.named(client))
    }
}

/// The failure that others waited too long for what was `attempted`, and what to do instead.
pub(crate) fn failure(
    attempted: &str,
    stalled: &Stalled,
    safe_form: Option<&'static str>,
) -> Failure {
    let wants = match stalled.mode.as_str() {
        "AccessShareLock" => "read",
        _ => "write",
    };
    let what = match (&stalled.advisory, &stalled.table) {
        (Some(key), _) => format!("for the advisory lock ({key})"),
        (None, Some(table)) => format!("to {wants} `{table}`"),
        (None, None) => format!("to {wants} a row"),
    };
    let (safe_form, needed) = match stalled.advisory {
        Some(_) => (
            Some("take the advisory lock behind the statements that take long"),
            "lock",
        ),
        None => (safe_form, "table"),
    };
    let mut failure = Failure::busy(format!(
        "{attempted}: others waited for its locks longer than the stall budget"
    ))
    .sqlstate("57014")
    .cause(format!(
        "waited {} {what}: {}",
        ui::time(stalled.waited),
        stalled.session
    ));
    if stalled.others > 0 {
        failure = failure.cause(format!(
            "and {} that waited as long",
            ui::plural(stalled.others, "other session")
        ));
    }
    if let Some(safe_form) = safe_form {
        failure = failure.hint(Hint::again(format!("{safe_form}, then")));
    }
    failure.hint(Hint::again_with(
        format!("or, when nobody needs the {needed}"),
        "--stall-budget 30s",
    ))
}

/// How to write a statement so that nobody waits for it, where there is a way.
pub(crate) fn safe_form(script: &Script, statement: &Statement) -> Option<&'static str> {
    let has = |phrase: &[&str]| {
        let words = statement.words(&script.text);
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    let effects = effects::of(&script.text, statement);
    let is = |wanted: fn(&Effect) -> bool| effects.iter().any(wanted);
    if is(|effect| {
        matches!(
            effect,
            Effect::CreateIndex {
                concurrently: false,
                ..
            }
        )
    }) {
        return Some(
            "build the index without blocking writes: make the file's first line `-- no-transaction` and write CREATE INDEX CONCURRENTLY",
        );
    }
    if is(|effect| matches!(effect, Effect::AlterColumnType { .. })) {
        return Some(
            "add a new column of that type, fill it in batches, and let a later migration drop the old one",
        );
    }
    if is(|effect| matches!(effect, Effect::References { .. })) || has(&["add"]) && has(&["check"])
    {
        return Some(
            "add the constraint as NOT VALID (that takes no time), and VALIDATE CONSTRAINT in the next migration, which lets readers and writers through",
        );
    }
    if has(&["set", "not", "null"]) {
        return Some(
            "first add CHECK (column IS NOT NULL) NOT VALID, VALIDATE it in the next migration, and then SET NOT NULL, which reads the table no more",
        );
    }
    if has(&["unique"]) || has(&["primary", "key"]) {
        return Some(
            "build a unique index with CREATE UNIQUE INDEX CONCURRENTLY in a file of its own, then ADD CONSTRAINT … USING INDEX",
        );
    }
    if is(|effect| matches!(effect, Effect::AddColumn { .. })) {
        return Some(
            "add the column without a default that needs computing, set the default in a second ALTER, and fill old rows in batches",
        );
    }
    if is(|effect| matches!(effect, Effect::Update { .. } | Effect::Delete { .. })) {
        return Some(
            "change the rows in batches, each in a transaction of its own (`-- no-transaction`, one range of keys a statement)",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::migration::script::Role;

    #[test]
    fn every_statement_that_blocks_has_a_form_that_does_not() {
        for (text, expected) in [
            ("CREATE INDEX i ON t (a)", Some("CREATE INDEX CONCURRENTLY")),
            (
                "ALTER TABLE t ALTER a TYPE int",
                Some("new column of that type"),
            ),
            (
                "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u",
                Some("NOT VALID"),
            ),
            (
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)",
                Some("NOT VALID"),
            ),
            (
                "ALTER TABLE t ALTER a SET NOT NULL",
                Some("IS NOT NULL) NOT VALID"),
            ),
            ("ALTER TABLE t ADD UNIQUE (a)", Some("USING INDEX")),
            ("ALTER TABLE t ADD PRIMARY KEY (a)", Some("USING INDEX")),
            (
                "ALTER TABLE t ADD a uuid DEFAULT f()",
                Some("fill old rows in batches"),
            ),
            ("UPDATE t SET a = 1", Some("in batches")),
            ("DELETE FROM t", Some("in batches")),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", None),
            ("SELECT 1", None),
        ] {
            let script = Script::parse(Path::new("a.sql"), text.into(), Role::Up).expect("parses");
            let found = safe_form(&script, &script.statements[0]);
            assert_eq!(found.is_some(), expected.is_some(), "{text}: {found:?}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert!(found.contains(expected), "{text}: {found}");
            }
        }
    }
}
