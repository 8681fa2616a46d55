//! Local development: the private server of a workspace, and rows to try things on.

pub(crate) mod seed;
pub(crate) mod server;
