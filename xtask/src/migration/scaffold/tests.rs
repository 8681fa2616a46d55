use super::*;
use std::path::Path;

use crate::migration::effects::Effect;
use crate::migration::script::{Role, Script};
use crate::migration::sql;

/// The statements of the up files, on one line each.
fn ups(form: &Form, given: &str, own_name: Option<&str>) -> Vec<String> {
    let drafts = drafts("n", form, given, own_name).expect(given);
    let statements = drafts.iter().flat_map(|draft| {
        let [up, ..] = &draft.texts;
        let statements = sql::split(up).expect("splits");
        statements
            .iter()
            .map(|statement| statement.text(up).replace("\n    ", " "))
            .collect::<Vec<_>>()
    });
    statements.collect()
}

#[test]
fn a_form_is_read_as_sql_reads_it() {
    let create = "CREATE INDEX CONCURRENTLY IF NOT EXISTS";
    for (form, given, up) in [
        (
            &INDEX,
            "users(last_login_at DESC NULLS LAST)",
            format!("{create} idx_users_last_login_at ON users (last_login_at DESC NULLS LAST)"),
        ),
        (
            &INDEX,
            "  Public.USERS ( Email,\n\"Email\" collate \"C\" text_pattern_ops asc )",
            format!(
                "{create} \"idx_users_email_Email\" ON public.users \
                 ( Email, \"Email\" collate \"C\" text_pattern_ops asc )"
            ),
        ),
        (
            &INDEX,
            "t USING gin((a ->> 'b c'), lower(d)) WHERE g > 0",
            format!("{create} idx_t_a_lower ON t USING gin((a ->> 'b c'), lower(d)) WHERE g > 0"),
        ),
        (
            &INDEX,
            "unique t((a || 'x') desc) include (b) with (fillfactor = 70)",
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_t_a ON t ((a || 'x') desc) include (b) \
             with (fillfactor = 70)"
                .to_owned(),
        ),
        (
            &INDEX,
            "\"select\".\"a\"\"b\"(\"from\" opclass(p = 1))",
            format!(
                "{create} \"idx_a\"\"b_from\" ON \"select\".\"a\"\"b\" (\"from\" opclass(p = 1))"
            ),
        ),
        (
            &COLUMN,
            "a.b:interval year to month",
            "ALTER TABLE a ADD COLUMN IF NOT EXISTS b interval year to month".to_owned(),
        ),
        (
            &COLUMN,
            "S.a.\"Order\":\"My\".\"Type\"[3]",
            "ALTER TABLE s.a ADD COLUMN IF NOT EXISTS \"Order\" \"My\".\"Type\"[3]".to_owned(),
        ),
        (
            &CHECK,
            "t CHECK (a BETWEEN 1 AND 2 AND lower(b)::text <> c.d)",
            "ALTER TABLE t ADD CONSTRAINT t_a_check CHECK (a BETWEEN 1 AND 2 AND lower(b)::text <> c.d) NOT VALID"
                .to_owned(),
        ),
        (
            &CHECK,
            "t CHECK ((a)) NO INHERIT",
            "ALTER TABLE t ADD CONSTRAINT t_a_check CHECK ((a)) NO INHERIT NOT VALID".to_owned(),
        ),
        (
            &FOREIGN_KEY,
            "o(u, \"V\") REFERENCES s.x (a, b) MATCH FULL ON DELETE SET NULL (u)",
            "ALTER TABLE o ADD CONSTRAINT \"o_u_V_fkey\" FOREIGN KEY (u, \"V\") REFERENCES s.x (a, b) \
             MATCH FULL ON DELETE SET NULL (u) NOT VALID"
                .to_owned(),
        ),
        (
            &UNIQUE,
            "s.\"T\"(a, \"order\")",
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"T_a_order_key\" ON s.\"T\" (a, \"order\")"
                .to_owned(),
        ),
        (
            &NOT_NULL,
            "s.t.user",
            "ALTER TABLE s.t ADD CONSTRAINT t_user_not_null_check CHECK (\"user\" IS NOT NULL) NOT VALID"
                .to_owned(),
        ),
    ] {
        assert_eq!(ups(form, given, None)[0], up);
    }
    assert_eq!(
        ups(&FOREIGN_KEY, "o(u) REFERENCES x", Some("Own"))[0],
        "ALTER TABLE o ADD CONSTRAINT own FOREIGN KEY (u) REFERENCES x NOT VALID"
    );
}

#[test]
fn in_a_string_a_name_has_no_quotes_of_its_own_and_quotes_are_doubled() {
    let drafts = drafts("n", &NOT_NULL, "\"T'\".\"C'\"\"\"", None).expect("reads");
    let [.., verify] = &drafts[1].texts;
    assert!(verify.contains("'\"T''\".C''\" is NOT NULL'"), "{verify}");
    assert!(
        verify.contains("to_regclass('\"T''\"')::oid AND attname = 'C''\"' AND"),
        "{verify}"
    );
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
        let forms = [&INDEX, &COLUMN, &CHECK, &FOREIGN_KEY, &UNIQUE, &NOT_NULL];
        for (kind, form) in forms.into_iter().enumerate() {
            let Ok(drafts) = drafts("n", form, &given, None) else {
                continue;
            };
            accepted[kind] += 1;
            for draft in drafts {
                let roles = [Role::Up, Role::Down, Role::Verify];
                for (text, role) in draft.texts.into_iter().zip(roles) {
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
