//! Reads JSON strictly (https://www.rfc-editor.org/rfc/rfc8259) without building anything: what `serde_json` skips,
//! this skips, and what it refuses, this refuses. Strings may hold escaped halves of surrogate pairs, numbers may be
//! of any size, and values nest as deep as they like.

use crate::scan;

/// A place in a text. Every step returns `None` where the text is no JSON.
#[derive(Debug)]
pub(crate) struct Cursor<'de> {
    bytes: &'de [u8],
    pub at: usize,
}

impl<'de> Cursor<'de> {
    pub fn new(text: &'de str) -> Self {
        Cursor { bytes: text.as_bytes(), at: 0 }
    }

    pub fn since(&self, start: usize) -> &'de [u8] {
        &self.bytes[start..self.at]
    }

    /// The next byte that is not white space, which stays to be read.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        let (byte, after) = token(self.bytes, self.at)?;
        self.at = after - 1;
        Some(byte)
    }

    /// Reads the next byte that is not white space.
    #[inline(always)]
    pub fn token(&mut self) -> Option<u8> {
        let (byte, after) = token(self.bytes, self.at)?;
        self.at = after;
        Some(byte)
    }

    #[inline(always)]
    pub fn rest(&self) -> &'de [u8] {
        &self.bytes[self.at..]
    }

    /// Reads `"key":`; the key without its quotes, and whether it has escapes.
    #[inline(always)]
    pub fn key(&mut self) -> Option<(&'de [u8], bool)> {
        if self.token()? != b'"' {
            return None;
        }
        let key = self.key_text()?;
        (self.token()? == b':').then_some(key)
    }

    /// Reads a key whose opening quote has been read.
    #[inline(always)]
    pub fn key_text(&mut self) -> Option<(&'de [u8], bool)> {
        let start = self.at;
        let escaped = self.string()?;
        Some((&self.bytes[start..self.at - 1], escaped))
    }

    /// Reads a string whose opening quote has been read; says whether it has escapes.
    #[inline(always)]
    pub fn string(&mut self) -> Option<bool> {
        let (end, escaped) = string_end(self.bytes, self.at)?;
        self.at = end;
        Some(escaped)
    }

    /// Reads one value of any kind.
    pub fn skip(&mut self) -> Option<()> {
        let bytes = self.bytes;
        // A variable of its own stays in a register: most bytes of most events pass here.
        let mut at = self.at;
        let mut open = Open::default();
        loop {
            let (first, after) = token(bytes, at)?;
            at = after;
            match first {
                b'"' => (at, _) = string_end(bytes, at)?,
                b'{' => match token(bytes, at)? {
                    (b'}', after) => at = after,
                    _ => {
                        open.push(true);
                        at = key_end(bytes, at)?;
                        continue;
                    }
                },
                b'[' => match token(bytes, at)? {
                    (b']', after) => at = after,
                    _ => {
                        open.push(false);
                        continue;
                    }
                },
                first => {
                    self.at = at;
                    self.scalar(first)?;
                    at = self.at;
                }
            }
            // Behind a value: on to the next one, out of all that ends here.
            loop {
                if open.depth == 0 {
                    self.at = at;
                    return Some(());
                }
                let (byte, after) = token(bytes, at)?;
                at = after;
                match (byte, open.is_object()) {
                    (b',', true) => {
                        at = key_end(bytes, at)?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => open.pop(),
                    _ => return None,
                }
            }
        }
    }

    /// Reads the rest of what is neither a string nor an object nor a list.
    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => {
                let digit = self.bytes.get(self.at)?;
                self.at += 1;
                self.number(*digit)
            }
            digit => self.number(digit),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let found = self.bytes[self.at..].starts_with(rest);
        self.at += rest.len();
        found.then_some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' if self.here().is_some_and(|byte| byte.is_ascii_digit()) => return None,
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.here(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.here(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn here(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn digits(&mut self) {
        while self.here().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.digits();
        (self.at > start).then_some(())
    }
}

/// The first byte at or after `at` that is not white space, and what is behind it.
#[inline(always)]
fn token(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
            return Some((byte, at));
        }
    }
}

/// End of the `"key":` at or after `at`.
#[inline(always)]
fn key_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (b'"', start) = token(bytes, at)? else { return None };
    let (end, _) = string_end(bytes, start)?;
    match token(bytes, end)? {
        (b':', after) => Some(after),
        _ => None,
    }
}

/// End of a string whose opening quote is before `at`, and whether it has escapes.
#[inline(always)]
fn string_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        at = scan::plain_end(bytes, at);
        match *bytes.get(at)? {
            b'"' => return Some((at + 1, escaped)),
            b'\\' => at = escape_end(bytes, at + 1)?,
            _ => return None,
        }
        escaped = true;
    }
}

/// End of an escape whose backslash is before `at`.
#[cold]
fn escape_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at..] {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(at + 1),
        [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => Some(at + 5),
        _ => None,
    }
}

/// Which of the enclosing values are objects: a stack of bits, so that only depths beyond 64 allocate.
#[derive(Default)]
struct Open {
    depth: usize,
    bits: u64,
    outer: Vec<u64>,
}

impl Open {
    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().expect("pushed at the same depth");
        }
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}
