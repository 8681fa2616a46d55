//! pg_dump of one table's rows, streamed: hashed and counted on the way to whoever wants them. Also
//! reads such a dump back: its rows only, never its SQL.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::database::SESSION_OPTIONS;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use pg_connect::ConnInfo;

/// The last line of a whole plain-text dump, apart from blank lines and `\unrestrict`.
const TRAILER: &str = "-- PostgreSQL database dump complete";
/// Large enough that a row seldom spans two reads, small enough to stay in cache.
const BUFFER: usize = 256 * 1024;

/// What to dump, from which moment.
pub(crate) struct Request<'a> {
    pub(crate) pg_dump: &'a Path,
    pub(crate) target: &'a ConnInfo,
    pub(crate) application_name: &'a str,
    /// Schema-qualified, quoted where it must be.
    pub(crate) table: &'a str,
    /// An exported snapshot (`pg_export_snapshot`), still held by its owner.
    pub(crate) snapshot: &'a str,
    /// How long to stand behind somebody who has locked the table.
    pub(crate) lock_wait: Duration,
    /// More settings of its session, as `-c name=value`: they decide how values are written.
    pub(crate) options: &'a str,
    /// What the dump is written in.
    pub(crate) encoding: &'a str,
    /// Set by whoever wants it to stop.
    pub(crate) give_up: &'a AtomicBool,
}

/// More than the names of 1,600 columns take.
const LONGEST_COPY: usize = 1 << 20;

/// How often it is looked whether somebody wants this to stop. The end of a dump waits for that look,
/// so it is short.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    /// Rows in COPY's data.
    pub(crate) rows: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of the file, in hex.
    pub(crate) sha256: String,
}

/// Who gets a dump while it is read.
pub(crate) trait Sink {
    /// The next bytes of the dump, all of them in their order.
    fn bytes(&mut self, bytes: &[u8]) -> Result;

    /// Rows begin: `"id, email"` of `COPY public.users (id, email) FROM stdin;`.
    fn columns(&mut self, list: &str) -> Result;

    /// Whole rows in COPY's text format; these bytes were given to [`Sink::bytes`] too.
    fn rows(&mut self, rows: &[u8]) -> Result;
}

/// The arguments as a person would type them.
pub(crate) fn arguments(table: &str) -> [String; 2] {
    [format!("--table={table}"), "--data-only".to_owned()]
}

/// Gives the dump to `sink`, telling `progress` the rows and bytes so far.
///
/// # Errors
/// If pg_dump fails, the dump has no trailer, or `sink` fails (a full disk is `ENOSPC` in the chain).
pub(crate) fn run(
    request: &Request<'_>,
    sink: &mut impl Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Dump> {
    let sh = Shell::new()?;
    let encoding = request.encoding;
    let options = format!("{SESSION_OPTIONS}{}", request.options);
    let conninfo = super::conninfo(request.target, request.application_name, &options, encoding);
    let program = request.pg_dump;
    let snapshot = request.snapshot;
    let lock_wait = request.lock_wait.as_millis().to_string();
    let arguments = arguments(request.table);
    let command: Command = cmd!(
        sh,
        "{program} --no-password --dbname={conninfo} --snapshot={snapshot} --lock-wait-timeout={lock_wait} --encoding={encoding} {arguments...}"
    )
    .into();
    let mut child = super::with_target(command, request.target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            Failure::failed(format!("cannot start `{}`", program.display()))
                .cause(error.to_string())
                .hint("name the folder of one that works: export PG_BIN_DIR=/path/to/bin")
                .hint(Hint::to("then", "db-doctor"))
        })?;

    let stderr = child.stderr.take();
    let stderr = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = stderr {
            let _ = pipe.read_to_string(&mut text);
        }
        text
    });
    let pid = Pid::from_child(&child);
    let stdout = child.stdout.take();
    let ended = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        scope.spawn(|| end_on_request(pid, &ended, request.give_up));
        let written = match stdout {
            Some(stdout) => read(BufReader::with_capacity(BUFFER, stdout), sink, progress),
            None => Err(anyhow::anyhow!("pg_dump has no output")),
        };
        ended.store(true, Ordering::Relaxed);
        written
    });
    if written.is_err() {
        // The reader is gone: pg_dump would only notice at its next write.
        let _ = child.kill();
    }
    let status = child.wait().context("cannot wait for pg_dump")?;
    let stderr = stderr.join().unwrap_or_default();
    let (dump, complete) = written?;
    if !status.success() {
        let table = request.table;
        return Err(
            Failure::failed(format!("pg_dump of `{table}` failed ({status})"))
                .cause(stderr.trim().to_owned())
                .hint(Hint::run("db-doctor"))
                .into(),
        );
    }
    if !complete {
        return Err(
            Failure::failed(format!("pg_dump of `{}` ended early", request.table))
                .cause(format!("its last line is not `{TRAILER}`"))
                .hint(Hint::run("db-backup"))
                .into(),
        );
    }
    Ok(dump)
}

/// pg_dump may wait for a lock and write nothing for long. On SIGTERM it cancels what it has asked the
/// server for, and ends.
fn end_on_request(pid: Pid, ended: &AtomicBool, give_up: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        if interrupt::requested() || give_up.load(Ordering::Relaxed) {
            let _ = kill_process(pid, Signal::TERM);
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Reads a dump to its end, counting the rows of COPY data; also says whether the trailer was there.
///
/// COPY's text format escapes newlines, so each line of its data is one row, and `\.` alone on a
/// line ends it (PostgreSQL manual, COPY, "Text Format").
///
/// # Errors
/// If `from` cannot be read, or `sink` fails.
pub(crate) fn read(
    mut from: impl BufRead,
    sink: &mut impl Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Dump, bool)> {
    let mut hash = Sha256::new();
    let (mut rows, mut bytes) = (0, 0);
    let mut in_copy = false;
    let mut complete = false;
    let mut line = Vec::new();
    loop {
        interrupt::check()?;
        if in_copy {
            let buffer = from.fill_buf().context("cannot read the dump")?;
            let data = whole_rows(buffer);
            if !data.is_empty() {
                rows += memchr::memchr_iter(b'\n', data).count() as u64;
                hash.update(data);
                sink.bytes(data)?;
                sink.rows(data)?;
                bytes += data.len() as u64;
                progress(rows, bytes);
                let len = data.len();
                from.consume(len);
                continue;
            }
        }
        // A line that begins or ends the data, is outside of it, or does not fit the buffer.
        line.clear();
        from.read_until(b'\n', &mut line)
            .context("cannot read the dump")?;
        if line.is_empty() {
            break;
        }
        // A name may hold newlines, inside of quotes.
        while !in_copy && ends_in_quotes(&line) && line.len() < LONGEST_COPY {
            if from
                .read_until(b'\n', &mut line)
                .context("cannot read the dump")?
                == 0
            {
                break;
            }
        }
        hash.update(&line);
        sink.bytes(&line)?;
        bytes += line.len() as u64;
        if in_copy {
            in_copy = line != END_OF_DATA;
            if in_copy {
                rows += 1;
                sink.rows(&line)?;
            }
        } else if let Some(list) = columns(&line) {
            in_copy = true;
            sink.columns(list)?;
        } else {
            complete |= line.starts_with(TRAILER.as_bytes());
        }
    }
    Ok((
        Dump {
            rows,
            bytes,
            sha256: crate::hex::encode(&hash.finalize()),
        },
        complete,
    ))
}

/// Whether a line begins a COPY whose names go on in the next line.
fn ends_in_quotes(line: &[u8]) -> bool {
    line.starts_with(b"COPY ") && memchr::memchr_iter(b'"', line).count() % 2 == 1
}

/// The column list of a line that begins COPY data, as pg_dump's `dumpTableData` writes it; that of a
/// table without columns is empty.
fn columns(line: &[u8]) -> Option<&str> {
    let line = line
        .strip_prefix(b"COPY ")?
        .strip_suffix(b" FROM stdin;\n")?;
    let line = std::str::from_utf8(line).ok()?;
    // The table's name may hold a parenthesis only inside of quotes.
    let mut quoted = false;
    let start = line.find(|c| {
        quoted ^= c == '"';
        c == '(' && !quoted
    });
    match start {
        Some(start) => line[start + 1..].strip_suffix(')'),
        None => Some(""),
    }
}

const END_OF_DATA: &[u8] = b"\\.\n";

/// The whole rows at the start of a buffer that begins a line of COPY data.
fn whole_rows(buffer: &[u8]) -> &[u8] {
    if buffer.starts_with(END_OF_DATA) {
        return &[];
    }
    let end = match memchr::memmem::find(buffer, b"\n\\.\n") {
        Some(at) => at + 1,
        None => memchr::memrchr(b'\n', buffer).map_or(0, |at| at + 1),
    };
    &buffer[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Got {
        bytes: Vec<u8>,
        columns: Vec<String>,
        rows: Vec<u8>,
    }

    impl Sink for Got {
        fn bytes(&mut self, bytes: &[u8]) -> Result {
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn columns(&mut self, list: &str) -> Result {
            self.columns.push(list.to_owned());
            Ok(())
        }

        fn rows(&mut self, rows: &[u8]) -> Result {
            self.rows.extend_from_slice(rows);
            Ok(())
        }
    }

    fn got(text: &str, capacity: usize) -> (Dump, bool, Got) {
        let mut got = Got::default();
        let from = BufReader::with_capacity(capacity, text.as_bytes());
        let (dump, complete) = read(from, &mut got, &mut |_, _| {}).expect("reads");
        (dump, complete, got)
    }

    #[test]
    fn rows_are_counted_whatever_the_buffer() {
        let table = [
            ("", 0),
            ("1\tone\n", 1),
            ("1\t\\\\.\n2\ttwo\n3\t\n", 3),
            ("\n\n", 2),
        ];
        for (data, rows) in table {
            let text = format!(
                "--\n\nCOPY public.users (id, email) FROM stdin;\n{data}\\.\n\nSELECT 1;\n{TRAILER}\n"
            );
            for capacity in [4, 5, 7, 16, 64, 4096] {
                let (dump, complete, got) = got(&text, capacity);
                assert_eq!(dump.rows, rows, "{data:?} with {capacity}");
                assert!(complete);
                assert_eq!(got.bytes, text.as_bytes());
                assert_eq!(got.rows, data.as_bytes());
                assert_eq!(got.columns, ["id, email"]);
                assert_eq!(dump.bytes, text.len() as u64);
            }
        }
    }

    #[test]
    fn the_column_list_is_found_behind_any_name() {
        for (line, expected) in [
            (
                "COPY public.users (id, email) FROM stdin;\n",
                Some("id, email"),
            ),
            (
                "COPY public.\"a (b)\" (\"c)\", d) FROM stdin;\n",
                Some("\"c)\", d"),
            ),
            ("COPY public.users  FROM stdin;\n", Some("")),
            ("COPY public.\"a\nb\" (c) FROM stdin;\n", Some("c")),
            ("COPY public.users (id) FROM stdin;", None),
            ("SELECT 1;\n", None),
        ] {
            assert_eq!(columns(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_dump_without_its_trailer_is_told() {
        let (dump, complete, _) = got("COPY t (a) FROM stdin;\n1\n2\n", 16);
        assert_eq!(dump.rows, 2);
        assert!(!complete);
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let (dump, _, _) = got("abc", 2);
        assert_eq!(
            dump.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
