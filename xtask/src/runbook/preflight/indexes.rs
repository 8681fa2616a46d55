//! The indexes that migrations make, and those that an interrupted build has left.

use super::check::{Check, Found, Look, When};
use crate::database::catalog;
use crate::error::Failure;
use crate::hint::Hint;
use crate::runbook::indexes;

/// Before a run only what it makes is compared; the doctor compares what applied migrations have made too.
pub(super) const DEFINITIONS: Check = Check {
    name: "definitions",
    before: &[When::Up, When::Down],
    look: Look::Run(|_, db, planned| {
        let pending = planned.scripts.iter().copied();
        let Some(applied) = &planned.applied else {
            indexes::foresee(db, pending)?;
            return Ok(Found::ok(AS_BUILT));
        };
        match indexes::differing(db, applied.iter().copied(), pending) {
            Err(error) => Ok(Found::unknown(&error)),
            Ok(differing) => match differing.into_iter().next() {
                Some(failure) => Err(failure.into()),
                None => Ok(Found::ok(AS_BUILT)),
            },
        }
    }),
};

const AS_BUILT: &str = "no index is certainly another one than its migration builds";

pub(super) const VALID: Check = Check {
    name: "indexes",
    // A run builds anew those that it makes, and the others are not its own.
    before: &[],
    look: Look::Server(|_, db| {
        let invalid = match catalog::invalid_indexes(db) {
            Ok(invalid) => invalid,
            Err(error) => return Ok(Found::unknown(&error)),
        };
        let Some(first) = invalid.first() else {
            return Ok(Found::ok("every index is valid"));
        };
        let names: Vec<&str> = invalid.iter().map(|index| index.name.as_str()).collect();
        Err(Failure::finding(format!("INVALID: {}", names.join(", ")))
            .hint(Hint::to("if a pending migration builds it", "db-migrate"))
            .hint(Hint::psql(
                "else",
                &format!("REINDEX INDEX CONCURRENTLY {}", first.name),
            ))
            .into())
    }),
};
