//! The manifest beside a backup: what the backup holds, and where and when it was taken.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use serde::{Deserialize, Serialize};

use super::folder::open;
use crate::database::Server;
use crate::database::catalog;
use crate::error::{Failure, Result};
use crate::options::Proof;

/// What is known of a backup, written beside it as `<file>.json` before the backup has its name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    /// The backup's file name, without its folder.
    pub(crate) file: String,
    /// Qualified name.
    pub(crate) table: String,
    /// Changes when a table is dropped and created again. Older manifests lack this, `timeline`, and a
    /// column's `number` and `values`.
    #[serde(default)]
    pub(crate) table_oid: Option<u32>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the file, in hex.
    pub(crate) sha256: String,
    /// `restore`: restored, with the rows and the content that the table had in the dump's snapshot;
    /// `rows`: as many rows; `none`: not compared.
    pub(crate) proof: Proof,
    /// The sum of the rows' hashes (`proof::content`), where it was proven by restoring.
    pub(crate) content_hash: Option<String>,
    /// The columns that the file holds, in its order.
    pub(crate) columns: Vec<ManifestColumn>,
    /// The primary key's columns. Older manifests lack it.
    #[serde(default)]
    pub(crate) primary_key: Option<Vec<String>>,
    /// The positions of the sequences that columns own.
    pub(crate) sequences: Vec<ManifestSequence>,
    /// The server's clock at the snapshot.
    pub(crate) created_at: Timestamp,
    /// Where the WAL was at the snapshot.
    pub(crate) wal_lsn: String,
    /// The WAL's timeline; none on a standby.
    #[serde(default)]
    pub(crate) timeline: Option<u32>,
    pub(crate) database: String,
    pub(crate) database_oid: u32,
    /// Of the cluster; none where the role may not see it.
    pub(crate) system_identifier: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) server_version: String,
    pub(crate) pg_dump_version: String,
    /// The command that took it.
    pub(crate) command: String,
    /// When the run that took it began, by the server's clock: the `installed_on` of its migrations
    /// in the history.
    pub(crate) run_started_at: Timestamp,
}

/// A column as it was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ManifestColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// `pg_attribute.attnum`.
    #[serde(default)]
    pub(crate) number: Option<i16>,
    /// How many rows have a value other than NULL, where they were counted.
    #[serde(default)]
    pub(crate) values: Option<u64>,
}

/// A sequence as it was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ManifestSequence {
    /// The column that it belongs to.
    pub(crate) column: String,
    pub(crate) last_value: i64,
}

impl Manifest {
    /// `<file>.json`.
    pub(crate) fn path(file: &Path) -> PathBuf {
        let mut path = file.as_os_str().to_owned();
        path.push(".json");
        path.into()
    }

    /// Reads the manifest of a backup, if there is one.
    pub(crate) fn of(file: &Path) -> Result<Option<Manifest>> {
        let path = Manifest::path(file);
        let opened = match open(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
            }
        };
        let manifest = serde_json::from_reader(std::io::BufReader::new(opened));
        manifest.map(Some).map_err(|error| {
            Failure::usage(format!(
                "cannot understand the manifest `{}`",
                path.display()
            ))
            .cause(error.to_string())
            .hint(format!("look at it: cat '{}'", path.display()))
            .into()
        })
    }

    /// Why this backup may have been taken from another database, if anything says so.
    ///
    /// A copy of a server's files has the same identity. What differs is its address, its timeline, or a
    /// WAL position before that of the backup.
    pub(crate) fn doubts(&self, client: &mut Client, server: &Server) -> Result<Option<Failure>> {
        let here = catalog::identity(client)?;
        let wal = catalog::wal_position(client)?;
        let same = match (&here.system_identifier, &self.system_identifier) {
            (Some(here), Some(there)) => here == there,
            _ => server.name == self.database,
        };
        if !same || here.oid != self.database_oid {
            return Ok(Some(
                Failure::failed("the backup is of another database").cause(format!(
                    "it was taken from `{}` on {}:{}, which is not {}",
                    self.database, self.host, self.port, server
                )),
            ));
        }
        let elsewhere = place(&server.host, server.port) != place(&self.host, self.port);
        let cause = if elsewhere {
            format!(
                "it was taken from {}:{}, and this is {}",
                self.host, self.port, server
            )
        } else if wal.timeline.is_some()
            && self.timeline.is_some_and(|then| wal.timeline != Some(then))
        {
            "the server was promoted or recovered since, or was replaced by a copy".to_owned()
        } else if lsn(&wal.lsn) < lsn(&self.wal_lsn) {
            format!(
                "the server's WAL is at {}, and was at {} when the backup was taken",
                wal.lsn, self.wal_lsn
            )
        } else {
            return Ok(None);
        };
        Ok(Some(
            Failure::failed("the backup may be of another server")
                .cause(cause)
                .cause("a copy of a server's files looks the same, but its rows may differ"),
        ))
    }

    /// Whether this newer backup has everything that an older one may have: the same table on the same
    /// server, at least as many rows, and in each column at least as many values.
    pub(super) fn covers(&self, older: &Manifest) -> bool {
        let has = |column: &ManifestColumn| {
            self.columns.iter().any(|mine| {
                mine.number.is_some()
                    && mine.number == column.number
                    && mine.type_name == column.type_name
                    && column.values.is_some()
                    && mine.values >= column.values
            })
        };
        self.table == older.table
            && self.table_oid.is_some()
            && self.table_oid == older.table_oid
            && self.system_identifier == older.system_identifier
            && self.database_oid == older.database_oid
            && place(&self.host, self.port) == place(&older.host, older.port)
            && self.timeline == older.timeline
            && lsn(&self.wal_lsn) >= lsn(&older.wal_lsn)
            && self.rows >= older.rows
            && older.columns.iter().all(has)
    }
}

/// A server's address, with one name for this machine.
pub(super) fn place(host: &str, port: u16) -> (&str, u16) {
    let is_loopback = host
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    match host == "localhost" || host.starts_with('/') || is_loopback {
        true => ("localhost", port),
        false => (host, port),
    }
}

/// `16/B374D848` as a number.
pub(super) fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}
