//! From a message to its elements. Understood are a single element, a list of them, the vendors' list objects, what
//! carries them from place to place, any of these within one another, and several values in one message separated by
//! white space. What cannot be understood comes out as it is, with the reason.
//!
//! | envelope | sources | documented at |
//! | --- | --- | --- |
//! | `EventList` with `items` | Kubernetes | <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#webhook-backend> |
//! | `{"records":[{"properties":{"log":"…"}}]}` (AKS), or one record | Kubernetes | <https://learn.microsoft.com/azure/aks/monitor-aks-reference> |
//! | `{"Records":[…]}` | CloudTrail | <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-examples.html> |
//! | `detail` (EventBridge) | CloudTrail | <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-service-event-cloudtrail.html> |
//! | `{"Events":[{"CloudTrailEvent":"…"}]}` (LookupEvents), or one of them | CloudTrail | <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_Event.html> |
//! | `{"awslogs":{"data":"…"}}`, `{"logEvents":[{"message":"…"}]}` (CloudWatch Logs) | all | <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html> |
//! | gzip around any of them | all | |
//!
//! An element's raw text is what stands in its envelope; of a text within a text, the inner one.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event::{Micros, Source};
use serde::de::IgnoredAny;

use crate::inflate::Budget;
use crate::path::Step;
use crate::program::Program;
use crate::trie::TrieBuilder;
use crate::value;
use crate::walk::{Found, Scratch};

/// One element of a message.
pub(crate) enum Element<'e> {
    Event { found: Found<'e>, time: Micros },
    Bad { raw: &'e str, reason: String },
}

/// Envelopes within envelopes deeper than this are not anyone's: a list of subscription messages, packed, of log events,
/// whose texts are event lists.
const NESTING_MAX: usize = 6;
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

/// Where else a source's elements may be, each as a slot of its trie.
#[derive(Debug)]
pub(crate) struct Wrappers {
    all: Vec<(usize, Wrapper)>,
    /// `message` of a log event, and what says that a message has none.
    message: usize,
    message_type: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapper {
    /// An element, as an object or as its text.
    Element,
    List,
    /// A list of objects that have the elements' texts as `message`.
    LogEvents,
    /// Base64 of gzip of an envelope.
    Packed,
}

impl Wrappers {
    pub fn new(source: Source, trie: &mut TrieBuilder) -> Self {
        let mut slot =
            |path: &[&str]| trie.insert(&path.iter().map(|key| Step::Key((*key).into())).collect::<Vec<_>>());
        let mut all = vec![(slot(&["awslogs", "data"]), Wrapper::Packed), (slot(&["logEvents"]), Wrapper::LogEvents)];
        match source {
            Source::Kubernetes => {
                all.push((slot(&["records"]), Wrapper::List));
                all.push((slot(&["properties", "log"]), Wrapper::Element));
            }
            Source::CloudTrail => {
                all.push((slot(&["detail"]), Wrapper::Element));
                all.push((slot(&["Events"]), Wrapper::List));
                all.push((slot(&["CloudTrailEvent"]), Wrapper::Element));
            }
            Source::Falco => {}
        }
        Wrappers { all, message: slot(&["message"]), message_type: slot(&["messageType"]) }
    }

    /// What wraps elements in the value that was walked last, and where.
    fn find(&self, scratch: &Scratch, raw: &str) -> Option<(Wrapper, Range<usize>)> {
        self.all.iter().find_map(|(slot, wrapper)| {
            let place = scratch.place(*slot)?;
            let first = raw.as_bytes()[place.start];
            let fits = match wrapper {
                Wrapper::Element => {
                    first == b'{' || (first == b'"' && !value::text(&raw[place.clone()]).trim().is_empty())
                }
                Wrapper::List | Wrapper::LogEvents => first == b'[',
                Wrapper::Packed => first == b'"',
            };
            fits.then_some((*wrapper, place))
        })
    }
}

/// Hands over every element of the message, in order. `budget` bounds what is unpacked.
pub(crate) fn open(
    program: &Program,
    scratch: &mut Scratch,
    text: &str,
    budget: &mut Budget,
    each: &mut dyn FnMut(Element),
) {
    Opening { program, scratch, budget, each }.text(text, NESTING_MAX);
}

struct Opening<'o> {
    program: &'o Program,
    scratch: &'o mut Scratch,
    budget: &'o mut Budget,
    each: &'o mut dyn FnMut(Element),
}

impl Opening<'_> {
    fn text(&mut self, text: &str, nesting: usize) {
        let mut rest = skip_blank(text).trim_ascii_end();
        // A line of text may well begin with a number; a number is a value only where it is alone.
        if !begins_value(rest) && self.program.walk(rest, self.scratch) == Some(rest.len()) {
            return self.value(rest, nesting, false);
        }
        let mut resumes = 0;
        while !rest.is_empty() {
            let walked = if begins_value(rest) { self.program.walk(rest, self.scratch) } else { None };
            let end = match walked {
                Some(end) => {
                    self.value(&rest[..end], nesting, false);
                    end
                }
                None => {
                    let end = if resumes < RESUMES_MAX { next_value(rest) } else { rest.len() };
                    resumes += 1;
                    (self.each)(Element::Bad { raw: rest[..end].trim_ascii_end(), reason: not_json(rest) });
                    end
                }
            };
            rest = skip_blank(&rest[end..]);
        }
    }

    /// One JSON value that has been walked: an event, or what may hold events. `log_event` is an element of `logEvents`.
    fn value(&mut self, raw: &str, nesting: usize, log_event: bool) {
        let list = self.scratch.take_list();
        if nesting == 0 || self.program.is_event(self.scratch.found(raw)) {
            return self.element(raw);
        }
        if let Some(list) = list {
            return list.into_iter().for_each(|range| self.inner(&raw[range], nesting - 1, false));
        }
        let wrappers = &self.program.wrappers;
        if self.scratch.found(raw).json(wrappers.message_type) == Some("\"CONTROL_MESSAGE\"") {
            return (self.each)(Element::Bad { raw, reason: "control message of CloudWatch Logs: no events".into() });
        }
        if log_event && let Some(place) = self.scratch.place(wrappers.message) {
            return self.inner_or_text(&raw[place], nesting - 1);
        }
        let Some((wrapper, place)) = wrappers.find(self.scratch, raw) else {
            return self.element(raw);
        };
        let inner = &raw[place];
        match wrapper {
            Wrapper::Element => self.inner_or_text(inner, nesting - 1),
            Wrapper::List => value::elements(inner).for_each(|element| self.inner(element, nesting - 1, false)),
            Wrapper::LogEvents => value::elements(inner).for_each(|element| self.inner(element, nesting - 1, true)),
            Wrapper::Packed => match self.unpack(&value::text(inner)) {
                Ok(text) => self.text(&text, nesting - 1),
                Err(reason) => (self.each)(Element::Bad { raw, reason: format!("awslogs.data: {reason}") }),
            },
        }
    }

    /// A value that an envelope holds.
    fn inner(&mut self, raw: &str, nesting: usize, log_event: bool) {
        let end = self.program.walk(raw, self.scratch);
        debug_assert_eq!(end, Some(raw.len()), "it was read when its envelope was");
        self.value(raw, nesting, log_event);
    }

    /// A value that an envelope holds, or the text of one.
    fn inner_or_text(&mut self, raw: &str, nesting: usize) {
        if value::is_string(raw) {
            let text = value::text(raw);
            if !text.trim().is_empty() {
                return self.text(&text, nesting);
            }
        }
        self.inner(raw, nesting, false);
    }

    /// What was walked last is to be a row, whatever it is.
    fn element(&mut self, raw: &str) {
        let found = self.scratch.found(raw);
        (self.each)(match self.program.event_time(found) {
            Ok(time) => Element::Event { found, time },
            Err(reason) => Element::Bad { raw, reason },
        });
    }

    fn unpack(&mut self, base64: &str) -> Result<String, String> {
        let packed = STANDARD.decode(base64.trim()).map_err(|error| format!("not base64: {error}").to_lowercase())?;
        self.budget.inflate(&packed)
    }
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
