//! A finding of a windowed rule is a maximal run of boundaries at which its entity holds.

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
