//! A stream of JSON values that is too long to be held -> its values, one at a time. Of a list (`[…]` or the vendor's
//! list object, `{"Records": […]}`) it hands over the elements, so that an export of any size needs the memory of one
//! event. It counts brackets outside of strings and checks nothing else: what a value means is normalize's matter.

use event::Source;

/// The key under which a source's list object keeps its elements.
fn list_key(source: Source) -> &'static [u8] {
    match source {
        Source::Kubernetes => b"items",
        Source::CloudTrail => b"Records",
        // There is no list object.
        Source::Falco => b"",
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Value(Vec<u8>),
    /// A value beyond the limit, as far as it was read. It goes on in what follows.
    TooLong(Vec<u8>),
    /// A line ended between two values, or within a string: no JSON goes on here.
    End,
}

#[derive(Debug)]
pub(super) struct Splitter {
    key: &'static [u8],
    bytes_max: usize,
    depth: u64,
    /// Depth at which the elements of the list under way are; 0 outside of a list.
    list_depth: u64,
    in_string: bool,
    escaped: bool,
    /// The last string at depth 1, and whether a colon came after it.
    name: Vec<u8>,
    named: bool,
    value: Vec<u8>,
    taking: bool,
    /// Until the value under way ends.
    dropping: bool,
    /// In what follows the list within its object.
    behind_list: bool,
    saw_list: bool,
}

impl Splitter {
    pub fn new(source: Source, bytes_max: usize) -> Splitter {
        Splitter {
            key: list_key(source),
            bytes_max,
            depth: 0,
            list_depth: 0,
            in_string: false,
            escaped: false,
            name: Vec::new(),
            named: false,
            value: Vec::new(),
            taking: false,
            dropping: false,
            behind_list: false,
            saw_list: false,
        }
    }

    /// Has a list begun?
    pub fn saw_list(&self) -> bool {
        self.saw_list
    }

    /// Reads on until something happens; returns how many of `bytes` were read.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.taking && self.value.len() + (at - from) >= self.bytes_max {
                return (at, Some(Event::TooLong(self.take(&bytes[from..at]))));
            }
            if self.in_string {
                if byte == b'\n' {
                    return self.end(&bytes[from..at], at);
                }
                self.in_string(byte);
                continue;
            }
            match byte {
                b'\n' if self.depth == 0 || self.dropping => return self.end(&bytes[from..at], at),
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'[' if self.begins_list() => {
                    self.depth += 1;
                    (self.list_depth, self.saw_list, self.behind_list) = (self.depth, true, false);
                    self.value.clear();
                    self.taking = false;
                    continue;
                }
                b']' if self.list_depth > 0 && self.depth == self.list_depth => {
                    self.depth -= 1;
                    (self.list_depth, self.named, self.dropping) = (0, false, false);
                    self.behind_list = self.depth > 0;
                    if self.taking {
                        return (at + 1, Some(Event::Value(self.take(&bytes[from..at]))));
                    }
                    continue;
                }
                b',' if self.list_depth > 0 && self.depth == self.list_depth => {
                    self.dropping = false;
                    if self.taking {
                        return (at + 1, Some(Event::Value(self.take(&bytes[from..at]))));
                    }
                    continue;
                }
                _ => {}
            }
            if !self.taking && !self.behind_list && !self.dropping {
                (self.taking, from) = (true, at);
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        (self.behind_list, self.dropping) = (false, false);
                        if self.taking {
                            return (at + 1, Some(Event::Value(self.take(&bytes[from..=at]))));
                        }
                        continue;
                    }
                }
                b'"' => {
                    self.in_string = true;
                    self.name.clear();
                }
                _ => {}
            }
            self.named = byte == b':' && self.depth == 1;
        }
        if self.taking {
            self.value.extend_from_slice(&bytes[from..]);
        }
        (bytes.len(), None)
    }

    /// After [`Event::TooLong`]: what is left of that value comes out nowhere.
    pub fn drop_value(&mut self) {
        self.dropping = true;
    }

    /// What is left when the input ends.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        self.taking.then(|| self.take(b"")).filter(|value| !value.is_empty())
    }

    fn begins_list(&self) -> bool {
        let named = self.depth == 1 && self.named && !self.key.is_empty() && self.name == self.key;
        self.list_depth == 0 && (self.depth == 0 && !self.taking || named)
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
        if self.in_string && self.depth == 1 && self.name.len() <= self.key.len() {
            self.name.push(byte);
        }
    }

    /// At a line's end, which is left to be read again when a value comes first.
    fn end(&mut self, last: &[u8], at: usize) -> (usize, Option<Event>) {
        (self.depth, self.list_depth) = (0, 0);
        (self.in_string, self.behind_list, self.dropping) = (false, false, false);
        if self.taking {
            return (at, Some(Event::Value(self.take(last))));
        }
        (at + 1, Some(Event::End))
    }

    fn take(&mut self, last: &[u8]) -> Vec<u8> {
        self.taking = false;
        let mut value = std::mem::take(&mut self.value);
        value.extend_from_slice(last);
        value.truncate(value.trim_ascii_end().len());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(source: Source, text: &str, step: usize) -> Vec<String> {
        let mut splitter = Splitter::new(source, 70);
        let mut all = Vec::new();
        for chunk in text.as_bytes().chunks(step) {
            let mut at = 0;
            while at < chunk.len() {
                let (read, event) = splitter.feed(&chunk[at..]);
                at += read;
                match event {
                    Some(Event::Value(value)) => all.push(String::from_utf8(value).unwrap()),
                    Some(Event::TooLong(value)) => all.push(format!("too long: {}", value.len())),
                    Some(Event::End) => all.push("end".to_owned()),
                    None => {}
                }
            }
        }
        all.extend(splitter.rest().map(|rest| format!("rest: {}", String::from_utf8(rest).unwrap())));
        all
    }

    fn check(source: Source, text: &str, expected: &[&str]) {
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(split(source, text, step), expected, "{text} in steps of {step}");
        }
    }

    #[test]
    fn elements_of_lists_come_one_by_one() {
        let trail = Source::CloudTrail;
        check(trail, r#"{"Records":[{"a":"]}"} , {"b":[1,{}]}]}"#, &[r#"{"a":"]}"}"#, r#"{"b":[1,{}]}"#]);
        check(trail, r#"{"x":{"Records":[0]},"y":"Records","Records":[7,8],"z":[9]}"#, &["7", "8"]);
        check(trail, r#"{"Records" : [1]}{"Records":[2]}"#, &["1", "2"]);
        check(trail, "[{\"a\":1},\n{\"a\":2}]\n", &[r#"{"a":1}"#, r#"{"a":2}"#, "end"]);
        check(trail, r#"{"Records":[]}"#, &[]);
        check(Source::Kubernetes, r#"{"kind":"EventList","items":[{"k":"\"]"}],"metadata":{}}"#, &[r#"{"k":"\"]"}"#]);
    }

    #[test]
    fn other_values_stay_whole() {
        check(Source::CloudTrail, r#"{"a":[1,2]}{"b":{}} x"#, &[r#"{"a":[1,2]}"#, r#"{"b":{}}"#, "rest: x"]);
        check(Source::Falco, r#"{"":[1],"Records":[2]}"#, &[r#"{"":[1],"Records":[2]}"#]);
        check(Source::CloudTrail, "text {\n", &["rest: text {"]);
    }

    #[test]
    fn what_breaks_off_is_handed_over() {
        check(Source::CloudTrail, r#"{"Records":[{"a":1},{"b"#, &[r#"{"a":1}"#, r#"rest: {"b"#]);
        check(Source::CloudTrail, "{\"Records\":[{\"a\":\"cut\n", &["{\"a\":\"cut", "end"]);
        let long = format!(r#"{{"Records":[{{"a":"{}"}}]}}"#, "x".repeat(80));
        assert_eq!(split(Source::CloudTrail, &long, 1000)[0], "too long: 70");
    }
}
