//! What a page says, frozen into its outbox row as JSON when the incident opens. Receivers render it at send time, so a
//! retry after days, or by a later version, still tells what was known then.

use event::{Finding, Micros, Severity};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// 32 hex digits, the same for every receiver.
    pub incident: String,
    /// Counts the incidents of one rule and entity from 1.
    pub episode: i64,
    /// Wall clock when the incident was recorded.
    pub opened: Micros,
    pub link: Option<String>,
    pub subject: Subject,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An incident opened with this finding.
    Finding {
        finding: Box<Finding>,
        /// Hex SHA-256 of the evidence as JSON, whatever of it fits into the page.
        evidence_sha256: String,
    },
    Flood(Flood),
}

/// A rule opened more incidents within an hour than may page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flood {
    pub rule: String,
    pub title: String,
    pub severity: Severity,
    /// Start of the hour, wall clock.
    pub hour: Micros,
    /// Incidents that would have paged in this hour so far; those beyond `cap` did not.
    pub incidents: i64,
    pub cap: i64,
    /// Command that lists them.
    pub query: String,
}

impl Notification {
    pub fn severity(&self) -> Severity {
        match &self.subject {
            Subject::Finding { finding, .. } => finding.severity,
            Subject::Flood(flood) => flood.severity,
        }
    }

    pub fn rule(&self) -> &str {
        match &self.subject {
            Subject::Finding { finding, .. } => &finding.rule,
            Subject::Flood(flood) => &flood.rule,
        }
    }

    pub fn title(&self) -> &str {
        match &self.subject {
            Subject::Finding { finding, .. } => &finding.title,
            Subject::Flood(flood) => &flood.title,
        }
    }

    /// One line for a small screen.
    pub fn summary(&self) -> String {
        match &self.subject {
            Subject::Finding { finding, .. } if !finding.summary.trim().is_empty() => finding.summary.clone(),
            Subject::Finding { finding, .. } => format!("{} ({})", finding.title, finding.entity_text()),
            Subject::Flood(flood) => format!(
                "Flood: rule {} opened {} incidents in the hour from {}; only the first {} page",
                flood.rule,
                flood.incidents,
                event::format_micros(flood.hour),
                flood.cap
            ),
        }
    }
}

/// 32 hex digits over the parts, each with its length, so that no two lists of parts run together.
pub(crate) fn id_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
