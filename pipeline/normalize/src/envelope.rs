//! From a message to its elements. Understood are a single element, a list of them, the vendor's list object
//! (`EventList` with `items`, `{"Records": […]}`), any of these within one another, and several values in one
//! message separated by white space. What cannot be understood comes out as it is, with the reason.

use event::{Micros, Source};
use serde::de::IgnoredAny;

use crate::program::Program;
use crate::walk::{Found, Scratch};

/// One element of a message.
pub(crate) enum Element<'e> {
    Event { found: Found<'e>, time: Micros },
    Bad { raw: &'e str, reason: String },
}

/// Lists within lists deeper than this are not envelopes of anyone.
const NESTING_MAX: usize = 3;
/// After text that is not JSON, reading goes on at a following line that may begin a value. More often than this in
/// one message, and the rest of it stays in one piece: each attempt may read to the end.
const RESUMES_MAX: usize = 64;

/// The key under which the source's list object keeps its elements.
pub(crate) fn list_key(source: Source) -> Option<&'static str> {
    match source {
        Source::Kubernetes => Some("items"),
        Source::CloudTrail => Some("Records"),
        Source::Falco => None,
    }
}

/// Hands over every element of the message, in order.
pub(crate) fn open(program: &Program, scratch: &mut Scratch, text: &str, each: &mut impl FnMut(Element)) {
    let mut rest = skip_blank(text).trim_ascii_end();
    // A line of text may well begin with a number; a number is a value only where it is alone.
    if !begins_value(rest) && program.walk(rest, scratch) == Some(rest.len()) {
        return value(program, scratch, rest, NESTING_MAX, each);
    }
    let mut resumes = 0;
    while !rest.is_empty() {
        let walked = if begins_value(rest) { program.walk(rest, scratch) } else { None };
        let end = match walked {
            Some(end) => {
                value(program, scratch, &rest[..end], NESTING_MAX, each);
                end
            }
            None => {
                let end = if resumes < RESUMES_MAX { next_value(rest) } else { rest.len() };
                resumes += 1;
                each(Element::Bad { raw: rest[..end].trim_ascii_end(), reason: not_json(rest) });
                end
            }
        };
        rest = skip_blank(&rest[end..]);
    }
}

/// One JSON value that has been walked: an event, or a list of what may be events.
fn value(program: &Program, scratch: &mut Scratch, raw: &str, nesting: usize, each: &mut impl FnMut(Element)) {
    let list = scratch.take_list().filter(|_| nesting > 0 && !program.is_event(scratch.found(raw)));
    if let Some(list) = list {
        for element in list.into_iter().map(|range| &raw[range]) {
            let end = program.walk(element, scratch);
            debug_assert_eq!(end, Some(element.len()), "it was read when the list was");
            value(program, scratch, element, nesting - 1, each);
        }
        return;
    }
    let found = scratch.found(raw);
    each(match program.event_time(found) {
        Ok(time) => Element::Event { found, time },
        Err(reason) => Element::Bad { raw, reason },
    });
}

fn begins_value(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// Start of the first following line that may begin a value, else the end.
fn next_value(text: &str) -> usize {
    let lines = memchr::memchr_iter(b'\n', text.as_bytes()).map(|newline| newline + 1);
    lines.into_iter().find(|start| begins_value(&text[*start..])).unwrap_or(text.len())
}

/// White space and byte order marks.
fn skip_blank(text: &str) -> &str {
    if text.is_empty() || begins_value(text) {
        return text;
    }
    text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}')
}

/// Why `text` begins with no value: `not JSON: expected value at byte 12`, counted from 0 in the element.
fn not_json(text: &str) -> String {
    if !begins_value(text) {
        return "not JSON: expected an object or a list at byte 0".into();
    }
    let Some(Err(error)) = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>().next() else {
        return "not JSON".into();
    };
    let full = error.to_string();
    let what = full.rfind(" at line ").map_or(full.as_str(), |end| &full[..end]);
    format!("not JSON: {what} at byte {}", error_offset(text, &error))
}

fn error_offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', text.as_bytes()).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(text.len())
}
