//! Event time: microseconds since the epoch, UTC. `i64::MIN` and `i64::MAX` stand for the two infinities
//! (a bounded stream starts at one and ends at the other).

use std::collections::BTreeMap;

use crate::Source;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// How far event time of each live source is known to have advanced. A source that never spoke is absent,
/// which reads as minus infinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Watermarks(pub BTreeMap<Source, Micros>);

impl Watermarks {
    pub fn get(&self, source: Source) -> Micros {
        self.0.get(&source).copied().unwrap_or(Micros::MIN)
    }

    /// Raises one source's watermark; a watermark never goes back.
    pub fn advance(&mut self, source: Source, to: Micros) {
        let mark = self.0.entry(source).or_insert(Micros::MIN);
        *mark = (*mark).max(to);
    }

    /// Raises every source to at least what `other` knows.
    pub fn merge(&mut self, other: &Watermarks) {
        for (source, mark) in &other.0 {
            self.advance(*source, *mark);
        }
    }
}

/// RFC 3339 in UTC with as many fraction digits as the value needs (0, 3 or 6).
pub fn format_micros(micros: Micros) -> String {
    let mut text = String::with_capacity(27);
    let digits = match micros.rem_euclid(1_000_000) {
        0 => 0,
        fraction if fraction % 1000 == 0 => 3,
        _ => 6,
    };
    push_micros(micros, digits, &mut text);
    text
}

/// Appends RFC 3339 in UTC with this many fraction digits, at most six; false, and nothing, if the value needs more of them.
pub fn push_micros(micros: Micros, digits: u32, text: &mut String) -> bool {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let unit = 10_i64.pow(6 - digits);
    if fraction % unit != 0 {
        return false;
    }
    let (year, month, day) = civil_from_days(days);
    let mut clock = *b"-00-00T00:00:00.000000";
    for (at, part) in [(1, month), (4, day), (7, seconds / 3600), (10, seconds / 60 % 60), (13, seconds % 60)] {
        put_digits(part as u32, &mut clock[at..at + 2]);
    }
    put_digits((fraction / unit) as u32, &mut clock[16..16 + digits as usize]);
    match u32::try_from(year) {
        Ok(year) if year < 10_000 => {
            let mut date = *b"0000";
            put_digits(year, &mut date);
            date.iter().for_each(|digit| text.push(char::from(*digit)));
        }
        _ => text.push_str(&format!("{year:04}")),
    }
    let length = if digits > 0 { 16 + digits as usize } else { 15 };
    text.push_str(str::from_utf8(&clock[..length]).expect("digits and signs"));
    text.push('Z');
    true
}

/// The last digits of a number, as many as there is room for.
fn put_digits(mut number: u32, room: &mut [u8]) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Proleptic Gregorian date of a day count since the epoch, by 400-year eras of 146,097 days
/// (years start in March, so that the leap day is the last of its year).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_times_as_rfc3339() {
        let check = |micros, expected: &str| assert_eq!(format_micros(micros), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(-1, "1969-12-31T23:59:59.999999Z");
        check(1_688_989_356_000_000, "2023-07-10T11:42:36Z");
        check(1_709_210_096_789_000, "2024-02-29T12:34:56.789Z");
        check(7_258_118_400_000_001, "2200-01-01T00:00:00.000001Z");
        check(-62_167_219_200_000_000 - 1, "-001-12-31T23:59:59.999999Z");
    }

    #[test]
    fn as_many_digits_as_asked_for() {
        let at = 1_709_210_096_120_000;
        for (digits, expected) in [(2, "12:34:56.12Z"), (3, "12:34:56.120Z"), (6, "12:34:56.120000Z")] {
            let mut text = "at ".to_owned();
            assert!(push_micros(at, digits, &mut text));
            assert_eq!(text, format!("at 2024-02-29T{expected}"));
        }
        let mut text = String::new();
        assert!(!push_micros(at, 1, &mut text) && text.is_empty());
    }

    #[test]
    fn a_watermark_never_goes_back() {
        let mut marks = Watermarks::default();
        assert_eq!(marks.get(Source::Falco), Micros::MIN);
        marks.advance(Source::Falco, 5);
        marks.advance(Source::Falco, 3);
        assert_eq!(marks.get(Source::Falco), 5);
    }
}
