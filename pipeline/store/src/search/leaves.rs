//! The leaves of a JSON text: every string, number and boolean with its path, in one pass and without a tree.
//! Object keys are joined by dots (dots inside keys are kept), array elements share the array's path, nulls are not
//! leaves. Numbers keep their literal text. Text that is not JSON is one leaf with an empty path, so that unparsed
//! rows are searchable too.

use std::ops::Range;

use event::Micros;
use memchr::memchr2;

/// One value to test. `Time` only comes from typed columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaf<'a> {
    Text(&'a str),
    /// The literal as written.
    Number(&'a str),
    Bool(bool),
    Time(Micros),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Number,
    True,
    False,
}

#[derive(Clone, Debug)]
struct Piece {
    path: Range<u32>,
    value: Range<u32>,
    kind: Kind,
}

/// The leaves of one row; reused from row to row.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    text: String,
    pieces: Vec<Piece>,
}

impl Leaves {
    /// Replaces what is held by the leaves of `raw`.
    pub fn read(&mut self, raw: &str) {
        self.clear();
        let mut reader = Reader { raw, at: 0, path: String::new(), stored: None, frames: Vec::new(), leaves: self };
        if reader.document().is_none() {
            self.clear();
            self.text.push_str(raw);
            let value = 0..self.text.len() as u32;
            self.pieces.push(Piece { path: 0..0, value, kind: Kind::Text });
        }
    }

    pub fn count(&self) -> usize {
        self.pieces.len()
    }

    fn get(&self, index: usize) -> Option<(&str, Leaf<'_>)> {
        let piece = self.pieces.get(index)?;
        let leaf = match piece.kind {
            Kind::Text => Leaf::Text(self.slice(&piece.value)),
            Kind::Number => Leaf::Number(self.slice(&piece.value)),
            Kind::True => Leaf::Bool(true),
            Kind::False => Leaf::Bool(false),
        };
        Some((self.slice(&piece.path), leaf))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Leaf<'_>)> {
        (0..self.count()).filter_map(|index| self.get(index))
    }

    fn slice(&self, range: &Range<u32>) -> &str {
        &self.text[range.start as usize..range.end as usize]
    }

    fn clear(&mut self) {
        self.text.clear();
        self.pieces.clear();
    }
}

enum Frame {
    /// Length of the path of the object itself.
    Object(usize),
    Array,
}

struct Reader<'a> {
    raw: &'a str,
    at: usize,
    path: String,
    /// Where the current path has been written to, if it has.
    stored: Option<Range<u32>>,
    frames: Vec<Frame>,
    leaves: &'a mut Leaves,
}

/// `None` anywhere: this is not JSON.
impl Reader<'_> {
    fn document(&mut self) -> Option<()> {
        loop {
            if self.value()? && !self.next_in_frame()? {
                self.space();
                return (self.at == self.raw.len()).then_some(());
            }
        }
    }

    /// Reads a scalar, or enters an object or array. True when a value is complete.
    fn value(&mut self) -> Option<bool> {
        self.space();
        match self.peek()? {
            b'{' => {
                self.at += 1;
                self.space();
                if self.peek()? == b'}' {
                    self.at += 1;
                    return Some(true);
                }
                self.frames.push(Frame::Object(self.path.len()));
                self.key()?;
                Some(false)
            }
            b'[' => {
                self.at += 1;
                self.space();
                if self.peek()? == b']' {
                    self.at += 1;
                    return Some(true);
                }
                self.frames.push(Frame::Array);
                Some(false)
            }
            b'"' => {
                let path = self.store_path();
                let start = self.leaves.text.len();
                self.at = string(self.raw, self.at, &mut self.leaves.text)?;
                self.leaf(path, start, Kind::Text)
            }
            b't' => self.word("true", Some(Kind::True)),
            b'f' => self.word("false", Some(Kind::False)),
            b'n' => self.word("null", None),
            _ => {
                let end = self.at + number_len(&self.raw.as_bytes()[self.at..])?;
                let path = self.store_path();
                let start = self.leaves.text.len();
                self.leaves.text.push_str(&self.raw[self.at..end]);
                self.at = end;
                self.leaf(path, start, Kind::Number)
            }
        }
    }

    /// After a value: true if another one follows in an enclosing object or array.
    fn next_in_frame(&mut self) -> Option<bool> {
        loop {
            let Some(frame) = self.frames.last() else { return Some(false) };
            let own = match frame {
                Frame::Object(own) => Some(*own),
                Frame::Array => None,
            };
            self.space();
            let byte = self.peek()?;
            self.at += 1;
            match (byte, own) {
                (b',', Some(own)) => {
                    self.cut_path(own);
                    self.key()?;
                    return Some(true);
                }
                (b',', None) => return Some(true),
                (b'}', Some(own)) => {
                    self.cut_path(own);
                    self.frames.pop();
                }
                (b']', None) => {
                    self.frames.pop();
                }
                _ => return None,
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.space();
        self.stored = None;
        if !self.path.is_empty() {
            self.path.push('.');
        }
        let start = self.path.len();
        self.at = string(self.raw, self.at, &mut self.path)?;
        if self.path.as_bytes()[start..].contains(&0) {
            // The index ends a path with a zero byte.
            let clean = self.path[start..].replace('\0', "\u{fffd}");
            self.path.truncate(start);
            self.path.push_str(&clean);
        }
        self.space();
        self.expect(b':')
    }

    fn cut_path(&mut self, len: usize) {
        self.path.truncate(len);
        self.stored = None;
    }

    fn store_path(&mut self) -> Range<u32> {
        if let Some(range) = &self.stored {
            return range.clone();
        }
        let start = self.leaves.text.len() as u32;
        self.leaves.text.push_str(&self.path);
        let range = start..self.leaves.text.len() as u32;
        self.stored = Some(range.clone());
        range
    }

    fn leaf(&mut self, path: Range<u32>, start: usize, kind: Kind) -> Option<bool> {
        let value = start as u32..self.leaves.text.len() as u32;
        self.leaves.pieces.push(Piece { path, value, kind });
        Some(true)
    }

    fn word(&mut self, word: &str, kind: Option<Kind>) -> Option<bool> {
        if !self.raw[self.at..].starts_with(word) {
            return None;
        }
        self.at += word.len();
        match kind {
            None => Some(true),
            Some(kind) => {
                let path = self.store_path();
                let start = self.leaves.text.len();
                self.leaf(path, start, kind)
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.raw.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// Reads the string that opens at `at` into `out`, unescaped; returns the position after its closing quote.
fn string(raw: &str, at: usize, out: &mut String) -> Option<usize> {
    let bytes = raw.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        let end = at + memchr2(b'"', b'\\', bytes.get(at..)?)?;
        out.push_str(&raw[at..end]);
        if bytes[end] == b'"' {
            return Some(end + 1);
        }
        at = escape(raw, end + 1, out)?;
    }
}

/// One escape, after its backslash.
fn escape(raw: &str, at: usize, out: &mut String) -> Option<usize> {
    let plain = match raw.as_bytes().get(at)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(raw, at + 1, out),
        _ => return None,
    };
    out.push(plain);
    Some(at + 1)
}

/// `\uXXXX` after the `u`, with its low surrogate if it has one; a lone surrogate becomes U+FFFD.
fn unicode(raw: &str, at: usize, out: &mut String) -> Option<usize> {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 4)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let high = unit(at)?;
    let at = at + 4;
    if (0xd800..0xdc00).contains(&high)
        && raw.get(at..at + 2) == Some("\\u")
        && let Some(low @ 0xdc00..0xe000) = unit(at + 2)
    {
        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        return Some(at + 6);
    }
    out.push(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(at)
}

/// Length of the JSON number that `bytes` begins with.
fn number_len(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

/// Is the whole text a number as JSON writes it?
pub fn is_number(text: &str) -> bool {
    number_len(text.as_bytes()) == Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &[(&str, Leaf<'_>)]) {
        let mut leaves = Leaves::default();
        leaves.read(raw);
        assert_eq!(leaves.iter().collect::<Vec<_>>(), expected, "{raw}");
    }

    #[test]
    fn paths_and_values() {
        use Leaf::*;
        check(
            r#" {"a":{"b.c":"x","n":null},"l":[1,{"k":true},[-2.50e3]],"e":{},"z":""} "#,
            &[("a.b.c", Text("x")), ("l", Number("1")), ("l.k", Bool(true)), ("l", Number("-2.50e3")), ("z", Text(""))],
        );
        check(r#""\u0041\ud83d\ude00\ud800\n""#, &[("", Text("A😀\u{fffd}\n"))]);
        check("5", &[("", Number("5"))]);
        check(r#"{"a\u0000":1}"#, &[("a\u{fffd}", Number("1"))]);
    }

    #[test]
    fn what_is_not_json_is_one_text() {
        for raw in ["not json", r#"{"a":1"#, r#"{"a":1}}"#, r#"{"a" 1}"#, "[1,]", "01x", "-", "\"\\ud8", ""] {
            check(raw, &[("", Leaf::Text(raw))]);
        }
    }

    #[test]
    fn numbers_are_recognized_whole() {
        for text in ["0", "-1", "1.5", "1e5", "-2.50E+3"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "1.", ".5", "1e", "0x1", "1 ", "inf", "nan"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
