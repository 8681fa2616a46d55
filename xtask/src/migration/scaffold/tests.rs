use super::*;
use std::path::Path;

use crate::migration::effects::Effect;
use crate::migration::script::{Role, Script};
use crate::migration::sql;

/// The SQL of the up files, without comments, on one line each.
fn ups(form: &Form) -> Vec<String> {
    let drafts = drafts("n", form, &[]);
    let statements = drafts.iter().flat_map(|draft| {
        let statements = sql::split(&draft.up).expect("splits");
        statements
            .iter()
            .map(|statement| statement.text(&draft.up).replace("\n    ", " "))
            .collect::<Vec<_>>()
    });
    statements.collect()
}

#[test]
fn a_form_is_read_as_sql_reads_it() {
    let index = |given: &str| Form::index(given, false, None).expect(given);
    let column = |given: &str| Form::columns(&[given.to_owned()], None).expect(given);
    let create = "CREATE INDEX CONCURRENTLY IF NOT EXISTS";
    for (form, up) in [
        (
            index("users(last_login_at DESC NULLS LAST)"),
            format!("{create} idx_users_last_login_at ON users (last_login_at DESC NULLS LAST)"),
        ),
        (
            index("  Public.USERS ( Email,\n\"Email\" collate \"C\" text_pattern_ops asc )"),
            format!(
                "{create} \"idx_users_email_Email\" ON public.users \
                 (email, \"Email\" collate \"C\" text_pattern_ops asc)"
            ),
        ),
        (
            index("t USING gin((a ->> 'b c'), lower(d), s.f(e)) WHERE g > 0"),
            format!(
                "{create} idx_t_a_lower_f ON t USING gin ((a ->> 'b c'), lower(d), s.f(e)) WHERE g > 0"
            ),
        ),
        (
            index("t(('x') desc) include (b) with (fillfactor = 70)"),
            format!("{create} idx_t_expr ON t (('x') desc) include (b) with (fillfactor = 70)"),
        ),
        (
            index("\"select\".\"a\"\"b\"(\"from\" opclass(p = 1))"),
            format!(
                "{create} \"idx_a\"\"b_from\" ON \"select\".\"a\"\"b\" (\"from\" opclass(p = 1))"
            ),
        ),
        (
            column("a.b:interval year to month"),
            "ALTER TABLE a ADD COLUMN IF NOT EXISTS b interval year to month".to_owned(),
        ),
        (
            column("a.b:\"My\".\"Type\"[3]"),
            "ALTER TABLE a ADD COLUMN IF NOT EXISTS b \"My\".\"Type\"[3]".to_owned(),
        ),
        (
            Form::columns(&["a.b:int".to_owned()], Some("-1")).expect("reads"),
            "ALTER TABLE a ADD COLUMN IF NOT EXISTS b int DEFAULT -1".to_owned(),
        ),
    ] {
        assert_eq!(ups(&form), [up]);
    }
    for (form, up) in [
        (
            Form::check(
                "t CHECK (a BETWEEN 1 AND 2 AND lower(b)::text <> c.d)",
                None,
            ),
            "ALTER TABLE t ADD CONSTRAINT t_a_check CHECK (a BETWEEN 1 AND 2 AND lower(b)::text <> c.d) NOT VALID",
        ),
        (
            Form::check("t CONSTRAINT \"N\" CHECK ((a)) NO INHERIT", None),
            "ALTER TABLE t ADD CONSTRAINT \"N\" CHECK ((a)) NO INHERIT NOT VALID",
        ),
        (
            Form::foreign_key(
                "o(u, \"V\") REFERENCES s.x (a, b) MATCH FULL ON DELETE SET NULL (u)",
                None,
            ),
            "ALTER TABLE o ADD CONSTRAINT \"o_u_V_fkey\" FOREIGN KEY (u, \"V\") REFERENCES s.x (a, b) \
             MATCH FULL ON DELETE SET NULL (u) NOT VALID",
        ),
        (
            Form::foreign_key("o(u) REFERENCES x", Some("own".to_owned())),
            "ALTER TABLE o ADD CONSTRAINT own FOREIGN KEY (u) REFERENCES x NOT VALID",
        ),
        (
            Form::unique("s.\"T\"(a, \"order\")", None),
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"T_a_order_key\" ON s.\"T\" (a, \"order\")",
        ),
        (
            Form::not_null("s.t.user"),
            "ALTER TABLE s.t ADD CONSTRAINT t_user_not_null_check CHECK (\"user\" IS NOT NULL) NOT VALID",
        ),
    ] {
        assert_eq!(ups(&form.expect(up))[0], up);
    }
}

#[test]
fn what_pg_get_indexdef_shows_is_known_of_plain_columns_only() {
    for (given, shown) in [
        ("a", Some("a")),
        ("a ASC", Some("a")),
        ("a NULLS LAST", Some("a")),
        ("a asc nulls first", Some("a NULLS FIRST")),
        ("a DESC", Some("a DESC")),
        ("a DESC NULLS FIRST", Some("a DESC")),
        ("\"A b\" DESC NULLS LAST", Some("A b DESC NULLS LAST")),
        ("a text_ops", None),
        ("a COLLATE \"C\"", None),
        ("lower(a)", None),
        ("(a)", None),
    ] {
        let Ok(Form::Index(index)) = Form::index(&format!("t({given})"), false, None) else {
            panic!("{given} is not read");
        };
        assert_eq!(index.keys[0].shown.as_deref(), shown, "{given}");
    }
}

/// Whether a statement may do this in a file of the form.
fn fits(kind: usize, role: Role, effect: &Effect) -> bool {
    match (role, effect) {
        // Its queries call functions.
        (Role::Verify, effect) => matches!(effect, Effect::Opaque | Effect::Other),
        (_, Effect::AlterTable { .. }) => kind > 0,
        (Role::Up, Effect::AddColumn { .. }) | (Role::Down, Effect::DropColumn { .. }) => kind == 1,
        (_, Effect::References { .. }) => kind == 3,
        (Role::Up, Effect::CreateIndex { concurrently, .. })
        | (Role::Down, Effect::DropIndex { concurrently, .. }) => {
            *concurrently && (kind == 0 || kind == 4)
        }
        _ => false,
    }
}

/// Whatever is typed, nothing panics, and what is accepted makes files that run and do nothing else.
#[test]
fn whatever_is_typed_is_read_or_refused() {
    const PIECES: [&str; 46] = [
        "users",
        "(",
        ")",
        "(a)",
        "(a, \"B\")",
        "a",
        "\"B\"",
        "é",
        "'x'",
        "'",
        "\"",
        "::",
        ":",
        ":text",
        ".",
        ".a",
        ",",
        " ",
        " ",
        "\n",
        "desc",
        "nulls",
        "last",
        "where",
        ">",
        "0",
        "-",
        " check ",
        "not",
        "null",
        "valid",
        "constraint",
        " references ",
        "using",
        "gin",
        "$$",
        "\\",
        ";",
        "--",
        "/*",
        "E'\\''",
        "[",
        "]",
        "on delete",
        "default",
        "U&\"a\"",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut accepted = [0; 6];
    for round in 0..50_000 {
        let mut given = String::from(if round % 3 > 0 { "users" } else { "" });
        for _ in 0..random(7) {
            given.push_str(PIECES[random(PIECES.len())]);
        }
        let forms = [
            Form::index(&given, round % 2 == 0, None),
            Form::columns(std::slice::from_ref(&given), None),
            Form::check(&given, None),
            Form::foreign_key(&given, None),
            Form::unique(&given, None),
            Form::not_null(&given),
        ];
        for (kind, form) in forms.into_iter().enumerate() {
            let Ok(form) = form else { continue };
            accepted[kind] += 1;
            for draft in drafts("n", &form, &[]) {
                for (text, role) in [
                    (&draft.up, Role::Up),
                    (&draft.down, Role::Down),
                    (&draft.verify, Role::Verify),
                ] {
                    let parsed = Script::parse(Path::new("n"), text.clone().into(), role);
                    let script =
                        parsed.unwrap_or_else(|problems| panic!("{given:?}: {problems:?}"));
                    assert!(
                        script.transactional || script.statements.len() == 1,
                        "{text}"
                    );
                    let effects = script.effects().flat_map(|(_, effects)| effects);
                    let foreign = effects
                        .filter(|effect| !fits(kind, role, effect))
                        .collect::<Vec<_>>();
                    assert!(foreign.is_empty(), "{given:?}: {foreign:?}");
                }
            }
        }
    }
    println!("accepted: {accepted:?}");
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}

#[test]
fn next_steps_stand_below_the_other_lines_at_the_top() {
    let next = ["tell everybody".to_owned()];
    for (form, head) in [
        (
            Form::not_null("a.b"),
            "-- xtask: backup a\n-- xtask: next tell everybody\n\n",
        ),
        (
            Form::index("a(b)", false, None),
            "-- no-transaction\n-- xtask: next tell everybody\n\n",
        ),
        (Ok(Form::Unwritten), "-- xtask: next tell everybody\n\n"),
    ] {
        let drafts = drafts("n", &form.expect("reads"), &next);
        let last = drafts.last().expect("a draft");
        assert!(last.up.starts_with(head), "{}", last.up);
    }
}
