//! Signed webhook after Standard Webhooks (<https://github.com/standard-webhooks/standard-webhooks>), carrying an OCSF
//! Detection Finding (class 2004) that any OCSF consumer reads; what OCSF has no place for is under `unmapped.stakeout`,
//! whose `event` says what happened: `opened`, `retracted` (OCSF: closed, resolved) or `flood`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event::{FindingTime, Micros};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::{Verdict, details, explain, judge_failure};
use crate::config::WebhookConfig;
use crate::http::{Answer, Request};
use crate::notification::{Notification, Subject, id_of};
use crate::record::severity_id;

/// Not asked for by the standard; keeps a drain after an outage from looking like an attack.
pub(crate) const PER_MINUTE: u32 = 600;
pub(crate) const BURST: u32 = 60;
/// The standard recommends small bodies; common servers refuse more than 1 MB.
const BYTES_MAX: usize = 512_000;
/// The standard's bounds for a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const OCSF_VERSION: &str = "1.3.0";

pub(crate) struct Webhook {
    url: String,
    secrets: Vec<Vec<u8>>,
}

impl Webhook {
    pub fn new(config: &WebhookConfig) -> Result<Webhook, String> {
        let secrets = config.secrets.iter().map(|s| decode(&s.read()?)).collect::<Result<_, _>>()?;
        Ok(Webhook { url: config.url.clone(), secrets })
    }

    pub fn bucket_key(&self) -> String {
        id_of(&["webhook", &self.url])
    }

    /// The id stays over retries, the timestamp is that of the attempt: verifiers refuse what is older than minutes.
    pub fn request(&self, page: &str, notification: &Notification, now: Micros) -> Request {
        let body = details::fit(body(notification), "/unmapped/stakeout", BYTES_MAX);
        let timestamp = now.div_euclid(1_000_000);
        let signatures: Vec<String> = self.secrets.iter().map(|s| sign(s, page, timestamp, &body)).collect();
        Request {
            url: self.url.clone(),
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("webhook-id", page.to_owned()),
                ("webhook-timestamp", timestamp.to_string()),
                ("webhook-signature", signatures.join(" ")),
            ],
            body,
        }
    }
}

/// `whsec_` may be missing, as some tools leave it out.
fn decode(secret: &str) -> Result<Vec<u8>, String> {
    const HINT: &str = "hint: a webhook secret is `whsec_` and the base64 of 24 to 64 random bytes";
    let bytes = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .map_err(|_| format!("a secret is not base64\n{HINT}"))?;
    match SECRET_BYTES.contains(&bytes.len()) {
        true => Ok(bytes),
        false => Err(format!("a secret has {} bytes\n{HINT}", bytes.len())),
    }
}

fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn body(notification: &Notification) -> Value {
    let mut stakeout = details::of(notification);
    if let Some(link) = &notification.link {
        stakeout.insert("link".to_owned(), link.as_str().into());
    }
    let change = change_of(&notification.subject);
    json!({
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "activity_id": change.activity_id,
        "activity_name": change.activity,
        "type_uid": 200_400 + change.activity_id,
        "time": millis(change.time.unwrap_or(notification.opened)),
        "severity_id": severity_id(notification.severity()),
        "severity": capitalized(notification.severity().name()),
        "status_id": change.status_id,
        "status": change.status,
        "message": super::shorten(&notification.summary(), 1024),
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "Stakeout", "vendor_name": "Stakeout", "version": env!("CARGO_PKG_VERSION") },
            "uid": format!("{}/{}", notification.incident, notification.episode),
        },
        "finding_info": finding_info(notification),
        "unmapped": { "stakeout": stakeout },
    })
}

/// OCSF's words for what a notification tells.
struct Change {
    activity_id: i64,
    activity: &'static str,
    status_id: i64,
    status: &'static str,
    /// When it happened, if not when the incident was opened.
    time: Option<Micros>,
}

fn change_of(subject: &Subject) -> Change {
    match subject {
        Subject::Retracted(retraction) => Change {
            activity_id: 3,
            activity: "Close",
            status_id: 4,
            status: "Resolved",
            time: Some(retraction.retracted),
        },
        Subject::Finding { .. } | Subject::Flood(_) => {
            Change { activity_id: 1, activity: "Create", status_id: 1, status: "New", time: None }
        }
    }
}

fn finding_info(notification: &Notification) -> Value {
    let mut info = Map::new();
    info.insert("uid".to_owned(), notification.incident.as_str().into());
    info.insert("title".to_owned(), super::shorten(notification.title(), 1024).into());
    info.insert("created_time".to_owned(), millis(notification.opened).into());
    let mut analytic = json!({ "type_id": 1, "type": "Rule", "name": super::shorten(notification.rule(), 255) });
    if let Subject::Finding { finding, .. } = &notification.subject {
        let first = match finding.time {
            FindingTime::Event(time) => time,
            FindingTime::Run { first, window_us, .. } => first.saturating_sub(window_us),
        };
        info.insert("first_seen_time".to_owned(), millis(first).into());
        info.insert("last_seen_time".to_owned(), millis(finding.time.last()).into());
        info.insert("attacks".to_owned(), finding.attack.iter().map(|a| attack(a)).collect());
        analytic["version"] = finding.rule_version.as_str().into();
    }
    info.insert("analytic".to_owned(), analytic);
    Value::Object(info)
}

/// `T1552.007` is a sub-technique of `T1552`.
fn attack(technique: &str) -> Value {
    match technique.split_once('.') {
        Some((parent, _)) => json!({ "technique": { "uid": parent }, "sub_technique": { "uid": technique } }),
        None => json!({ "technique": { "uid": technique } }),
    }
}

fn millis(time: Micros) -> i64 {
    time.div_euclid(1_000)
}

fn capitalized(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// 410 tells a sender to stop for good.
pub(crate) fn judge(answer: &Answer, now: Micros) -> Verdict {
    match answer.status {
        200..=299 => Verdict::Accepted,
        410 => Verdict::Gone(explain(answer)),
        _ => judge_failure(answer, now),
    }
}
