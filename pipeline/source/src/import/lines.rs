//! Bytes -> messages of one file: lines, or documents that span lines. Streams; holds one message at a time, and at
//! most [`RECORD_BYTES_MAX`] while it finds out whether a document closes.
//!
//! A file whose first line opens more brackets than it closes (a pretty-printed `{"Records": [`) is read document by
//! document. If the brackets never close, the first line was merely broken, and the file is read line by line. JSON
//! longer than [`SPLIT_BYTES`] is handed over value by value, lists element by element; so is a list that breaks off.
//! These values are counted as lines are, so that no two messages of a file have one number.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use event::Source;
use memchr::memchr;

use super::input::Input;
use super::split::{Event, Splitter};
use crate::RECORD_BYTES_MAX;

/// Up to here a document is one message. An organization's CloudTrail files stay below.
const SPLIT_BYTES: usize = 8 << 20;

/// Told per file; a file that is wrong throughout must not fill the terminal.
const TROUBLES_MAX: usize = 5;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Number of its first line in the file, from 0; blank lines count.
    pub number: i64,
    pub bytes: Vec<u8>,
}

pub(super) struct Lines<R> {
    input: Input<R>,
    source: Source,
    number: i64,
    mode: Mode,
    /// Read ahead: lines that turned out to be no document, values of a list.
    ready: VecDeque<Line>,
    /// JSON that is too long to be held.
    splitter: Option<Splitter>,
    troubles: Vec<String>,
    troubles_untold: u64,
    split_bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Undecided,
    Lines,
    Documents,
}

enum Got {
    Line(Line),
    /// The beginning of a line that is JSON and longer than [`SPLIT_BYTES`].
    Long(Line),
    Nothing,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R, source: Source) -> Self {
        Lines {
            input: Input::new(input),
            source,
            number: 0,
            mode: Mode::Undecided,
            ready: VecDeque::new(),
            splitter: None,
            troubles: Vec::new(),
            troubles_untold: 0,
            split_bytes: SPLIT_BYTES,
            bytes_max: RECORD_BYTES_MAX,
        }
    }

    /// The line that is read next, from 0: where an error happened.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// What could not be handed over, each with its line.
    pub fn troubles(&mut self) -> Vec<String> {
        let mut troubles = std::mem::take(&mut self.troubles);
        if self.troubles_untold > 0 {
            troubles.push(format!("{} more like this", self.troubles_untold));
        }
        troubles
    }

    /// `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if let Some(splitter) = self.splitter.take() {
                self.split(splitter);
                continue;
            }
            let first = match self.line() {
                Got::Line(line) => line,
                Got::Long(line) => {
                    self.begin_split(line);
                    continue;
                }
                Got::Nothing => return self.input.take_failure().map_or(Ok(None), Err),
            };
            if self.mode == Mode::Lines && !self.at_end() {
                return Ok(Some(first));
            }
            let mut brackets = Brackets::default();
            brackets.feed(&first.bytes);
            if brackets.unfinished() && self.at_end() {
                self.broken_off(first.number, VecDeque::from([first]));
            } else if brackets.open() && self.mode != Mode::Lines {
                self.document(first, brackets);
            } else {
                if self.mode == Mode::Undecided {
                    self.mode = Mode::Lines;
                }
                return Ok(Some(first));
            }
        }
    }

    /// Collects lines until the brackets of `first` are closed.
    fn document(&mut self, first: Line, mut brackets: Brackets) {
        self.mode = Mode::Documents;
        let number = first.number;
        let mut size = first.bytes.len();
        let mut lines = VecDeque::from([first]);
        let mut may_split = true;
        while brackets.open() && size <= self.bytes_max {
            match self.line() {
                Got::Line(line) => {
                    brackets.feed(b"\n");
                    brackets.feed(&line.bytes);
                    size += line.bytes.len() + 1;
                    lines.push_back(line);
                }
                Got::Long(line) => {
                    lines.push_back(line);
                    return self.begin_split(Line { number, bytes: joined(&lines) });
                }
                Got::Nothing => return self.broken_off(number, lines),
            }
            if brackets.open() && size > self.split_bytes && may_split {
                may_split = false;
                let mut whole = joined(&lines);
                whole.push(b'\n');
                let mut splitter = Splitter::new(self.source, self.bytes_max);
                splitter.feed(&whole);
                if splitter.saw_list() {
                    return self.begin_split(Line { number, bytes: whole });
                }
            }
        }
        if brackets.unfinished() && self.at_end() {
            return self.broken_off(number, lines);
        }
        if brackets.open() || size > self.bytes_max {
            self.mode = Mode::Lines;
            self.ready = lines;
        } else {
            self.ready.push_back(Line { number, bytes: joined(&lines) });
        }
    }

    /// The input ended within a document. Of a list, the elements that are whole come through.
    fn broken_off(&mut self, number: i64, lines: VecDeque<Line>) {
        let whole = joined(&lines);
        let mut splitter = Splitter::new(self.source, self.bytes_max);
        splitter.feed(&whole);
        if splitter.saw_list() {
            return self.begin_split(Line { number, bytes: whole });
        }
        self.mode = Mode::Lines;
        self.ready = lines;
    }

    /// From here on `beginning` and what follows it are read value by value.
    fn begin_split(&mut self, beginning: Line) {
        self.number = beginning.number;
        self.input.put_back(beginning.bytes);
        self.splitter = Some(Splitter::new(self.source, self.bytes_max));
    }

    /// The next value or values; the splitter stays for more unless its line or the file ends.
    fn split(&mut self, mut splitter: Splitter) {
        let chunk = self.input.chunk();
        if chunk.is_empty() {
            if let Some(rest) = splitter.rest() {
                self.push_ready(rest);
            }
            return;
        }
        let (read, event) = splitter.feed(chunk);
        self.input.consume(read);
        match event {
            Some(Event::Value(value)) => self.push_ready(value),
            Some(Event::TooLong(value)) => {
                // Lines after a document that broke off, rather than one value?
                if let Some(end) = memchr(b'\n', &value) {
                    self.push_ready(value[..end].to_vec());
                    self.input.put_back(value[end + 1..].to_vec());
                    self.mode = Mode::Lines;
                    return;
                }
                self.trouble(format!("an event longer than {} bytes", self.bytes_max));
                splitter.drop_value();
            }
            Some(Event::End) => return,
            None => {}
        }
        self.splitter = Some(splitter);
    }

    fn push_ready(&mut self, bytes: Vec<u8>) {
        self.ready.push_back(Line { number: self.number, bytes });
        self.number += 1;
    }

    fn trouble(&mut self, what: String) {
        match self.troubles.len() < TROUBLES_MAX {
            true => self.troubles.push(format!("line {}: {what}", self.number + 1)),
            false => self.troubles_untold += 1,
        }
    }

    fn at_end(&mut self) -> bool {
        self.input.chunk().is_empty()
    }

    /// The next line that is not blank, without its line end.
    fn line(&mut self) -> Got {
        loop {
            let number = self.number;
            let mut bytes = Vec::new();
            let ended = match self.read_line(&mut bytes) {
                Read::Line => true,
                Read::Long => false,
                Read::Skipped => continue,
                Read::End => return Got::Nothing,
            };
            if number == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            if !ended {
                return Got::Long(Line { number, bytes });
            }
            self.number += 1;
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Got::Line(Line { number, bytes });
            }
        }
    }

    fn read_line(&mut self, bytes: &mut Vec<u8>) -> Read {
        loop {
            let chunk = self.input.chunk();
            if chunk.is_empty() {
                return if bytes.is_empty() { Read::End } else { Read::Line };
            }
            // What a crash or a truncated log leaves before the next line; it says nothing.
            let zeros = if bytes.is_empty() { chunk.iter().take_while(|byte| **byte == 0).count() } else { 0 };
            let end = memchr(b'\n', &chunk[zeros..]).map(|end| zeros + end);
            let taken = end.unwrap_or(chunk.len());
            bytes.extend_from_slice(&chunk[zeros..taken]);
            self.input.consume(taken + usize::from(end.is_some()));
            // Decided by the line's length alone, not by where a chunk happens to end.
            if bytes.len() > self.split_bytes && begins_json(bytes) {
                bytes.extend_from_slice(if end.is_some() { b"\n" } else { b"" });
                return Read::Long;
            }
            if end.is_some() && bytes.len() <= self.bytes_max {
                return Read::Line;
            }
            if bytes.len() > self.bytes_max {
                self.skip_line(bytes.len() as u64, end.is_some());
                return Read::Skipped;
            }
        }
    }

    /// Goes behind the end of a line that nobody can hold.
    fn skip_line(&mut self, mut size: u64, mut ended: bool) {
        while !ended {
            let chunk = self.input.chunk();
            if chunk.is_empty() {
                break;
            }
            let end = memchr(b'\n', chunk);
            let read = end.map_or(chunk.len(), |end| end + 1);
            size += read as u64;
            ended = end.is_some();
            self.input.consume(read);
        }
        self.trouble(format!("longer than {} bytes ({size})", self.bytes_max));
        self.number += 1;
    }
}

enum Read {
    Line,
    Long,
    Skipped,
    End,
}

fn begins_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    matches!(bytes.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'['))
}

fn joined(lines: &VecDeque<Line>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.bytes.len() + 1).sum());
    for line in lines {
        if !bytes.is_empty() {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&line.bytes);
    }
    bytes
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

    fn unfinished(&self) -> bool {
        self.depth > 0 && !self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(text: &[u8], split_bytes: usize, bytes_max: usize) -> (Vec<(i64, String)>, Vec<String>) {
        // A small buffer, so that lines span reads.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text), Source::CloudTrail);
        (lines.split_bytes, lines.bytes_max) = (split_bytes, bytes_max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, String::from_utf8(line.bytes).unwrap()));
        }
        (all, lines.troubles())
    }

    fn expect(got: Vec<(i64, String)>, text: &str, expected: &[(i64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(number, text)| (*number, text.to_string())).collect();
        assert_eq!(got, expected, "{text:?}");
    }

    fn check(text: &str, expected: &[(i64, &str)]) {
        let (got, troubles) = read_with(text.as_bytes(), 500, 1000);
        assert!(troubles.is_empty(), "{troubles:?}");
        expect(got, text, expected);
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
        check("\0\0\0\0{}\n\0\0\n{\"a\":\0}\n", &[(0, "{}"), (2, "{\"a\":\0}")]);
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
        assert_eq!(read_with(long.as_bytes(), 30, 60).0.len(), 51);
    }

    #[test]
    fn a_list_that_breaks_off_gives_its_whole_elements() {
        let expected = [(0, "{\"a\":1}"), (1, "{\"b\":2}"), (2, "{\"c")];
        check("{\"Records\":[{\"a\":1},{\"b\":2},{\"c", &expected);
        check("{\"Records\":[\n{\"a\":1},\n{\"b\":2},\n{\"c\n", &expected);
        check("{}\n{\"Records\":[{\"a\":1},{\"c", &[(0, "{}"), (1, "{\"a\":1}"), (2, "{\"c")]);
    }

    #[test]
    fn long_json_comes_value_by_value() {
        let record = "{\"a\":\"xxxxxxxxxxxxxxxxxxxx\"}";
        let list = format!("{{\"Records\":[{}]}}", [record; 10].join(","));
        let text = format!("{list}\n{{}}\n");
        let mut expected: Vec<(i64, &str)> = (0..10).map(|number| (number, record)).collect();
        expected.push((10, "{}"));
        expect(read_with(text.as_bytes(), 50, 100).0, &text, &expected);

        let pretty = text.replace(",", ",\n");
        expect(read_with(pretty.as_bytes(), 50, 100).0, &pretty, &expected);
        let in_a_row = [record; 10].concat();
        expect(read_with(in_a_row.as_bytes(), 50, 100).0, &in_a_row, &expected[..10]);
    }

    #[test]
    fn what_exceeds_the_limit_is_named_and_costs_only_itself() {
        let long = "y".repeat(200);
        let text = format!("{{}}\n{long}\n{{\"b\":1}}\n[{{\"c\":2}},\"{long}\",{{\"d\":3}}]\n");
        let (got, troubles) = read_with(text.as_bytes(), 50, 100);
        expect(got, &text, &[(0, "{}"), (2, "{\"b\":1}"), (3, "{\"c\":2}"), (4, "{\"d\":3}")]);
        assert_eq!(troubles, ["line 2: longer than 100 bytes (201)", "line 5: an event longer than 100 bytes"]);
    }

    #[test]
    fn lines_behind_a_list_that_breaks_off_are_lines() {
        let lines = "{\"a\":\"xxxxxxxxxxxxxxxxxxxx\"}\n".repeat(10);
        let text = format!("{{\"Records\":[{{\"cut\":{{}}\n{lines}");
        let (got, troubles) = read_with(text.as_bytes(), 50, 100);
        assert!(troubles.is_empty(), "{troubles:?}");
        assert_eq!(got.iter().filter(|(_, line)| *line == "{\"a\":\"xxxxxxxxxxxxxxxxxxxx\"}").count(), 10, "{got:?}");
    }

    #[test]
    fn any_bytes_come_to_an_end_and_buffers_do_not_matter() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        const PARTS: [&str; 14] =
            ["{", "}", "[", "]", "\"", "\\", ",", ":", "\n", "\"Records\":[", "\0", " ", "word", "\"a\":{\"b\":1}"];
        let base: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        for seed in (0..20_000).map(|case| base.wrapping_add(case)) {
            let mut random = StdRng::seed_from_u64(seed);
            let count = random.random_range(0..60);
            let text: String = (0..count).map(|_| PARTS[random.random_range(0..PARTS.len())]).collect();
            let read = |capacity| {
                let mut lines = Lines::new(io::BufReader::with_capacity(capacity, text.as_bytes()), Source::CloudTrail);
                (lines.split_bytes, lines.bytes_max) = (40, 80);
                let mut all = Vec::new();
                while let Some(line) = lines.next().unwrap() {
                    assert!(line.bytes.len() <= 80, "SEED={seed}: {text:?}");
                    assert!(all.last().is_none_or(|(number, _)| *number < line.number), "SEED={seed}: {text:?}");
                    all.push((line.number, line.bytes));
                    assert!(all.len() <= text.len(), "SEED={seed}: endless in {text:?}");
                }
                all
            };
            assert_eq!(read(4096), read(1), "SEED={seed}: {text:?}");
        }
        println!("from SEED={base}");
    }
}
