//! PagerDuty Events API v2: `POST /v2/enqueue` with a `trigger`, and a `resolve` when the incident was retracted
//! (<https://developer.pagerduty.com/docs/events-api-v2-overview>). The dedup key holds incident and episode, so that a
//! repeated trigger folds into the alert it opened and never into another, and a resolve ends that alert only.

use event::{Severity, format_micros};
use serde_json::{Value, json};

use super::{Verdict, details, explain, judge_failure, shorten};
use crate::config::PagerDutyConfig;
use crate::http::{Answer, Request};
use crate::notification::{Notification, Subject, id_of};

pub(crate) const URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// PagerDuty takes about 120 events a minute and key; the burst and a minute's refill together stay below.
pub(crate) const PER_MINUTE: u32 = 100;
pub(crate) const BURST: u32 = 19;
/// PagerDuty's limit for the whole event.
const BYTES_MAX: usize = 512_000;
const SUMMARY_CHARS_MAX: usize = 1024;
/// Not limited by the documentation; what fits on a screen.
const SOURCE_CHARS_MAX: usize = 255;

pub(crate) struct PagerDuty {
    url: String,
    routing_key: String,
}

impl PagerDuty {
    pub fn new(config: &PagerDutyConfig) -> Result<PagerDuty, String> {
        Ok(PagerDuty { url: config.url.clone(), routing_key: config.routing_key.read()? })
    }

    pub fn bucket_key(&self) -> String {
        id_of(&["pagerduty", &self.url, &self.routing_key])
    }

    pub fn request(&self, notification: &Notification) -> Request {
        let dedup_key = format!("stakeout/{}/{}", notification.incident, notification.episode);
        if let Subject::Retracted(_) = notification.subject {
            let body = json!({ "routing_key": self.routing_key, "event_action": "resolve", "dedup_key": dedup_key });
            return self.post(body.to_string().into_bytes());
        }
        let mut body = json!({
            "routing_key": self.routing_key,
            "event_action": "trigger",
            "dedup_key": dedup_key,
            "client": "Stakeout",
            "payload": {
                "summary": shorten(&notification.summary(), SUMMARY_CHARS_MAX),
                "source": source(notification),
                "severity": severity(notification.severity()),
                "timestamp": timestamp(notification),
                "class": shorten(notification.rule(), SOURCE_CHARS_MAX),
                "custom_details": details::of(notification),
            },
        });
        if let Some(link) = &notification.link {
            body["client_url"] = Value::from(link.as_str());
            body["links"] = json!([{ "href": link, "text": "Incident in Stakeout" }]);
        }
        self.post(details::fit(body, "/payload/custom_details", BYTES_MAX))
    }

    fn post(&self, body: Vec<u8>) -> Request {
        Request { url: self.url.clone(), headers: vec![("content-type", "application/json".to_owned())], body }
    }
}

/// Where it happened: cluster or account if the rule's entity says so, else the tables.
fn source(notification: &Notification) -> String {
    let Subject::Finding { finding, .. } = &notification.subject else {
        return "stakeout".to_owned();
    };
    let place = ["cluster", "cloud_account_uid"]
        .into_iter()
        .find_map(|wanted| finding.entity.iter().find(|(column, value)| column == wanted && !value.is_empty()));
    match place {
        Some((_, value)) => shorten(value, SOURCE_CHARS_MAX),
        None if finding.tables.is_empty() => "stakeout".to_owned(),
        None => shorten(&finding.tables.join(","), SOURCE_CHARS_MAX),
    }
}

fn timestamp(notification: &Notification) -> String {
    match &notification.subject {
        Subject::Finding { finding, .. } => format_micros(finding.time.last()),
        Subject::Retracted(_) | Subject::Flood(_) => format_micros(notification.opened),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Informational => "info",
    }
}

/// 202 is PagerDuty's own. Another 2xx counts only if the body says that the event was taken: a proxy or a portal that
/// answers 200 to everything has delivered nothing.
pub(crate) fn judge(answer: &Answer, now: event::Micros) -> Verdict {
    match answer.status {
        202 => Verdict::Accepted,
        200..=299 => {
            let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
            if body["status"] == "success" {
                return Verdict::Accepted;
            }
            Verdict::Failed { why: format!("not PagerDuty's answer: {}", explain(answer)), wait_us: None }
        }
        _ => judge_failure(answer, now),
    }
}
