//! The `alert` part of `stakeout.yaml`: receivers, the route tree and what may page. Values only; `validate` finds every
//! mistake without I/O, `check_secrets` those that need the environment or files.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use event::Micros;
use serde::Deserialize;

use crate::receiver::{Receiver, pagerduty};
use crate::route::{RouteConfig, Router};
use crate::secret::Secret;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub receivers: Vec<ReceiverConfig>,
    /// Absent: nothing pages, incidents are kept all the same.
    pub route: Option<RouteConfig>,
    /// Findings over imported history page too.
    pub page_imports: bool,
    /// Incidents of one rule that page within an hour of wall clock; those beyond it are announced by one flood page.
    pub pages_per_hour_max: u32,
    /// Where a page links to; `{incident}` stands for the incident's id.
    pub link: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { receivers: Vec::new(), route: None, page_imports: false, pages_per_hour_max: 100, link: None }
    }
}

/// Exactly one of the kinds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    pub name: String,
    #[serde(default)]
    pub pagerduty: Option<PagerDutyConfig>,
    #[serde(default)]
    pub webhook: Option<WebhookConfig>,
    #[serde(default)]
    pub alertmanager: Option<AlertmanagerConfig>,
    /// A page that could not be delivered for so long is given up. Absent: never.
    #[serde(default)]
    pub max_age: Option<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// Integration key of an Events API v2 integration.
    pub routing_key: Secret,
    /// EU accounts: `https://events.eu.pagerduty.com/v2/enqueue`.
    #[serde(default = "pagerduty_url")]
    pub url: String,
}

fn pagerduty_url() -> String {
    pagerduty::URL.to_owned()
}

/// Standard Webhooks (<https://www.standardwebhooks.com>).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    pub url: String,
    /// `whsec_` and base64 of 24 to 64 bytes. Several while a secret is being rotated: each signs.
    pub secrets: Vec<Secret>,
}

/// One Alertmanager. Of a cluster each member gets a receiver of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// Where it listens, such as `http://alertmanager:9093`, with its route prefix if it has one.
    pub url: String,
    #[serde(default)]
    pub bearer: Option<Secret>,
    /// How long an incident fires there. Absent: 4h.
    #[serde(default)]
    pub holds: Option<Span>,
    /// How often what fires is told again: Alertmanager forgets at a restart. Absent: 1m.
    #[serde(default)]
    pub again: Option<Span>,
}

impl Config {
    /// Every mistake, each with its hint; empty means that it can run.
    pub fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut names = BTreeSet::new();
        for receiver in &self.receivers {
            if !names.insert(receiver.name.as_str()) {
                mistakes.push(format!("receiver `{}` is defined twice\nhint: rename one of them", receiver.name));
            }
            receiver.validate(&mut mistakes);
        }
        match &self.route {
            Some(route) => route.validate(&names, &mut mistakes),
            None if !names.is_empty() => {
                mistakes.push("there are receivers but no `route`\nhint: add `route: {receiver: NAME}`".to_owned());
            }
            None => {}
        }
        if let Some(link) = &self.link {
            check_url("link", link, &mut mistakes);
        }
        mistakes
    }

    /// The mistakes of secrets: unset variables, unreadable files, keys of the wrong shape.
    pub fn check_secrets(&self) -> Vec<String> {
        self.receivers.iter().filter_map(|r| Receiver::new(r).err()).collect()
    }

    /// The compiled route tree; `None` when nothing pages.
    pub(crate) fn router(&self) -> Result<Option<Router>, Vec<String>> {
        let mistakes = self.validate();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.route.as_ref().map(Router::new).transpose()
    }
}

impl ReceiverConfig {
    fn validate(&self, mistakes: &mut Vec<String>) {
        let name = &self.name;
        if name.is_empty() {
            mistakes.push("a receiver has no name\nhint: routes refer to receivers by `name`".to_owned());
        }
        let kinds = [self.pagerduty.is_some(), self.webhook.is_some(), self.alertmanager.is_some()];
        if kinds.into_iter().filter(|is| *is).count() != 1 {
            let hint = "hint: `pagerduty`, `webhook` or `alertmanager`";
            mistakes.push(format!("receiver `{name}` needs exactly one kind\n{hint}"));
        }
        if let Some(alertmanager) = &self.alertmanager {
            check_url(&format!("url of receiver `{name}`"), &alertmanager.url, mistakes);
            if alertmanager.url.trim_end_matches('/').ends_with("/api/v2/alerts") {
                let hint = "hint: the path /api/v2/alerts is added to it";
                mistakes.push(format!("url of receiver `{name}` holds Alertmanager's path\n{hint}"));
            }
        }
        if let Some(pagerduty) = &self.pagerduty {
            check_url(&format!("url of receiver `{name}`"), &pagerduty.url, mistakes);
        }
        if let Some(webhook) = &self.webhook {
            check_url(&format!("url of receiver `{name}`"), &webhook.url, mistakes);
            if webhook.secrets.is_empty() {
                mistakes.push(format!(
                    "receiver `{name}` has no secrets\nhint: webhooks are signed; add `secrets: [{{env: NAME}}]`"
                ));
            }
        }
    }
}

fn check_url(what: &str, url: &str, mistakes: &mut Vec<String>) {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_none_or(|h| h.is_empty() || h.starts_with('/')) || url.contains(char::is_whitespace) {
        mistakes.push(format!("{what} is not a web address\nhint: it begins with https:// or http:// and a host"));
    }
}

/// A length of time as written in configs: `90s`, `15m`, `2h`, `1d`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Micros);

#[derive(Debug, PartialEq, Eq)]
pub struct NotASpan(String);

impl fmt::Display for NotASpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a length of time\nhint: write 90s, 15m, 2h, 1d or 1h30m", self.0)
    }
}

impl TryFrom<String> for Span {
    type Error = NotASpan;

    fn try_from(text: String) -> Result<Span, NotASpan> {
        text.parse()
    }
}

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let fail = || NotASpan(text.to_owned());
        let (mut total, mut number) = (0i64, None::<i64>);
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let grown = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(i64::from(digit)));
                number = Some(grown.ok_or_else(fail)?);
                continue;
            }
            let unit_s = match c {
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                'w' => 604_800,
                _ => return Err(fail()),
            };
            let part = number.take().and_then(|n| n.checked_mul(unit_s * 1_000_000)).ok_or_else(fail)?;
            total = total.checked_add(part).ok_or_else(fail)?;
        }
        if number.is_some() || total == 0 { Err(fail()) } else { Ok(Span(total)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(yaml: &str) -> Vec<String> {
        serde_saphyr::from_str::<Config>(yaml).expect("well-formed").validate()
    }

    #[test]
    fn a_good_config_has_no_mistakes() {
        let yaml = r#"
receivers:
  - name: oncall
    pagerduty: {routing_key: {env: PD_KEY}}
    max_age: 1d
  - name: hook
    webhook: {url: "https://soc.example/in", secrets: [{file: /run/new}, {file: /run/old}]}
route:
  receiver: hook
  routes:
    - receiver: oncall
      matchers: ['severity=~"high|critical"', 'cluster!=dev']
      continue: true
"#;
        assert_eq!(mistakes(yaml), Vec::<String>::new());
        assert_eq!(mistakes("{}"), Vec::<String>::new());
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_hints() {
        let yaml = r#"
receivers:
  - {name: a}
  - name: a
    webhook: {url: "soc.example", secrets: []}
link: nowhere
route:
  receiver: b
  matchers: ['x="y"']
  group_wait: 30s
  routes:
    - {receiver: c, matchers: ['cluster=~"("', 'no operator here']}
"#;
        let found = mistakes(yaml);
        for part in [
            "`a` is defined twice",
            "exactly one kind",
            "has no secrets",
            "url of receiver `a`",
            "link is not",
            "unknown receiver `b`",
            "unknown receiver `c`",
            "root",
            "group_wait",
            "cluster=~",
            "no operator here",
        ] {
            assert!(found.iter().any(|m| m.contains(part) && m.contains("\nhint: ")), "{part}: {found:#?}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_saphyr::from_str::<Config>("{recievers: []}").is_err());
    }

    #[test]
    fn spans() {
        let check = |text: &str, seconds: Option<i64>| {
            assert_eq!(text.parse::<Span>().ok(), seconds.map(|s| Span(s * 1_000_000)), "{text}");
        };
        check("90s", Some(90));
        check("1h30m", Some(5_400));
        check("1d", Some(86_400));
        check("5", None);
        check("m", None);
        check("0s", None);
        check("99999999999999999999s", None);
    }
}
