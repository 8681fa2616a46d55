//! Who is connected and what they are doing: sessions in the way, old transactions, running dumps,
//! and how far an index build or a copy is.

mod build;
mod locks;
mod session;
mod stalled;

pub(crate) use build::{index_build, index_builder};
pub(crate) use locks::{
    Waiting, displace_autovacuum, exclusive_holders, holders, somebody_waits_for_us, waiting,
    waiting_for, waits_for_advisory_lock,
};
pub(crate) use session::{Backend, cancel, dumps, named, old_transactions, sessions, terminate};
pub(crate) use stalled::{Stalled, stalled};
