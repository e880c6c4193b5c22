//! Kubernetes audit events (`audit.k8s.io/v1`): how one is written, whoever asks for it.

mod actions;
mod actors;
mod background;
mod bodies;
mod naming;

use event::{Micros, format_micros};

pub use actions::actions;
pub use background::{Background, Life, background};

use crate::random::put;
use crate::world::Caller;

/// One request, rendered for a stage.
pub struct Request<'a> {
    pub audit_id: String,
    pub verb: &'a str,
    pub uri: String,
    /// The members of `objectRef`; empty for a path that is no resource.
    pub object: String,
    pub code: u16,
    pub caller: &'a Caller,
    /// Appended after the status, with a leading comma: bodies.
    pub body: String,
    pub level: &'a str,
}

impl Request<'_> {
    /// `received` and `at` are the request's arrival and this stage's time.
    pub fn render(&self, stage: &str, received: Micros, at: Micros) -> Vec<u8> {
        let Request { audit_id, verb, uri, object, code, caller, body, level } = self;
        let mut text = String::with_capacity(1_280 + body.len());
        let out = &mut text;
        put!(out, r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"{audit_id}""#);
        put!(
            out,
            r#","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{{"username":"{}""#,
            caller.username
        );
        if !caller.uid.is_empty() {
            put!(out, r#","uid":"{}""#, caller.uid);
        }
        put!(out, r#","groups":[{}]"#, caller.groups);
        if !caller.extra.is_empty() {
            put!(out, r#","extra":{{{}}}"#, caller.extra);
        }
        put!(out, r#"}},"sourceIPs":["{}"],"userAgent":"{}""#, caller.ip, caller.agent);
        if !object.is_empty() {
            put!(out, r#","objectRef":{{{object}}}"#);
        }
        self.put_status(out);
        put!(out, r#"{body},"requestReceivedTimestamp":"{}""#, micro_time(received));
        let (decision, reason) = if *code == 403 { ("forbid", "") } else { ("allow", caller.reason.as_str()) };
        put!(out, r#","stageTimestamp":"{}","annotations":{{"#, micro_time(at));
        put!(out, r#""authorization.k8s.io/decision":"{decision}","authorization.k8s.io/reason":"{reason}"}}}}"#);
        text.into_bytes()
    }

    fn put_status(&self, out: &mut String) {
        let Request { verb, object, code, caller, .. } = self;
        let (resource, name) = (member(object, "resource"), member(object, "name"));
        let (reason, message) = match code {
            403 => {
                let group = member(object, "apiGroup");
                let user = &caller.username;
                let what = format!(r#"User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\""#);
                ("Forbidden", format!(r#"{resource} \"{name}\" is forbidden: {what}"#))
            }
            // Paths that nobody serves are refused without a word.
            404 if !object.is_empty() => ("NotFound", format!(r#"{resource} \"{name}\" not found"#)),
            409 if *verb == "create" => ("AlreadyExists", format!(r#"{resource} \"{name}\" already exists"#)),
            409 => ("Conflict", format!(r#"{resource} \"{name}\": the object has been modified since"#)),
            _ => return put!(out, r#","responseStatus":{{"metadata":{{}},"code":{code}}}"#),
        };
        put!(
            out,
            r#","responseStatus":{{"metadata":{{}},"status":"Failure","message":"{message}","reason":"{reason}""#
        );
        put!(out, r#","details":{{"name":"{name}","kind":"{resource}"}},"code":{code}}}"#);
    }
}

/// The value of a string member in the text of a flat object; empty if it has none.
fn member<'a>(object: &'a str, name: &str) -> &'a str {
    let start = object.find(&format!(r#""{name}":""#)).map(|at| at + name.len() + 4);
    start.and_then(|at| object[at..].split('"').next()).unwrap_or_default()
}

/// Kubernetes' `MicroTime` always has six fraction digits.
pub fn micro_time(at: Micros) -> String {
    let whole = format_micros(at - at.rem_euclid(1_000_000));
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), at.rem_euclid(1_000_000))
}

pub fn uri(group: &str, space: &str, resource: &str, name: Option<&str>) -> String {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let name = name.map(|n| format!("/{n}")).unwrap_or_default();
    format!("{root}/namespaces/{space}/{resource}{name}")
}

/// The members of an `objectRef`.
pub fn object(group: &str, space: &str, resource: &str, name: Option<&str>) -> String {
    let group = if group.is_empty() { String::new() } else { format!(r#","apiGroup":"{group}""#) };
    let name = name.map(|n| format!(r#","name":"{n}""#)).unwrap_or_default();
    format!(r#""resource":"{resource}","namespace":"{space}"{name}{group},"apiVersion":"v1""#)
}
