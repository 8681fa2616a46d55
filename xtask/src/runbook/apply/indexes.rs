//! The indexes of a migration, before and after it runs: leftovers of an interrupted build are dropped and
//! built again, and what was built is looked at.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::database::catalog::{self, IndexState};
use crate::database::{Database, activity};
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::effects::Effect;
use crate::migration::history::lock_id;
use crate::migration::script::Script;
use crate::runbook::build_watch::BuildWatch;
use crate::runbook::indexes::{ExpectedIndex, differs, indexes_of, state};
use crate::runbook::lock_wait::LOOK_EVERY;
use crate::runbook::watched_psql::WatchedPsql;
use crate::tools::psql::Chunk;

/// How long an unfinished index may take to drop after an interrupt: a supervisor's patience ends too.
const CLEAN_UP_WITHIN: Duration = Duration::from_secs(5);

/// Whether a script would accept an index that is there already, whatever it is like.
pub(super) fn accepts_any(script: &Script) -> bool {
    let mut effects = script.effects().flat_map(|(_, effects)| effects);
    effects.any(|effect| {
        matches!(
            effect,
            Effect::CreateIndex {
                if_not_exists: true,
                ..
            }
        )
    })
}

/// Before a script runs: waits for whoever builds one of its indexes now, drops what an interrupted
/// build has left, and refuses a valid index of the same name that is another one, unless the script
/// itself may see to it: then [`after`] looks whether it has.
///
/// # Errors
/// If a leftover cannot be dropped, or the definitions differ.
pub(super) fn before(psql: &mut WatchedPsql<'_>, script: &Script) -> Result {
    psql.other_indexes.clear();
    for wanted in indexes_of(script) {
        let Some(mut found) = state(psql.db, &wanted)? else {
            continue;
        };
        if !found.usable() {
            wait_for_builder(psql, &wanted, &found)?;
            drop_if_invalid(
                psql,
                &wanted,
                "left by an interrupted build: dropping it to build it again",
            )?;
            // Whoever built it may have ended well.
            let Some(built) = state(psql.db, &wanted)? else {
                continue;
            };
            found = built;
        }
        match differs(psql.db, &wanted, &found)? {
            Some(_) if wanted.changed_before => psql.other_indexes.push(found.oid),
            Some(failure) => return Err(failure.into()),
            None => {}
        }
    }
    Ok(())
}

/// After a script ran: its indexes are there, valid and ready, and the ones it makes.
///
/// # Errors
/// If one is not.
pub(super) fn after(psql: &mut WatchedPsql<'_>, script: &Script) -> Result {
    for wanted in indexes_of(script) {
        let failure = match state(psql.db, &wanted)? {
            // The script may have looked elsewhere, or taken it away again with its table.
            None if wanted.changed_before || wanted.changed_after => continue,
            // A temporary table is not ours to see.
            None if wanted.find_table(psql.db)?.is_none() => continue,
            None => Failure::failed(format!("index `{}` does not exist", wanted.name))
                .cause("another object has its name, or somebody has just dropped it"),
            Some(state) if !state.usable() => {
                Failure::failed(format!("index `{}` is INVALID", state.name))
                    .cause("its build failed; the next run drops it and builds it again")
            }
            // What came after it may have made it another one; but not one that was there before.
            Some(state) if wanted.changed_after && !psql.other_indexes.contains(&state.oid) => {
                continue;
            }
            Some(state) => match differs(psql.db, &wanted, &state)? {
                None => {
                    if state.is_incomplete() {
                        psql.ui.warn(format_args!(
                            "index `{}` stays INVALID until the index of every partition is attached to it: ALTER INDEX {} ATTACH PARTITION …",
                            state.name, state.name
                        ));
                    }
                    continue;
                }
                Some(failure) => return Err(failure.into()),
            },
        };
        return Err(failure.hint(Hint::again("")).into());
    }
    Ok(())
}

/// After an interrupt: drops what the cancelled build has left.
///
/// # Errors
/// If it cannot be dropped.
pub(super) fn clean_up(psql: &mut WatchedPsql<'_>, script: &Script) -> Result {
    psql.begin_cleaning();
    for wanted in indexes_of(script) {
        drop_if_invalid(psql, &wanted, "unfinished: dropping it")?;
    }
    Ok(())
}

/// What is left of the indexes that a script makes or drops, in words.
pub(super) fn leftovers(db: &mut Database, script: &Script) -> Vec<String> {
    let mut left = Vec::new();
    let dropped = script.effects().flat_map(|(_, effects)| effects);
    let names = dropped.filter_map(|effect| match effect {
        Effect::DropIndex { name, .. } => {
            Some((name, "its drop has begun; the same command ends it"))
        }
        _ => None,
    });
    let makes = indexes_of(script);
    let makes = makes.iter().map(|wanted| {
        (
            wanted.name.clone(),
            "its build has not ended; the same command drops it and builds it again",
        )
    });
    for (name, why) in names.chain(makes) {
        // What cannot be asked now is what the next command reads.
        if let Ok(Some(state)) = catalog::index_state(db, &name)
            && !state.usable()
        {
            left.push(format!("index `{}` is INVALID: {why}", state.name));
        } else if let Ok(Some(state)) = catalog::index_state(db, &name)
            && state.is_incomplete()
        {
            left.push(format!(
                "index `{}` is INVALID until the index of every partition is attached; the same command goes on",
                state.name
            ));
        }
    }
    left
}

fn drop_if_invalid(psql: &mut WatchedPsql<'_>, wanted: &ExpectedIndex, why: &str) -> Result {
    let Some(state) = state(psql.db, wanted)?.filter(|state| !state.usable()) else {
        return Ok(());
    };
    let index = &state.name.to_string();
    psql.ui
        .info("Repair", format_args!("index `{index}` is INVALID, {why}"));
    drop_index(psql, index)
}

/// Drops what a build has left, saying whom that waits for. After an interrupt it may take
/// [`CLEAN_UP_WITHIN`].
fn drop_index(psql: &mut WatchedPsql<'_>, index: &str) -> Result {
    let limit = match psql.is_cleaning() {
        true => CLEAN_UP_WITHIN.as_millis(),
        false => 0,
    };
    let chunk = Chunk {
        before: format!(
            "SET lock_timeout = 0;\nSET statement_timeout = {limit};\nDROP INDEX CONCURRENTLY IF EXISTS {index};\nSET statement_timeout = 0;\n"
        ),
        ..Chunk::default()
    };
    let mut watch = BuildWatch::new(psql.ui, lock_id(&psql.db.server.name), None);
    let outcome = psql.feed_concurrent(&chunk, &mut |client, pid, elapsed| {
        watch.look(client, pid, elapsed);
    })?;
    drop(watch);
    outcome
        .map_err(|error| failures::explain(error.message.failure()))
        .with_context(|| format!("cannot drop the INVALID index `{index}`"))
        .map(|_| ())
}

/// Somebody may be building it right now: dropping it would wait for them and then undo their work.
fn wait_for_builder(
    psql: &mut WatchedPsql<'_>,
    wanted: &ExpectedIndex,
    state: &IndexState,
) -> Result {
    let started = Instant::now();
    let progress = psql.ui.progress("Waiting");
    let mut told = false;
    while let Some(builder) = activity::index_builder(&mut psql.db.client, state.table)? {
        if !told {
            psql.ui.info(
                "Waiting",
                format_args!("index `{}` is being built by {builder}", state.name),
            );
            told = true;
        }
        if let Some(build) = activity::index_build(&mut psql.db.client, builder.pid)? {
            progress.update(format_args!("for {}: {}", wanted.name, build.phase));
        }
        if started.elapsed() >= psql.locks.lock_deadline {
            return Err(Failure::busy(format!(
                "index `{}` is being built by somebody else",
                state.name
            ))
            .cause(format!("in the way: {builder}"))
            .hint(Hint::again_with("", "--lock-deadline 1h"))
            .into());
        }
        interrupt::check()?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
