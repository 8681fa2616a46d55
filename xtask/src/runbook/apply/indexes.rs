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
use crate::runbook::indexes::{ExpectedIndex, Found, differs, find, indexes_of};
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
    psql.was_there = false;
    for wanted in indexes_of(script) {
        let Found::Index(Some(mut found)) = find(psql.db, &wanted)? else {
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
            let Found::Index(Some(built)) = find(psql.db, &wanted)? else {
                continue;
            };
            found = built;
        }
        if wanted.changed_before {
            continue;
        }
        match differs(psql.db, &wanted, &found) {
            Ok(None) => {}
            Ok(Some(failure)) => return Err(failure.into()),
            // What cannot be asked now is asked afterwards.
            Err(error) if failures::sqlstate(&error).is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// After a script ran: its indexes are valid and ready; and they are the ones that it makes, where the server
/// has said that something was there already, so that perhaps nothing was made.
///
/// # Errors
/// If one is not.
pub(super) fn after(psql: &mut WatchedPsql<'_>, script: &Script) -> Result {
    // Without the notices nobody knows.
    let may_be_others = psql.was_there || script.sets("client_min_messages");
    for wanted in indexes_of(script) {
        let found = match find(psql.db, &wanted)? {
            // A temporary table, or one that is gone again.
            Found::NoTable => continue,
            Found::Index(None) if !may_be_others || wanted.changed_after => continue,
            Found::Index(None) => {
                return Err(
                    Failure::failed(format!("index `{}` does not exist", wanted.name))
                        .cause("another object has its name, or somebody has just dropped it")
                        .hint(Hint::again(""))
                        .into(),
                );
            }
            Found::Index(Some(state)) => vec![state],
            Found::OneOf(states) => states,
        };
        for state in found {
            judge(psql, script, &wanted, &state, may_be_others)?;
        }
    }
    Ok(())
}

fn judge(
    psql: &mut WatchedPsql<'_>,
    script: &Script,
    wanted: &ExpectedIndex,
    state: &IndexState,
    may_be_another: bool,
) -> Result {
    if !state.usable() {
        let failure = Failure::failed(format!("index `{}` is INVALID", state.name));
        let rebuild = format!("REINDEX INDEX CONCURRENTLY {}", state.name);
        return Err(match script.transactional || wanted.has_own_path {
            false => failure
                .cause("its build failed; the next run drops it and builds it again")
                .hint(Hint::again("")),
            true => failure
                .cause("an interrupted build has left it")
                .hint(Hint::psql("rebuild it", &rebuild))
                .hint(Hint::again("then")),
        }
        .into());
    }
    if may_be_another && let Some(failure) = differs(psql.db, wanted, state)? {
        return Err(failure.into());
    }
    if state.is_incomplete() {
        psql.ui.warn(format_args!(
            "index `{}` stays INVALID until the index of every partition is attached to it: ALTER INDEX {} ATTACH PARTITION …",
            state.name, state.name
        ));
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
    let Found::Index(Some(state)) = find(psql.db, wanted)? else {
        return Ok(());
    };
    if state.usable() {
        return Ok(());
    }
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
