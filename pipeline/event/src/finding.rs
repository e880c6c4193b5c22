//! What detect says and alert keeps: a finding with its identity, evidence and rule version, and the frontier
//! up to which detection has gone.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::{Coordinates, Micros, Origin, Positions};

/// As in OCSF and Sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Informational => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// When a finding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingTime {
    /// A single-event rule: the time of the row.
    Event(Micros),
    /// A windowed rule: the run of boundaries `first..=last`, each looking back over `window`.
    Run { first: Micros, last: Micros, window_us: i64, every_us: i64 },
}

impl FindingTime {
    /// The instant an incident orders by.
    pub fn last(&self) -> Micros {
        match self {
            FindingTime::Event(time) => *time,
            FindingTime::Run { last, .. } => *last,
        }
    }

    pub fn first(&self) -> Micros {
        match self {
            FindingTime::Event(time) => *time,
            FindingTime::Run { first, .. } => *first,
        }
    }
}

/// How settled a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Fired before its boundary was final: ends confirmed or retracted.
    Provisional,
    #[default]
    Confirmed,
    /// Provisional once, and not what the rows say in the end. Kept.
    Retracted,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EvidenceEvent {
    pub event_uid: String,
    pub time: Micros,
    pub coordinates: Coordinates,
    pub raw: String,
}

/// The events a finding rests on.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    /// How many contributed; `events` holds the first [`Evidence::EVENTS_MAX`] by time.
    pub count: u64,
    pub events: Vec<EvidenceEvent>,
    /// SQL that returns all of them from the store.
    pub query: String,
}

impl Evidence {
    /// A page carries its events with it, and pagers cap their payloads.
    pub const EVENTS_MAX: usize = 20;
}

/// One finding of one rule. Evaluating the same rows again gives the same id.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// 32 hex digits: hash of rule, entity and row identity or first boundary.
    pub id: String,
    pub rule: String,
    pub title: String,
    pub severity: Severity,
    pub attack: Vec<String>,
    /// Entity columns and their values, in the rule's order. Never null.
    pub entity: Vec<(String, String)>,
    pub time: FindingTime,
    pub origin: Origin,
    /// Names of the tables the rule reads (routing by source goes by these).
    pub tables: Vec<String>,
    /// The rule's `summary` with values filled in.
    pub summary: String,
    pub triage: Option<String>,
    /// The columns of the SELECT, by name.
    pub values: Map<String, Value>,
    pub evidence: Evidence,
    /// Quiet time after which a new finding opens a new incident.
    pub suppress_us: i64,
    /// Hash of the rule file.
    pub rule_version: String,
    /// Hash of all that decides: rules, lookups, tuning, schemas.
    pub bundle: String,
    #[serde(default)]
    pub standing: Standing,
    /// Found only by a catch-up evaluation over rows that came after their boundaries were final.
    #[serde(default)]
    pub late: bool,
    /// Of a `first_seen` rule whose source's history is shorter than the learning period: kept, not paged.
    #[serde(default)]
    pub learning: bool,
    /// Older than the rule's deploy: kept, not paged.
    #[serde(default)]
    pub historical: bool,
}

impl Finding {
    /// `cluster=prod actor_user_name=alice`.
    pub fn entity_text(&self) -> String {
        self.entity.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    }
}

/// How far detection has gone. Kept in the same transaction as the findings it led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frontier {
    /// Single-event rules: the next offset to evaluate per partition (imports included, by file).
    pub offsets: Positions,
    /// Windowed rules: the last boundary evaluated, by rule.
    pub boundaries: BTreeMap<String, Micros>,
}

impl Frontier {
    /// Takes over everything that lies further on in `other`.
    pub fn advance(&mut self, other: &Frontier) {
        for (partition, next) in &other.offsets {
            let have = self.offsets.entry(partition.clone()).or_insert(*next);
            *have = (*have).max(*next);
        }
        for (rule, boundary) in &other.boundaries {
            let have = self.boundaries.entry(rule.clone()).or_insert(*boundary);
            *have = (*have).max(*boundary);
        }
    }
}
