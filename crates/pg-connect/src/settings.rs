//! Values by keyword, each with where it was found.

use std::collections::BTreeMap;
use std::fmt;

use crate::environment::Env;
use crate::error::{Error, Result};
use crate::keywords::{KEYWORDS, PGREQUIRESSL, REQUIRESSL, known_keyword};

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The connection string itself.
    Given,
    /// A section of a service file: its name and the file.
    Service(String, String),
    /// An environment variable.
    Variable(&'static str),
    /// A line of a password file.
    PasswordFile(String, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Given => f.write_str("the connection string"),
            Origin::Service(name, file) => write!(f, "service `{name}` of `{file}`"),
            Origin::Variable(name) => write!(f, "`{name}`"),
            Origin::PasswordFile(file, line) => write!(f, "`{file}`, line {line}"),
        }
    }
}

/// Values by libpq's keyword, each with its origin. `Debug` names the keywords only.
#[derive(Clone, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, (String, Origin)>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// The value, even an empty one.
    pub(crate) fn raw(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(|(value, _)| value.as_str())
    }

    /// The value, where one was given and is not empty: of most keywords both mean the default.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.raw(keyword).filter(|value| !value.is_empty())
    }

    /// Takes the value out, so that nothing later can show it or pass it on.
    pub(crate) fn take(&mut self, keyword: &str) -> Option<(String, Origin)> {
        self.0
            .remove(keyword)
            .filter(|(value, _)| !value.is_empty())
    }

    pub(crate) fn origin(&self, keyword: &str) -> Option<&Origin> {
        self.0.get(keyword).map(|(_, origin)| origin)
    }

    /// The keyword of this name in the connection string, or a usage error that suggests one.
    pub(crate) fn keyword(&self, name: &str) -> Result<&'static str> {
        match name {
            REQUIRESSL => Ok(REQUIRESSL),
            name => known_keyword(name, self.0.contains_key("password")),
        }
    }

    /// Sets what the connection string says; of a keyword that is there twice the last counts.
    pub(crate) fn set_given(&mut self, keyword: &'static str, value: String) {
        match keyword {
            REQUIRESSL if value.starts_with('1') => self.set("sslmode", "require", Origin::Given),
            REQUIRESSL => self.set("sslmode", "prefer", Origin::Given),
            keyword => self.set(keyword, value, Origin::Given),
        }
    }

    /// Sets a value, over an older one.
    pub(crate) fn set(&mut self, keyword: &'static str, value: impl Into<String>, origin: Origin) {
        self.0.insert(keyword, (value.into(), origin));
    }

    /// Sets a value unless a source that goes first has set one, even an empty one.
    pub(crate) fn set_default(&mut self, keyword: &'static str, value: &str, origin: Origin) {
        self.0
            .entry(keyword)
            .or_insert_with(|| (value.to_owned(), origin));
    }

    /// Fills in from the `PG…` variables what no earlier source has set. As in libpq
    /// (`conninfo_add_defaults`) an empty one counts as set.
    pub(crate) fn fill_from(&mut self, env: &Env) {
        for (keyword, variable) in KEYWORDS {
            let Some(variable) = variable else { continue };
            if let Some(value) = env.get(*variable) {
                self.set_default(keyword, value, Origin::Variable(variable));
            }
        }
        if env
            .get(PGREQUIRESSL)
            .is_some_and(|value| value.starts_with('1'))
        {
            self.set_default("sslmode", "require", Origin::Variable(PGREQUIRESSL));
        }
    }

    /// All settings, in the order of their names; also empty ones, since an empty `application_name` is
    /// not a missing one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = self.0.iter();
        all.map(|(keyword, (value, _))| (*keyword, value.as_str()))
    }

    /// The one of a keyword's possible values that was chosen, or the default. An empty one is not the
    /// default, to libpq neither: who sets `sslmode=$MODE` has meant something.
    ///
    /// Fails with a usage error that lists the possible values.
    pub(crate) fn choice<T: Copy>(
        &self,
        keyword: &str,
        values: &[(&str, T)],
        default: T,
    ) -> Result<T> {
        let Some(value) = self.raw(keyword) else {
            return Ok(default);
        };
        match values.iter().find(|(name, _)| *name == value) {
            Some((_, chosen)) => Ok(*chosen),
            None => {
                let names: Vec<_> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
                Err(self
                    .invalid(keyword)
                    .cause(format!("`{value}` is none of {}", names.join(", "))))
            }
        }
    }

    /// A whole number, if one was given. Fails with a usage error on anything else.
    pub(crate) fn number(&self, keyword: &str) -> Result<Option<i32>> {
        let Some(value) = self.raw(keyword) else {
            return Ok(None);
        };
        match value.trim_ascii().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self
                .invalid(keyword)
                .cause(format!("`{value}` is not a whole number"))),
        }
    }

    /// The start of a usage error about one setting's value, which says where it stands.
    pub(crate) fn invalid(&self, keyword: &str) -> Error {
        match self.origin(keyword) {
            Some(origin) => Error::invalid(format!("invalid `{keyword}` in {origin}")),
            None => Error::invalid(format!("invalid `{keyword}`")),
        }
    }
}
