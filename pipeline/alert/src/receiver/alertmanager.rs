//! Alertmanager's API v2: `POST /api/v2/alerts` with one alert per incident. What identifies the alert are its labels
//! (rule, severity, incident and the entity), so that a page that is sent twice is one alert, and a retraction, which ends it,
//! finds it. Everything that may change is an annotation.
//!
//! Alertmanager keeps an alert firing until its `endsAt`, which is `holds` after the page goes out: grouping, silences and
//! inhibition are its own business. It keeps alerts in memory only, so what fires is told again every minute, a hundred in a
//! request, and what was retracted for a while. One receiver is one Alertmanager; of a cluster each member gets a receiver, and
//! a route with `continue` to each.

use event::{Micros, format_micros};
use serde_json::{Map, Value, json};

use super::{Verdict, explain, judge_failure, shorten};
use crate::config::AlertmanagerConfig;
use crate::http::{Answer, Request};
use crate::notification::{Notification, Subject, id_of};

/// Alertmanager has no limit of its own; a drain after an outage comes in bounded portions.
pub(crate) const PER_MINUTE: u32 = 1_200;
pub(crate) const BURST: u32 = 100;
/// Until an incident is quiet by Alertmanager's clock, unless the config says otherwise.
pub(crate) const HOLDS_DEFAULT_US: Micros = 4 * 3_600 * 1_000_000;
pub(crate) const AGAIN_DEFAULT_US: Micros = 60 * 1_000_000;
/// So long the end of an incident is told again, as Prometheus does.
const ENDED_AGAIN_US: Micros = 15 * 60 * 1_000_000;
/// Alerts in one request that tells again: some hundred kilobytes.
const AGAIN_MAX: usize = 100;
const LABEL_CHARS_MAX: usize = 256;
const ANNOTATION_CHARS_MAX: usize = 4_096;
/// Labels that an entity's column of the same name does not replace.
const OWN: [&str; 5] = ["alertname", "severity", "incident", "episode", "source"];

pub(crate) struct Alertmanager {
    url: String,
    authorization: Option<String>,
    holds_us: Micros,
    again_us: Micros,
}

impl Alertmanager {
    pub fn new(config: &AlertmanagerConfig) -> Result<Alertmanager, String> {
        let bearer = config.bearer.as_ref().map(|secret| secret.read()).transpose()?;
        Ok(Alertmanager {
            url: format!("{}/api/v2/alerts", config.url.trim_end_matches('/')),
            authorization: bearer.map(|token| format!("Bearer {token}")),
            holds_us: config.holds.map_or(HOLDS_DEFAULT_US, |span| span.0),
            again_us: config.again.map_or(AGAIN_DEFAULT_US, |span| span.0),
        })
    }

    pub fn bucket_key(&self) -> String {
        id_of(&["alertmanager", &self.url])
    }

    pub fn request(&self, notification: &Notification, now: Micros) -> Request {
        self.post(vec![self.alert(notification, now)])
    }

    pub fn again_us(&self) -> Micros {
        self.again_us
    }

    /// Pages that were taken after this may have to be told again.
    pub fn tells_since(&self, now: Micros) -> Micros {
        now.saturating_sub(self.holds_us.max(ENDED_AGAIN_US))
    }

    /// What an Alertmanager that has forgotten everything has to be told, of the last page of each incident and when it was
    /// taken: what still fires, and what ended lately.
    pub fn again(&self, taken: &[(Notification, Micros)], now: Micros) -> Vec<Request> {
        let matters = |(notification, taken): &&(Notification, Micros)| match &notification.subject {
            Subject::Retracted(retraction) => now.saturating_sub(retraction.retracted) <= ENDED_AGAIN_US,
            Subject::Finding { .. } | Subject::Flood(_) => now.saturating_sub(*taken) < self.holds_us,
        };
        let alerts: Vec<Value> = taken.iter().filter(matters).map(|(n, taken)| self.alert(n, *taken)).collect();
        alerts.chunks(AGAIN_MAX).map(|some| self.post(some.to_vec())).collect()
    }

    fn alert(&self, notification: &Notification, now: Micros) -> Value {
        // From the attempt on: a page that was long in coming is to be seen all the same.
        let ends = match &notification.subject {
            Subject::Retracted(retraction) => retraction.retracted.max(notification.opened),
            Subject::Finding { .. } | Subject::Flood(_) => now.max(notification.opened).saturating_add(self.holds_us),
        };
        let mut alert = json!({
            "labels": labels(notification),
            "annotations": annotations(notification),
            "startsAt": format_micros(notification.opened),
            "endsAt": format_micros(ends),
        });
        if let Some(link) = &notification.link {
            alert["generatorURL"] = link.as_str().into();
        }
        alert
    }

    fn post(&self, alerts: Vec<Value>) -> Request {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(self.authorization.clone().map(|value| ("authorization", value)));
        Request { url: self.url.clone(), headers, body: Value::Array(alerts).to_string().into_bytes() }
    }
}

/// The same for everything that is told of one incident.
fn labels(notification: &Notification) -> Map<String, Value> {
    let mut labels = Map::new();
    let entity = match &notification.subject {
        Subject::Finding { finding, .. } => finding.entity.as_slice(),
        Subject::Retracted(retraction) => retraction.entity.as_slice(),
        Subject::Flood(_) => &[],
    };
    for (column, value) in entity.iter().filter(|(_, value)| !value.is_empty()) {
        let name = match OWN.contains(&column.as_str()) || !is_label(column) {
            true => format!("entity_{}", column.replace(|c: char| !c.is_ascii_alphanumeric(), "_")),
            false => column.clone(),
        };
        labels.insert(name, shorten(value, LABEL_CHARS_MAX).into());
    }
    labels.insert("alertname".to_owned(), shorten(notification.rule(), LABEL_CHARS_MAX).into());
    labels.insert("severity".to_owned(), notification.severity().name().into());
    labels.insert("incident".to_owned(), notification.incident.as_str().into());
    labels.insert("episode".to_owned(), notification.episode.to_string().into());
    labels.insert("source".to_owned(), "stakeout".into());
    labels
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: what every version of Alertmanager takes.
fn is_label(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn annotations(notification: &Notification) -> Map<String, Value> {
    let mut annotations = Map::new();
    let mut put = |name: &str, text: &str| {
        if !text.trim().is_empty() {
            annotations.insert(name.to_owned(), shorten(text.trim(), ANNOTATION_CHARS_MAX).into());
        }
    };
    put("title", notification.title());
    put("summary", &notification.summary());
    match &notification.subject {
        Subject::Finding { finding, evidence_sha256 } => {
            put("finding", &finding.id);
            put("attack", &finding.attack.join(", "));
            put("triage", finding.triage.as_deref().unwrap_or_default());
            put("last_event", &format_micros(finding.time.last()));
            put("evidence_count", &finding.evidence.count.to_string());
            put("evidence_query", &finding.evidence.query);
            put("evidence_sha256", evidence_sha256);
        }
        Subject::Retracted(retraction) => {
            put("finding", &retraction.finding);
            put("retracted", &format_micros(retraction.retracted));
        }
        Subject::Flood(flood) => put("incidents_query", &flood.query),
    }
    annotations
}

/// 200 with an empty body, once it is in Alertmanager's memory. Another 2xx is a proxy's or a portal's. Only what Alertmanager says
/// of the alert itself is final: a wrong token or path is put right, and the page should go out then.
pub(crate) fn judge(answer: &Answer, now: Micros) -> Verdict {
    match answer.status {
        200 if answer.body.trim().is_empty() => Verdict::Accepted,
        200..=299 => Verdict::Failed { why: format!("not Alertmanager's answer: {}", explain(answer)), wait_us: None },
        401 | 403 | 404 | 405 => {
            let why = format!("{} (is `url` Alertmanager's, and `bearer` right?)", explain(answer));
            Verdict::Failed { why, wait_us: None }
        }
        _ => judge_failure(answer, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        judge(&Answer { status, retry_after: None, body: body.to_owned() }, 0)
    }

    #[test]
    fn only_a_bad_alert_is_given_up() {
        assert_eq!(verdict(200, ""), Verdict::Accepted);
        for (status, body) in [(200, "<html>"), (202, ""), (401, ""), (403, ""), (404, ""), (429, ""), (503, "")] {
            assert!(matches!(verdict(status, body), Verdict::Failed { .. }), "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert!(matches!(verdict(status, "no"), Verdict::Refused(_)), "{status}");
        }
    }

    #[test]
    fn names_that_every_alertmanager_takes() {
        assert!(is_label("actor_user_name") && is_label("_x"));
        assert!(!is_label("") && !is_label("1a") && !is_label("a.b") && !is_label("ü"));
    }
}
