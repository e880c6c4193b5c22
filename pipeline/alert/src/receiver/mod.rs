//! The kinds of receivers. A receiver renders a notification into a request and judges the answer; it holds no state and
//! does no I/O. A new kind is one file here, one variant below and one field in `ReceiverConfig`.

pub(crate) mod alertmanager;
mod details;
pub(crate) mod pagerduty;
pub(crate) mod webhook;

use event::Micros;

use crate::config::ReceiverConfig;
use crate::http::{Answer, Request, TransportError};
use crate::notification::Notification;
use crate::pace::{self, Bucket};

pub(crate) enum Receiver {
    Alertmanager(alertmanager::Alertmanager),
    PagerDuty(pagerduty::PagerDuty),
    Webhook(webhook::Webhook),
}

/// What an answer means for the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The receiver has it.
    Accepted,
    /// It will never take this page.
    Refused(String),
    /// It will never take any page again.
    Gone(String),
    /// Try again; if it said when, all of its pages wait so long.
    Failed { why: String, wait_us: Option<i64> },
    /// No answer: it may or may not have it. Sent again under the same id.
    Unknown(String),
}

impl Receiver {
    /// Reads the secrets. The message names the receiver.
    pub fn new(config: &ReceiverConfig) -> Result<Receiver, String> {
        let receiver = match (&config.pagerduty, &config.webhook, &config.alertmanager) {
            (Some(pagerduty), None, None) => pagerduty::PagerDuty::new(pagerduty).map(Receiver::PagerDuty),
            (None, Some(webhook), None) => webhook::Webhook::new(webhook).map(Receiver::Webhook),
            (None, None, Some(config)) => alertmanager::Alertmanager::new(config).map(Receiver::Alertmanager),
            _ => Err("it needs exactly one kind\nhint: `pagerduty`, `webhook` or `alertmanager`".to_owned()),
        };
        receiver.map_err(|mistake| format!("receiver `{}`: {mistake}", config.name))
    }

    /// The same page and time give the same bytes.
    pub fn request(&self, page: &str, notification: &Notification, now: Micros) -> Request {
        match self {
            Receiver::Alertmanager(alertmanager) => alertmanager.request(notification, now),
            Receiver::PagerDuty(pagerduty) => pagerduty.request(notification),
            Receiver::Webhook(webhook) => webhook.request(page, notification, now),
        }
    }

    /// The receiver that keeps nothing and is told again, if it is one.
    pub fn forgetful(&self) -> Option<&alertmanager::Alertmanager> {
        match self {
            Receiver::Alertmanager(alertmanager) => Some(alertmanager),
            Receiver::PagerDuty(_) | Receiver::Webhook(_) => None,
        }
    }

    pub fn judge(&self, answer: &Result<Answer, TransportError>, now: Micros) -> Verdict {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Verdict::Unknown(error.to_string()),
        };
        match self {
            Receiver::Alertmanager(_) => alertmanager::judge(answer, now),
            Receiver::PagerDuty(_) => pagerduty::judge(answer, now),
            Receiver::Webhook(_) => webhook::judge(answer, now),
        }
    }

    /// Receivers with the same key share one bucket.
    pub fn bucket_key(&self) -> String {
        match self {
            Receiver::Alertmanager(alertmanager) => alertmanager.bucket_key(),
            Receiver::PagerDuty(pagerduty) => pagerduty.bucket_key(),
            Receiver::Webhook(webhook) => webhook.bucket_key(),
        }
    }

    pub fn bucket(&self, now: Micros) -> Bucket {
        let (per_minute, burst) = match self {
            Receiver::Alertmanager(_) => (alertmanager::PER_MINUTE, alertmanager::BURST),
            Receiver::PagerDuty(_) => (pagerduty::PER_MINUTE, pagerduty::BURST),
            Receiver::Webhook(_) => (webhook::PER_MINUTE, webhook::BURST),
        };
        Bucket::new(per_minute, burst, now)
    }
}

/// What all kinds agree on, for answers that are not acceptance.
///
/// A redirect is retried rather than given up: it is a wrong `url` or a proxy in the way, and pages should still go out
/// when that is put right.
fn judge_failure(answer: &Answer, now: Micros) -> Verdict {
    let why = explain(answer);
    match answer.status {
        408 | 425 | 429 | 500..=599 => {
            let asked = answer.retry_after.as_deref().and_then(|header| pace::retry_after(header, now));
            Verdict::Failed { why, wait_us: asked.map(|span| span.0) }
        }
        300..=399 => {
            let why = format!("{why} (redirects are not followed: `url` should be the final address)");
            Verdict::Failed { why, wait_us: None }
        }
        400..=499 => Verdict::Refused(why),
        _ => Verdict::Failed { why, wait_us: None },
    }
}

/// Status and the beginning of what the receiver said.
fn explain(answer: &Answer) -> String {
    const CHARS_MAX: usize = 500;
    let body: String = answer.body.split_whitespace().collect::<Vec<_>>().join(" ");
    match body.is_empty() {
        true => format!("status {}", answer.status),
        false => format!("status {}: {}", answer.status, shorten(&body, CHARS_MAX)),
    }
}

/// At most `chars_max` characters, the last of them an ellipsis if something was cut.
fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}
