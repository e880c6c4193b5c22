//! One JSON value, still as its text, read as whatever a column holds. What does not fit is `None`, never an error.

use std::borrow::Cow;

use event::Micros;

use crate::cursor::Cursor;
use crate::event_time;

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
        t if t.eq_ignore_ascii_case("true") => Some(true),
        t if t.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

pub(crate) fn time(raw: &str) -> Option<Micros> {
    match is_string(raw) {
        true => event_time::parse_rfc3339(&text(raw)),
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
}
