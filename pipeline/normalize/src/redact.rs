//! Secret values are taken out of an event before anything of it is stored: each becomes `"[redacted]"`, all other bytes
//! stay. Columns are filled from what is left, so no column has a secret either.
//!
//! Taken out are, of Kubernetes: `data` and `stringData` of Secrets in whatever body holds them (an object, a list, a
//! table, a merge patch, a JSON patch, the patch of a webhook, the copy that kubectl keeps in an annotation), tokens of
//! TokenRequests and TokenReviews, tokens in request URIs; of CloudTrail: session tokens, secret keys, passwords and
//! their like by the name of their key, and signatures and tokens of presigned URLs; of Falco: the latter, bearer tokens
//! and AWS credentials in command lines. Kept are keys (which entries a Secret has), and what the vendor has masked.

use std::ops::Range;
use std::sync::LazyLock;

use event::Source;
use memchr::memmem::{self, Finder};

use crate::cursor::Cursor;
use crate::path::Step;
use crate::trie::TrieBuilder;
use crate::value::{self, Value};
use crate::walk::Found;

pub(crate) const REDACTED: &str = "[redacted]";

/// Where secrets of a source may be: what is cheap to look at, so that only events that may hold any are searched.
#[derive(Debug)]
pub(crate) struct Secrets {
    source: Source,
    slots: Vec<usize>,
    needles: Vec<Finder<'static>>,
}

/// Bytes to be replaced, with quotes if they are a whole value.
#[derive(Debug)]
struct Hole {
    range: Range<usize>,
    value: bool,
}

/// Slots of Kubernetes, in this order; of CloudTrail the objects that hold what services choose.
const KUBERNETES: [&[&str]; 7] = [
    &["objectRef", "resource"],
    &["objectRef", "subresource"],
    &["requestObject"],
    &["responseObject"],
    &["requestObject", "kind"],
    &["responseObject", "kind"],
    &["requestURI"],
];
const CLOUDTRAIL: [&[&str]; 4] =
    [&["requestParameters"], &["responseElements"], &["additionalEventData"], &["serviceEventDetails"]];

/// Of URIs with tokens in their query.
const KUBERNETES_NEEDLES: [&str; 5] = ["oken=", "OKEN=", "earer", "EARER", "mz-S"];
/// Parts of the names below that all of them have one of.
const CLOUDTRAIL_NEEDLES: [&str; 8] =
    ["oken", "ecret", "assword", "ignature", "rivate", "aterial", "laintext", "ssertion"];
const FALCO_NEEDLES: [&str; 4] = ["X-Amz-S", "AWS_SE", "access_token=", "earer"];

/// Keys of CloudTrail whose values are secret, in lower case without dashes and underscores.
const KEYS: [&str; 28] = [
    "sessiontoken",
    "secretaccesskey",
    "secretkey",
    "secretstring",
    "secretbinary",
    "password",
    "newpassword",
    "oldpassword",
    "masteruserpassword",
    "masterpassword",
    "adminpassword",
    "temporarypassword",
    "previouspassword",
    "proposedpassword",
    "passworddata",
    "xamzsecuritytoken",
    "xamzsignature",
    "securitytoken",
    "authorizationtoken",
    "authtoken",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "webidentitytoken",
    "samlassertion",
    "clientsecret",
    "privatekey",
    "keymaterial",
];
const PLAINTEXT: &str = "plaintext";
/// The longest of the names, and some separators.
const KEY_MAX: usize = 40;

/// What stands before a secret within text, and how long the secret must be to be one: sentences have bearers too. The
/// case does not matter.
const BEFORE: [(&str, usize); 8] = [
    ("x-amz-signature=", 1),
    ("x-amz-security-token=", 1),
    ("access_token=", 1),
    ("aws_secret_access_key=", 1),
    ("aws_session_token=", 1),
    ("bearer ", 16),
    ("bearer+", 16),
    ("bearer%20", 16),
];

/// What a body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Secrets,
    Tokens,
    Other,
}

impl Secrets {
    pub fn new(source: Source, trie: &mut TrieBuilder) -> Secrets {
        let (paths, needles): (&[&[&str]], &[&'static str]) = match source {
            Source::Kubernetes => (&KUBERNETES, &KUBERNETES_NEEDLES),
            Source::CloudTrail => (&CLOUDTRAIL, &CLOUDTRAIL_NEEDLES),
            Source::Falco => (&[], &FALCO_NEEDLES),
        };
        let mut slot =
            |path: &[&str]| trie.insert(&path.iter().map(|key| Step::Key((*key).into())).collect::<Vec<_>>());
        let slots = paths.iter().map(|path| slot(path)).collect();
        Secrets { source, slots, needles: needles.iter().map(Finder::new).collect() }
    }

    /// The event's text without its secrets; `None` when it has none.
    #[inline]
    pub fn redacted(&self, found: Found) -> Option<String> {
        if !self.may_be_in(found) {
            return None;
        }
        let mut holes = Vec::new();
        match self.source {
            Source::Kubernetes => kubernetes(found.text, &mut holes),
            // Elsewhere nothing is what a service or caller chose.
            Source::CloudTrail if !found.repeated => {
                let bodies = self.slots.iter().filter_map(|slot| found.json(*slot)).filter(|body| self.needle_in(body));
                bodies.for_each(|body| by_key(found.text, body, true, &mut holes));
            }
            Source::CloudTrail => by_key(found.text, found.text, true, &mut holes),
            Source::Falco => by_key(found.text, found.text, false, &mut holes),
        }
        (!holes.is_empty()).then(|| replaced(found.text, holes))
    }

    fn needle_in(&self, text: &str) -> bool {
        !text.is_empty() && self.needles.iter().any(|needle| needle.find(text.as_bytes()).is_some())
    }

    /// Of keys that stand twice only the first is known here, so such events are always searched.
    fn may_be_in(&self, found: Found) -> bool {
        if found.repeated {
            return true;
        }
        match (self.source, &self.slots[..]) {
            (Source::Kubernetes, [resource, subresource, request, response, request_kind, response_kind, uri]) => {
                let text = |slot: &usize| found.value(*slot).map(Value::text).unwrap_or_default();
                let is_kind = |slot: &usize| found.is_present(*slot) && about_kind(&text(slot)) != Some(About::Other);
                let body = found.is_present(*request) || found.is_present(*response);
                (body && about(&text(resource), &text(subresource)) != About::Other)
                    || is_kind(request_kind)
                    || is_kind(response_kind)
                    || self.needle_in(query(found.json(*uri).unwrap_or_default()))
            }
            (Source::CloudTrail, slots) => {
                slots.iter().filter_map(|slot| found.json(*slot)).any(|body| self.needle_in(body))
            }
            _ => self.needle_in(found.text),
        }
    }
}

fn about(resource: &str, subresource: &str) -> About {
    match (resource, subresource) {
        ("secrets", _) => About::Secrets,
        ("tokenreviews", _) | ("serviceaccounts", "token") => About::Tokens,
        _ => About::Other,
    }
}

/// `None` for kinds that hold others.
fn about_kind(kind: &str) -> Option<About> {
    match kind {
        "Secret" | "SecretList" => Some(About::Secrets),
        "TokenReview" | "TokenRequest" => Some(About::Tokens),
        "List" | "Table" => None,
        _ => Some(About::Other),
    }
}

fn query(uri: &str) -> &str {
    memchr::memchr(b'?', uri.as_bytes()).map_or("", |start| &uri[start..])
}

/// Every occurrence of a key counts here, not only the first.
fn kubernetes(text: &str, holes: &mut Vec<Hole>) {
    let mut what = About::Other;
    for (_, reference) in value::fields(text).filter(|(key, _)| key == "objectRef") {
        let texts = |name: &'static str| {
            value::fields(reference).filter(move |(key, _)| key == name).map(|(_, v)| value::text(v))
        };
        for resource in texts("resource") {
            for subresource in texts("subresource").chain(["".into()]) {
                what = if what == About::Other { about(&resource, &subresource) } else { what };
            }
        }
    }
    for (key, value) in value::fields(text) {
        match &*key {
            "requestObject" | "responseObject" => body(text, value, what, BODY_DEPTH_MAX, holes),
            "requestURI" => {
                query_tokens(text, value, holes);
                in_text(text, value, holes);
            }
            "annotations" if what == About::Secrets => value::fields(value)
                .filter(|(key, _)| key.starts_with("patch.webhook.admission.k8s.io/"))
                .for_each(|(_, value)| whole(text, value, holes)),
            _ => {}
        }
    }
}

/// A list of a list is no one's.
const BODY_DEPTH_MAX: usize = 3;

fn body(text: &str, raw: &str, what: About, depth: usize, holes: &mut Vec<Hole>) {
    if raw.starts_with('[') {
        if what == About::Secrets {
            value::elements(raw).for_each(|operation| patch(text, operation, holes));
        }
        return;
    }
    let mut what = what;
    for (_, kind) in value::fields(raw).filter(|(key, _)| key == "kind") {
        if let (About::Other, Some(kind)) = (what, about_kind(&value::text(kind))) {
            what = kind;
        }
    }
    for (key, value) in value::fields(raw) {
        match (what, &*key) {
            (About::Secrets, "data" | "stringData") => entries(text, value, holes),
            (About::Secrets, "metadata") => metadata(text, value, holes),
            (About::Tokens, "spec" | "status") => {
                value::fields(value).filter(|(key, _)| key == "token").for_each(|(_, value)| whole(text, value, holes))
            }
            (_, "items") if depth > 0 => {
                value::elements(value).for_each(|item| body(text, item, what, depth - 1, holes));
            }
            (_, "rows") if depth > 0 => value::elements(value)
                .flat_map(value::fields)
                .filter(|(key, _)| key == "object")
                .for_each(|(_, object)| body(text, object, what, depth - 1, holes)),
            _ => {}
        }
    }
}

/// Annotations that repeat the object.
fn metadata(text: &str, raw: &str, holes: &mut Vec<Hole>) {
    let annotations = value::fields(raw).filter(|(key, _)| key == "annotations").map(|(_, value)| value);
    for (key, value) in annotations.flat_map(value::fields) {
        if key.ends_with("last-applied-configuration") || key.ends_with("/applied") {
            whole(text, value, holes);
        }
    }
}

/// An operation of a JSON patch of a Secret: whatever does not surely write something else.
fn patch(text: &str, operation: &str, holes: &mut Vec<Hole>) {
    const HARMLESS: [&str; 6] =
        ["/metadata/labels", "/metadata/ownerReferences", "/metadata/finalizers", "/type", "/immutable", "/kind"];
    let mut paths = value::fields(operation).filter(|(key, _)| key == "path").map(|(_, value)| value::text(value));
    let harmless = |path: &str| {
        HARMLESS.iter().any(|h| path.strip_prefix(h).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    if paths.next().is_some_and(|path| harmless(&path)) && paths.next().is_none() {
        return;
    }
    value::fields(operation).filter(|(key, _)| key == "value").for_each(|(_, value)| entries(text, value, holes));
}

/// The values of an object, or what stands there instead of one.
fn entries(text: &str, raw: &str, holes: &mut Vec<Hole>) {
    match raw.starts_with('{') {
        true => value::fields(raw).for_each(|(_, value)| whole(text, value, holes)),
        false => whole(text, raw, holes),
    }
}

/// A value as a whole, unless it says nothing.
fn whole(text: &str, raw: &str, holes: &mut Vec<Hole>) {
    if matches!(raw, "null" | "true" | "false" | "\"\"" | "{}" | "[]") || is_masked(raw) {
        return;
    }
    holes.extend(value::part_of(text, raw).map(|range| Hole { range, value: true }));
}

/// The vendor, or we, have been here before.
fn is_masked(raw: &str) -> bool {
    let inner = raw.trim_matches('"');
    inner == REDACTED || inner == "HIDDEN_DUE_TO_SECURITY_REASONS" || inner.bytes().all(|byte| byte == b'*')
}

/// Values by the names of their keys at any depth, and secrets within strings: one pass over the strings of `part`.
fn by_key(text: &str, part: &str, keys: bool, holes: &mut Vec<Hole>) {
    // Where the whole holds none of it, its strings need not be asked one by one.
    let texts = may_have_text(part.as_bytes());
    let mut cursor = Cursor::new(part);
    while let Some(quote) = memchr::memchr(b'"', &part.as_bytes()[cursor.at..]) {
        let start = cursor.at + quote;
        cursor.at = start + 1;
        if cursor.string().is_none() {
            return;
        }
        let string = &part[start..cursor.at];
        if cursor.peek() != Some(b':') {
            if texts {
                in_text(text, string, holes);
            }
        } else if keys && is_secret_key(&value::text(string)) {
            cursor.at += 1;
            cursor.peek();
            let value = cursor.at;
            if cursor.skip().is_none() {
                return;
            }
            whole(text, &part[value..cursor.at], holes);
        }
    }
}

fn is_secret_key(key: &str) -> bool {
    if key.len() > KEY_MAX {
        return false;
    }
    let mut name = [0; KEY_MAX];
    let mut length = 0;
    for byte in key.bytes().filter(|byte| !matches!(byte, b'-' | b'_')) {
        name[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = &name[..length];
    name == PLAINTEXT.as_bytes() || KEYS.iter().any(|secret| secret.as_bytes() == name)
}

/// Does it have what all of [`BEFORE`] have, in the cases that occur?
fn may_have_text(bytes: &[u8]) -> bool {
    static BEARER: LazyLock<[Finder; 2]> = LazyLock::new(|| ["earer", "EARER"].map(Finder::new));
    memchr::memchr(b'=', bytes).is_some() || BEARER.iter().any(|bearer| bearer.find(bytes).is_some())
}

/// Secrets within a JSON string: what follows one of [`BEFORE`], up to what cannot be part of it.
fn in_text(text: &str, string: &str, holes: &mut Vec<Hole>) {
    let bytes = string.as_bytes();
    // Nearly all strings end here.
    if !may_have_text(bytes) {
        return;
    }
    let Some(base) = value::part_of(text, string).map(|range| range.start) else { return };
    for first in (0..bytes.len()).filter(|at| matches!(bytes[*at] | 0x20, b'x' | b'a' | b'b')) {
        for (before, length_min) in BEFORE {
            let is = |there: &[u8]| there.eq_ignore_ascii_case(before.as_bytes());
            if bytes.get(first..first + before.len()).is_some_and(is) {
                secret_from(base, bytes, first + before.len(), length_min, holes);
            }
        }
    }
}

/// `token` among the parameters of a URI, which is too common a word elsewhere.
fn query_tokens(text: &str, string: &str, holes: &mut Vec<Hole>) {
    let bytes = string.as_bytes();
    let Some(base) = value::part_of(text, string).map(|range| range.start) else { return };
    for name in memmem::find_iter(bytes, "token=") {
        let before = &bytes[..name];
        if before.ends_with(b"?") || before.ends_with(b"&") || before.ends_with(b"u0026") {
            secret_from(base, bytes, name + "token=".len(), 1, holes);
        }
    }
}

fn secret_from(base: usize, bytes: &[u8], start: usize, length_min: usize, holes: &mut Vec<Hole>) {
    let ends = |byte: &u8| matches!(byte, b'&' | b'"' | b'\'' | b'\\' | b'<' | b'>' | b';' | b',') || *byte <= b' ';
    let length = bytes[start..].iter().position(ends).unwrap_or(bytes.len() - start);
    if length >= length_min && !bytes[start..].starts_with(REDACTED.as_bytes()) {
        holes.push(Hole { range: base + start..base + start + length, value: false });
    }
}

fn replaced(text: &str, mut holes: Vec<Hole>) -> String {
    holes.sort_by_key(|hole| (hole.range.start, std::cmp::Reverse(hole.range.end)));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for Hole { range, value } in holes.into_iter() {
        // One within another is gone already.
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        let quote = if value { "\"" } else { "" };
        out.extend([quote, REDACTED, quote]);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}
