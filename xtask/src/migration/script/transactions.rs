//! The statements that begin and end transactions.

/// A statement that begins or ends a transaction.
pub(super) struct TransactionControl {
    pub(super) words: &'static str,
    /// Whether a transaction is open after it.
    pub(super) opens: bool,
}

/// The commands of `TransactionStmt` in PostgreSQL's grammar, without those for savepoints, which
/// neither begin nor end a transaction.
pub(super) fn transaction_control(words: &[&str]) -> Option<TransactionControl> {
    let (spelled, opens) = match *words {
        ["begin", ..] => ("BEGIN", true),
        ["start", "transaction", ..] => ("START TRANSACTION", true),
        ["rollback", "to", ..] | ["rollback", "work" | "transaction", "to", ..] => return None,
        ["commit", ..] => ("COMMIT", chains(words)),
        ["end", ..] => ("END", chains(words)),
        ["rollback", ..] => ("ROLLBACK", chains(words)),
        ["abort", ..] => ("ABORT", chains(words)),
        ["prepare", "transaction", ..] => ("PREPARE TRANSACTION", false),
        _ => return None,
    };
    Some(TransactionControl {
        words: spelled,
        opens,
    })
}

/// `COMMIT AND CHAIN` begins the next transaction at once; `AND NO CHAIN` is the default.
fn chains(words: &[&str]) -> bool {
    words.ends_with(&["and", "chain"])
}
