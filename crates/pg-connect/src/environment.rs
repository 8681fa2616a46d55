//! What libpq asks the process and the system for; the only place here that looks at either.

use std::collections::BTreeMap;

/// The environment's variables, or a test's.
pub type Env = BTreeMap<String, String>;

/// The process's variables that are UTF-8. Where `HOME` is missing or empty it is that of the account,
/// as in libpq (`pqGetHomeDirectory`).
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

/// The name of the account that we run under, libpq's default user. Not `USER`, which may be missing,
/// or somebody else's after `su`.
pub fn os_user() -> Option<String> {
    whoami::username().ok()
}
