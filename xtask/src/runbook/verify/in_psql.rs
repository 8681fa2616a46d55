//! The checks of a migration as psql runs them: in the migration's own transaction, before it is
//! recorded.

use super::{Checked, SHAPE, no_row};
use crate::error::{Failure, Kind};
use crate::hint::Hint;
use crate::migration::script::Script;
use crate::migration::sql;
use crate::runbook::excerpt;
use crate::tools::psql::SessionError;

/// The rows of one query of a verify file: what is checked, and whether it holds.
pub(crate) type Rows = Vec<(Option<String>, Option<bool>)>;

/// The checks of a verify file for psql: one query each, whose rows, as JSON, end up together in the
/// variable `checks`.
pub(crate) struct Checks<'a> {
    verify: &'a Script,
    pub(crate) sql: String,
    /// The line of `sql` on which each query ends.
    ends: Vec<usize>,
}

impl<'a> Checks<'a> {
    pub(crate) fn of(verify: &'a Script) -> Checks<'a> {
        let (mut sql, mut all, mut ends) = (String::new(), String::new(), Vec::new());
        for (index, statement) in verify.statements.iter().enumerate() {
            let text = statement.text(&verify.text);
            let text = sql::for_psql(text, &[]);
            // The empty half of the union says which columns a check has.
            sql.push_str(&format!(
                "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(\"check\", ok)), '[]') AS check_{index} FROM (SELECT '' AS \"check\", true AS ok WHERE false UNION ALL (\n\
                 {text}\n\
                 )) AS checks \\gset\n"
            ));
            ends.push(sql.matches('\n').count());
            let comma = if index > 0 { "','" } else { "" };
            all.push_str(&format!(" {comma} :check_{index}"));
        }
        sql.push_str(&format!("\\set checks '['{all} ']'\n"));
        Checks { verify, sql, ends }
    }

    /// What the variable `checks` held, judged.
    pub(crate) fn outcome(&self, version: i64, queries: Vec<Rows>) -> Vec<Checked> {
        let mut checked = Vec::new();
        for (statement, rows) in self.verify.statements.iter().zip(queries) {
            if rows.is_empty() {
                checked.push(no_row(version, self.verify, statement));
            }
            checked.extend(rows.into_iter().map(|(check, ok)| Checked {
                version,
                check: check.unwrap_or_default(),
                ok: ok.unwrap_or(false),
            }));
        }
        checked
    }

    /// The failure of a check that cannot be run, if it is one.
    pub(crate) fn failure(&self, error: &SessionError) -> Option<Failure> {
        // The first line of `after` is ours.
        let line = error.after_line?.checked_sub(1)?;
        let index = self.ends.iter().position(|&end| line <= end)?;
        let statement = &self.verify.statements[index];
        let mut message = error.message.clone();
        message.position = message.position.and_then(|mut position| {
            position.line = position.line.checked_sub(1).filter(|&line| line > 0)?;
            Some(position)
        });
        let attempted = format!("cannot run a check of `{}`", self.verify.path.display());
        let mut failure = message.failure().attempted(attempted);
        failure.excerpt = excerpt::of(
            self.verify,
            &SessionError {
                message,
                body_line: None,
                after_line: None,
                has_lead: false,
                statement: Some(statement.range.start),
            },
        );
        // syntax_error, datatype_mismatch and invalid_column_reference come of other columns.
        let misshapen = ["42601", "42804", "42P10"];
        let is_misshapen = failure
            .sqlstate
            .as_deref()
            .is_some_and(|code| misshapen.contains(&code));
        if is_misshapen {
            failure.kind = Kind::Usage;
            return Some(failure.hint(SHAPE).hint(Hint::again("then")));
        }
        Some(failure.hint(Hint::again("fix the check, then")))
    }
}
