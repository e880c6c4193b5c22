//! One label matcher as Alertmanager writes it: `severity=~"high|critical"`. Regular expressions are anchored and a
//! missing label is the empty text.

use regex::Regex;

#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    pub name: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    NotEqual(String),
    Like(Regex),
    NotLike(Regex),
}

impl Matcher {
    pub fn parse(text: &str) -> Result<Matcher, String> {
        let fail = |why: &str| format!("matcher `{text}`: {why}\nhint: write label=\"value\" with =, !=, =~ or !~");
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(trimmed.len());
        let (name, rest) = trimmed.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(fail("it does not begin with a label name"));
        }
        let rest = rest.trim_start();
        let operator =
            ["=~", "!~", "!=", "="].into_iter().find(|o| rest.starts_with(o)).ok_or_else(|| fail("no operator"))?;
        let value = unquote(rest[operator.len()..].trim()).ok_or_else(|| fail("unbalanced quotes"))?;
        let regex = || Regex::new(&format!("^(?s:{value})$")).map_err(|e| fail(&format!("bad regex: {e}")));
        let test = match operator {
            "=" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            "=~" => Test::Like(regex()?),
            _ => Test::NotLike(regex()?),
        };
        Ok(Matcher { name: name.to_owned(), test })
    }

    pub fn matches(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Like(regex) => regex.is_match(value),
            Test::NotLike(regex) => !regex.is_match(value),
        }
    }

    /// It says what the label should be, not what it should not be.
    pub fn is_positive(&self) -> bool {
        matches!(self.test, Test::Equal(_) | Test::Like(_))
    }
}

/// A bare value as it stands, a quoted one with `\"`, `\\` and `\n` resolved (other escapes are kept for the regex).
fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let mut text = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                c @ ('"' | '\\') => text.push(c),
                c => text.extend(['\\', c]),
            },
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_as_in_alertmanager() {
        let check = |matcher: &str, value: &str, expected: bool| {
            assert_eq!(Matcher::parse(matcher).unwrap().matches(value), expected, "{matcher} on {value:?}");
        };
        check("severity=high", "high", true);
        check("severity = \"high\"", "higher", false);
        check("a!=\"b\"", "", true);
        check("a=\"\"", "", true);
        check("a=~\"pro.*\"", "prod", true);
        check("a=~\"pro\"", "prod", false); // anchored
        check("a=~\"x|y\"", "xy", false); // the anchors hold the whole alternation
        check("a!~\"x|y\"", "z", true);
        check(r#"a="say \"hi\"""#, "say \"hi\"", true);
        check(r#"a=~"\d+""#, "42", true);
        check("a=~\".*\"", "two\nlines", true);
    }

    #[test]
    fn broken_matchers_are_refused() {
        for text in ["", "severity", "=x", "a=\"b", "a=b\"", "a=~\"(\"", "1a=b", "a=\"b\"c"] {
            let error = Matcher::parse(text).unwrap_err();
            assert!(error.contains("\nhint: "), "{error}");
        }
    }
}
