//! One file per command; each composes the modules beside this one and imports no other command.

pub(crate) mod db_backup;
pub(crate) mod db_backups;
pub(crate) mod db_baseline;
pub(crate) mod db_destroy;
pub(crate) mod db_doctor;
pub(crate) mod db_migrate;
pub(crate) mod db_psql;
pub(crate) mod db_redo;
pub(crate) mod db_restore;
pub(crate) mod db_rollback;
pub(crate) mod db_seed;
pub(crate) mod db_setup;
pub(crate) mod db_start;
pub(crate) mod db_status;
pub(crate) mod db_stop;
pub(crate) mod db_verify;
