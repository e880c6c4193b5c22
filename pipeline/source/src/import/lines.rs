//! Bytes -> messages of one file: lines, or documents that span lines. Streams; holds one message at a time, and
//! at most [`MESSAGE_BYTES_MAX`] while it finds out whether a document closes.
//!
//! A file whose first line opens more brackets than it closes (a pretty-printed `{"Records": [`) is read document
//! by document. If the brackets never close, the first line was merely broken, and the file is read line by line.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use memchr::memchr;

use crate::RECORD_BYTES_MAX;

/// The longest line or document that is handed over. Real audit lines reach 220 KB; this is far beyond any, and
/// what the embedded log takes.
pub(super) const MESSAGE_BYTES_MAX: usize = RECORD_BYTES_MAX;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Number of its first line in the file, from 0; blank lines count.
    pub number: i64,
    pub bytes: Vec<u8>,
}

pub(super) struct Lines<R> {
    input: R,
    number: i64,
    mode: Mode,
    /// Lines that were read ahead and turned out to be no document.
    ready: VecDeque<Line>,
    bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Undecided,
    Lines,
    Documents,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Self {
        Lines { input, number: 0, mode: Mode::Undecided, ready: VecDeque::new(), bytes_max: MESSAGE_BYTES_MAX }
    }

    /// The line that is read next, from 0: where an error happened.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.ready.pop_front() {
            return Ok(Some(line));
        }
        let Some(first) = self.line()? else { return Ok(None) };
        if self.mode == Mode::Lines {
            return Ok(Some(first));
        }
        let mut brackets = Brackets::default();
        brackets.feed(&first.bytes);
        if !brackets.open() {
            if self.mode == Mode::Undecided {
                self.mode = Mode::Lines;
            }
            return Ok(Some(first));
        }
        self.mode = Mode::Documents;
        self.document(first, brackets).map(Some)
    }

    /// Collects lines until the brackets of `first` are closed.
    fn document(&mut self, first: Line, mut brackets: Brackets) -> io::Result<Line> {
        let mut size = first.bytes.len();
        let mut lines = VecDeque::from([first]);
        while brackets.open() && size <= self.bytes_max {
            let Some(line) = self.line()? else { break };
            brackets.feed(b"\n");
            brackets.feed(&line.bytes);
            size += line.bytes.len() + 1;
            lines.push_back(line);
        }
        if brackets.open() || size > self.bytes_max {
            self.mode = Mode::Lines;
            self.ready = lines;
            return Ok(self.ready.pop_front().expect("the first line is there"));
        }
        Ok(joined(lines))
    }

    /// The next line that is not blank, without its line end.
    fn line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let number = self.number;
            let mut bytes = Vec::new();
            if !self.read_line(&mut bytes)? {
                return Ok(None);
            }
            self.number += 1;
            if number == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Line { number, bytes }));
            }
        }
    }

    /// False at the end of the file.
    fn read_line(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if chunk.is_empty() {
                return Ok(!bytes.is_empty());
            }
            let end = memchr(b'\n', chunk);
            let taken = end.unwrap_or(chunk.len());
            bytes.extend_from_slice(&chunk[..taken]);
            self.input.consume(taken + usize::from(end.is_some()));
            if bytes.len() > self.bytes_max {
                return Err(io::Error::other(format!("longer than {} bytes", self.bytes_max)));
            }
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

fn joined(lines: VecDeque<Line>) -> Line {
    let number = lines.front().map_or(0, |line| line.number);
    let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.bytes.len() + 1).sum());
    for line in lines {
        if !bytes.is_empty() {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&line.bytes);
    }
    Line { number, bytes }
}

/// Counts JSON brackets outside of strings.
#[derive(Default)]
struct Brackets {
    depth: i64,
    in_string: bool,
    escaped: bool,
    /// Something other than a bracket came first, or a string spans lines: no JSON document.
    broken: bool,
    begun: bool,
}

impl Brackets {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.in_string {
                self.in_string(byte);
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                b'"' => self.in_string = true,
                _ => {}
            }
            if !self.begun && !byte.is_ascii_whitespace() {
                self.begun = true;
                self.broken = self.depth == 0;
            }
        }
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            b'\n' => self.broken = true,
            _ => {}
        }
    }

    /// Does a document go on after this line?
    fn open(&self) -> bool {
        self.depth > 0 && !self.in_string && !self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], bytes_max: usize) -> Vec<(i64, String)> {
        // A small buffer, so that lines span reads.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text));
        lines.bytes_max = bytes_max;
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, String::from_utf8(line.bytes).unwrap()));
        }
        all
    }

    fn check(text: &str, expected: &[(i64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(number, text)| (*number, text.to_string())).collect();
        assert_eq!(read(text.as_bytes(), 1000), expected, "{text:?}");
    }

    #[test]
    fn one_message_per_line() {
        check("", &[]);
        check("\n \n\t\r\n", &[]);
        check("{}", &[(0, "{}")]);
        check("{\"a\":1}\r\n\n{\"a\":2}\n", &[(0, "{\"a\":1}"), (2, "{\"a\":2}")]);
        check("\u{feff}{\"a\":1}\n\u{feff}x\n", &[(0, "{\"a\":1}"), (1, "\u{feff}x")]);
        check("09:00 Falco initialized {\n{}\n", &[(0, "09:00 Falco initialized {"), (1, "{}")]);
        check("{\"a\":\"}\\\"{\"}\n{\n}", &[(0, "{\"a\":\"}\\\"{\"}"), (1, "{"), (2, "}")]);
    }

    #[test]
    fn documents_that_span_lines_are_one_message() {
        check("{\"Records\":[\n  {\"a\":\"]\"}\n]}\n", &[(0, "{\"Records\":[\n  {\"a\":\"]\"}\n]}")]);
        check("\n[\r\n1\r\n]\n\n{\n}\n", &[(1, "[\n1\n]"), (5, "{\n}")]);
        check("{\n}\n{\"a\":1}\n", &[(0, "{\n}"), (2, "{\"a\":1}")]);
    }

    #[test]
    fn a_broken_first_line_costs_only_itself() {
        check("{\"a\":[\n{}\n{}\n", &[(0, "{\"a\":["), (1, "{}"), (2, "{}")]);
        check("{\"a\":\"cut\n{}\n", &[(0, "{\"a\":\"cut"), (1, "{}")]);
        let long: String = std::iter::once("{\n").chain(std::iter::repeat_n("{}\n", 50)).collect();
        assert_eq!(read(long.as_bytes(), 60).len(), 51);
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error() {
        let mut lines = Lines::new(&b"{}\n{\"a\":1234567}\n"[..]);
        lines.bytes_max = 8;
        assert_eq!(lines.next().unwrap().unwrap().bytes, b"{}");
        assert_eq!(lines.next().unwrap_err().to_string(), "longer than 8 bytes");
        assert_eq!(lines.number(), 1);
    }
}
