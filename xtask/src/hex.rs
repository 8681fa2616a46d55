//! Bytes as lowercase hexadecimal digits, as PostgreSQL and `sha256sum` write them.

pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
