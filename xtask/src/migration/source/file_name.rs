//! The file names of migrations, parsed as sqlx does.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) full: String,
    pub(super) version: i64,
    pub(super) description: String,
    pub(super) stem: String,
    pub(super) kind: FileKind,
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

impl FileName {
    pub(super) fn parse(full: &str) -> std::result::Result<FileName, String> {
        if !full.ends_with(".sql") {
            return Err("sqlx knows only the lowercase ending `.sql`".to_owned());
        }
        let Some((number, rest)) = full.split_once('_') else {
            return Err("is not a migration: no `_` separates a version from a name".to_owned());
        };
        let version = match number.parse::<i64>() {
            Ok(version) if version > 0 => version,
            Ok(_) => {
                return Err(format!("the version `{number}` is not greater than zero"));
            }
            Err(_) => {
                return Err(format!("the version `{number}` is not a 64-bit number"));
            }
        };
        let kind = [FileKind::Up, FileKind::Down]
            .into_iter()
            .find(|kind| rest.ends_with(kind.suffix()))
            .unwrap_or(FileKind::Simple);
        // sqlx removes the ending as often as it occurs.
        let name = rest.trim_end_matches(kind.suffix());
        Ok(FileName {
            full: full.to_owned(),
            version,
            description: name.replace('_', " "),
            stem: format!("{number}_{name}"),
            kind,
        })
    }
}
