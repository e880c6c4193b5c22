//! Found against planted. A finding is about an attack if its rule is one that is meant to see it and one of the attack's
//! events is in its evidence.

use std::collections::BTreeSet;

use alert::StoredFinding;
use synthetic::{Planted, digest};

#[derive(Debug)]
pub struct Score<'a> {
    pub attacks: usize,
    pub missed: Vec<&'a Planted>,
    pub twins: usize,
    /// Benign twins that raised an alert.
    pub wrong: Vec<&'a Planted>,
}

impl Score<'_> {
    pub fn of<'a>(planted: &'a [Planted], findings: &[StoredFinding]) -> Score<'a> {
        let mut proof: BTreeSet<(&str, String)> = BTreeSet::new();
        for stored in findings {
            let events = stored.finding.evidence.events.iter();
            proof.extend(events.map(|e| (stored.finding.rule.as_str(), digest(e.raw.as_bytes()))));
        }
        let seen = |p: &Planted| p.events.iter().any(|event| proof.contains(&(rule(p), event.clone())));
        let (twins, attacks): (Vec<&Planted>, Vec<&Planted>) = planted.iter().partition(|p| p.benign);
        Score {
            attacks: attacks.len(),
            twins: twins.len(),
            missed: attacks.into_iter().filter(|p| !seen(p)).collect(),
            wrong: twins.into_iter().filter(|p| seen(p)).collect(),
        }
    }

    pub fn found(&self) -> usize {
        self.attacks - self.missed.len()
    }
}

/// The rule meant to see it.
pub fn rule(planted: &Planted) -> &str {
    &planted.detection
}
