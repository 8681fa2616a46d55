//! A backup: pg_dump of one table on an exported snapshot, proven by restoring it, with a manifest
//! beside it. Bringing its rows back for good is in `restore`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::proof::{self, Content, Loader, Scratch};
use super::{failures, preflight};
use crate::Context;
use crate::database::Database;
use crate::database::catalog::{self, Identity, Relation};
use crate::error::{Failure, Result};
use crate::flags::{Proof, ProofFlags};
use crate::interrupt;
use crate::migration::effects::ObjectName;
use crate::tools::pg_dump;
use crate::ui::{self, Ui};

/// What is backed up where neither the command line nor a pending migration names a table.
pub(crate) const DEFAULT_TABLE: &str = "users";

/// How often progress is looked at while pg_dump runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many bytes are written before the disk is asked to take them.
const FLUSH_EVERY: u64 = 16 << 20;
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
}

impl Taken {
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
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    /// The backup's file name, without its folder.
    pub(crate) file: String,
    /// Qualified name.
    pub(crate) table: String,
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
    let arguments = pg_dump::arguments(table).join(" ");
    format!("pg_dump \"$DATABASE_URL\" {arguments} --file={file}")
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
    flags: ProofFlags,
) -> Result<Taken> {
    let qualified = table.qualified();
    let attempted = || format!("cannot back up `{qualified}`");
    let pg_dump = ctx
        .tools()
        .pg_dump(db.server.major())
        .with_context(attempted)?;
    let folder = &ctx.config.backups;
    make_folder(folder, &ctx.ui)?;
    clean(folder, &ctx.ui)?;
    preflight::room(folder, std::slice::from_ref(table))?;
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
    let snapshot = dump(
        ctx,
        db,
        table,
        &pg_dump.program,
        proof,
        partial.as_file_mut(),
    )
    .with_context(attempted)?;
    partial
        .as_file()
        .sync_all()
        .with_context(|| format!("cannot flush the backup in `{}`", folder.display()))?;

    let Snapshot { dump, .. } = &snapshot;
    let mut manifest = Manifest {
        file: String::new(),
        table: qualified.clone(),
        rows: dump.rows,
        bytes: dump.bytes,
        sha256: dump.sha256.clone(),
        proof,
        content_hash: snapshot.content_hash,
        columns: snapshot.columns,
        primary_key: Some(snapshot.primary_key),
        sequences: snapshot.sequences,
        created_at: snapshot.at,
        wal_lsn: snapshot.wal_lsn,
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
    wal_lsn: String,
    identity: Identity,
}

/// pg_dump writes and the scratch loads the same bytes, side by side; then the table, in the dump's own
/// snapshot, and what was loaded are counted and hashed, side by side again, and compared.
fn dump(
    ctx: &Context,
    db: &mut Database,
    table: &Relation,
    program: &Path,
    proof: Proof,
    out: &mut File,
) -> Result<Snapshot> {
    let qualified = table.qualified();
    let (target, lock_wait) = (db.target.clone(), db.lock_wait);
    let mut transaction = db
        .client
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    transaction.batch_execute(&proof::set_text_settings())?;
    let row = transaction.query_typed_one(
        "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(),
                (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                      ELSE pg_catalog.pg_current_wal_lsn() END)::text",
        &[],
    )?;
    let (snapshot, at, wal_lsn): (String, Timestamp, String) = (row.get(0), row.get(1), row.get(2));
    let identity = catalog::identity(&mut transaction)?;
    let sequences = catalog::owned_sequences(&mut transaction, table.oid)?;
    let primary_key = catalog::primary_key(&mut transaction, table.oid)?;
    let mut columns = catalog::columns(&mut transaction, table.oid)?;
    columns.retain(|column| !column.generated);

    let request = pg_dump::Request {
        pg_dump: program,
        target: &target,
        application_name: &ctx.application_name,
        table: &qualified,
        snapshot: &snapshot,
        lock_wait,
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
    let (dump, held) = std::thread::scope(|scope| -> Result<_> {
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
        // pg_dump takes its lock first. If we had ours before, an ALTER of somebody else could queue
        // between the two: it would wait for us, pg_dump for it, and we for pg_dump.
        while !dump.is_finished() && bytes_so_far.load(Ordering::Relaxed) == 0 {
            show();
        }
        let mut hold = || match proof {
            // Locked from now on; read when the cores are free again.
            Proof::Restore => {
                let lock = format!("SELECT FROM ONLY {qualified} LIMIT 0");
                Ok(transaction.batch_execute(&lock).map(|()| None)?)
            }
            Proof::Rows => count(&mut transaction, &qualified).map(Some),
            Proof::None => Ok(None),
        };
        let held = (!dump.is_finished()).then(&mut hold);
        let mut flushed = 0;
        while !dump.is_finished() {
            show();
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
        match (dump, held) {
            (Ok(dump), held) => {
                let held = held.unwrap_or_else(hold).context("cannot read the table")?;
                Ok((dump, held))
            }
            (Err(_), _) if interrupt::requested() => {
                Err(Failure::interrupted("stopped during the backup").into())
            }
            // The server's own word (it has an SQLSTATE) before pg_dump's.
            (Err(_), Some(Err(error))) => Err(error.context("cannot read the table")),
            (Err(error), _) => {
                let lock = format!("LOCK TABLE {qualified} IN ACCESS SHARE MODE NOWAIT");
                match transaction.batch_execute(&lock) {
                    Ok(()) => Err(error),
                    Err(error) => Err(error).context("cannot lock the table for reading"),
                }
            }
        }
    })?;
    let (held, restored) = match &mut scratch {
        Some(scratch) => {
            progress.update("comparing what was restored");
            let (held, restored) = std::thread::scope(|scope| {
                let (place, canceller) = (scratch.place.clone(), scratch.canceller.clone());
                let restored = scope.spawn(|| scratch.content(&columns));
                let held = proof::content(&mut transaction, &qualified, &columns)
                    .context("cannot read the table");
                if interrupt::requested() {
                    let _ = canceller.cancel();
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
    transaction.rollback()?;
    drop(scratch);
    compare(&qualified, &dump, held.as_ref(), restored.as_ref())?;
    Ok(Snapshot {
        dump,
        content_hash: restored.map(|content| content.hash),
        columns: columns
            .into_iter()
            .map(|column| ManifestColumn {
                name: column.name,
                type_name: column.type_name,
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
        wal_lsn,
        identity,
    })
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

fn count(client: &mut impl postgres::GenericClient, table: &str) -> Result<Content> {
    let row = client.query_typed_one(
        &format!("SELECT pg_catalog.count(*) FROM ONLY {table}"),
        &[],
    )?;
    Ok(Content {
        rows: row.get::<_, i64>(0) as u64,
        hash: String::new(),
    })
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
        return Err(Failure::failed(format!(
            "the backup folder `{}` is a symbolic link",
            folder.display()
        ))
        .cause("whoever can change the link decides where password hashes go")
        .hint("name the folder itself: cargo xtask db-migrate --backups DIR")
        .into());
    }
    if found.mode() & 0o022 != 0 {
        return Err(Failure::failed(format!(
            "others may write into the backup folder `{}`",
            folder.display()
        ))
        .hint(format!(
            "chmod 700 '{}', then: cargo xtask db-backup",
            folder.display()
        ))
        .into());
    }
    if found.mode() & 0o077 != 0 {
        ui.warn(format_args!(
            "others may look into the backup folder: chmod 700 '{}'",
            folder.display()
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
        match beside.persist_noclobber(Manifest::path(&file)) {
            Ok(_) => {}
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error.error).with_context(naming),
        }
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

/// A table may be named with a slash; a file may not. Nor may it be hidden.
fn file_safe(table: &str) -> String {
    let name = table.replace(['/', '\0'], "_");
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

    /// The identity of the database that it was taken from.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            system_identifier: self.system_identifier.clone(),
            oid: self.database_oid,
        }
    }
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
        }
    }
}

impl Found {
    /// Reads the whole file and compares its checksum.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn check(&mut self) -> Result<State> {
        if self.state == State::Good && sha256(&self.file)? != self.manifest.sha256 {
            self.state = State::Changed;
        }
        Ok(self.state)
    }
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
    Ok(pg_dump::hex(&hash.finalize()))
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
        let file = path.with_extension("");
        match Manifest::of(&file) {
            Ok(Some(manifest)) => {
                let state = match std::fs::symlink_metadata(&file) {
                    Ok(found) if found.is_file() => State::by_size(found.len(), &manifest),
                    _ => State::Missing,
                };
                found.push(Found {
                    file,
                    manifest,
                    state,
                });
            }
            Ok(None) => {}
            Err(error) => ui.warn(failures::from_error(&error).one_line()),
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.manifest.created_at));
    Ok(found)
}

/// Files that are named as backups and are none of those found: without a manifest that can be read,
/// nothing tells what they should hold.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn strays(folder: &Path, found: &[Found]) -> Result<Vec<PathBuf>> {
    let mut strays = files(folder)?;
    strays.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("_backup_")
            && !name.starts_with('.')
            && name.ends_with(".sql")
            && found.iter().all(|found| found.file != *path)
    });
    strays.sort();
    Ok(strays)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read the backup folder `{}`", folder.display()));
        }
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Old backups: of each table of each database the newest that is proven and unharmed stays, and so
/// do those that are newer than it; what is older than it may go.
pub(crate) struct Prunable {
    pub(crate) delete: Vec<Found>,
    /// Old ones that stay: nothing newer of their table is proven.
    pub(crate) keep: Vec<Found>,
}

/// Sorts the old backups into those that may go and those that stay. `check` says whether one is
/// unharmed: [`Found::check`], or what is known of it already.
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
    // Newest first: the first proven and unharmed one of a table is the one that stays.
    let mut safe: Vec<(Identity, String)> = Vec::new();
    for mut backup in found {
        if backup.state == State::Missing {
            prunable.delete.push(backup);
            continue;
        }
        let of = (backup.manifest.identity(), backup.manifest.table.clone());
        let age = now.duration_since(backup.manifest.created_at);
        let is_old = age.is_positive() && age.unsigned_abs() >= older_than;
        if safe.contains(&of) {
            if is_old {
                prunable.delete.push(backup);
            }
        } else if backup.manifest.proof != Proof::None && check(&mut backup)? == State::Good {
            safe.push(of);
            if is_old {
                prunable.keep.push(backup);
            }
        } else if is_old {
            prunable.keep.push(backup);
        }
    }
    Ok(prunable)
}

/// Deletes a backup: the file first, so that no file without a manifest is left.
///
/// # Errors
/// If it cannot be deleted.
pub(crate) fn delete(backup: &Found) -> Result {
    for path in [&backup.file, &Manifest::path(&backup.file)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete `{}`", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
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
