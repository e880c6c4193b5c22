//! The truth about planted stories: who, when, which events, and which detections are meant to see them. What findings
//! rest on is held against it, detection by detection.

use std::collections::{BTreeMap, BTreeSet};

use event::{Source, format_micros};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::scene::Part;
use crate::Event;

/// One line of the truth file: a story, or its benign twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planted {
    /// `S3`, `T07`; a twin has that of its attack.
    pub id: String,
    pub title: String,
    /// Everyday work that must not be found.
    pub benign: bool,
    /// Each of these is meant to see it (of a twin: each must stay silent).
    pub detections: Vec<String>,
    /// Specified, but there is no rule for it in the pack: nobody can be expected to find it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_rule: Vec<String>,
    /// These tell what is new, and know it only after their learning period: before that they page nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub while_learning: Vec<String>,
    /// Rules that may tell of a twin although it is benign, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allow: BTreeMap<String, String>,
    /// Who and where.
    pub entity: BTreeMap<String, String>,
    pub first: String,
    pub last: String,
    pub events: Vec<Trace>,
}

/// One event of a story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub source: Source,
    /// The vendor's id: audit id and stage, `eventID`. Falco has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// It happens around the story and proves nothing: a kubelet's heartbeat, a role's usual call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scenery: bool,
}

/// What findings rest on: for each rule the ids and digests of the events in its evidence. Evidence is stored without
/// secrets, so that its bytes need not be the bytes that were sent: then the vendor's id tells.
#[derive(Clone, Debug, Default)]
pub struct Proof(BTreeMap<String, BTreeSet<String>>);

impl Proof {
    pub fn add(&mut self, rule: &str, event_uid: &str, raw: &[u8]) {
        let of_rule = self.0.entry(rule.to_owned()).or_default();
        of_rule.insert(event_uid.to_owned());
        of_rule.insert(digest(raw));
    }

    fn holds(&self, rule: &str, trace: &Trace) -> bool {
        self.0.get(rule).is_some_and(|known| {
            known.contains(&trace.sha256) || trace.uid.as_ref().is_some_and(|uid| known.contains(uid))
        })
    }
}

impl Planted {
    /// Whether some finding of the rule rests on what happens in this story.
    pub fn seen_by(&self, rule: &str, proof: &Proof) -> bool {
        self.events.iter().any(|trace| !trace.scenery && proof.holds(rule, trace))
    }

    /// Its detections that have no finding about it. An attack is found when there are none.
    pub fn missed(&self, proof: &Proof) -> Vec<&str> {
        self.detections.iter().map(String::as_str).filter(|rule| !self.seen_by(rule, proof)).collect()
    }

    /// Its detections that have a finding about it. A twin wants none.
    pub fn raised(&self, proof: &Proof) -> Vec<&str> {
        self.detections.iter().map(String::as_str).filter(|rule| self.seen_by(rule, proof)).collect()
    }

    /// Fills in what the events of the story tell: when, and their traces.
    pub(super) fn with_events(mut self, events: &[(Part, Event)]) -> Planted {
        let acts = || events.iter().filter(|(part, _)| *part == Part::Act).map(|(_, event)| event.time);
        self.first = format_micros(acts().min().expect("a story has acts"));
        self.last = format_micros(acts().max().expect("a story has acts"));
        self.events = events.iter().map(|(part, event)| Trace::of(*part, event)).collect();
        self
    }
}

impl Trace {
    fn of(part: Part, event: &Event) -> Trace {
        let value: serde_json::Value = serde_json::from_slice(&event.bytes).expect("stories are written as JSON");
        let uid = match event.source {
            Source::Kubernetes => {
                value["auditID"].as_str().zip(value["stage"].as_str()).map(|(id, s)| format!("{id}/{s}"))
            }
            Source::CloudTrail => value["eventID"].as_str().map(str::to_owned),
            Source::Falco => None,
        };
        Trace { source: event.source, uid, sha256: digest(&event.bytes), scenery: part != Part::Act }
    }
}

/// What [`Trace::sha256`] holds.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
