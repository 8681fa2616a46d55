//! New migrations as text: what `db-new` writes. Each form of a change has one safe way, with a down file that takes
//! back exactly what its up file did and a verify file that fails without it. Nothing here touches the disk.

mod form;
mod input;
mod names;
mod templates;

#[cfg(test)]
mod tests;

pub(crate) use form::Form;
pub(crate) use names::{migration_name, own_name};

/// The files of one new migration.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) up: String,
    pub(crate) down: String,
    pub(crate) verify: String,
}

/// The migrations that make this change, in the order in which they run; what is left to do then is a line of
/// the last one.
pub(crate) fn drafts(name: &str, form: &Form, next: &[String]) -> Vec<Draft> {
    let mut drafts = templates::of(name, form);
    if let Some(Draft { up, .. }) = drafts.last_mut().filter(|_| !next.is_empty()) {
        // What stands at the top ends with an empty line.
        let top = match up.split_once("\n\n") {
            Some((top, _)) => top.len() + 1,
            None => 0,
        };
        let empty_line = if top == 0 { "\n" } else { "" };
        let steps = next
            .iter()
            .map(|step| format!("-- xtask: next {}\n", step.trim()));
        up.insert_str(top, &(steps.collect::<String>() + empty_line));
    }
    drafts
}
