//! A failure as people read it, and as scripts do.

use serde_json::json;

use super::{BAD, INFO};
use crate::error::{Failure, Kind};
use crate::hint::Invocation;
use crate::redact::visible;

/// `error:` with its causes, the excerpt, PostgreSQL's hint, the state, and after a blank line the hints.
pub(super) fn as_text(failure: &Failure, invocation: &Invocation) -> String {
    let label = if failure.kind == Kind::Interrupted {
        "interrupted"
    } else {
        "error"
    };
    let mut text = format!("{BAD}{label}{BAD:#}: {}", visible(&failure.message));
    if let Some(code) = &failure.sqlstate {
        text.push_str(&format!(" (SQLSTATE {code})"));
    }
    for cause in &failure.causes {
        text.push_str(&format!("\n{BAD}caused by{BAD:#}: {}", indent(cause)));
    }
    if let Some(excerpt) = &failure.excerpt {
        text.push_str(&format!("\n{}", visible(excerpt)));
    }
    if let Some(hint) = &failure.server_hint {
        text.push_str(&format!("\n{INFO}server hint{INFO:#}: {}", indent(hint)));
    }
    for state in &failure.state {
        text.push_str(&format!("\n{INFO}state{INFO:#}: {}", indent(state)));
    }
    if !failure.hints.is_empty() {
        text.push('\n');
    }
    for hint in &failure.hints {
        text.push_str(&format!(
            "\n{INFO}hint{INFO:#}: {}",
            indent(&hint.shown(invocation))
        ));
    }
    text
}

fn indent(text: &str) -> String {
    visible(text).replace('\n', "\n  ")
}

/// A failure as scripts read it.
pub(super) fn as_json(failure: &Failure, invocation: &Invocation) -> serde_json::Value {
    let mut causes = failure.causes.clone();
    causes.extend(
        failure
            .server_hint
            .iter()
            .map(|hint| format!("HINT: {hint}")),
    );
    causes.extend(failure.state.iter().cloned());
    let hints = failure.hints.iter().map(|hint| hint.shown(invocation));
    let hints: Vec<String> = hints.collect();
    json!({"error": {
        "message": failure.message,
        "causes": causes,
        "hint": (!hints.is_empty()).then(|| hints.join("\n")),
        "sqlstate": failure.sqlstate,
        "code": failure.kind.exit_code(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Hint;

    #[test]
    fn a_failure_says_attempt_cause_state_and_hint_in_that_order() {
        let failure = Failure::failed("cannot apply `x`")
            .cause("no space")
            .state("nothing changed")
            .hint(Hint::run("db-doctor"));
        let failure = Failure {
            server_hint: Some("free some".to_owned()),
            ..failure
        };
        let here = Invocation::new("cargo xtask", [], []);
        let text = anstream::adapter::strip_str(&as_text(&failure, &here)).to_string();
        assert_eq!(
            text,
            "error: cannot apply `x`\ncaused by: no space\nserver hint: free some\n\
             state: nothing changed\n\nhint: cargo xtask db-doctor"
        );
        // Scripts find PostgreSQL's hint where they always did.
        assert_eq!(
            as_json(&failure, &here)["error"]["causes"],
            json!(["no space", "HINT: free some", "nothing changed"])
        );
    }
}
