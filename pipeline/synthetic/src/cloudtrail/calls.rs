//! The table of calls: which there are, how often, what their requests hold. `calls.txt` has one call a line:
//! service, name, weight, `r` or `w` (read-only or not), then the request's members as `name=kind`
//! (kinds: `parameters.rs`). Weights are counts of 2,900 events of a real account; calls by which attackers betray
//! themselves weigh next to nothing, because everyday traffic hardly has them.

use std::sync::OnceLock;

use rand::Rng;
use rand::rngs::SmallRng;

use super::callers::{Shares, callers};
use super::parameters::Value;

#[derive(Debug)]
pub struct Call {
    pub service: &'static str,
    pub name: &'static str,
    pub read_only: bool,
    pub members: Vec<(&'static str, Value)>,
    /// Who makes it, if it is of the table.
    pub callers: Shares,
    weight: f64,
}

/// Draws calls. Nearly four of five by their weights, the rest evenly over the rare ones, so that all occur.
#[derive(Debug)]
pub struct Mix {
    pub calls: Vec<Call>,
    /// Cumulative shares.
    below: Vec<f64>,
}

/// The first forty are common; the blend's even part goes to the others.
const COMMON: usize = 40;
const EVEN_SHARE: f64 = 0.22;
/// Events that were counted.
const COUNTED: f64 = 2_900.0;
/// Names that should stay rare weigh less than this.
const RARE_WEIGHT: f64 = 0.5;

/// The management mix.
pub fn calls() -> &'static Mix {
    static MIX: OnceLock<Mix> = OnceLock::new();
    MIX.get_or_init(|| Mix::parse(include_str!("calls.txt")))
}

impl Mix {
    fn parse(table: &'static str) -> Mix {
        let calls: Vec<Call> = table.lines().map(Call::parse).collect();
        let sum: f64 = calls.iter().map(|call| call.weight).sum();
        let even = |at: usize| at >= COMMON && calls[at].weight > RARE_WEIGHT;
        let evens = (0..calls.len()).filter(|at| even(*at)).count() as f64;
        let mut total = 0.0;
        let mut below = Vec::with_capacity(calls.len());
        for (at, call) in calls.iter().enumerate() {
            total += (1.0 - EVEN_SHARE) * call.weight / sum + if even(at) { EVEN_SHARE / evens } else { 0.0 };
            below.push(total);
        }
        Mix { calls, below }
    }

    pub fn draw(&self, rng: &mut SmallRng) -> &Call {
        let u = rng.random::<f64>() * self.below[self.below.len() - 1];
        &self.calls[self.below.partition_point(|below| *below <= u).min(self.calls.len() - 1)]
    }

    pub fn named(&self, service: &str, name: &str) -> &Call {
        let found = self.calls.iter().find(|call| call.service == service && call.name == name);
        found.expect("only calls of the table are asked for")
    }

    /// Measured shares, as percent, the commonest first.
    pub fn measured(&self) -> Vec<(String, f64)> {
        self.calls.iter().map(|c| (format!("{}:{}", c.service, c.name), 100.0 * c.weight / COUNTED)).collect()
    }
}

impl Call {
    pub fn new(
        service: &'static str,
        name: &'static str,
        read_only: bool,
        members: Vec<(&'static str, Value)>,
    ) -> Call {
        Call { service, name, read_only, members, callers: Shares::new(), weight: 0.0 }
    }

    fn parse(line: &'static str) -> Call {
        let mut words = line.split(' ');
        let mut next = || words.next().expect("a call has four words");
        let (service, name, weight, access) = (next(), next(), next(), next());
        let members = words
            .map(|word| {
                let (member, kind) = word.split_once('=').expect("members are name=kind");
                (member, Value::parse(kind))
            })
            .collect();
        let weight = weight.parse().expect("a weight is a number");
        let read_only = access == "r";
        let callers = callers(service, name, read_only, weight < RARE_WEIGHT);
        Call { service, name, read_only, members, callers, weight }
    }
}
