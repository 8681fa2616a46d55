//! The file names of migrations, parsed as sqlx does.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) full: String,
    pub(super) version: i64,
    pub(super) kind: FileKind,
    /// Where the version ends, and the name.
    ends: [usize; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Up,
    Down,
    Simple,
}

impl FileKind {
    fn suffix(self) -> &'static str {
        match self {
            FileKind::Up => ".up.sql",
            FileKind::Down => ".down.sql",
            FileKind::Simple => ".sql",
        }
    }
}

/// Why a `.sql` file is no migration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// sqlx passes it over, and so do we.
    Ignored(&'static str),
    /// sqlx stops at it.
    Refused(String),
}

impl FileName {
    pub(super) fn parse(full: &str) -> std::result::Result<FileName, Unusable> {
        if !full.ends_with(".sql") {
            let what = "sqlx knows only the lowercase ending `.sql`";
            return Err(Unusable::Ignored(what));
        }
        let Some((number, rest)) = full.split_once('_') else {
            let what = "no `_` separates a version from a name";
            return Err(Unusable::Ignored(what));
        };
        let Ok(version) = number.parse::<i64>() else {
            let what = format!("the version `{number}` is not a 64-bit number");
            return Err(Unusable::Refused(what));
        };
        let kind = [FileKind::Up, FileKind::Down]
            .into_iter()
            .find(|kind| rest.ends_with(kind.suffix()))
            .unwrap_or(FileKind::Simple);
        // sqlx removes the ending as often as it occurs.
        let name = rest.trim_end_matches(kind.suffix());
        let number = number.len();
        Ok(FileName {
            version,
            kind,
            ends: [number, number + 1 + name.len()],
            full: full.to_owned(),
        })
    }

    /// `20251231143000_add_users_last_login_at`.
    pub(super) fn stem(&self) -> &str {
        &self.full[..self.ends[1]]
    }

    /// What sqlx stores as its description: `add users last login at`.
    pub(super) fn description(&self) -> String {
        self.full[self.ends[0] + 1..self.ends[1]].replace('_', " ")
    }
}
