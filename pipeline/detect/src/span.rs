//! Spans of time as written in rules: `90s`, `10m`, `24h`, `7d`.

/// Microseconds of `text`; positive, at most a year (beyond that a window is a mistake).
pub fn parse_span(text: &str) -> Option<i64> {
    const SPAN_MAX_US: i64 = 366 * 86_400 * 1_000_000;
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit_us: i64 = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let us = number.parse::<i64>().ok()?.checked_mul(unit_us)?;
    (us > 0 && us <= SPAN_MAX_US).then_some(us)
}

/// The largest unit that divides.
pub fn format_span(us: i64) -> String {
    match UNITS.iter().rev().find(|(_, unit)| us % unit == 0) {
        Some((name, unit)) => format!("{}{name}", us / unit),
        None => format!("{us}us"),
    }
}

const UNITS: [(&str, i64); 5] =
    [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_span(text), expected, "{text}");
        check("10m", Some(600_000_000));
        check("24h", Some(86_400_000_000));
        check("1d", Some(86_400_000_000));
        check("500ms", Some(500_000));
        for wrong in ["", "10", "m", "0s", "-1m", "1 m", "1w", "1.5h", "9999d", "99999999999999999999s"] {
            check(wrong, None);
        }
        assert_eq!(format_span(600_000_000), "10m");
        assert_eq!(format_span(90_000_000), "90s");
    }
}
