//! Detection: rule files, their evaluation per batch and per window, evidence.
//!
//! A rule has one meaning whatever path it takes. A single-event rule is a row-local SELECT: every row it returns
//! is a finding. A windowed rule is evaluated for boundaries `b` over the rows with `b-W <= time < b` and
//! `source_watermark < b` ([`oracle`]); a finding is a maximal run of boundaries at which (rule, entity) holds.
//! Findings, their ids and their evidence are a function of the rows and the bundle, not of batches, calls or
//! restarts. All that is remembered between calls ([`memory`]) can be recomputed from the store, the frontier and what
//! remains of rows that have expired ([`Retained`], the only state of its own); what else is kept on disk saves time.

mod codec;
mod cost;
mod derive;
mod engine;
mod error;
mod evidence;
mod fault;
mod header;
mod history;
mod ident;
pub mod inspect;
pub mod lint;
mod load;
mod memory;
mod offsets;
pub mod oracle;
mod parallel;
mod pattern;
mod plan;
mod program;
mod rule;
mod ruleset;
mod runs;
mod scan;
mod single;
mod singles;
mod span;
pub mod testing;
mod tuning;
mod value;
mod windows;
pub mod yardstick;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

pub use cost::{BUDGET, RuleCost};
pub use engine::{Engine, Output};
pub use error::{DetectError, RuleErrors, RuleProblem};
pub use history::History;
pub use memory::{Derived, Folded, Going, Retained, StateTable};
pub use rule::{Explanation, Rule, Window};
pub use ruleset::{Folder, RuleSet};
pub use span::{format_span, parse_span};
pub use tuning::{Entry, Exception};
pub use windows::Usage;
