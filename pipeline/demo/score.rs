//! Found against planted. An attack is found when each rule that is meant to see it has a finding with one of the attack's
//! events in its evidence.

use alert::StoredFinding;
use synthetic::{Planted, Proof};

#[derive(Debug)]
pub struct Score<'a> {
    pub attacks: usize,
    /// With the rules that have no finding about it.
    pub missed: Vec<(&'a Planted, Vec<&'a str>)>,
    /// Pairs of an attack and a rule that is meant to see it, and those of them that came about.
    pub wanted: usize,
    pub met: usize,
    pub twins: usize,
    /// Benign twins that raised an alert, with the rules that should have kept silent.
    pub wrong: Vec<(&'a Planted, Vec<&'a str>)>,
}

impl Score<'_> {
    pub fn of<'a>(planted: &'a [Planted], findings: &[StoredFinding]) -> Score<'a> {
        let mut proof = Proof::default();
        for stored in findings {
            for event in &stored.finding.evidence.events {
                proof.add(&stored.finding.rule, &event.event_uid, event.raw.as_bytes());
            }
        }
        // What only rules see that first learn for a week is nothing that a demo can find.
        let judged = planted.iter().filter(|p| !p.detections.is_empty());
        let (twins, attacks): (Vec<&Planted>, Vec<&Planted>) = judged.partition(|p| p.benign);
        let missed: Vec<_> = attacks.iter().map(|p| (*p, p.missed(&proof))).filter(|(_, by)| !by.is_empty()).collect();
        let wrong: Vec<_> = twins.iter().map(|p| (*p, p.raised(&proof))).filter(|(_, by)| !by.is_empty()).collect();
        let wanted: usize = attacks.iter().map(|p| p.detections.len()).sum();
        let unmet: usize = missed.iter().map(|(_, by)| by.len()).sum();
        Score { attacks: attacks.len(), twins: twins.len(), missed, wanted, met: wanted - unmet, wrong }
    }

    pub fn found(&self) -> usize {
        self.attacks - self.missed.len()
    }
}
