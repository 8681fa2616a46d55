//! What libpq reads from the process and the operating system. Nothing else in this crate reads either.

use std::collections::BTreeMap;

/// Environment variables: those of the process, or a test's own.
pub type Env = BTreeMap<String, String>;

/// The process's environment variables, without those that are not UTF-8. If `HOME` is missing or empty,
/// it is the home folder of the operating system user, as in libpq (`pqGetHomeDirectory` in
/// `fe-connect.c`).
#[expect(clippy::disallowed_methods, reason = "for callers that pass it in")]
pub fn process_env() -> Env {
    let mut env: Env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if env.get("HOME").is_none_or(String::is_empty) {
        env.remove("HOME");
        let home = std::env::home_dir().and_then(|home| home.into_os_string().into_string().ok());
        env.extend(
            home.filter(|home| !home.is_empty())
                .map(|home| ("HOME".to_owned(), home)),
        );
    }
    env
}

/// The name of the operating system user that runs this process: libpq's default for `user` (manual,
/// *Parameter Key Words*). It is not taken from `USER`, which can be missing, or be another user's name
/// after `su`.
pub fn os_user() -> Option<String> {
    whoami::username().ok()
}
