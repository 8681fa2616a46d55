//! The folder against the history: which state each migration is in, which ones a run applies,
//! which ones a rollback undoes. Pure functions; whoever calls them holds the lock.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::history::Applied;
use super::source::{Folder, Migration};
use crate::error::{Failure, Result};
use crate::hex;

/// What is known of a migration, on disk or in the history or both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) version: i64,
    /// From the file; from the history where the file is gone.
    pub(crate) name: String,
    pub(crate) state: State,
    /// Whether there is a down file.
    pub(crate) reversible: bool,
    /// `None` where the file is gone.
    pub(crate) transactional: Option<bool>,
    /// `None` while it is pending.
    #[serde(serialize_with = "rfc_3339")]
    pub(crate) installed_on: Option<Timestamp>,
    /// `None` while it is pending, and where the history does not say (-1).
    pub(crate) execution_time_ms: Option<f64>,
}

fn rfc_3339<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Applied,
    Pending,
    /// In the history, no file.
    Missing,
    /// The up file has changed since it was applied.
    Divergent,
    /// `success = false`, whatever else is wrong with it.
    Failed,
}

/// What a rollback is asked to undo. What was recorded without being run is undone by `--only` and by
/// nothing else, a baseline that was run also by `--to 0`: the other forms stop above such a migration,
/// and a `--to` that would reach below it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// The migrations of the newest run, which share its `installed_on`. On rows that sqlx wrote,
    /// each with its own, and on rows that were inserted together, that is the last migration.
    LastRun,
    /// This many, from the newest version down; all there are if there are fewer.
    Steps(usize),
    /// Every version above this one, which stays; 0 undoes everything.
    To(i64),
    All,
    /// These versions, whatever they are.
    Only(Vec<i64>),
}

/// Every migration on disk or in the history, by version.
pub(crate) fn states(folder: &Folder, history: &[Applied]) -> Vec<Entry> {
    let rows: BTreeMap<i64, &Applied> = history.iter().map(|row| (row.version, row)).collect();
    let on_disk = folder.migrations.iter().map(|migration| migration.version);
    let versions: BTreeSet<i64> = on_disk.chain(rows.keys().copied()).collect();
    versions
        .into_iter()
        .map(|version| entry(version, folder.get(version), rows.get(&version).copied()))
        .collect()
}

fn entry(version: i64, migration: Option<&Migration>, row: Option<&Applied>) -> Entry {
    let name = migration
        .map(|migration| &migration.name)
        .or(row.map(|row| &row.description));
    Entry {
        version,
        name: name.cloned().unwrap_or_default(),
        state: state(migration, row),
        reversible: migration.is_some_and(Migration::reversible),
        transactional: migration.map(|migration| migration.up.transactional),
        installed_on: row.map(|row| row.installed_on),
        execution_time_ms: row
            .map(|row| row.execution_time_ns)
            .filter(|&nanoseconds| nanoseconds >= 0)
            .map(|nanoseconds| nanoseconds as f64 / 1e6),
    }
}

fn state(migration: Option<&Migration>, row: Option<&Applied>) -> State {
    match (migration, row) {
        (_, None) => State::Pending,
        (_, Some(row)) if !row.success => State::Failed,
        (None, Some(_)) => State::Missing,
        (Some(migration), Some(row)) if row.checksum != migration.checksum => State::Divergent,
        (Some(_), Some(_)) => State::Applied,
    }
}

/// The migrations to apply, in order: all pending ones, or those up to the version `to`.
///
/// # Errors
/// - A usage failure where `to` is no version at all, or one that the database is already past.
/// - A finding that lists every divergent, missing and failed migration, and, unless that is
///   allowed, every pending one that is older than the newest applied.
pub(crate) fn up<'f>(
    folder: &'f Folder,
    history: &[Applied],
    to: Option<i64>,
    allow_out_of_order: bool,
) -> Result<Vec<&'f Migration>> {
    let applied: BTreeSet<i64> = history.iter().map(|row| row.version).collect();
    let newest = applied.last().copied();
    if let Some(to) = to {
        known(to, folder, &applied)?;
        if let Some(newest) = newest.filter(|&newest| to < newest && applied.contains(&to)) {
            return Err(Failure::usage(format!(
                "cannot migrate to `{to}`: the database is already at `{newest}`"
            ))
            .hint(format!("go back with `cargo xtask db-rollback --to {to}`"))
            .into());
        }
    }
    let pending: Vec<&Migration> = folder
        .migrations
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .filter(|migration| to.is_none_or(|to| migration.version <= to))
        .collect();
    let mut obstacles = Obstacles::default();
    for row in history {
        obstacles.in_the_past(folder, row);
    }
    for migration in &pending {
        if let Some(newest) = newest.filter(|&newest| migration.version < newest)
            && !allow_out_of_order
        {
            obstacles.out_of_order(migration, newest);
        }
    }
    obstacles.none_or("cannot migrate: the files and the history disagree")?;
    Ok(pending)
}

/// The migrations to undo, the newest version first; see [`Down`] about what stays.
///
/// # Errors
/// - A usage failure where the version to go back to, or one that is to go, is unknown or not applied, or
///   where something that stays lies above it.
/// - A finding where the last run cannot be told.
/// - A finding that lists, of those to be undone, every one without a down file, and every
///   divergent, missing and failed one.
pub(crate) fn down<'f>(
    folder: &'f Folder,
    history: &[Applied],
    selection: &Down,
) -> Result<Vec<&'f Migration>> {
    let rows = select(folder, history, selection)?;
    let mut obstacles = Obstacles::default();
    let mut migrations = Vec::new();
    for row in rows {
        obstacles.in_the_past(folder, row);
        if let Some(migration) = folder.get(row.version) {
            if !migration.reversible() {
                obstacles.irreversible(migration);
            }
            migrations.push(migration);
        }
    }
    obstacles.none_or("cannot roll back: nothing was undone")?;
    Ok(migrations)
}

/// That what a rollback undoes now is what it was found to be before it waited, or what is left of that.
///
/// # Errors
/// A finding if it is something else: another run has come or gone meanwhile.
pub(crate) fn as_shown(
    selection: &Down,
    shown: &[&Migration],
    before: &[Applied],
    undone: &[&Migration],
    now: &[Applied],
) -> Result {
    fn row(rows: &[Applied], version: i64) -> Option<&Applied> {
        rows.iter().find(|row| row.version == version)
    }
    let unchanged = undone.iter().all(|migration| {
        let version = migration.version;
        shown.iter().any(|shown| shown.version == version)
            && row(before, version) == row(now, version)
    });
    // What else is the last run, or the last migration, when what was meant is gone?
    let is_relative = matches!(selection, Down::LastRun | Down::Steps(_));
    let gone = is_relative && undone.is_empty() && !shown.is_empty();
    if unchanged && !gone {
        return Ok(());
    }
    let names = |migrations: &[&Migration]| match migrations {
        [] => "nothing".to_owned(),
        some => {
            let stems: Vec<String> = some.iter().map(|one| format!("`{}`", one.stem)).collect();
            stems.join(", ")
        }
    };
    Err(
        Failure::finding("the history has changed while this rollback waited")
            .cause(format!("it was to undo: {}", names(shown)))
            .cause(format!("it would undo now: {}", names(undone)))
            .state("nothing was changed by this command")
            .hint("cargo xtask db-status, then, if it is still wanted: cargo xtask db-rollback")
            .into(),
    )
}

/// The newest migration, if it is one that only `--only` undoes.
pub(crate) fn newest_unrun(history: &[Applied]) -> Option<&Applied> {
    let newest = history.iter().max_by_key(|row| row.version);
    newest.filter(|row| row.is_unrun())
}

/// The rows that are to go, the newest version first.
fn select<'h>(
    folder: &Folder,
    history: &'h [Applied],
    selection: &Down,
) -> Result<Vec<&'h Applied>> {
    let mut rows: Vec<&Applied> = history.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.version));
    let is_baseline = |row: &Applied| folder.get(row.version).is_some_and(Migration::is_baseline);
    let stays = |row: &&Applied| row.is_unrun() || (is_baseline(row) && *selection != Down::To(0));
    let above = |rows: Vec<&'h Applied>| rows.into_iter().take_while(|row| !stays(row));
    Ok(match selection {
        Down::LastRun => last_run(above(rows).collect())?,
        Down::Steps(count) => above(rows).take(*count).collect(),
        Down::All => above(rows).collect(),
        Down::To(to) => {
            if *to != 0 {
                applied(*to, folder, history)?;
            }
            rows.retain(|row| row.version > *to);
            if let Some(row) = rows.iter().find(|row| stays(row)) {
                return Err(in_between(*to, row).into());
            }
            rows
        }
        Down::Only(versions) => {
            for version in versions {
                applied(*version, folder, history)?;
            }
            rows.retain(|row| versions.contains(&row.version));
            rows
        }
    })
}

/// Of rows from the newest version down, those of the last run.
fn last_run(mut rows: Vec<&Applied>) -> Result<Vec<&Applied>> {
    let Some(&newest) = rows.first() else {
        return Ok(rows);
    };
    if let Some(later) = rows
        .iter()
        .find(|row| row.installed_on > newest.installed_on)
    {
        let (later, newest) = (later.version, newest.version);
        return Err(Failure::finding("cannot tell which run was the last")
            .cause(format!(
                "`{later}` was applied after the newer `{newest}`, or the server's clock was set back in between"
            ))
            .state("nothing was changed")
            .hint(format!("undo the newest version: cargo xtask db-rollback --only {newest}"))
            .hint(format!("or the latest by the clock: cargo xtask db-rollback --only {later}"))
            .into());
    }
    rows.retain(|row| {
        let together = row.installed_on == newest.installed_on;
        row.version == newest.version || (together && row.own_transaction && newest.own_transaction)
    });
    Ok(rows)
}

/// Why a rollback to `to` is refused: this lies above it, and stays.
fn in_between(to: i64, stays: &Applied) -> Failure {
    let version = stays.version;
    let keep = format!("keep it: cargo xtask db-rollback --to {version}");
    match stays.is_unrun() {
        true => Failure::usage(format!(
            "cannot roll back to `{to}`: `{version}` was recorded without being run"
        ))
        .cause("what was there before its migration is not for a rollback to drop")
        .hint(keep)
        .hint(format!(
            "to undo it all the same, name each: cargo xtask db-rollback --only {version} --only …"
        )),
        false => Failure::usage(format!(
            "cannot roll back to `{to}`: the baseline `{version}` lies above it"
        ))
        .hint(keep)
        .hint("or undo everything, the baseline too: cargo xtask db-rollback --to 0"),
    }
}

/// That this version is in the history, to be gone back to or to be undone.
fn applied(version: i64, folder: &Folder, history: &[Applied]) -> Result {
    let versions = history.iter().map(|row| row.version).collect();
    known(version, folder, &versions)?;
    if !versions.contains(&version) {
        return Err(
            Failure::usage(format!("cannot roll back: `{version}` is not applied"))
                .hint("see what is with `cargo xtask db-status`")
                .into(),
        );
    }
    Ok(())
}

/// That this version is on disk or in the history.
fn known(version: i64, folder: &Folder, applied: &BTreeSet<i64>) -> Result {
    if folder.get(version).is_none() && !applied.contains(&version) {
        return Err(Failure::usage(format!(
            "there is no migration `{version}`, neither in `{}` nor in the history",
            folder.shown_as.display()
        ))
        .hint("see the versions with `cargo xtask db-status`")
        .into());
    }
    Ok(())
}

/// What stands in the way of a run, all of it, with a way on for each kind.
#[derive(Default)]
struct Obstacles {
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Obstacles {
    /// Notes what is wrong with a migration that was applied.
    fn in_the_past(&mut self, folder: &Folder, row: &Applied) {
        let version = row.version;
        let migration = folder.get(version);
        match (state(migration, Some(row)), migration) {
            (State::Failed, _) => self.note(
                format!("`{version}` ({}) is recorded as failed", row.description),
                format!(
                    "see how far `{version}` came, undo that by hand, then remove its row: \
                     `cargo xtask db-psql -- -c 'DELETE FROM _sqlx_migrations WHERE version = \
                     {version} AND NOT success'`"
                ),
            ),
            (State::Missing, _) => self.note(
                format!(
                    "`{version}` ({}) was applied on {} and its file is gone",
                    row.description, row.installed_on
                ),
                format!(
                    "merge the branch that applied `{version}`, or find its file with `git log \
                     --all --stat -- '{}'`",
                    folder.shown_as.join(format!("{version}_*")).display()
                ),
            ),
            (State::Divergent, Some(migration)) => self.note(
                format!(
                    "`{}` was edited after it was applied (SHA-384 {} in the history, {} now)",
                    migration.up.path.display(),
                    abbreviated(&row.checksum),
                    abbreviated(&migration.checksum)
                ),
                format!(
                    "put `{0}` back as it was applied (`git log -p -- '{0}'`), and make the change \
                     a migration of its own",
                    migration.up.path.display()
                ),
            ),
            _ => {}
        }
    }

    fn out_of_order(&mut self, migration: &Migration, newest: i64) {
        self.note(
            format!(
                "`{}` is pending, yet older than the newest applied, `{newest}`",
                migration.up.path.display()
            ),
            format!(
                "rename the pending files to versions above `{newest}`, or, if order does not \
                 matter, run `cargo xtask db-migrate --allow-out-of-order`"
            ),
        );
    }

    fn irreversible(&mut self, migration: &Migration) {
        let up = &migration.up.path;
        let named = |ending: &str| up.with_file_name(format!("{}{ending}", migration.stem));
        let (reversible_up, down) = (named(".up.sql"), named(".down.sql"));
        let rename = if *up == reversible_up {
            String::new()
        } else {
            // The name alone makes it irreversible; the checksum does not cover the name.
            format!("rename it to `{}`, ", reversible_up.display())
        };
        self.note(
            format!("`{}` has no down file", up.display()),
            format!(
                "{rename}write `{}`, or stop above it with `cargo xtask db-rollback --to {}`",
                down.display(),
                migration.version
            ),
        );
    }

    fn note(&mut self, cause: String, hint: String) {
        self.causes.push(cause);
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    fn none_or(self, message: &str) -> Result {
        if self.causes.is_empty() {
            return Ok(());
        }
        Err(Failure {
            causes: self.causes,
            hints: self.hints,
            ..Failure::finding(message)
        }
        .into())
    }
}

/// Enough of a checksum to tell two apart.
fn abbreviated(checksum: &[u8]) -> String {
    format!("`{}…`", hex::encode(&checksum[..checksum.len().min(4)]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::script::{Role, Script};
    use super::*;
    use crate::error::Kind;

    /// Migrations from words such as `1`, `2!` (irreversible) or `3^` (baseline).
    fn folder(words: &str) -> Folder {
        Folder {
            shown_as: "m".into(),
            migrations: words.split_whitespace().map(migration).collect(),
        }
    }

    fn migration(word: &str) -> Migration {
        let version: i64 = word.trim_end_matches(['!', '^']).parse().unwrap();
        let script = |ending: &str, role, text: &str| {
            let path = format!("m/{version}_x{ending}");
            Script::parse(Path::new(&path), text.into(), role).unwrap()
        };
        let baseline = if word.ends_with('^') {
            "-- xtask: baseline\n"
        } else {
            ""
        };
        let down = (!word.ends_with('!')).then(|| script(".down.sql", Role::Down, ""));
        Migration {
            version,
            name: "x".to_owned(),
            stem: format!("{version}_x"),
            up: script(".up.sql", Role::Up, baseline),
            down,
            verify: None,
            checksum: [version as u8; 48],
        }
    }

    /// Rows from words such as `1`, `2?` (other checksum), `3-` (failed), `4=` (recorded, not run) or
    /// `5+` (inserted together with others); `|` begins a new run, a second later, `~` one that is a
    /// second earlier.
    fn history(words: &str) -> Vec<Applied> {
        let mut second = 0;
        let mut rows = Vec::new();
        for word in words.split_whitespace() {
            if word == "|" || word == "~" {
                second += if word == "|" { 1 } else { -1 };
                continue;
            }
            let version: i64 = word.trim_end_matches(['?', '-', '=', '+']).parse().unwrap();
            let edited = word.ends_with('?');
            rows.push(Applied {
                version,
                description: "y".to_owned(),
                installed_on: Timestamp::from_second(second).unwrap(),
                success: !word.ends_with('-'),
                checksum: vec![if edited { 0xff } else { version as u8 }; 48],
                execution_time_ns: if word.ends_with('=') { -1 } else { 3_200_000 },
                own_transaction: !word.ends_with('+'),
            });
        }
        rows
    }

    /// The versions, or the kind of the failure and what it names.
    fn outcome(result: Result<Vec<&Migration>>) -> std::result::Result<Vec<i64>, (Kind, String)> {
        match result {
            Ok(migrations) => Ok(migrations.iter().map(|one| one.version).collect()),
            Err(error) => {
                let failure: Failure = error.downcast().unwrap();
                assert!(!failure.hints.is_empty(), "{failure:?}");
                let said = [vec![failure.message], failure.causes].concat().join(" / ");
                Err((failure.kind, said))
            }
        }
    }

    fn check(
        outcome: std::result::Result<Vec<i64>, (Kind, String)>,
        expected: std::result::Result<&[i64], (Kind, &[&str])>,
        case: &str,
    ) {
        match (outcome, expected) {
            (Ok(versions), Ok(expected)) => assert_eq!(versions, expected, "{case}"),
            (Err((kind, said)), Err((expected, parts))) => {
                assert_eq!(kind, expected, "{case}: {said}");
                for part in parts {
                    assert!(said.contains(part), "{case}: {said}");
                }
                if kind == Kind::Finding {
                    assert_eq!(said.split(" / ").count(), parts.len() + 1, "{case}: {said}");
                }
            }
            (outcome, expected) => panic!("{case}: {outcome:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn states_join_folder_and_history() {
        use State::{Applied, Divergent, Failed, Missing, Pending};
        let entries = states(&folder("1 3 4! 5 7"), &history("1= 2 | 3? 5- 6-"));
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.version, entry.state))
            .collect();
        assert_eq!(
            found,
            [
                (1, Applied),
                (2, Missing),
                (3, Divergent),
                (4, Pending),
                (5, Failed),
                (6, Failed),
                (7, Pending),
            ]
        );
        let json = |version: i64| {
            let entry = entries
                .iter()
                .find(|entry| entry.version == version)
                .unwrap();
            serde_json::to_string(entry).unwrap()
        };
        assert_eq!(
            json(3),
            r#"{"version":3,"name":"x","state":"divergent","reversible":true,"transactional":true,"installed_on":"1970-01-01T00:00:01Z","execution_time_ms":3.2}"#
        );
        assert_eq!(
            json(2),
            r#"{"version":2,"name":"y","state":"missing","reversible":false,"transactional":null,"installed_on":"1970-01-01T00:00:00Z","execution_time_ms":3.2}"#
        );
        assert_eq!(
            json(4),
            r#"{"version":4,"name":"x","state":"pending","reversible":false,"transactional":true,"installed_on":null,"execution_time_ms":null}"#
        );
        assert_eq!(entries[0].execution_time_ms, None);
    }

    #[test]
    fn up_selects_what_is_pending() {
        use Kind::{Finding, Usage};
        type Case<'a> = (
            &'a str,
            &'a str,
            Option<i64>,
            bool,
            std::result::Result<&'a [i64], (Kind, &'a [&'a str])>,
        );
        let table: &[Case] = &[
            ("1 2 3", "", None, false, Ok(&[1, 2, 3])),
            ("1 2 3", "1", None, false, Ok(&[2, 3])),
            ("1 2 3", "1 2 3", None, false, Ok(&[])),
            ("1 2 3", "1", Some(2), false, Ok(&[2])),
            ("1 2 3", "1 2", Some(2), false, Ok(&[])),
            (
                "1 2 3",
                "1",
                Some(9),
                false,
                Err((Usage, &["no migration `9`"])),
            ),
            (
                "1 2 3",
                "1 2",
                Some(1),
                false,
                Err((Usage, &["already at `2`"])),
            ),
            (
                "1 2 3",
                "1 2",
                Some(1),
                true,
                Err((Usage, &["already at `2`"])),
            ),
            (
                "1 2 3",
                "1 3",
                None,
                false,
                Err((Finding, &["`m/2_x.up.sql` is pending, yet older"])),
            ),
            ("1 2 3 4", "1 3", None, true, Ok(&[2, 4])),
            ("1 2 3 4", "1 3", Some(2), true, Ok(&[2])),
            (
                "1 2 3 4",
                "1 3",
                Some(2),
                false,
                Err((Finding, &["`m/2_x.up.sql` is pending"])),
            ),
            (
                "2 3",
                "1 2? 3-",
                None,
                true,
                Err((
                    Finding,
                    &[
                        "`1` (y) was applied",
                        "`m/2_x.up.sql` was edited",
                        "`3` (y) is recorded as failed",
                    ],
                )),
            ),
            (
                "1 3 4",
                "2? 5 3?",
                Some(4),
                false,
                Err((
                    Finding,
                    &["`m/1_x", "`2` (y)", "`m/3_x", "`m/4_x", "`5` (y)"],
                )),
            ),
        ];
        for (files, rows, to, allow, expected) in table {
            let (folder, rows) = (folder(files), history(rows));
            let found = outcome(up(&folder, &rows, *to, *allow));
            let case = format!("{files}; {rows:?}; {to:?}");
            check(found, *expected, &case);
        }
    }

    #[test]
    fn down_selects_what_to_undo() {
        use Down::{All, LastRun, Only, Steps, To};
        use Kind::{Finding, Usage};
        type Case<'a> = (
            &'a str,
            &'a str,
            Down,
            std::result::Result<&'a [i64], (Kind, &'a [&'a str])>,
        );
        let table: &[Case] = &[
            ("1 2 3", "", LastRun, Ok(&[])),
            ("1 2 3 4", "1 | 2 3", LastRun, Ok(&[3, 2])),
            ("1 2 3", "1 | 2 | 3", LastRun, Ok(&[3])),
            (
                "1 2 3",
                "1 3 | 2",
                LastRun,
                Err((Finding, &["`2` was applied after the newer `3`"])),
            ),
            ("1 2 3", "1 3 | 2", Only(vec![2]), Ok(&[2])),
            ("1 2 3", "1 2 ~ 3", Steps(1), Ok(&[3])),
            (
                "1 2 3",
                "1 2 ~ 3",
                LastRun,
                Err((Finding, &["`2` was applied after the newer `3`"])),
            ),
            // What was recorded without being run is undone only by name, whatever the files say.
            ("1 2 3", "1= 2= 3=", LastRun, Ok(&[])),
            ("1 2 3", "1= 2= 3=", All, Ok(&[])),
            ("1 2 3", "1= 2= 3=", Steps(2), Ok(&[])),
            ("1^ 2 3", "1= | 2 3", LastRun, Ok(&[3, 2])),
            ("1 2 3", "1= 2= 3", LastRun, Ok(&[3])),
            ("1 2 3", "1 2= 3", All, Ok(&[3])),
            ("1 2 3", "1 2 | 3=", LastRun, Ok(&[])),
            ("1 2 3", "1= 2= | 3", To(2), Ok(&[3])),
            (
                "1^ 2 3",
                "1= 2 3",
                To(0),
                Err((Usage, &["`1` was recorded without being run"])),
            ),
            (
                "1 2 3",
                "1 2= 3",
                To(1),
                Err((Usage, &["`2` was recorded without being run"])),
            ),
            ("1^ 2 3", "1= 2= 3=", Only(vec![1, 3]), Ok(&[3, 1])),
            ("1^ 2", "1 2", Only(vec![1]), Ok(&[1])),
            (
                "1 2 3",
                "1 2",
                Only(vec![2, 3]),
                Err((Usage, &["`3` is not applied"])),
            ),
            // Rows that were inserted together are no run.
            ("1 2 3", "1+ 2+ 3+", LastRun, Ok(&[3])),
            ("1 2 3", "1+ 2+ 3", LastRun, Ok(&[3])),
            ("1^ 2 3", "1 2 3", LastRun, Ok(&[3, 2])),
            ("1^ 2", "1", LastRun, Ok(&[])),
            ("1 2 3", "1 | 2 | 3", Steps(2), Ok(&[3, 2])),
            ("1^ 2 3", "1 | 2 | 3", Steps(9), Ok(&[3, 2])),
            ("1 2 3", "1 2 3", Steps(0), Ok(&[])),
            ("1 2 3", "1 2 3", All, Ok(&[3, 2, 1])),
            ("1^ 2 3", "1 2 3", All, Ok(&[3, 2])),
            ("1 2^ 3", "1 2 3", All, Ok(&[3])),
            ("1^ 2 3", "1 2 3", To(1), Ok(&[3, 2])),
            ("1^ 2 3", "1 2 3", To(3), Ok(&[])),
            ("1^ 2 3", "1 2 3", To(0), Ok(&[3, 2, 1])),
            ("1^ 2 3", "", To(0), Ok(&[])),
            (
                "1 2^ 3",
                "1 2 3",
                To(1),
                Err((Usage, &["the baseline `2` lies above"])),
            ),
            ("1 2 3", "1 2", To(3), Err((Usage, &["`3` is not applied"]))),
            ("1 2 3", "1 2", To(7), Err((Usage, &["no migration `7`"]))),
            (
                "1 2! 3",
                "1 2 3",
                All,
                Err((Finding, &["`m/2_x.up.sql` has no down file"])),
            ),
            ("1 2! 3", "1 2 3", To(2), Ok(&[3])),
            (
                "1 2!",
                "1 2? 3",
                Steps(3),
                Err((
                    Finding,
                    &[
                        "`3` (y) was applied",
                        "`m/2_x.up.sql` was edited",
                        "`m/2_x.up.sql` has no down file",
                    ],
                )),
            ),
            ("1 2 3", "1 2? 3", Steps(1), Ok(&[3])),
            (
                "1 2",
                "1 2-",
                LastRun,
                Err((Finding, &["`2` (y) is recorded as failed"])),
            ),
        ];
        for (files, rows, selection, expected) in table {
            let (folder, rows) = (folder(files), history(rows));
            let found = outcome(down(&folder, &rows, selection));
            check(
                found,
                *expected,
                &format!("{files}; {rows:?}; {selection:?}"),
            );
        }
    }
}
