//! Paths into JSON, as schema files write them: `user.username`, `output_fields["k8s.ns.name"]`, `resources[0].ARN`.

/// One step down from an object or a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A parsed path, with the text it was written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub text: String,
    pub steps: Vec<Step>,
}

/// Deeper paths would only serve to make the walk recurse.
const STEPS_MAX: usize = 16;

impl Path {
    /// Errors name the column of the first character that does not fit, from 1.
    pub fn parse(text: &str) -> Result<Path, String> {
        let mut parser = Parser { text, at: 0 };
        let mut steps = vec![parser.first()?];
        while let Some(step) = parser.next()? {
            steps.push(step);
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        Ok(Path { text: text.to_owned(), steps })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn first(&mut self) -> Result<Step, String> {
        if self.rest().starts_with('[') { self.bracket() } else { self.word() }
    }

    fn next(&mut self) -> Result<Option<Step>, String> {
        match self.rest().chars().next() {
            None => Ok(None),
            Some('[') => self.bracket().map(Some),
            Some('.') => {
                self.at += 1;
                self.word().map(Some)
            }
            Some(c) => Err(self.unexpected(c)),
        }
    }

    /// A plain key: letters, digits, `_`, `-`, `$`, `@`.
    fn word(&mut self) -> Result<Step, String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@');
        let rest = self.rest();
        let length = rest.find(|c| !plain(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(rest.chars().next().map_or("ends where a key should follow".into(), |c| self.unexpected(c)));
        }
        let key = rest[..length].to_owned();
        self.at += length;
        Ok(Step::Key(key))
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.at += 1;
        let step = if self.rest().starts_with('"') { Step::Key(self.quoted()?) } else { Step::Index(self.index()?) };
        if !self.rest().starts_with(']') {
            return Err(format!("`]` missing at column {}", self.at + 1));
        }
        self.at += 1;
        Ok(step)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let start = self.at + 1;
        let mut key = String::new();
        let mut chars = self.text[start..].char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    return Ok(key);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => key.push(escaped),
                    _ => return Err(format!("only `\\\"` and `\\\\` can be escaped, at column {}", start + i + 1)),
                },
                c => key.push(c),
            }
        }
        Err(format!("the quote at column {start} is not closed"))
    }

    fn index(&mut self) -> Result<usize, String> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let index = rest[..length]
            .parse()
            .map_err(|_| format!("a number or a quoted key should stand in the brackets at column {}", self.at + 1))?;
        self.at += length;
        Ok(index)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn unexpected(&self, c: char) -> String {
        format!("unexpected `{c}` at column {}", self.at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.into())
    }

    #[test]
    fn reads_keys_quoted_keys_and_indexes() {
        let check = |text, steps: &[Step]| assert_eq!(Path::parse(text).unwrap().steps, steps, "{text}");
        check("verb", &[key("verb")]);
        check("user.username", &[key("user"), key("username")]);
        check(r#"output_fields["k8s.ns.name"]"#, &[key("output_fields"), key("k8s.ns.name")]);
        check(r#"f["proc.aname[2]"].x"#, &[key("f"), key("proc.aname[2]"), key("x")]);
        check("resources[0].ARN", &[key("resources"), Step::Index(0), key("ARN")]);
        check(r#"["a\"b\\"]"#, &[key(r#"a"b\"#)]);
    }

    #[test]
    fn says_where_a_path_is_wrong() {
        let check = |text, message: &str| assert_eq!(Path::parse(text).unwrap_err(), message, "{text}");
        check("", "ends where a key should follow");
        check("a.", "ends where a key should follow");
        check("a..b", "unexpected `.` at column 3");
        check("a b", "unexpected ` ` at column 2");
        check("a[", "a number or a quoted key should stand in the brackets at column 3");
        check("a[0", "`]` missing at column 4");
        check(r#"a["b]"#, "the quote at column 3 is not closed");
        check(r#"a["\n"]"#, "only `\\\"` and `\\\\` can be escaped, at column 4");
    }
}
