//! Whether a column's values mean after a change of its type what they meant before.

/// A column whose values are read as another type than they were written with.
pub(super) struct Conversion {
    /// Quoted.
    pub(super) column: String,
    pub(super) to: String,
    /// SQL over the backup's columns.
    pub(super) expression: String,
}

/// Whether every value of the old type is the same value of the new one. Whole numbers in a wider
/// whole type, text in a longer text, times with more digits: nothing else. Not `integer` to `numeric`,
/// whose unit may have changed with it, nor a time to one with a zone.
pub(super) fn is_widening(old: &str, new: &str) -> bool {
    if same(old, new) {
        return true;
    }
    let (old_name, old_size) = parts(old);
    let (new_name, new_size) = parts(new);
    let whole = ["smallint", "integer", "bigint"];
    let at = |name: &str| whole.iter().position(|other| *other == name);
    if let (Some(from), Some(to)) = (at(&old_name), at(&new_name)) {
        return from <= to;
    }
    let is_text = |name: &str| name == "text" || name == "character varying";
    if is_text(&old_name) && is_text(&new_name) {
        return is_longer(old_size, new_size);
    }
    if old_name != new_name {
        return false;
    }
    match &*old_name {
        "numeric" => match (old_size, new_size) {
            (_, None) => true,
            (Some((from, digits)), Some((to, same))) => digits == same && from <= to,
            (None, Some(_)) => false,
        },
        "time without time zone"
        | "time with time zone"
        | "timestamp without time zone"
        | "timestamp with time zone"
        | "bit varying" => is_longer(old_size, new_size),
        _ => false,
    }
}

fn is_longer(old: Option<(u32, u32)>, new: Option<(u32, u32)>) -> bool {
    match (old, new) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some((old, _)), Some((new, _))) => old <= new,
    }
}

/// `format_type` writes the schema only where the search path does not reach it.
fn same(old: &str, new: &str) -> bool {
    old == new || old.ends_with(&format!(".{new}")) || new.ends_with(&format!(".{old}"))
}

/// `timestamp(3) with time zone` as its name and what is between the parentheses.
fn parts(type_name: &str) -> (String, Option<(u32, u32)>) {
    let Some((before, rest)) = type_name.split_once('(') else {
        return (type_name.to_owned(), None);
    };
    let Some((size, after)) = rest.split_once(')') else {
        return (type_name.to_owned(), None);
    };
    let mut numbers = size.split(',').map(|number| number.trim().parse().ok());
    let first = numbers.next().flatten();
    let second = numbers.next().flatten().unwrap_or(0);
    (
        format!("{before}{after}"),
        first.map(|first| (first, second)),
    )
}

#[cfg(test)]
mod tests {
    use super::is_widening;

    #[test]
    fn only_what_cannot_change_a_value_goes_unasked() {
        for (old, new) in [
            ("integer", "bigint"),
            ("smallint", "integer"),
            ("character varying(80)", "character varying(120)"),
            ("character varying(80)", "text"),
            ("text", "character varying"),
            ("numeric(10,2)", "numeric(12,2)"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("citext", "public.citext"),
        ] {
            assert!(is_widening(old, new), "{old} to {new}");
        }
        for (old, new) in [
            ("integer", "numeric"),
            ("integer", "text"),
            ("bigint", "integer"),
            ("character varying(80)", "character varying(40)"),
            ("text", "character varying(80)"),
            ("character(3)", "text"),
            ("numeric(10,2)", "numeric(12,4)"),
            ("numeric", "numeric(10,2)"),
            ("timestamp without time zone", "timestamp with time zone"),
            ("text", "citext"),
            ("text[]", "text"),
            ("character varying(80)[]", "character varying(120)"),
            ("double precision", "real"),
        ] {
            assert!(!is_widening(old, new), "{old} to {new}");
        }
    }
}
