//! New migrations as text: what `db-new` writes. Each form of a change has one safe way, with a down file that takes back
//! exactly what its up file did and a verify file that fails without it. Nothing here touches the disk.

mod constraint;
mod form;
mod input;
mod names;
mod templates;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use form::Form;
pub(crate) use names::{migration_name, own_name};

use crate::error::{Failure, Result};
use crate::migration::effects::Effect;
use crate::migration::script::{Role, Script};

/// The files of one new migration.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) up: String,
    pub(crate) down: String,
    pub(crate) verify: String,
}

/// The migrations that make this change, in the order in which they run.
///
/// # Errors
/// If what was given does not make files that this tool would run.
pub(crate) fn drafts(name: &str, form: &Form, next: &[String]) -> Result<Vec<Draft>> {
    let mut drafts = templates::of(name, form);
    if let Some(last) = drafts.last_mut() {
        add_next_steps(last, next)?;
    }
    for draft in &drafts {
        let unwritten = matches!(form, Form::Unwritten);
        let up = script(&draft.up, Role::Up)?;
        script(&draft.down, Role::Down)?;
        // The checks of an unwritten migration are refused on purpose, until somebody writes them.
        if !unwritten {
            script(&draft.verify, Role::Verify)?;
        }
        let effects = up.effects().flat_map(|(_, effects)| effects);
        let effects: Vec<Effect> = effects.collect();
        if !form.may_do(&effects) {
            return Err(not_readable("it does more than this form is for").into());
        }
    }
    Ok(drafts)
}

/// `-- xtask: next …`, below the other lines at the top.
fn add_next_steps(draft: &mut Draft, next: &[String]) -> Result {
    if next.is_empty() {
        return Ok(());
    }
    let mut head = String::new();
    for step in next {
        if step.trim().is_empty() || step.chars().any(char::is_control) {
            return Err(not_readable("`--next` takes one line of text").into());
        }
        head.push_str(&format!("-- xtask: next {}\n", step.trim()));
    }
    let directives = draft
        .up
        .lines()
        .take_while(|line| line.starts_with("-- xtask:") || *line == "-- no-transaction");
    let end: usize = directives.map(|line| line.len() + 1).sum();
    let separator = if end == 0 { "\n" } else { "" };
    draft.up.insert_str(end, &format!("{head}{separator}"));
    Ok(())
}

fn script(text: &str, role: Role) -> Result<Script> {
    Script::parse(Path::new("the new file"), text.into(), role).map_err(|problems| {
        let problems = problems.iter().map(|problem| &problem.what);
        let failure = not_readable("the files would not run");
        problems
            .fold(failure, |failure, what| failure.cause(what))
            .into()
    })
}

fn not_readable(why: &str) -> Failure {
    Failure::usage("cannot make a migration of this")
        .cause(why)
        .state("no file was written")
        .hint(crate::hint::Hint::run("db-new --help"))
}
