//! Names: of a migration, as sqlx and every file system take them, and of an index or a constraint.

use super::input;
use crate::error::{Failure, Result};
use crate::hex;
use crate::hint::Hint;
use crate::migration::effects::ObjectName;
use crate::migration::history::checksum;

/// Leaves room for the version, `_validate` and `.down.sql` in the 255 bytes of a file name.
const LONGEST: usize = 150;
/// What the server keeps of a name (NAMEDATALEN - 1).
pub(super) const LONGEST_IN_DATABASE: usize = 63;

/// The name as it stands in file names: spaces and dashes become underscores.
///
/// # Errors
/// If it has anything else but letters, digits and underscores, or is empty or long.
pub(crate) fn migration_name(given: &str) -> Result<String> {
    let name = given.trim().replace([' ', '-'], "_");
    let other = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '_');
    let why = match other {
        _ if name.trim_matches('_').is_empty() => "it has no letter and no digit".to_owned(),
        Some(other) => format!("it contains `{}`", other.escape_debug()),
        None if name.len() > LONGEST => format!("it is longer than {LONGEST} characters"),
        None => return Ok(name),
    };
    Err(Failure::usage(format!(
        "cannot name a migration `{}`",
        input::visible(given)
    ))
    .cause(why)
    .state("no file was written")
    .hint(Hint::to(
        "use ASCII letters, digits and underscores, for example",
        "db-new add_users_last_login_at",
    ))
    .into())
}

/// The name that `--as` gives to an index or a constraint, as SQL has it.
///
/// # Errors
/// If it is not one name.
pub(crate) fn own_name(given: &str) -> Result<String> {
    input::read("--as", "users_email_idx", given, |name| {
        let own = name.identifier().filter(|_| name.at_end());
        own.ok_or_else(|| "it is not one name without a schema".to_owned())
    })
}

/// `users_email_key`, as PostgreSQL names constraints.
pub(super) fn joined(table: &ObjectName, columns: &[String], kind: &str) -> String {
    let columns = columns.iter().map(String::as_str);
    let parts: Vec<&str> = [&*table.name]
        .into_iter()
        .chain(columns)
        .chain([kind])
        .collect();
    within_limit(parts.join("_"))
}

/// A name that the server would cut off ends with digits of its own, so that two long names stay different.
pub(super) fn within_limit(name: String) -> String {
    if name.len() <= LONGEST_IN_DATABASE {
        return name;
    }
    let digits = &hex::encode(&checksum(name.as_bytes()))[..8];
    let kept = name.floor_char_boundary(LONGEST_IN_DATABASE - 1 - digits.len());
    format!("{}_{digits}", &name[..kept])
}
