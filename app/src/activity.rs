//! What the dashboard asks the database: who was active, when, and who was last.
//!
//! A user counts by their last login alone: `last_login_at` keeps no earlier ones.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};

use crate::database::Connection;
use crate::error::Error;
use crate::schema::Schema;

/// The windows that are always counted, in days up to now.
pub const WINDOWS: [i64; 3] = [1, 7, 30];

/// How many last logins fall between any two edges, how many before the first (bucket 0), and how many
/// users never signed in (no bucket): all figures for the price of one count, from the index alone.
pub const COUNT_BY_INDEX: &str = "
    SELECT bucket, (SELECT count(*) FROM users WHERE last_login_at >= start AND last_login_at < stop)
    FROM (SELECT bucket, start, lead(start, 1, 'infinity') OVER (ORDER BY start)
          FROM unnest($1) WITH ORDINALITY AS edge (start, bucket)) AS span (bucket, start, stop)
    UNION ALL SELECT 0, (SELECT count(*) FROM users WHERE last_login_at < $1[1])
    UNION ALL SELECT NULL, (SELECT count(*) FROM users WHERE last_login_at IS NULL)";

/// The same in one pass over the table, for as long as there is no index.
const COUNT_BY_TABLE: &str = "
    SELECT width_bucket(last_login_at, $1)::int8, count(*) FROM users GROUP BY 1";

/// How many users were active, and when.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Everybody, whether or not they ever signed in.
    pub users: i64,
    /// Who signed in within the last 1, 7 and 30 days.
    pub active: Vec<Window>,
    /// Last logins by day (UTC), oldest first, today included.
    pub last_logins_per_day: Vec<Day>,
}

/// How many were active within some days up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Days of 24 hours.
    pub days: i64,
    /// Who signed in within them.
    pub users: i64,
}

/// How many were last active on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// The day, in UTC.
    pub day: Date,
    /// Whose last login was on it.
    pub users: i64,
}

impl Activity {
    /// Counts everybody, and those active within `days` and the [`WINDOWS`], in one snapshot.
    ///
    /// # Errors
    /// If the database says no; [`Error::Waiting`] without the column.
    pub async fn read(
        db: &Connection,
        schema: Schema,
        now: Timestamp,
        days: i64,
    ) -> Result<Activity, Error> {
        let edges = Edges::new(now, days);
        let (users, counts) = edges.count(db, schema).await?;
        let since = |start: Timestamp| -> i64 {
            let counts = edges.starts.iter().zip(&counts);
            counts
                .filter(|(edge, _)| **edge >= start)
                .map(|(_, count)| count)
                .sum()
        };
        Ok(Activity {
            users,
            active: edges
                .windows
                .iter()
                .map(|&(days, start)| Window {
                    days,
                    users: since(start),
                })
                .collect(),
            last_logins_per_day: edges
                .days
                .iter()
                .map(|&(day, start, end)| Day {
                    day,
                    users: since(start) - end.map_or(0, since),
                })
                .collect(),
        })
    }

    /// The window of so many days, if it was counted.
    pub fn window(&self, days: i64) -> Option<Window> {
        self.active
            .iter()
            .copied()
            .find(|window| window.days == days)
    }
}

/// The instants at which a day or a window begins. What lies between two of them is counted once, and
/// every figure is a sum of such counts.
struct Edges {
    /// All, in ascending order.
    starts: Vec<Timestamp>,
    windows: Vec<(i64, Timestamp)>,
    /// Each day with its beginning and its end; today has none, since clocks differ.
    days: Vec<(Date, Timestamp, Option<Timestamp>)>,
}

impl Edges {
    fn new(now: Timestamp, days: i64) -> Edges {
        let mut lengths = WINDOWS.to_vec();
        if !lengths.contains(&days) {
            lengths.push(days);
        }
        let windows: Vec<_> = lengths
            .into_iter()
            .map(|days| (days, now - SignedDuration::from_hours(24 * days)))
            .collect();

        let today = TimeZone::UTC.to_datetime(now).date();
        let midnight = |day: Date| {
            let start = day.to_zoned(TimeZone::UTC);
            start.map_or(Timestamp::MIN, |start| start.timestamp())
        };
        let days: Vec<_> = (0..days)
            .rev()
            .map(|ago| {
                let day = today.saturating_sub(ago.days());
                let end = (ago > 0).then(|| midnight(today.saturating_sub((ago - 1).days())));
                (day, midnight(day), end)
            })
            .collect();

        let mut starts: Vec<_> = windows.iter().map(|window| window.1).collect();
        starts.extend(days.iter().map(|day| day.1));
        starts.sort();
        starts.dedup();
        Edges {
            starts,
            windows,
            days,
        }
    }

    /// How many users there are, and how many last logins follow each edge and precede the next.
    async fn count(&self, db: &Connection, schema: Schema) -> Result<(i64, Vec<i64>), Error> {
        let statement = match schema.has_index {
            true => COUNT_BY_INDEX,
            false => COUNT_BY_TABLE,
        };
        let rows = db
            .query_typed(statement, &[(&self.starts, Type::TIMESTAMPTZ_ARRAY)])
            .await?;
        let mut users = 0;
        let mut counts = vec![0; self.starts.len()];
        for row in rows {
            let bucket: Option<i64> = row.try_get(0)?;
            let count: i64 = row.try_get(1)?;
            users += count;
            // Bucket 1 begins at the first edge.
            let edge = bucket.and_then(|bucket| usize::try_from(bucket - 1).ok());
            if let Some(counted) = edge.and_then(|edge| counts.get_mut(edge)) {
                *counted = count;
            }
        }
        Ok((users, counts))
    }
}

/// Somebody's last login.
#[derive(Debug, Serialize)]
pub struct Login {
    /// Whose.
    pub id: i64,
    /// Whose.
    pub email: String,
    /// Whose.
    pub display_name: String,
    /// When.
    pub last_login_at: Timestamp,
}

/// Some logins, newest first, and where the next ones begin.
#[derive(Debug, Serialize)]
pub struct Page {
    /// The logins.
    pub logins: Vec<Login>,
    /// Where older ones begin, if there are any.
    #[serde(serialize_with = "as_text")]
    pub next: Option<Cursor>,
}

/// The place after one login, in the order `last_login_at DESC, id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    at: Timestamp,
    id: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.at.as_microsecond(), self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let (at, id) = text.rsplit_once('-').ok_or(())?;
        let at = at.parse().map_err(|_| ())?;
        Ok(Cursor {
            at: Timestamp::from_microsecond(at).map_err(|_| ())?,
            id: id.parse().map_err(|_| ())?,
        })
    }
}

fn as_text<S: serde::Serializer>(cursor: &Option<Cursor>, to: S) -> Result<S::Ok, S::Error> {
    match cursor {
        Some(cursor) => to.collect_str(cursor),
        None => to.serialize_none(),
    }
}

/// Which logins are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Those of emails that begin so; empty for all.
    pub email: &'a str,
    /// Those that follow.
    pub after: Option<Cursor>,
    /// So many at most.
    pub limit: i64,
}

impl Page {
    /// Reads a page in the order of the index, from which only the rows of the page are fetched.
    ///
    /// Somebody who signs in meanwhile moves to the front; nobody else is skipped or repeated.
    ///
    /// # Errors
    /// If the database says no; [`Error::Waiting`] without the column.
    pub async fn read(db: &Connection, selection: Selection<'_>) -> Result<Page, Error> {
        let Selection {
            email,
            after,
            limit,
        } = selection;
        let one_more = limit + 1;
        let pattern = prefix_pattern(email);
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&one_more, Type::INT8)];
        let mut conditions = String::new();
        match &after {
            None => conditions += "last_login_at IS NOT NULL",
            // The first half is what the index understands: it begins at the cursor, not at the top.
            Some(cursor) => {
                conditions += "last_login_at <= $2 AND (last_login_at < $2 OR id > $3)";
                parameters.push((&cursor.at, Type::TIMESTAMPTZ));
                parameters.push((&cursor.id, Type::INT8));
            }
        }
        if !email.is_empty() {
            parameters.push((&pattern, Type::TEXT));
            conditions += &format!(" AND email LIKE ${}", parameters.len());
        }
        let rows = db
            .query_typed(
                &format!(
                    "SELECT id, email, display_name, last_login_at FROM users
                     WHERE {conditions}
                     ORDER BY last_login_at DESC NULLS LAST, id LIMIT $1"
                ),
                &parameters,
            )
            .await?;

        let mut logins = Vec::with_capacity(rows.len());
        for row in &rows {
            logins.push(Login {
                id: row.try_get(0)?,
                email: row.try_get(1)?,
                display_name: row.try_get(2)?,
                last_login_at: row.try_get(3)?,
            });
        }
        let more = logins.len() as i64 > limit;
        logins.truncate(usize::try_from(limit).unwrap_or(0));
        let last = logins.last().filter(|_| more);
        let next = last.map(|login| Cursor {
            at: login.last_login_at,
            id: login.id,
        });
        Ok(Page { logins, next })
    }
}

/// LIKE compares character by character whatever the collation, and a B-tree index in the C locale,
/// or with `text_pattern_ops`, finds its prefix.
fn prefix_pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_form() {
        for text in ["1763812345123456-42", "-5-7", "0-0"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in ["", "1", "a-1", "1-b", "99999999999999999999-1", "1-"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn wildcards_in_a_prefix_mean_themselves() {
        assert_eq!(prefix_pattern("a_b%c\\"), "a\\_b\\%c\\\\%");
    }

    #[test]
    fn days_end_where_the_next_begin() {
        let now = "2026-01-15T12:00:00Z".parse().unwrap();
        let edges = Edges::new(now, 30);
        assert_eq!(edges.days.len(), 30);
        assert_eq!(edges.days[29].0.to_string(), "2026-01-15");
        assert_eq!(edges.days[29].2, None);
        assert_eq!(edges.days[0].0.to_string(), "2025-12-17");
        assert_eq!(edges.days[28].2, Some(edges.days[29].1));
        assert_eq!(edges.windows.len(), 3);
        assert!(edges.starts.is_sorted());
        // 30 midnights, and three instants at noon.
        assert_eq!(edges.starts.len(), 33);
        assert_eq!(Edges::new(now, 2).windows.len(), 4);
    }
}
