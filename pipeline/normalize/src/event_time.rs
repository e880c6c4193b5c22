//! Event time from text and numbers. RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339) with up to nine fraction
//! digits, cut to microseconds; whole numbers since the epoch, whose magnitude tells their unit.

use event::Micros;

/// Years that fit 64-bit nanoseconds, the range other tools can hold.
const YEARS: std::ops::RangeInclusive<i64> = 1678..=2262;
const FRACTION_DIGITS_MAX: usize = 9;
const SECOND: i64 = 1_000_000;

/// `2023-07-10T11:42:44Z`, `2023-07-10T13:42:44.123456789+02:00`. `None` when it is something else or out of range.
/// A leap second reads as the first instant of the next minute.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    if bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..10])?);
    let (hour, minute, second) = (digits(&bytes[11..13])?, digits(&bytes[14..16])?, digits(&bytes[17..19])?);
    if !YEARS.contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(&bytes[19..])?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(seconds * SECOND + fraction)
}

/// As above, and `2022-09-15 13:45:24` without a zone, as databases write what the vendors have in UTC.
pub(crate) fn from_text(text: &str) -> Option<Micros> {
    let zoneless = || text.as_bytes().get(10) == Some(&b' ') && text.len() <= "2022-09-15 13:45:24.123456789".len();
    parse_rfc3339(text).or_else(|| if zoneless() { parse_rfc3339(&format!("{text}Z")) } else { None })
}

/// Seconds, milliseconds, microseconds or nanoseconds since the epoch: each unit has its own magnitude between
/// the years 1973 and 2286. `None` outside of them.
pub(crate) fn from_number(number: i64) -> Option<Micros> {
    match number {
        100_000_000..10_000_000_000 => Some(number * SECOND),
        100_000_000_000..10_000_000_000_000 => Some(number * 1000),
        100_000_000_000_000..10_000_000_000_000_000 => Some(number),
        100_000_000_000_000_000.. => Some(number / 1000),
        _ => None,
    }
}

/// Microseconds of `.123…`, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    if rest.first() != Some(&b'.') {
        return Some((0, rest));
    }
    let length = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 || length > FRACTION_DIGITS_MAX {
        return None;
    }
    let kept = length.min(6);
    let scale = 10i64.pow(6 - kept as u32);
    Some((digits(&rest[1..1 + kept])? * scale, &rest[1 + length..]))
}

/// Seconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = hours * 3600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch of a proleptic Gregorian date; years start in March, so that the leap day is their last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc3339() {
        let check = |text, expected: &str| {
            assert_eq!(parse_rfc3339(text).map(event::format_micros).as_deref(), Some(expected), "{text}");
        };
        check("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z");
        check("2023-07-10T11:42:44Z", "2023-07-10T11:42:44Z");
        check("2016-08-04T16:17:57.881781397Z", "2016-08-04T16:17:57.881781Z");
        check("2024-02-29t23:59:60z", "2024-03-01T00:00:00Z");
        check("2024-01-01 01:00:00.5+02:00", "2023-12-31T23:00:00.500Z");
        check("2024-01-01T01:00:00-05:30", "2024-01-01T06:30:00Z");
        check("1678-01-01T00:00:00Z", "1678-01-01T00:00:00Z");
        check("2262-12-31T00:00:00Z", "2262-12-31T00:00:00Z");
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "",
            "<ts>",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.0123456789Z",
            "1677-01-01T00:00:00Z",
            "2263-01-01T00:00:00Z",
            "2024-01-01T00:00:00+0200",
            "2024-01-01T00:00:00Zjunk",
            "2024-01-01T0é:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn reads_times_of_databases_as_utc() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(from_text(text).map(event::format_micros).as_deref(), expected, "{text}");
        };
        check("2022-09-15 13:45:24", Some("2022-09-15T13:45:24Z"));
        check("2022-09-15 13:45:24.500000000", Some("2022-09-15T13:45:24.500Z"));
        check("2022-09-15T13:45:24Z", Some("2022-09-15T13:45:24Z"));
        check("2022-09-15T13:45:24", None);
        check("2022-09-15 13:45", None);
        check("<ts>", None);
    }

    #[test]
    fn tells_the_unit_of_a_number_by_its_magnitude() {
        let expected = Some(1_626_863_829_000_000);
        for number in [1_626_863_829, 1_626_863_829_000, 1_626_863_829_000_000, 1_626_863_829_000_000_000] {
            assert_eq!(from_number(number), expected);
        }
        assert_eq!(from_number(1_626_863_829_101_509_967), Some(1_626_863_829_101_509));
        assert_eq!((from_number(0), from_number(-5), from_number(42)), (None, None, None));
    }
}
