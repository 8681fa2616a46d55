//! The format of sqlx's history table, `_sqlx_migrations`: what a row contains, how the checksum of a file
//! is computed, which advisory lock protects it. From sqlx 0.9, `sqlx-postgres/src/migrate.rs`
//! and `sqlx-core/src/migrate/migration.rs`; a team that goes back to sqlx depends on each of them.

use crc::{CRC_32_ISO_HDLC, Crc};
use jiff::Timestamp;
use sha2::{Digest, Sha384};

/// SHA-384 of the up file's bytes.
pub(crate) type Checksum = [u8; 48];

/// One row of `_sqlx_migrations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: i64,
    /// The name, with spaces instead of underscores.
    pub(crate) description: String,
    /// The same for all migrations of one of our runs; sqlx gives every migration its own.
    pub(crate) installed_on: Timestamp,
    /// sqlx refuses to continue while a row has `false`, though for PostgreSQL it never writes one.
    pub(crate) success: bool,
    /// As stored: a hand-written row may have any length.
    pub(crate) checksum: Vec<u8>,
    /// Nanoseconds; see [`Applied::was_not_run`].
    pub(crate) execution_time_ns: i64,
    /// Whether its row was written in a transaction of its own, as it is when a migration is run. Rows
    /// that were inserted or copied together do not show what ran together.
    pub(crate) own_transaction: bool,
}

impl Applied {
    /// Whether nothing shows that its file was ever run here. A run of ours records how long it took, at
    /// least 1; `db-baseline` records 0. sqlx 0.9 inserts -1 and then updates it to the time that the file
    /// took: a skipped migration (`sqlx migrate override skip`, `Migrate::skip`) stays at -1, and so does
    /// one whose run was killed in between; the two cannot be told apart.
    pub(crate) fn was_not_run(&self) -> bool {
        self.success && self.execution_time_ns <= 0
    }
}

/// By this sqlx detects an edited file.
pub(crate) fn checksum(up_file: &[u8]) -> Checksum {
    Sha384::digest(up_file).into()
}

/// The key of the advisory lock that a migrating session holds on `database`; the same as sqlx's, so
/// that its runs and ours wait for each other.
pub(crate) fn lock_id(database: &str) -> i64 {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    // Below 2^62: cannot overflow.
    0x3d32_ad9e * i64::from(CRC.checksum(database.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_sha_384() {
        assert_eq!(
            crate::hex::encode(&checksum(b"abc")),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7"
        );
    }

    #[test]
    fn lock_id_is_that_of_sqlx() {
        // 0xcbf43926 is the check value of CRC-32/ISO-HDLC for these nine characters.
        assert_eq!(lock_id("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
        assert_eq!(lock_id(""), 0);
    }
}
