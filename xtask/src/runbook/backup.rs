//! A backup: pg_dump of one table on an exported snapshot, proven by restoring it, with a manifest
//! beside it. Bringing its rows back for good is in `restore`.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::error::SqlState;
use postgres::types::Type;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::preflight::{self, Planned, When};
use super::proof::{self, Content, Loader, Scratch};
use super::{failures, lock_wait};
use crate::Context;
use crate::database::activity;
use crate::database::catalog::{self, Identity, Relation, WalPosition};
use crate::database::{Database, KEEP_ALIVE_EVERY};
use crate::error::{Failure, Result, shell_word};
use crate::interrupt;
use crate::migration::effects::ObjectName;
use crate::options::{Proof, ProofOptions};
use crate::tools::pg_dump;
use crate::ui::{self, Ui};

/// What is backed up where neither the command line nor a pending migration names a table.
pub(crate) const DEFAULT_TABLE: &str = "users";

/// How often progress is looked at while pg_dump runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many bytes are written before the disk is asked to take them.
const FLUSH_EVERY: u64 = 16 << 20;
/// How long a try to lock the table waits before it is looked who is in the way.
const LOCK_TRY: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody waits for our lock, while pg_dump may not have its own.
const MAKE_WAY_EVERY: Duration = Duration::from_millis(20);
/// Ends the name of a file that is still being written. Its writer holds a lock on it.
const PARTIAL: &str = ".partial";

/// A backup as the command contract shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Taken {
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) proof: Proof,
    /// How long it took to take and prove it.
    #[serde(skip)]
    pub(crate) took: Duration,
}

impl Taken {
    /// What it holds, where it is and how it was proven, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}: {}, {} in {} ({})",
            self.table,
            ui::plural(self.rows, "row"),
            ui::bytes(self.bytes),
            self.file.display(),
            self.proven()
        )
    }

    /// How it was proven, for people.
    pub(crate) fn proven(&self) -> &'static str {
        match self.proof {
            Proof::Restore => "restored and compared",
            Proof::Rows => "row count compared",
            Proof::None => "not proven",
        }
    }
}

/// What stands beside a backup, as `<file>.json`. It is there before the backup has its name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    /// The backup's file name, without its folder.
    pub(crate) file: String,
    /// Qualified name.
    pub(crate) table: String,
    /// A table that was dropped and made again has another; not in manifests of before this was
    /// written down, as is `timeline`, and of a column `number` and `values`.
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
    /// The primary key's columns: how rows were told apart. Manifests of earlier versions lack it.
    #[serde(default)]
    pub(crate) primary_key: Option<Vec<String>>,
    /// How far the sequences were that belong to columns.
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

/// The command as a person would type it.
pub(crate) fn command(table: &str, file: &str) -> String {
    let arguments = pg_dump::arguments(table);
    let words: Vec<String> = arguments.iter().map(shell_word).collect();
    let words = words.join(" ");
    format!(
        "pg_dump \"$DATABASE_URL\" {words} --file={}",
        shell_word(file)
    )
}

/// Dumps a table and proves the dump.
///
/// # Errors
/// If the folder cannot be written, pg_dump fails, or the proof does. Nothing of a failed backup is
/// left.
pub(crate) fn take(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    flags: ProofOptions,
) -> Result<Taken> {
    take_into_folder(ctx, db, table, flags).map_err(in_the_folder)
}

fn take_into_folder(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    flags: ProofOptions,
) -> Result<Taken> {
    let started = Instant::now();
    let qualified = table.qualified();
    let attempted = || format!("cannot back up `{qualified}`");
    let pg_dump = ctx
        .tools()
        .pg_dump(db.server.major())
        .with_context(attempted)?;
    let folder = &ctx.config.backups;
    make_folder(folder, &ctx.ui)?;
    clean(folder, &ctx.ui)?;
    let planned = Planned {
        backups: vec![table.clone()],
        ..Planned::default()
    };
    preflight::before(When::Backup, ctx, db, &planned)?;
    let proof = flags.of(table.bytes);
    if proof != flags.proof {
        ctx.ui.info(
            "Notice",
            format_args!(
                "{qualified} is {}, above the limit of {}: proving its row count only (--proof-limit)",
                ui::bytes(table.bytes),
                ui::bytes(flags.proof_limit),
            ),
        );
    }
    let mut partial = partial_file(folder, &format!(".{}_backup_", file_safe(&table.name)))?;
    let out = partial.as_file_mut();
    let snapshot =
        dump_locked(ctx, db, table, &pg_dump.program, proof, out).with_context(attempted)?;
    if let Some(rows) = snapshot.missed_rows {
        ctx.ui.warn(format_args!(
            "`{qualified}` holds no row, and held some {} by the server's statistics: if that is news, look before anything relies on this backup",
            ui::count(rows)
        ));
    }
    partial
        .as_file()
        .sync_all()
        .with_context(|| format!("cannot flush the backup in `{}`", folder.display()))?;

    let Snapshot { dump, .. } = &snapshot;
    let mut manifest = Manifest {
        file: String::new(),
        table: qualified.clone(),
        table_oid: Some(table.oid),
        rows: dump.rows,
        bytes: dump.bytes,
        sha256: dump.sha256.clone(),
        proof,
        content_hash: snapshot.content_hash,
        columns: snapshot.columns,
        primary_key: Some(snapshot.primary_key),
        sequences: snapshot.sequences,
        created_at: snapshot.at,
        wal_lsn: snapshot.wal.lsn,
        timeline: snapshot.wal.timeline,
        database: db.server.name.clone(),
        database_oid: snapshot.identity.oid,
        system_identifier: snapshot.identity.system_identifier,
        host: db.server.host.clone(),
        port: db.server.port,
        server_version: db.server.server_version.clone(),
        pg_dump_version: pg_dump.version.to_string(),
        command: ctx.application_name.clone(),
        run_started_at: db.server.clock,
    };
    let file = keep(partial, folder, &mut manifest)?;
    Ok(Taken {
        file: ctx.config.shown(&file),
        table: qualified,
        rows: manifest.rows,
        bytes: manifest.bytes,
        sha256: manifest.sha256,
        proof,
        took: started.elapsed(),
    })
}

/// What was dumped, and the table in the dump's own snapshot.
struct Snapshot {
    dump: pg_dump::Dump,
    content_hash: Option<String>,
    columns: Vec<ManifestColumn>,
    primary_key: Vec<String>,
    sequences: Vec<ManifestSequence>,
    at: Timestamp,
    wal: WalPosition,
    identity: Identity,
    /// How many rows the table had by the statistics, where it has none.
    missed_rows: Option<u64>,
}

/// Locks the table, then looks at it. TRUNCATE and what rewrites a table are not MVCC-safe (PostgreSQL
/// manual, "Caveats"): a snapshot from before such a transaction's commit sees an empty table.
///
/// pg_dump asks for the same lock by itself, after us. An ALTER of somebody else that stands in line
/// between the two waits for us, pg_dump for it, and we for pg_dump: a circle that the server does not
/// see, with every login behind that ALTER. So as long as pg_dump has not begun to write, for which it
/// has its lock, we make way for whoever waits for ours, and begin anew after them.
fn dump_locked(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    program: &Path,
    proof: Proof,
    out: &mut File,
) -> Result<Snapshot> {
    let deadline = Instant::now() + db.lock_wait;
    loop {
        let outcome = begin_locked(ctx, db, table, deadline)
            .and_then(|()| dump(ctx, db, table, program, proof, out));
        // Where this fails the session has ended, and its lock with it.
        let _ = db.client.batch_execute("ROLLBACK");
        if let Some(snapshot) = outcome? {
            return Ok(snapshot);
        }
        ctx.ui.info(
            "Waiting",
            format_args!(
                "made way for a session that waits to change {}",
                table.qualified()
            ),
        );
        out.set_len(0)?;
        out.rewind()?;
    }
}

/// Begins the transaction of a dump: the lock first. `LOCK TABLE` takes no snapshot; the first query
/// after it does.
///
/// Whoever reads stands in line behind those who want the table for themselves alone, and nobody
/// behind a reader; so this waits in line, for a moment at a time, and looks who is in the way.
fn begin_locked(ctx: &Context, db: &mut Database, table: &Relation, deadline: Instant) -> Result {
    let qualified = table.qualified();
    let mut named: Vec<activity::Session> = Vec::new();
    let progress = ctx.ui.progress("Waiting");
    loop {
        if interrupt::requested() {
            return Err(Failure::interrupted("stopped during the backup").into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match db.client.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}
             SET LOCAL lock_timeout = {};
             LOCK TABLE ONLY {qualified} IN ACCESS SHARE MODE;
             SET LOCAL lock_timeout = {}",
            proof::set_text_settings(),
            left.min(LOCK_TRY).as_millis().max(1),
            db.lock_wait.as_millis(),
        )) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Where this fails, the error says why.
        let _ = db.client.batch_execute("ROLLBACK");
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(error).context("cannot lock the table for reading");
        }
        let in_the_way = activity::exclusive_holders(&mut db.client, table.oid)?;
        if left.is_zero() {
            let failure = Failure::busy(format!(
                "cannot lock `{qualified}` for reading within {}",
                ui::time(db.lock_wait)
            ))
            .sqlstate("55P03");
            let again = format!("cargo {}", ctx.application_name);
            return Err(lock_wait::name(failure, &in_the_way, &again).into());
        }
        for session in in_the_way {
            if !named.iter().any(|known| known.is_same(&session)) {
                ctx.ui.info(
                    "Waiting",
                    format_args!("{qualified} is locked by {session}"),
                );
                named.push(session);
            }
        }
        progress.update(format_args!(
            "for the lock on {qualified}; {} left",
            ui::time(left)
        ));
    }
}

/// pg_dump writes and the scratch loads the same bytes, side by side; then the table, in the dump's own
/// snapshot, and what was loaded are counted and hashed, side by side again, and compared. In a
/// transaction of [`begin_locked`]; none where it made way for somebody.
fn dump(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    program: &Path,
    proof: Proof,
    out: &mut File,
) -> Result<Option<Snapshot>> {
    let qualified = table.qualified();
    let (target, lock_wait) = (db.target.clone(), db.lock_wait);
    let client = &mut db.client;
    let row = client.query_typed_one(
        "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(),
                pg_catalog.to_regclass($2::text)::oid IS NOT DISTINCT FROM $1,
                (SELECT greatest(reltuples::int8, pg_catalog.pg_stat_get_live_tuples(oid), 0)
                 FROM pg_catalog.pg_class WHERE oid = $1)",
        &[(&table.oid, Type::OID), (&qualified, Type::TEXT)],
    )?;
    let (snapshot, at): (String, Timestamp) = (row.get(0), row.get(1));
    if !row.get::<_, bool>(2) {
        return Err(
            Failure::failed(format!("`{qualified}` is another table now"))
                .cause("it was replaced while the backup waited for it")
                .hint(format!("look at it, then: cargo {}", ctx.application_name))
                .into(),
        );
    }
    let expected_rows = row.get::<_, Option<i64>>(3).unwrap_or(0) as u64;
    let wal = catalog::wal_position(client)?;
    let identity = catalog::identity(client)?;
    let sequences = catalog::owned_sequences(client, table.oid)?;
    let primary_key = catalog::primary_key(client, table.oid)?;
    let mut columns = catalog::columns(client, table.oid)?;
    columns.retain(|column| !column.generated);

    let give_up = AtomicBool::new(false);
    let request = pg_dump::Request {
        pg_dump: program,
        target: &target,
        application_name: &ctx.application_name,
        table: &qualified,
        snapshot: &snapshot,
        lock_wait,
        options: &proof::text_options(),
        encoding: proof::dump_encoding(&db.server.encoding),
        give_up: &give_up,
    };
    let mut scratch = match proof {
        Proof::Restore => Some(Scratch::make(ctx, &target, &db.server, &columns)?),
        Proof::Rows | Proof::None => None,
    };
    let on_disk = out.try_clone()?;
    let mut copies = Copies {
        file: out,
        scratch: match &mut scratch {
            Some(scratch) => Some(scratch.loader(&columns)?),
            None => None,
        },
    };
    let started = Instant::now();
    let progress = ctx.ui.progress("Backup");
    let (rows_so_far, bytes_so_far) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut looked = Instant::now();
    let dumped = std::thread::scope(|scope| -> Result<_> {
        let dump = scope.spawn(|| -> Result<pg_dump::Dump> {
            let dump = pg_dump::run(&request, &mut copies, &mut |rows, bytes| {
                rows_so_far.store(rows, Ordering::Relaxed);
                bytes_so_far.store(bytes, Ordering::Relaxed);
            })?;
            if let Some(loader) = copies.scratch {
                loader.finish()?;
            }
            Ok(dump)
        });
        let show = || {
            std::thread::sleep(LOOK_EVERY);
            let rows = rows_so_far.load(Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f64();
            progress.update(format_args!(
                "{qualified}: {} rows, {}, {} rows/s",
                ui::count(rows),
                ui::bytes(bytes_so_far.load(Ordering::Relaxed)),
                ui::count((rows as f64 / seconds) as u64),
            ));
        };
        while !dump.is_finished() && bytes_so_far.load(Ordering::Relaxed) == 0 {
            show();
            if looked.elapsed() >= MAKE_WAY_EVERY {
                looked = Instant::now();
                // Where this cannot be asked, beginning anew finds out why.
                if activity::somebody_waits_for_us(client, table.oid).unwrap_or(true) {
                    give_up.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        let counted = match proof {
            Proof::Rows if !give_up.load(Ordering::Relaxed) => {
                Some(proof::count(client, &qualified, &columns).context("cannot read the table"))
            }
            _ => None,
        };
        let mut flushed = 0;
        while !dump.is_finished() {
            show();
            // The server ends a transaction that is idle for long, as one of a client that is gone.
            if looked.elapsed() >= KEEP_ALIVE_EVERY {
                looked = Instant::now();
                let _ = client.batch_execute("");
            }
            // On its way to the disk while pg_dump is at work; whether it arrived is for the flush at
            // the end to say.
            let written = bytes_so_far.load(Ordering::Relaxed);
            if written - flushed >= FLUSH_EVERY {
                flushed = written;
                let _ = on_disk.sync_data();
            }
        }
        let dump = dump
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that runs pg_dump panicked"))?;
        match dump {
            _ if interrupt::requested() => {
                Err(Failure::interrupted("stopped during the backup").into())
            }
            Err(_) if give_up.load(Ordering::Relaxed) => Ok(None),
            Ok(dump) => Ok(Some((dump, counted.transpose()?))),
            // The server's own word (it has an SQLSTATE) before pg_dump's.
            Err(error) => {
                counted.transpose()?;
                let read = format!("SELECT FROM ONLY {qualified} LIMIT 0");
                client
                    .batch_execute(&read)
                    .context("cannot read the table")?;
                proof::connect(ctx, &target)?;
                Err(error)
            }
        }
    })?;
    let Some((dump, held)) = dumped else {
        return Ok(None);
    };
    let (held, restored) = match &mut scratch {
        Some(scratch) => {
            progress.update("comparing what was restored");
            let (held, restored) = std::thread::scope(|scope| {
                let (place, canceller) = (scratch.place.clone(), scratch.canceller.clone());
                let restored = scope.spawn(|| scratch.content(&columns));
                let held =
                    proof::content(client, &qualified, &columns).context("cannot read the table");
                if interrupt::requested() {
                    let _ = canceller.cancel();
                }
                // The lock and the snapshot are kept until both have been read.
                let mut read = Instant::now();
                while !restored.is_finished() {
                    std::thread::sleep(LOOK_EVERY);
                    if read.elapsed() >= KEEP_ALIVE_EVERY {
                        read = Instant::now();
                        let _ = client.batch_execute("");
                    }
                }
                let restored = restored
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that reads it panicked")))
                    .with_context(|| format!("cannot read the scratch {place}"));
                (held, restored)
            });
            if interrupt::requested() {
                return Err(Failure::interrupted("stopped during the backup").into());
            }
            ctx.ui
                .detail(format_args!("restored {} and compared", scratch.place));
            (Some(held?), Some(restored?))
        }
        None => (held, None),
    };
    drop(progress);
    drop(scratch);
    compare(&qualified, &dump, held.as_ref(), restored.as_ref())?;
    Ok(Some(Snapshot {
        missed_rows: Some(expected_rows).filter(|rows| dump.rows == 0 && *rows > 0),
        dump,
        content_hash: restored.map(|content| content.hash),
        columns: columns
            .into_iter()
            .enumerate()
            .map(|(place, column)| ManifestColumn {
                name: column.name,
                type_name: column.type_name,
                number: Some(column.number),
                values: held.as_ref().map(|held| held.values[place]),
            })
            .collect(),
        primary_key,
        sequences: sequences
            .into_iter()
            .filter_map(|sequence| {
                Some(ManifestSequence {
                    last_value: sequence.last_value?,
                    column: sequence.column,
                })
            })
            .collect(),
        at,
        wal,
        identity,
    }))
}

/// The dump's bytes go to the file, and its rows to the scratch.
struct Copies<'a> {
    file: &'a mut File,
    scratch: Option<Loader<'a>>,
}

impl pg_dump::Sink for Copies<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result {
        Ok(self.file.write_all(bytes)?)
    }

    fn columns(&mut self, list: &str) -> Result {
        match &mut self.scratch {
            Some(loader) => loader.columns(list),
            None => Ok(()),
        }
    }

    fn rows(&mut self, rows: &[u8]) -> Result {
        match &mut self.scratch {
            Some(loader) => loader.rows(rows),
            None => Ok(()),
        }
    }
}

/// What the table held against what the dump holds, and against what came out of the scratch.
fn compare(
    table: &str,
    dump: &pg_dump::Dump,
    held: Option<&Content>,
    restored: Option<&Content>,
) -> Result {
    let Some(held) = held else { return Ok(()) };
    let found = match restored {
        Some(restored) if restored != held => Some((restored.rows, "restored")),
        _ if dump.rows != held.rows => Some((dump.rows, "dumped")),
        _ => None,
    };
    let Some((rows, how)) = found else {
        return Ok(());
    };
    Err(Failure::failed(format!("the backup of `{table}` is not good"))
        .cause(if rows == held.rows {
            format!("all {} rows came back, but not as the table has them", ui::count(rows))
        } else {
            format!("{} of {} rows were {how}", ui::count(rows), ui::count(held.rows))
        })
        .state("the file was removed")
        .hint("cargo xtask db-backup")
        .hint("if it fails again, another pg_dump may do better: PG_BIN_DIR=/path/to/bin cargo xtask db-backup")
        .into())
}

/// An error of the disk that the backups are on says where else they could be.
fn in_the_folder(error: anyhow::Error) -> anyhow::Error {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let hint = match io.map(std::io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "free space or choose another folder: cargo xtask db-migrate --backups DIR"
        }
        Some(
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory,
        ) => failures::OTHER_FOLDER,
        _ => return error,
    };
    let mut failure = failures::from_error(&error);
    failure.hints = vec![hint.to_owned()];
    failure.into()
}

/// Makes the folder, for its owner alone and for no version control: backups hold password hashes.
fn make_folder(folder: &Path, ui: &Ui) -> Result {
    let context = || format!("cannot make the backup folder `{}`", folder.display());
    if folder.is_file() {
        return Err(Failure::failed(context())
            .cause("it is a file")
            .hint(failures::OTHER_FOLDER)
            .into());
    }
    let found = std::fs::symlink_metadata(folder);
    if found.is_err() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(context)?;
        // The umask may have taken more than it should.
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).with_context(context)?;
        std::fs::write(folder.join(".gitignore"), "*\n").with_context(context)?;
    }
    let found = std::fs::symlink_metadata(folder).with_context(context)?;
    if found.is_symlink() {
        let itself =
            std::fs::canonicalize(folder).map_or("DIR".to_owned(), |at| shell_word(at.display()));
        return Err(Failure::failed(format!(
            "the backup folder `{}` is a symbolic link",
            folder.display()
        ))
        .cause("whoever can change the link decides where password hashes go")
        .hint(format!(
            "name the folder itself: cargo xtask db-migrate --backups {itself}"
        ))
        .into());
    }
    let owner = found.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(Failure::failed(format!(
            "the backup folder `{}` belongs to another user",
            folder.display()
        ))
        .cause(format!(
            "whoever owns it (uid {owner}) can read and replace what is in it"
        ))
        .hint("choose a folder of your own: cargo xtask db-migrate --backups DIR")
        .into());
    }
    if found.mode() & 0o022 != 0 {
        return Err(Failure::failed(format!(
            "others may write into the backup folder `{}`",
            folder.display()
        ))
        .hint(format!(
            "chmod 700 {}, then: cargo xtask db-backup",
            shell_word(folder.display())
        ))
        .into());
    }
    if found.mode() & 0o077 != 0 {
        ui.warn(format_args!(
            "others may look into the backup folder: chmod 700 {}",
            shell_word(folder.display())
        ));
    }
    Ok(())
}

/// A file to be written, for its owner alone, gone again unless it is kept. The lock on it ends with
/// this process, however that ends.
fn partial_file(folder: &Path, prefix: &str) -> Result<NamedTempFile> {
    let make = || -> Result<NamedTempFile> {
        loop {
            let file = tempfile::Builder::new()
                .prefix(prefix)
                .suffix(PARTIAL)
                .tempfile_in(folder)?;
            file.as_file()
                .set_permissions(Permissions::from_mode(0o600))?;
            file.as_file().lock()?;
            // Before it was locked, another run may have taken it for a leftover.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
        }
    };
    make().with_context(|| format!("cannot write into the backup folder `{}`", folder.display()))
}

/// Removes what killed runs have left half written: partial files that nobody has a lock on.
///
/// # Errors
/// If one cannot be removed.
pub(crate) fn clean(folder: &Path, ui: &Ui) -> Result {
    for path in files(folder)? {
        if !path.to_string_lossy().ends_with(PARTIAL) {
            continue;
        }
        let Ok(file) = open(&path) else { continue };
        if file.try_lock().is_ok() {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove `{}`", path.display()))?;
            ui.status(
                "Cleaned",
                format_args!("{}, which a killed run has left", path.display()),
            );
        }
    }
    Ok(())
}

/// Opens a file of the folder, never through a symbolic link.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Gives the file its name, `<table>_backup_<YYYYmmdd_HHMMSS>.sql` in UTC: the first free second. The
/// manifest takes its place first, so a backup that is there has one.
fn keep(mut partial: NamedTempFile, folder: &Path, manifest: &mut Manifest) -> Result<PathBuf> {
    let table = ObjectName::parse(&manifest.table).map_or_else(String::new, |name| name.name);
    let mut second = manifest.created_at;
    loop {
        manifest.file = format!(
            "{}_backup_{}.sql",
            file_safe(&table),
            second.strftime("%Y%m%d_%H%M%S")
        );
        second += Duration::from_secs(1);
        let file = folder.join(&manifest.file);
        let naming = || format!("cannot name the backup `{}`", file.display());
        if std::fs::symlink_metadata(&file).is_ok() {
            continue;
        }
        let mut beside = partial_file(folder, ".manifest_")?;
        serde_json::to_writer_pretty(&mut beside, manifest)?;
        writeln!(beside)?;
        beside.as_file().sync_all().with_context(naming)?;
        // Its lock says that the file is on its way, until that has its name too.
        let _locked = match beside.persist_noclobber(Manifest::path(&file)) {
            Ok(locked) => locked,
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error.error).with_context(naming),
        };
        match partial.persist_noclobber(&file) {
            Ok(_) => {
                // The names themselves must survive a crash too.
                File::open(folder)?.sync_all()?;
                return Ok(file);
            }
            Err(error) => {
                let _ = std::fs::remove_file(Manifest::path(&file));
                if error.error.kind() != ErrorKind::AlreadyExists {
                    return Err(error.error).with_context(naming);
                }
                partial = error.file;
            }
        }
    }
}

/// A table may be named with a slash or a newline; a file may not, or should not. Nor may it be hidden.
fn file_safe(table: &str) -> String {
    let name = table.replace(|c: char| c == '/' || c.is_control(), "_");
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

impl Manifest {
    /// `<file>.json`.
    pub(crate) fn path(file: &Path) -> PathBuf {
        let mut path = file.as_os_str().to_owned();
        path.push(".json");
        path.into()
    }

    /// Reads the manifest of a backup; none where there is none.
    ///
    /// # Errors
    /// If it cannot be read or understood.
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

    /// Why a database may not be the one that this was taken from; none where nothing speaks for that.
    ///
    /// A copy of a server's files has its identity. It is told apart by where it is reached, by its
    /// timeline, and by a WAL that is not as far as it was when this was taken.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn doubts(&self, db: &mut Database) -> Result<Option<Failure>> {
        let here = catalog::identity(&mut db.client)?;
        let wal = catalog::wal_position(&mut db.client)?;
        let same = match (&here.system_identifier, &self.system_identifier) {
            (Some(here), Some(there)) => here == there,
            _ => db.server.name == self.database,
        };
        if !same || here.oid != self.database_oid {
            return Ok(Some(
                Failure::failed("the backup is of another database").cause(format!(
                    "it was taken from `{}` on {}:{}, another one than {}",
                    self.database, self.host, self.port, db.server
                )),
            ));
        }
        let elsewhere = place(&db.server.host, db.server.port) != place(&self.host, self.port);
        let cause = if elsewhere {
            format!(
                "it was taken from {}:{}, and this is {}",
                self.host, self.port, db.server
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
                .cause("a copy of a server's files looks the same, and its rows are others"),
        ))
    }

    /// Whether this one, which is newer, has everything that an older one may have: of the same table
    /// of the same server as many rows, and of each column as many values.
    fn covers(&self, older: &Manifest) -> bool {
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

/// Where a server is reached. This machine has several names.
fn place(host: &str, port: u16) -> (&str, u16) {
    let is_loopback = host
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    match host == "localhost" || host.starts_with('/') || is_loopback {
        true => ("localhost", port),
        false => (host, port),
    }
}

/// `16/B374D848` as a number; none where it is not written so.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// A backup that is listed, and whether it looks as its manifest says.
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) state: State,
}

/// A backup against its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Of the right size; with [`Found::check`], of the right checksum.
    Good,
    /// Shorter than it was.
    Cut,
    /// Other bytes than were written.
    Changed,
    /// The manifest is there and the file is not.
    Missing,
    /// Something else has the file's name, or has made another file of it: a link, `FILE.gz`.
    Replaced,
}

impl State {
    /// By the size alone.
    pub(crate) fn by_size(actual: u64, manifest: &Manifest) -> State {
        match actual.cmp(&manifest.bytes) {
            std::cmp::Ordering::Less => State::Cut,
            std::cmp::Ordering::Equal => State::Good,
            std::cmp::Ordering::Greater => State::Changed,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Cut => "cut",
            State::Changed => "changed",
            State::Missing => "missing",
            State::Replaced => "replaced",
        }
    }
}

impl Found {
    /// A backup as it lies in its folder, by its size; none where there is no manifest, or where
    /// somebody is about to give the file its name, or to delete it.
    fn at(file: PathBuf) -> Result<Option<Found>> {
        let Some(manifest) = Manifest::of(&file)? else {
            return Ok(None);
        };
        let mut state = state_of(&file, &manifest)?;
        if state == State::Missing {
            if lock_manifest(&file)?.is_none() {
                return Ok(None);
            }
            // It may have got its name since.
            state = state_of(&file, &manifest)?;
        }
        Ok(Some(Found {
            file,
            manifest,
            state,
        }))
    }

    /// Reads the whole file and compares its checksum.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn check(&mut self) -> Result<State> {
        if self.state == State::Good {
            self.state = match sha256(&self.file) {
                Ok(sha256) if sha256 == self.manifest.sha256 => State::Good,
                Ok(_) => State::Changed,
                // Gone, or made a link, since it was listed.
                Err(error) => match state_of(&self.file, &self.manifest)? {
                    State::Good => return Err(error),
                    state => state,
                },
            };
        }
        Ok(self.state)
    }

    /// Whether somebody has given it another name.
    pub(crate) fn was_renamed(&self) -> bool {
        self.file.file_name() != Some(OsStr::new(&self.manifest.file))
    }

    /// Whether it was pruned since it was listed.
    ///
    /// # Errors
    /// If its manifest cannot be read.
    pub(crate) fn was_deleted(&self) -> Result<bool> {
        Ok(self.state == State::Missing && lock_manifest(&self.file)?.is_none())
    }
}

fn state_of(file: &Path, manifest: &Manifest) -> Result<State> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if found.is_file() => Ok(State::by_size(found.len(), manifest)),
        Ok(_) => Ok(State::Replaced),
        Err(_) => {
            let folder = file.parent().unwrap_or(Path::new("."));
            let (name, json) = (file.as_os_str(), Manifest::path(file));
            let made_of_it = files(folder)?.into_iter().any(|path| {
                path != json
                    && path
                        .as_os_str()
                        .as_encoded_bytes()
                        .strip_prefix(name.as_encoded_bytes())
                        .is_some_and(|rest| rest.starts_with(b"."))
            });
            Ok(match made_of_it {
                true => State::Replaced,
                false => State::Missing,
            })
        }
    }
}

/// Locks a manifest that nobody else has locked; none where somebody has, or it is gone.
fn lock_manifest(file: &Path) -> Result<Option<File>> {
    let path = Manifest::path(file);
    let locking = || format!("cannot lock `{}`", path.display());
    let manifest = match open(&path) {
        Ok(manifest) => manifest,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(locking),
    };
    match manifest.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error).with_context(locking),
    }
    let is_there = manifest.metadata().with_context(locking)?.nlink() > 0;
    Ok(is_there.then_some(manifest))
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut opened =
        open(file).with_context(|| format!("cannot read the backup `{}`", file.display()))?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = opened
            .read(&mut buffer)
            .with_context(|| format!("cannot read the backup `{}`", file.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(crate::hex::encode(&hash.finalize()))
}

/// The backups in a folder, newest first. A manifest that cannot be understood is warned of.
///
/// # Errors
/// If the folder is there and cannot be read.
pub(crate) fn list(folder: &Path, ui: &Ui) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in files(folder)? {
        if !path.to_string_lossy().ends_with(".sql.json") {
            continue;
        }
        match Found::at(path.with_extension("")) {
            Ok(backup) => found.extend(backup),
            Err(error) => ui.warn(failures::from_error(&error).one_line()),
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.manifest.created_at));
    Ok(found)
}

/// Files that are named as backups and have no manifest that can be read: nothing tells what they
/// should hold.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn strays(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut strays = files(folder)?;
    strays.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("_backup_")
            && !name.starts_with('.')
            && name.ends_with(".sql")
            && !matches!(Manifest::of(path), Ok(Some(_)))
            // Of one that is pruned meanwhile the file goes first.
            && std::fs::symlink_metadata(path).is_ok()
    });
    strays.sort();
    Ok(strays)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let reading = || format!("cannot read the backup folder `{}`", folder.display());
            return Err(error).with_context(reading).map_err(in_the_folder);
        }
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Old backups, sorted by whether they may go.
pub(crate) struct Prunable {
    pub(crate) delete: Vec<Found>,
    /// Old ones that stay.
    pub(crate) keep: Vec<Found>,
}

/// Sorts the old backups into those that may go and those that stay. One may go if a newer one, which
/// stays, is proven and unharmed and has everything that it may have ([`Manifest::covers`]); and if it
/// lies there as it was written. `check` says whether one is unharmed: [`Found::check`], or what is
/// known of it already.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn prunable(
    found: Vec<Found>,
    older_than: Duration,
    now: Timestamp,
    check: impl Fn(&mut Found) -> Result<State>,
) -> Result<Prunable> {
    let mut prunable = Prunable {
        delete: Vec::new(),
        keep: Vec::new(),
    };
    // Newest first.
    let mut safe: Vec<Manifest> = Vec::new();
    for mut backup in found {
        let manifest = &backup.manifest;
        let age = now.duration_since(manifest.created_at);
        let is_old = age.is_positive() && age.unsigned_abs() >= older_than;
        let is_covered = safe.iter().any(|newer| newer.covers(manifest));
        let is_ours = matches!(backup.state, State::Good | State::Missing) && !backup.was_renamed();
        if is_old && is_covered && is_ours {
            prunable.delete.push(backup);
            continue;
        }
        if !is_covered && manifest.proof != Proof::None && check(&mut backup)? == State::Good {
            safe.push(backup.manifest.clone());
        }
        if is_old {
            prunable.keep.push(backup);
        }
    }
    Ok(prunable)
}

/// Deletes a backup if it still lies there as it was found: the file first, so that no file without a
/// manifest is left, and under a lock on the manifest, so that nobody takes it for missing.
///
/// # Errors
/// If it cannot be deleted.
pub(crate) fn delete(backup: &Found) -> Result<bool> {
    let Some(_locked) = lock_manifest(&backup.file)? else {
        return Ok(false);
    };
    if state_of(&backup.file, &backup.manifest)? != backup.state {
        return Ok(false);
    }
    for path in [&backup.file, &Manifest::path(&backup.file)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete `{}`", path.display()));
            }
            _ => {}
        }
    }
    Ok(true)
}

/// The tables of these names, each once: `users` and `public.users` are one.
///
/// # Errors
/// As [`table`], for the first that is none.
pub(crate) fn tables(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut tables: Vec<Relation> = Vec::new();
    for name in names {
        let table = table(db, name)?;
        if tables.iter().all(|other| other.oid != table.oid) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Finds a table that can be backed up.
///
/// # Errors
/// If it does not exist, is no table, or may not be read.
pub(crate) fn table(db: &mut Database, name: &str) -> Result<Relation> {
    let parsed = ObjectName::parse(name).ok_or_else(|| {
        Failure::usage(format!("not a table's name: `{name}`")).hint("cargo xtask db-backup users")
    })?;
    let Some(relation) = catalog::find(db, &parsed)? else {
        let elsewhere = catalog::schemas_with(db, &parsed.name)?;
        return Err(preflight::missing_table(db, &parsed, &elsewhere).into());
    };
    preflight::can_be_backed_up(db, &relation)?;
    Ok(relation)
}
