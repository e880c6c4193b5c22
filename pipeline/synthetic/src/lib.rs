//! Synthetic audit streams: one world seen by Kubernetes, CloudTrail and Falco, everyday traffic by measured mixes and
//! times with planted attacks, repeats and CloudTrail's lateness. Everyday actions are taken by those whose work they
//! are, on what is theirs. Deterministic in the options: event `n` depends on them and `n` only. It contains no
//! recorded event.

pub mod attack;
pub mod cloudtrail;
pub mod falco;
mod frame;
mod generator;
pub mod kubernetes;
mod random;
mod stream;
mod time;
pub mod world;

use event::{Micros, Source};

pub use attack::{Planted, Played, Proof, Spacing, Trace, digest};
pub use generator::Generator;
pub use stream::{Options, Stream};

pub const SECOND: Micros = 1_000_000;

/// One event as its source would emit it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When it happened.
    pub time: Micros,
    pub source: Source,
    pub cluster: Option<&'static str>,
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests;
