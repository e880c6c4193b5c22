//! Boundaries to runs: a finding of a windowed rule is a maximal run of boundaries at which its entity holds.

use std::collections::BTreeMap;

use event::Micros;
use serde_json::{Map, Value};

use crate::oracle::{Entity, Held};

#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub entity: Entity,
    pub first: Micros,
    pub last: Micros,
    /// As the SELECT gave them at `first`: they do not change while the run goes on.
    pub values: Map<String, Value>,
    /// What the rule listed itself, over all boundaries of the run.
    pub evidence: Vec<String>,
}

impl Run {
    pub fn new(held: Held, boundary: Micros) -> Run {
        Run { entity: held.entity, first: boundary, last: boundary, values: held.values, evidence: held.evidence }
    }
}

/// The runs that held at the last boundary looked at.
#[derive(Clone, Debug, Default)]
pub struct OpenRuns(BTreeMap<Entity, Run>);

impl OpenRuns {
    pub fn new(runs: Vec<Run>) -> OpenRuns {
        OpenRuns(runs.into_iter().map(|r| (r.entity.clone(), r)).collect())
    }

    /// Takes what holds at `boundary`, the one `every_us` after the last. Runs that began or went on are
    /// written to `touched`, by first boundary and entity.
    pub fn step(
        &mut self,
        boundary: Micros,
        every_us: i64,
        held: Vec<Held>,
        touched: &mut BTreeMap<(Micros, Entity), Run>,
    ) {
        let before = std::mem::take(&mut self.0);
        for held in held {
            let run = match before.get(&held.entity) {
                Some(run) if run.last == boundary - every_us => {
                    let mut run = run.clone();
                    run.last = boundary;
                    run.evidence.extend(held.evidence);
                    run.evidence.sort();
                    run.evidence.dedup();
                    run
                }
                _ => Run::new(held, boundary),
            };
            touched.insert((run.first, run.entity.clone()), run.clone());
            self.0.insert(run.entity.clone(), run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_maximal_and_gaps_part_them() {
        let held =
            |who: &str| Held { entity: vec![("who".into(), who.into())], values: Map::new(), evidence: Vec::new() };
        let check = |boundaries: &[(Micros, &[&str])], expected: &[(&str, Micros, Micros)]| {
            let (mut open, mut touched) = (OpenRuns::default(), BTreeMap::new());
            for (boundary, entities) in boundaries {
                open.step(*boundary, 10, entities.iter().map(|who| held(who)).collect(), &mut touched);
            }
            let runs: Vec<_> = touched.values().map(|r| (r.entity[0].1.as_str(), r.first, r.last)).collect();
            assert_eq!(runs, expected);
        };
        check(&[(10, &["a"]), (20, &["a"]), (30, &[])], &[("a", 10, 20)]);
        check(&[(10, &["a"]), (20, &[]), (30, &["a"])], &[("a", 10, 10), ("a", 30, 30)]);
        check(&[(10, &["a", "b"]), (20, &["b"]), (30, &["b", "a"])], &[("a", 10, 10), ("b", 10, 30), ("a", 30, 30)]);
        check(&[(10, &["a"]), (30, &["a"])], &[("a", 10, 10), ("a", 30, 30)]);
    }
}
