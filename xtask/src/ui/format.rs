//! Numbers, bytes and times as people write them. indicatif's own are used where they say the same: its
//! bytes have two decimals, and its durations lose what lies below their largest unit.

use std::time::Duration;

/// `1200` as `1,200`.
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// `1 row`, `1,200 rows`.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    let ending = match (number, noun.ends_with('x')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", count(number))
}

/// Bytes in decimal units: `68.4 kB`.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let precision = usize::from(unit != "B");
            return format!("{value:.precision$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A duration with three digits or so: `4.1 ms`, `1.34 s`, `2 min 5 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.0995 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else if seconds < 3600.0 {
        let whole = duration.as_secs();
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        let minutes = duration.as_secs() / 60;
        format!("{} h {} min", minutes / 60, minutes % 60)
    }
}

/// A limit as it is given: `100 ms`, `10 s`, `10 min`, `1 h`.
pub(crate) fn limit(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let whole = units
        .into_iter()
        .find(|(_, size)| milliseconds >= *size && milliseconds.is_multiple_of(*size));
    let (unit, size) = whole.unwrap_or(("ms", 1));
    format!("{} {unit}", milliseconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_200, "1,200"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(count(number), expected);
        }
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(2, "index"), "2 indexes");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(68_374), "68.4 kB");
        assert_eq!(time(Duration::from_micros(4_120)), "4.1 ms");
        assert_eq!(time(Duration::from_millis(1_340)), "1.34 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
        for (milliseconds, expected) in [
            (100, "100 ms"),
            (1_500, "1500 ms"),
            (10_000, "10 s"),
            (90_000, "90 s"),
            (600_000, "10 min"),
            (3_600_000, "1 h"),
        ] {
            assert_eq!(limit(Duration::from_millis(milliseconds)), expected);
        }
    }
}
