//! What every receiver tells about an incident beyond its one line, and how that is made to fit: the largest things go
//! first, and what was left out is said.

use event::{FindingTime, format_micros};
use serde_json::{Map, Value, json};

use crate::notification::{Flood, Notification, Retraction, Subject};

/// Always kept: who it is about and how to get at the rest. All of them are short.
const KEPT: [&str; 7] = ["event", "incident", "episode", "rule", "evidence_count", "evidence_sha256", "left_out"];

pub(super) fn of(notification: &Notification) -> Map<String, Value> {
    let mut details = match &notification.subject {
        Subject::Finding { finding, evidence_sha256 } => {
            let entity: Map<String, Value> =
                finding.entity.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
            object(json!({
                "event": "opened",
                "finding": finding.id,
                "standing": finding.standing,
                "late": finding.late.then_some(true),
                "title": finding.title,
                "severity": finding.severity.name(),
                "attack": finding.attack,
                "entity": entity,
                "values": finding.values,
                "triage": finding.triage,
                "window": window(&finding.time),
                "origin": finding.origin.name(),
                "tables": finding.tables,
                "rule_version": finding.rule_version,
                "bundle": finding.bundle,
                "query": finding.evidence.query,
                "evidence": finding.evidence.events,
                "evidence_count": finding.evidence.count,
                "evidence_sha256": evidence_sha256,
            }))
        }
        Subject::Retracted(retraction) => retraction_details(retraction),
        Subject::Flood(flood) => flood_details(flood),
    };
    details.insert("incident".to_owned(), notification.incident.clone().into());
    details.insert("episode".to_owned(), notification.episode.into());
    details.insert("rule".to_owned(), super::shorten(notification.rule(), 255).into());
    details.retain(|_, value| !value.is_null());
    details
}

fn retraction_details(retraction: &Retraction) -> Map<String, Value> {
    object(json!({
        "event": "retracted",
        "finding": retraction.finding,
        "title": retraction.title,
        "severity": retraction.severity.name(),
        "retracted": format_micros(retraction.retracted),
    }))
}

fn flood_details(flood: &Flood) -> Map<String, Value> {
    object(json!({
        "event": "flood",
        "flood": true,
        "title": flood.title,
        "severity": flood.severity.name(),
        "hour": format_micros(flood.hour),
        "incidents": flood.incidents,
        "cap": flood.cap,
        "query": flood.query,
    }))
}

/// The event time that the finding looked at.
fn window(time: &FindingTime) -> Value {
    match time {
        FindingTime::Event(at) => json!({ "from": format_micros(*at), "to": format_micros(*at) }),
        FindingTime::Run { first, last, window_us, .. } => {
            json!({ "from": format_micros(first.saturating_sub(*window_us)), "to": format_micros(*last) })
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `body` as JSON of at most `bytes_max`, by leaving things out of the details at `pointer`: the raw texts of
/// events and whole fields, always the largest. What lies outside the details is short by construction.
pub(super) fn fit(mut body: Value, pointer: &str, bytes_max: usize) -> Vec<u8> {
    loop {
        let bytes = body.to_string().into_bytes();
        if bytes.len() <= bytes_max {
            return bytes;
        }
        let details = body.pointer_mut(pointer).and_then(Value::as_object_mut);
        let Some(left_out) = details.and_then(leave_out_largest) else {
            tracing::warn!(bytes = bytes.len(), bytes_max, "a page is larger than its receiver allows");
            return bytes;
        };
        tracing::debug!(left_out, "a page was made to fit");
    }
}

/// Removes the largest thing and notes its name; `None` when nothing can go any more.
fn leave_out_largest(details: &mut Map<String, Value>) -> Option<String> {
    let event = largest_event(details);
    let field = largest_field(details, event.is_some());
    let name = match (event, field) {
        (Some((index, event_len)), field) if field.as_ref().is_none_or(|(_, len)| *len <= event_len) => {
            details.get_mut("evidence")?.get_mut(index)?.as_object_mut()?.remove("raw");
            format!("evidence[{index}].raw")
        }
        (_, Some((name, _))) => {
            details.remove(&name);
            name
        }
        _ => return None,
    };
    if let Value::Array(names) = details.entry("left_out").or_insert_with(|| json!([])) {
        names.push(name.clone().into());
    }
    Some(name)
}

/// The event with the longest raw text, and its length.
fn largest_event(details: &Map<String, Value>) -> Option<(usize, usize)> {
    let events = details.get("evidence")?.as_array()?;
    let lens = events.iter().enumerate().filter_map(|(i, e)| Some((i, e.get("raw")?.as_str()?.len())));
    lens.max_by_key(|(_, len)| *len)
}

/// The evidence itself (who, when, where) goes only after all of its raw texts have.
fn largest_field(details: &Map<String, Value>, has_raw: bool) -> Option<(String, usize)> {
    let stays = |name: &str| KEPT.contains(&name) || (has_raw && name == "evidence");
    let lens = details.iter().filter(|(n, _)| !stays(n)).map(|(n, v)| (n.clone(), v.to_string().len()));
    lens.max_by_key(|(_, len)| *len)
}
