//! One JSON value, still as its text, read as whatever a column holds. What does not fit is `None`, never an error.

use std::borrow::Cow;
use std::ops::Range;

use event::Micros;

use crate::cursor::Cursor;
use crate::event_time;

/// A value as it was found in an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'v> {
    pub json: &'v str,
    /// A string without escapes: what is between its quotes is its text.
    pub plain: bool,
}

impl<'v> Value<'v> {
    #[inline]
    pub fn text(self) -> Cow<'v, str> {
        match self.plain {
            true => Cow::Borrowed(&self.json[1..self.json.len() - 1]),
            false => text(self.json),
        }
    }
}

/// A string's characters; anything else as its JSON text.
pub(crate) fn text(raw: &str) -> Cow<'_, str> {
    let Some(inner) = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) else {
        return Cow::Borrowed(raw);
    };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    // Half of a surrogate pair is legal JSON but no text: such a string keeps its escapes.
    serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Is it a JSON string?
pub(crate) fn is_string(raw: &str) -> bool {
    raw.starts_with('"')
}

pub(crate) fn int(raw: &str) -> Option<i64> {
    let text = text(raw);
    text.parse().ok().or_else(|| {
        let text = text.trim();
        text.parse().ok().or_else(|| whole(text.parse().ok()?))
    })
}

/// `200.0` is a whole number too, as long as a double can hold it exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

pub(crate) fn boolean(raw: &str) -> Option<bool> {
    match text(raw).trim() {
        t if t.eq_ignore_ascii_case("true") || t.eq_ignore_ascii_case("yes") => Some(true),
        t if t.eq_ignore_ascii_case("false") || t.eq_ignore_ascii_case("no") => Some(false),
        _ => None,
    }
}

pub(crate) fn time(raw: &str) -> Option<Micros> {
    match is_string(raw) {
        true => event_time::from_text(&text(raw)),
        false => event_time::from_number(int(raw)?),
    }
}

/// The elements of a list, nulls left out; anything else is a list of one.
pub(crate) fn elements(raw: &str) -> impl Iterator<Item = &str> {
    let list = raw.starts_with('[');
    let (mut cursor, mut scalar) = (Cursor::new(raw), !list);
    let next = move || {
        if !list {
            return std::mem::take(&mut scalar).then_some(raw);
        }
        // `[` or `,`, then a value. `]` and the end are no values.
        cursor.token()?;
        cursor.peek()?;
        let start = cursor.at;
        cursor.skip()?;
        Some(&raw[start..cursor.at])
    };
    std::iter::from_fn(next).filter(|element| *element != "null")
}

/// The fields of an object, repeated keys included; of anything else nothing. A key that is no text (half of a
/// surrogate pair) keeps its escapes.
pub(crate) fn fields(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut cursor = Cursor::new(raw);
    let mut next = move || {
        // `{` or `,`, then a key. `}` and the end are no keys.
        cursor.token()?;
        cursor.peek()?;
        let start = cursor.at;
        cursor.key()?;
        let end = start + raw[start..cursor.at].rfind('"')? + 1;
        cursor.peek()?;
        let value = cursor.at;
        cursor.skip()?;
        Some((text(&raw[start..end]), &raw[value..cursor.at]))
    };
    let object = raw.starts_with('{');
    std::iter::from_fn(move || if object { next() } else { None })
}

/// The value of an object's key: the first one counts, and `null` is as good as absent.
pub(crate) fn field<'v>(raw: &'v str, key: &str) -> Option<&'v str> {
    fields(raw).find(|(name, _)| name == key).map(|(_, value)| value).filter(|value| *value != "null")
}

/// The value at the end of a path of keys.
pub(crate) fn at<'v>(raw: &'v str, path: &[&str]) -> Option<&'v str> {
    path.iter().try_fold(raw, |value, key| field(value, key))
}

/// Where in `text` the `part` lies, if it is a part of it and no copy.
pub(crate) fn part_of(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_of_the_wrong_type_where_it_can() {
        let check = |raw, expected: (&str, Option<i64>, Option<bool>)| {
            assert_eq!((text(raw).as_ref(), int(raw), boolean(raw)), expected, "{raw}");
        };
        check("\"a\"", ("a", None, None));
        check(r#""a\n\u00e9""#, ("a\né", None, None));
        check(r#""\ud800x""#, (r"\ud800x", None, None));
        check("200", ("200", Some(200), None));
        check("\"200\"", ("200", Some(200), None));
        check("2e2", ("2e2", Some(200), None));
        check("200.5", ("200.5", None, None));
        check("1e300", ("1e300", None, None));
        check("true", ("true", None, Some(true)));
        check("\"False\"", ("False", None, Some(false)));
        check(r#"{"a":[1]}"#, (r#"{"a":[1]}"#, None, None));
        let check = |raw, expected: &[&str]| assert_eq!(elements(raw).collect::<Vec<_>>(), expected, "{raw}");
        check(r#"["a",null,{"b":1},2]"#, &["\"a\"", "{\"b\":1}", "2"]);
        check("[]", &[]);
        check("[ [1, 2] , 3 ]", &["[1, 2]", "3"]);
        check("\"a\"", &["\"a\""]);
        check("12", &["12"]);
    }

    #[test]
    fn reads_fields_of_objects() {
        let check = |raw, expected: &[(&str, &str)]| {
            let found: Vec<_> = fields(raw).collect();
            assert_eq!(found.iter().map(|(key, value)| (key.as_ref(), *value)).collect::<Vec<_>>(), expected, "{raw}");
        };
        check(r#"{ "a" : 1 ,"\u0062":{"c":[]} , "a":null }"#, &[("a", "1"), ("b", r#"{"c":[]}"#), ("a", "null")]);
        check(r#"{"a\":b":"\"x"}"#, &[("a\":b", r#""\"x""#)]);
        check(r#"{"\ud800":1}"#, &[(r"\ud800", "1")]);
        check("{}", &[]);
        check("[1]", &[]);
        check("\"a\"", &[]);
        assert_eq!(at(r#"{"a":{"b":2,"b":3},"n":null}"#, &["a", "b"]), Some("2"));
        assert_eq!(at(r#"{"n":null}"#, &["n"]), None);
        let text = "some text";
        assert_eq!(part_of(text, &text[5..]), Some(5..9));
        assert_eq!(part_of(&text[..4], &text[5..]), None);
        assert_eq!(part_of(text, &String::from("text")), None);
    }
}
