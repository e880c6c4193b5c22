//! What a page says, frozen into its outbox row as JSON when the incident opens or is retracted. Receivers render it at send time, so a
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
    /// Every finding of a paged incident was retracted: whoever was called may stand down.
    Retracted(Box<Retraction>),
    Flood(Flood),
}

/// What is told of an incident that turned out to be none; what it was is in the page before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retraction {
    /// Of the finding that paged.
    pub finding: String,
    pub rule: String,
    pub title: String,
    pub severity: Severity,
    pub summary: String,
    /// Columns and values; none in pages written before they were kept.
    #[serde(default)]
    pub entity: Vec<(String, String)>,
    /// Wall clock when the last of its findings was retracted.
    pub retracted: Micros,
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
            Subject::Retracted(retraction) => retraction.severity,
            Subject::Flood(flood) => flood.severity,
        }
    }

    pub fn rule(&self) -> &str {
        match &self.subject {
            Subject::Finding { finding, .. } => &finding.rule,
            Subject::Retracted(retraction) => &retraction.rule,
            Subject::Flood(flood) => &flood.rule,
        }
    }

    pub fn title(&self) -> &str {
        match &self.subject {
            Subject::Finding { finding, .. } => &finding.title,
            Subject::Retracted(retraction) => &retraction.title,
            Subject::Flood(flood) => &flood.title,
        }
    }

    /// One line for a small screen.
    pub fn summary(&self) -> String {
        match &self.subject {
            Subject::Finding { finding, .. } if finding.late => format!("Late: {}", line_of(finding)),
            Subject::Finding { finding, .. } => line_of(finding),
            Subject::Retracted(retraction) => format!("Retracted: {}", retraction.summary),
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

pub(crate) fn line_of(finding: &Finding) -> String {
    match finding.summary.trim().is_empty() {
        true => format!("{} ({})", finding.title, finding.entity_text()),
        false => finding.summary.clone(),
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
