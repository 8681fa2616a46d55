//! The values of the connection keywords, each with the place where it was found.

use std::collections::BTreeMap;
use std::fmt;

use crate::environment::Env;
use crate::error::{Error, Result};
use crate::keywords::{KEYWORDS, PGREQUIRESSL, REQUIRESSL, known_keyword};

/// Where the value of a keyword was found. For messages: `Display` names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The connection string.
    ConnectionString,
    /// A section of a service file: the name of the service, and the file (manual, *The Connection
    /// Service File*).
    Service(String, String),
    /// An environment variable (manual, *Environment Variables*).
    Variable(&'static str),
    /// A line of a password file: the file, and the number of the line (manual, *The Password File*).
    PasswordFile(String, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::ConnectionString => f.write_str("the connection string"),
            Origin::Service(name, file) => write!(f, "service `{name}` of `{file}`"),
            Origin::Variable(name) => write!(f, "`{name}`"),
            Origin::PasswordFile(file, line) => write!(f, "`{file}`, line {line}"),
        }
    }
}

/// Values by libpq's keyword, each with its origin. `Debug` prints the keywords only.
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

    /// The value, or `None` if none was given or it is empty: for most keywords both mean the default.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.raw(keyword).filter(|value| !value.is_empty())
    }

    /// Removes the value, so that it is neither shown nor passed on later.
    pub(crate) fn take(&mut self, keyword: &str) -> Option<(String, Origin)> {
        self.0
            .remove(keyword)
            .filter(|(value, _)| !value.is_empty())
    }

    pub(crate) fn origin(&self, keyword: &str) -> Option<&Origin> {
        self.0.get(keyword).map(|(_, origin)| origin)
    }

    /// The keyword of this name in the connection string, or an error that suggests one.
    pub(crate) fn keyword(&self, name: &str) -> Result<&'static str> {
        match name {
            REQUIRESSL => Ok(REQUIRESSL),
            name => known_keyword(name, self.0.contains_key("password")),
        }
    }

    /// Sets a value of the connection string. If it has a keyword twice, the last value wins.
    pub(crate) fn set_from_string(&mut self, keyword: &'static str, value: String) {
        match keyword {
            REQUIRESSL if value.starts_with('1') => {
                self.set("sslmode", "require", Origin::ConnectionString)
            }
            REQUIRESSL => self.set("sslmode", "prefer", Origin::ConnectionString),
            keyword => self.set(keyword, value, Origin::ConnectionString),
        }
    }

    /// Sets a value, and replaces an older one.
    pub(crate) fn set(&mut self, keyword: &'static str, value: impl Into<String>, origin: Origin) {
        self.0.insert(keyword, (value.into(), origin));
    }

    /// Sets a value unless a source of higher precedence has set one, even an empty one.
    pub(crate) fn set_default(&mut self, keyword: &'static str, value: &str, origin: Origin) {
        self.0
            .entry(keyword)
            .or_insert_with(|| (value.to_owned(), origin));
    }

    /// Adds the values of the `PG…` variables for keywords that are not set yet. As in libpq
    /// (`conninfo_add_defaults` in `fe-connect.c`), an empty variable counts as set.
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

    /// All settings, in the order of their names, including empty ones: an empty `application_name` is
    /// not the same as none.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = self.0.iter();
        all.map(|(keyword, (value, _))| (*keyword, value.as_str()))
    }

    /// The chosen one of a keyword's possible values, or the default if the keyword is not set. As in
    /// libpq, an empty value is an error, not the default: `sslmode=$MODE` with an empty `MODE` must not
    /// weaken the session.
    ///
    /// The error lists the possible values.
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

    /// The value as a whole number, if the keyword is set. Anything else is an error.
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

    /// An error about the value of one keyword, which says where the value was found.
    pub(crate) fn invalid(&self, keyword: &str) -> Error {
        match self.origin(keyword) {
            Some(origin) => Error::invalid(format!("invalid `{keyword}` in {origin}")),
            None => Error::invalid(format!("invalid `{keyword}`")),
        }
    }
}
