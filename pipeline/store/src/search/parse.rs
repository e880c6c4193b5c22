//! Text to [`Query`].
//!
//! ```text
//! query  = and { OR and }            and   = not { [AND] not }          not = { NOT | - | ! } item
//! item   = ( query ) | [field :] value
//! value  = word | "phrase" | pat*ern? | [a TO b] | {a TO b} | >=a | >a | <=a | <a | /regex/ | 10.0.0.0/8 | *
//!        | (set of values with AND, OR, NOT) | IN [a, b]
//! ```
//!
//! A backslash takes the next character literally. Errors carry the position.

use std::fmt;
use std::ops::Bound;

use regex::RegexBuilder;

use super::leaves::is_number;
use super::query::{Cidr, Expr, Glob, Phrase, Query, Range, Test, Word};
use super::words::{folded, number_word, words};

/// Queries are typed or generated; beyond this they are mistakes or attacks.
const QUERY_BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 64;
/// Compiled size of a regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct ParseError {
    pub query: String,
    /// Byte offset into `query`.
    pub position: usize,
    pub message: String,
    pub hint: String,
}

/// The query with a caret under the position, then the message and the hint.
impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = &self.query[..self.query.floor_char_boundary(self.position)];
        writeln!(f, "{}\n{}^", self.query, " ".repeat(before.chars().count()))?;
        write!(f, "query: {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl Query {
    /// Reads a query. An empty one matches every row.
    pub fn parse(text: &str) -> Result<Query, ParseError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > QUERY_BYTES_MAX {
            return Err(parser.error(0, "the query is too long", &format!("at most {QUERY_BYTES_MAX} bytes")));
        }
        parser.space();
        if parser.done() {
            return Ok(Query { expr: Expr::All });
        }
        let expr = parser.or(None)?;
        match parser.peek() {
            None => Ok(Query { expr }),
            Some(_) => Err(parser.error(parser.at, "unexpected `)`", "remove it, or open a parenthesis before it")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A bare value: its characters, and which of them were escaped.
struct Bare {
    start: usize,
    text: String,
    escaped: Vec<bool>,
}

impl Bare {
    fn has_wildcard(&self) -> bool {
        self.text.chars().zip(&self.escaped).any(|(c, escaped)| !escaped && matches!(c, '*' | '?'))
    }
}

impl<'a> Parser<'a> {
    fn or(&mut self, field: Option<&str>) -> Result<Expr, ParseError> {
        let mut any = vec![self.and(field)?];
        while self.keyword("OR") {
            any.push(self.and(field)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Or(any) })
    }

    fn and(&mut self, field: Option<&str>) -> Result<Expr, ParseError> {
        let mut all = vec![self.not(field)?];
        loop {
            self.space();
            let explicit = self.keyword("AND");
            if !explicit && (matches!(self.peek(), None | Some(')')) || self.at_keyword("OR")) {
                return Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) });
            }
            all.push(self.not(field)?);
        }
    }

    fn not(&mut self, field: Option<&str>) -> Result<Expr, ParseError> {
        self.space();
        let sign = matches!(self.peek(), Some('-' | '!'))
            && self.rest()[1..].chars().next().is_some_and(|c| !c.is_whitespace());
        if sign {
            self.at += 1;
        } else if !self.keyword("NOT") {
            return self.item(field);
        }
        self.deeper()?;
        let inner = self.not(field)?;
        self.depth -= 1;
        Ok(Expr::Not(Box::new(inner)))
    }

    fn item(&mut self, field: Option<&str>) -> Result<Expr, ParseError> {
        self.space();
        let start = self.at;
        match self.peek() {
            None => Err(self.error(start, "something to search for is missing", "add a word, or remove the operator")),
            Some(')') => Err(self.error(start, "nothing between here and the `(` or operator", "add a word")),
            Some('(') => self.group(field),
            Some('"') => {
                let quoted = self.quoted()?;
                if field.is_none() && self.take(':') {
                    return self.value(&quoted);
                }
                Ok(leaf(field, Test::Words(self.phrase(start, &quoted)?)))
            }
            Some(_) if self.at_keyword("AND") || self.at_keyword("OR") => {
                Err(self.error(start, "an operator without a left side", "quote it to search for the word"))
            }
            Some(_) => {
                if field.is_none()
                    && let Some(name) = self.field_name()
                {
                    return self.value(&name);
                }
                let bare = self.bare(&[])?;
                Ok(leaf(field, self.bare_test(&bare)?))
            }
        }
    }

    fn group(&mut self, field: Option<&str>) -> Result<Expr, ParseError> {
        let start = self.at;
        self.deeper()?;
        self.at += 1;
        let inner = self.or(field)?;
        self.depth -= 1;
        self.space();
        match self.take(')') {
            true => Ok(inner),
            false => Err(self.error(start, "this `(` is not closed", "add a `)`")),
        }
    }

    /// `name:` at the current position; consumes it if it is there.
    fn field_name(&mut self) -> Option<String> {
        let rest = self.rest();
        let end = rest.find(':')?;
        let name = &rest[..end];
        let starts = name.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '@' | '$'));
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '@' | '$' | '[' | ']');
        if !starts || !name.chars().all(plain) {
            return None;
        }
        self.at += end + 1;
        Some(name.to_owned())
    }

    /// What follows `field:`.
    fn value(&mut self, field: &str) -> Result<Expr, ParseError> {
        let start = self.at;
        let rest = self.rest();
        if let Some(list) = rest.strip_prefix("IN").map(str::trim_start).filter(|list| list.starts_with('[')) {
            self.at = self.text.len() - list.len();
            return self.list(field);
        }
        let test = match self.peek() {
            None => return Err(self.no_value(field)),
            Some(c) if c.is_whitespace() || c == ')' => return Err(self.no_value(field)),
            Some('(') => return self.group(Some(field)),
            Some('"') => {
                let quoted = self.quoted()?;
                Test::Words(self.phrase(start, &quoted)?)
            }
            Some('[' | '{') => self.range()?,
            Some('<' | '>') => self.comparison()?,
            Some(c) => match regex_end(rest).filter(|_| c == '/') {
                Some(end) => self.regex(end)?,
                None => {
                    let bare = self.bare(&[])?;
                    self.bare_test(&bare)?
                }
            },
        };
        Ok(leaf(Some(field), test))
    }

    fn no_value(&self, field: &str) -> ParseError {
        self.error(self.at, &format!("`{field}` has no value"), &format!("`{field}:*` finds rows that have the field"))
    }

    fn list(&mut self, field: &str) -> Result<Expr, ParseError> {
        let start = self.at;
        self.at += 1;
        let mut any = Vec::new();
        loop {
            self.space();
            if self.take(']') {
                return match any.is_empty() {
                    true => Err(self.error(start, "this list is empty", "put values between `[` and `]`")),
                    false => Ok(Expr::Or(any)),
                };
            }
            if self.done() {
                return Err(self.error(start, "this `[` is not closed", "add a `]`"));
            }
            let (from, quoted) = (self.at, self.peek() == Some('"'));
            let test = if quoted {
                let text = self.quoted()?;
                Test::Words(self.phrase(from, &text)?)
            } else {
                let bare = self.bare(&[',', ']'])?;
                self.bare_test(&bare)?
            };
            any.push(leaf(Some(field), test));
            self.space();
            self.take(',');
        }
    }

    fn range(&mut self) -> Result<Test, ParseError> {
        let start = self.at;
        let low_included = self.peek() == Some('[');
        self.at += 1;
        let low = self.bound(low_included)?;
        if !self.keyword("TO") {
            return Err(self.error(self.at, "a range needs ` TO `", "write [a TO b], with * for an open end"));
        }
        let high = self.bound(true)?;
        self.space();
        let high = match (self.peek(), high) {
            (Some(']'), high) => high,
            (Some('}'), Bound::Included(text)) => Bound::Excluded(text),
            (Some('}'), open) => open,
            _ => return Err(self.error(start, "this range is not closed", "end it with `]` or `}`")),
        };
        self.at += 1;
        Ok(match (low, high) {
            (Bound::Unbounded, Bound::Unbounded) => Test::Exists,
            (low, high) => Test::Range(Range::new(low, high)),
        })
    }

    fn bound(&mut self, included: bool) -> Result<Bound<String>, ParseError> {
        self.space();
        let text = match self.peek() {
            Some('"') => self.quoted()?,
            _ => {
                let bare = self.bare(&[']', '}'])?;
                if bare.text == "*" {
                    return Ok(Bound::Unbounded);
                }
                bare.text
            }
        };
        Ok(if included { Bound::Included(text) } else { Bound::Excluded(text) })
    }

    fn comparison(&mut self) -> Result<Test, ParseError> {
        let above = self.take('>') || !self.take('<');
        let included = self.take('=');
        let start = self.at;
        let text = match self.peek() {
            Some('"') => self.quoted()?,
            None => return Err(self.error(start, "a comparison needs a value", "for example field:>=5")),
            Some(_) => self.bare(&[])?.text,
        };
        let bound = if included { Bound::Included(text) } else { Bound::Excluded(text) };
        Ok(Test::Range(match above {
            true => Range::new(bound, Bound::Unbounded),
            false => Range::new(Bound::Unbounded, bound),
        }))
    }

    fn regex(&mut self, end: usize) -> Result<Test, ParseError> {
        let start = self.at;
        let pattern = self.rest()[1..end].replace("\\/", "/");
        self.at += end + 1;
        let build = |pattern: &str| {
            RegexBuilder::new(pattern)
                .case_insensitive(true)
                .dot_matches_new_line(true)
                .size_limit(REGEX_BYTES_MAX)
                .build()
        };
        // Alone first, so that a stray parenthesis cannot escape the anchors.
        let built = build(&pattern).and_then(|_| build(&format!("^(?:{pattern})$")));
        built.map(Test::Regex).map_err(|error| {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.error(start, &format!("bad regular expression: {last}"), "quote the value to search for it as text")
        })
    }

    /// Up to a space, a parenthesis, or one of `stops`.
    fn bare(&mut self, stops: &[char]) -> Result<Bare, ParseError> {
        let mut bare = Bare { start: self.at, text: String::new(), escaped: Vec::new() };
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, '(' | ')' | '"') || stops.contains(&c) {
                break;
            }
            self.at += c.len_utf8();
            let escaped = c == '\\';
            let c = match (escaped, self.peek()) {
                (false, _) => c,
                (true, Some(next)) => {
                    self.at += next.len_utf8();
                    next
                }
                (true, None) => {
                    return Err(self.error(self.at - 1, "nothing follows the `\\`", "write `\\\\` for a backslash"));
                }
            };
            bare.text.push(c);
            bare.escaped.push(escaped);
        }
        match bare.text.is_empty() {
            true => Err(self.error(bare.start, "a value is missing here", "quote a value that has special characters")),
            false => Ok(bare),
        }
    }

    fn bare_test(&self, bare: &Bare) -> Result<Test, ParseError> {
        if let Some(cidr) = Cidr::parse(&bare.text) {
            return Ok(Test::Cidr(cidr));
        }
        if !bare.has_wildcard() {
            return Ok(Test::Words(self.phrase(bare.start, &bare.text)?));
        }
        if bare.text.chars().all(|c| c == '*') {
            return Ok(Test::Exists);
        }
        let parts = pattern_words(bare);
        let words = parts.into_iter().map(|(part, wild)| match wild {
            true => Word::Glob(Glob::new(&part)),
            false => Word::Exact(words(&part).remove(0)),
        });
        self.checked(bare.start, Phrase { words: words.collect(), number: None, text: folded(&bare.text) })
            .map(Test::Words)
    }

    fn phrase(&self, start: usize, text: &str) -> Result<Phrase, ParseError> {
        let exact = words(text).into_iter().map(Word::Exact).collect();
        let number = is_number(text).then(|| number_word(text));
        self.checked(start, Phrase { words: exact, number, text: folded(text) })
    }

    fn checked(&self, start: usize, phrase: Phrase) -> Result<Phrase, ParseError> {
        match phrase.words.len() {
            0 => Err(self.error(start, "no letter or digit to search for", "match punctuation with field:/regex/")),
            n if n > Phrase::WORDS_MAX => {
                Err(self.error(start, "too many words in one phrase", &format!("at most {}", Phrase::WORDS_MAX)))
            }
            _ => Ok(phrase),
        }
    }

    fn quoted(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + at + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, next)| next)),
                c => text.push(c),
            }
        }
        Err(self.error(start, "this quote is not closed", "add a `\"`"))
    }

    fn deeper(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(self.error(self.at, "nested too deeply", &format!("at most {DEPTH_MAX} levels"))),
            false => Ok(()),
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let there = self.at_keyword(word);
        if there {
            self.at += word.len();
        }
        there
    }

    fn at_keyword(&self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        after.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"'))
    }

    fn take(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn done(&self) -> bool {
        self.at == self.text.len()
    }

    fn error(&self, position: usize, message: &str, hint: &str) -> ParseError {
        ParseError { query: self.text.to_owned(), position, message: message.to_owned(), hint: hint.to_owned() }
    }
}

fn leaf(field: Option<&str>, test: Test) -> Expr {
    match (field, &test) {
        (None, Test::Exists) => Expr::All,
        _ => Expr::Leaf { field: field.map(str::to_owned), test },
    }
}

/// Where the regex that `rest` begins with ends (its closing slash), if it is one: `/etc/passwd` is not.
fn regex_end(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '/' if !escaped => {
                let ends = rest[at + 1..].chars().next().is_none_or(|c| c.is_whitespace() || c == ')');
                return (ends && at > 1).then_some(at);
            }
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// Runs of word characters and wildcards; true for those with a wildcard.
fn pattern_words(bare: &Bare) -> Vec<(String, bool)> {
    let mut parts: Vec<(String, bool)> = Vec::new();
    let mut open = false;
    for (c, escaped) in bare.text.chars().zip(&bare.escaped) {
        let wild = !escaped && matches!(c, '*' | '?');
        if !wild && !c.is_alphanumeric() {
            open = false;
            continue;
        }
        if !open {
            parts.push((String::new(), false));
            open = true;
        }
        let part = parts.last_mut().expect("just pushed");
        part.0.push(c);
        part.1 |= wild;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query as a short text, so that the tests can be read.
    fn show(expr: &Expr) -> String {
        let many =
            |op: &str, all: &[Expr]| format!("({})", all.iter().map(show).collect::<Vec<_>>().join(&format!(" {op} ")));
        match expr {
            Expr::All => "all".into(),
            Expr::And(all) => many("&", all),
            Expr::Or(any) => many("|", any),
            Expr::Not(inner) => format!("!{}", show(inner)),
            Expr::Leaf { field, test } => {
                let test = match test {
                    Test::Words(phrase) => {
                        let word = |w: &Word| match w {
                            Word::Exact(w) => w.clone(),
                            Word::Glob(glob) => format!("{glob:?}").replace("Glob", "~"),
                        };
                        phrase.words.iter().map(word).collect::<Vec<_>>().join("+")
                    }
                    Test::Exists => "*".into(),
                    Test::Range(range) => format!("{range:?}"),
                    Test::Regex(regex) => format!("/{regex}/"),
                    Test::Cidr(_) => "cidr".into(),
                };
                format!("{}={test}", field.as_deref().unwrap_or_default())
            }
        }
    }

    #[test]
    fn reads() {
        let check = |text: &str, expected: &str| match Query::parse(text) {
            Ok(query) => assert_eq!(show(&query.expr), expected, "{text}"),
            Err(error) => panic!("{error}"),
        };
        check("", "all");
        check("  * ", "all");
        check("Alice", "=alice");
        check("a b OR c AND d", "((=a & =b) | (=c & =d))");
        check("NOT a -b !c", "(!=a & !=b & !=c)");
        check("(a OR b) c", "((=a | =b) & =c)");
        check(r#"verb:get user:"System:Admin""#, "(verb=get & user=system+admin)");
        check("eventName:Get*Object", r#"eventName=~("get*object")"#);
        check("arn:*:role/x", r#"arn=~("*")+role+x"#);
        check("a.b-c/d:x", "a.b-c/d=x");
        check("verb:(get OR list)", "(verb=get | verb=list)");
        check("verb:(get AND NOT \"x y\")", "(verb=get & !verb=x+y)");
        check("verb:IN [get, \"a b\", li*]", r#"(verb=get | verb=a+b | verb=~("li*"))"#);
        check("code:*", "code=*");
        check("code:[* TO *]", "code=*");
        check("code:>=5", "code=Number(Included(Int(5)), Unbounded)");
        check("code:{1 TO 2.5]", "code=Number(Excluded(Int(1)), Included(Float(2.5)))");
        check("code:<x", "code=Text(Unbounded, Excluded(\"x\"))");
        check("path:/etc/shadow", "path=etc+shadow");
        check(r"path:/^a\/b( c)?$/ x", "(path=/^(?:^a/b( c)?$)$/ & =x)");
        check("ip:10.0.0.0/8", "ip=cidr");
        check("ip:10.0.0.1", "ip=10+0+0+1");
        check(r"a:x\ y\*z", "a=x+y+z");
        check("android ORacle", "(=android & =oracle)");
        check(r#""odd key":1"#, "odd key=1");
        check("time:>=2023-07-10", "time=Time(Included(1688947200000000), Unbounded)");
    }

    #[test]
    fn refuses_with_a_position() {
        let check = |text: &str, position: usize, message: &str| {
            let error = Query::parse(text).unwrap_err();
            assert_eq!((error.position, error.message.contains(message)), (position, true), "{text}: {error}");
            assert!(!error.hint.is_empty(), "{text}");
        };
        check("a (b", 2, "not closed");
        check("a b)", 3, "unexpected");
        check("a AND", 5, "missing");
        check("OR a", 0, "without a left side");
        check("verb:", 5, "no value");
        check("a \"b", 2, "quote");
        check("a:[1 2]", 5, "TO");
        check("a:[1 TO 2", 2, "not closed");
        check("a:/(/", 2, "bad regular expression");
        check("-- --", 1, "no letter");
        check("a:IN [x", 5, "not closed");
        check(&"(".repeat(100), 64, "nested");
        let shown = Query::parse("é AND").unwrap_err().to_string();
        assert!(shown.starts_with("é AND\n     ^\n"), "{shown}");
    }
}
