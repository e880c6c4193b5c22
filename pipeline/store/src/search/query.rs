//! The query as a tree, and what each test means for one leaf. This is the definition of the language; the
//! segment evaluator must agree with it on every row.

use std::net::IpAddr;
use std::ops::Bound;

use event::{Micros, format_micros};
use regex::Regex;

use super::leaves::{Leaf, is_number};
use super::words::{CODE_HEAD, FRACTION_HEAD, fold, folded, is_code, is_fraction, next_word, number_word, of_code};

/// A parsed query. See [`Query::parse`](super::Query::parse) for the language.
#[derive(Clone, Debug)]
pub struct Query {
    pub expr: Expr,
}

#[derive(Clone, Debug)]
pub enum Expr {
    /// Every row.
    All,
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// Some leaf of the field (of the row, without a field) passes the test.
    Leaf {
        field: Option<String>,
        test: Test,
    },
}

#[derive(Clone, Debug)]
pub enum Test {
    Words(Phrase),
    Exists,
    Range(Range),
    Regex(Regex),
    Cidr(Cidr),
}

/// Consecutive words of one leaf.
#[derive(Clone, Debug)]
pub struct Phrase {
    pub words: Vec<Word>,
    /// Set if the value is a JSON number: a number leaf is one word, its literal.
    pub number: Option<String>,
    /// The value as written, folded: what a time in a typed column begins with.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Exact(String),
    /// With `*` and `?`.
    Glob(Glob),
}

impl Phrase {
    /// Words beyond this many do not fit the matcher's state.
    pub const WORDS_MAX: usize = 64;

    fn matches(&self, leaf: &Leaf<'_>) -> bool {
        match leaf {
            Leaf::Text(text) => self.in_text(text),
            Leaf::Number(literal) => {
                let literal = number_word(literal);
                self.number.as_ref() == Some(&literal) || self.is_word(&literal)
            }
            Leaf::Bool(value) => self.is_word(if *value { "true" } else { "false" }),
            Leaf::Time(time) => folded(&format_micros(*time)).starts_with(self.text.trim_end_matches('*')),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.words.as_slice(), [only] if only.matches(word))
    }

    fn in_text(&self, text: &str) -> bool {
        let (mut progress, mut at, mut folded) = (Progress::default(), 0, String::new());
        while let Some((start, end)) = next_word(text, at) {
            at = end;
            fold(&text[start..end], &mut folded);
            if progress.ends_at(&self.words, &folded) {
                return true;
            }
        }
        false
    }
}

/// Do the words of a phrase stand one after the other in a text that has these folded words?
pub fn in_words<'a>(phrase: &[Word], mut words: impl Iterator<Item = &'a str>) -> bool {
    let mut progress = Progress::default();
    words.any(|word| progress.ends_at(phrase, word))
}

/// How far a phrase has come in a text. Bit `k`: its words `0..=k` end at the current word of the text.
#[derive(Default)]
struct Progress(u64);

impl Progress {
    /// Goes on to the next word of the text; does the phrase end there?
    fn ends_at(&mut self, phrase: &[Word], found: &str) -> bool {
        let open = std::mem::take(&mut self.0) << 1 | 1;
        for (k, word) in phrase.iter().enumerate() {
            if open >> k & 1 == 1 && word.matches(found) {
                self.0 |= 1 << k;
            }
        }
        self.0 >> (phrase.len() - 1) & 1 == 1
    }
}

impl Word {
    pub fn matches(&self, word: &str) -> bool {
        match self {
            Word::Exact(exact) => exact == word,
            Word::Glob(glob) => glob.matches(word),
        }
    }

    /// What is kept of the codes that it may match; `None` if it matches none.
    pub fn code_heads(&self) -> Option<Heads<'_>> {
        let (beginning, fractions) = match self {
            Word::Exact(exact) => (is_code(exact).then_some(exact.as_str())?, is_fraction(exact)),
            Word::Glob(glob) => {
                let may = glob.0.bytes().all(|b| matches!(b, b'*' | b'?') || of_code(b));
                (may.then(|| glob.prefix())?, glob.may_be_fraction())
            }
        };
        let head = |len: usize| &beginning[..beginning.len().min(len)];
        let shorter = Some(head(FRACTION_HEAD)).filter(|shorter| fractions && shorter.len() < beginning.len());
        Some(Heads { all: head(CODE_HEAD), shorter })
    }
}

/// Heads of codes: all that begin with the first, and the second itself. Up to format 4 those of fractions are as long as others.
#[derive(Debug, PartialEq, Eq)]
pub struct Heads<'w> {
    pub all: &'w str,
    pub shorter: Option<&'w str>,
}

/// A folded pattern: `*` any characters, `?` one.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: &str) -> Glob {
        let mut folded = folded(pattern);
        while folded.contains("**") {
            folded = folded.replace("**", "*");
        }
        Glob(folded)
    }

    /// What every match begins with.
    pub fn prefix(&self) -> &str {
        &self.0[..self.0.find(['*', '?']).unwrap_or(self.0.len())]
    }

    /// Of digits, with a `z` behind them that may be meant by a `*` or `?`.
    fn may_be_fraction(&self) -> bool {
        let Some((last, before)) = self.0.as_bytes().split_last() else { return false };
        // A `*` may also be nothing behind the `z`.
        let digits = before.strip_suffix(b"z").filter(|_| *last == b'*').unwrap_or(before);
        matches!(last, b'*' | b'?' | b'z')
            && digits.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'*' | b'?'))
    }

    /// Greedy with one backtracking point: linear in practice, quadratic at worst on words of 255 bytes.
    pub fn matches(&self, word: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.as_str(), word);
        let mut retry: Option<(&str, &str)> = None;
        loop {
            let mut after = pattern.chars();
            match after.next() {
                Some('*') => {
                    pattern = after.as_str();
                    retry = Some((pattern, rest));
                    continue;
                }
                None if rest.is_empty() => return true,
                wanted => {
                    let mut tail = rest.chars();
                    if let (Some(wanted), Some(c)) = (wanted, tail.next())
                        && (wanted == '?' || wanted == c)
                    {
                        (pattern, rest) = (after.as_str(), tail.as_str());
                        continue;
                    }
                }
            }
            let Some((again, from)) = retry else { return false };
            let mut from = from.chars();
            if from.next().is_none() {
                return false;
            }
            (pattern, rest) = (again, from.as_str());
            retry = Some((again, rest));
        }
    }
}

/// Bounds compare as numbers or as times if both ends are such, else as folded text.
#[derive(Clone, Debug)]
pub enum Range {
    Number(Bound<Number>, Bound<Number>),
    Time(Bound<Micros>, Bound<Micros>),
    Text(Bound<String>, Bound<String>),
}

#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub fn parse(text: &str) -> Option<Number> {
        if !is_number(text) {
            return None;
        }
        text.parse().map(Number::Int).or_else(|_| text.parse().map(Number::Float)).ok()
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.partial_cmp(other).is_some_and(|order| order.is_eq())
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<std::cmp::Ordering> {
        let float = |n: &Number| match n {
            Number::Int(i) => *i as f64,
            Number::Float(f) => *f,
        };
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
            (a, b) => float(a).partial_cmp(&float(b)),
        }
    }
}

impl Range {
    pub fn new(low: Bound<String>, high: Bound<String>) -> Range {
        let each = |bound: &Bound<String>, ok: fn(&str) -> bool| match bound {
            Bound::Unbounded => true,
            Bound::Included(text) | Bound::Excluded(text) => ok(text),
        };
        let both = |ok: fn(&str) -> bool| each(&low, ok) && each(&high, ok);
        if both(|text| Number::parse(text).is_some()) {
            let number = |text: String| Number::parse(&text).expect("just parsed");
            Range::Number(low.map(number), high.map(number))
        } else if both(|text| parse_time(text).is_some()) {
            let time = |text: String| parse_time(&text).expect("just parsed");
            Range::Time(low.map(time), high.map(time))
        } else {
            Range::Text(low.map(|text| folded(&text)), high.map(|text| folded(&text)))
        }
    }

    fn matches(&self, leaf: &Leaf<'_>) -> bool {
        match (self, leaf) {
            (Range::Number(low, high), Leaf::Text(text) | Leaf::Number(text)) => {
                Number::parse(text).is_some_and(|number| within(low, high, &number))
            }
            (Range::Time(low, high), Leaf::Time(time)) => within(low, high, time),
            (Range::Time(low, high), Leaf::Text(text)) => parse_time(text).is_some_and(|time| within(low, high, &time)),
            (Range::Text(low, high), Leaf::Text(text) | Leaf::Number(text)) => within(low, high, &folded(text)),
            (Range::Text(low, high), Leaf::Bool(value)) => within(low, high, &value.to_string()),
            _ => false,
        }
    }
}

fn within<T: PartialOrd>(low: &Bound<T>, high: &Bound<T>, value: &T) -> bool {
    let above = match low {
        Bound::Unbounded => true,
        Bound::Included(low) => value >= low,
        Bound::Excluded(low) => value > low,
    };
    let below = match high {
        Bound::Unbounded => true,
        Bound::Included(high) => value <= high,
        Bound::Excluded(high) => value < high,
    };
    above && below
}

/// RFC 3339, or a date alone, which means its midnight in UTC.
pub fn parse_time(text: &str) -> Option<Micros> {
    if text.len() < 10 || !text.as_bytes()[0].is_ascii_digit() || text.as_bytes()[4] != b'-' {
        return None;
    }
    if text.len() == 10 {
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros());
    }
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

/// A network; IPv4 addresses are the IPv4-mapped part of IPv6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cidr {
    network: u128,
    mask: u128,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return None;
        }
        let free = width - prefix;
        let mask = if free == 128 { 0 } else { !0 << free };
        Some(Cidr { network: bits(address) & mask, mask })
    }

    fn matches(&self, leaf: &Leaf<'_>) -> bool {
        let Leaf::Text(text) = leaf else { return false };
        text.parse().is_ok_and(|address| bits(address) & self.mask == self.network)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Test {
    pub fn matches(&self, leaf: &Leaf<'_>) -> bool {
        match self {
            Test::Words(phrase) => phrase.matches(leaf),
            Test::Exists => true,
            Test::Range(range) => range.matches(leaf),
            Test::Cidr(cidr) => cidr.matches(leaf),
            Test::Regex(regex) => match leaf {
                Leaf::Text(text) | Leaf::Number(text) => regex.is_match(text),
                Leaf::Bool(value) => regex.is_match(if *value { "true" } else { "false" }),
                Leaf::Time(time) => regex.is_match(&format_micros(*time)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let check =
            |pattern, word, expected| assert_eq!(Glob::new(pattern).matches(word), expected, "{pattern} {word}");
        check("get*", "getobject", true);
        check("GET*", "get", true);
        check("get*", "forget", false);
        check("*secret*", "mysecrets", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*a*b", "xaxbxb", true);
        check("*a*b", "xaxbx", false);
        check("?", "", false);
        check("?", "é", true);
    }

    #[test]
    fn heads_of_codes() {
        let check = |word: Word, expected: Option<(&str, Option<&str>)>| {
            assert_eq!(word.code_heads(), expected.map(|(all, shorter)| Heads { all, shorter }), "{word:?}");
        };
        let exact = |word: &str| Word::Exact(word.to_owned());
        check(exact("550e8400"), Some(("550e", None)));
        check(exact("123456z"), Some(("1234", Some("1"))));
        check(exact("secrets"), None);
        let glob = |pattern: &str| Word::Glob(Glob::new(pattern));
        check(glob("550e84*"), Some(("550e", None)));
        check(glob("5508*"), Some(("5508", Some("5"))));
        check(glob("5508*z"), Some(("5508", Some("5"))));
        check(glob("5508*0"), Some(("5508", None)));
        check(glob("123456z*"), Some(("1234", Some("1"))));
        check(glob("12?4*z*"), Some(("12", Some("1"))));
        check(glob("12z3*"), Some(("12z3", None)));
        check(glob("123456zz*"), Some(("1234", None)));
        check(glob("5*"), Some(("5", None)));
        check(glob("*00"), Some(("", None)));
        check(glob("get*"), None);
    }

    #[test]
    fn networks() {
        let check = |net, address, expected| {
            let cidr = Cidr::parse(net).unwrap();
            assert_eq!(cidr.matches(&Leaf::Text(address)), expected, "{net} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("0.0.0.0/0", "fe80::1", false);
        check("::/0", "fe80::1", true);
        check("fe80::/10", "fe80::1", true);
        check("10.1.2.3/32", "s3.amazonaws.com", false);
        for bad in ["10.0.0.0", "10.0.0.0/33", "a/8", "10.0.0.0/x"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}
