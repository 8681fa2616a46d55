//! Where the statements of a file begin and end, as both psql and the server see it, and the input for
//! psql with which the server gets exactly this SQL; whether two files are the same SQL (`compare`). What a
//! statement does is in `effects`.
//!
//! Tokens come from `squawk-lexer`, which follows the server's `scan.l`. Which semicolon ends a
//! statement is psql's rule (`src/fe_utils/psqlscan.l`): one outside of quotes, comments,
//! parentheses and the `BEGIN … END` body of a SQL-standard function.

mod checks;
mod compare;
mod for_psql;
mod split;
mod token;

#[cfg(test)]
mod tests;

pub(crate) use compare::{difference, place};
pub(crate) use for_psql::for_psql;
pub(crate) use split::{Statement, split};
pub(crate) use token::{Token, lex, position};
