//! Sliding windows at the speed of the stream. A rule is kept as panes where its plan allows it ([`shape`]), else as its
//! sieved window ([`sifted`]); both give the per-boundary answers of [`crate::oracle`], which stays the definition.
//!
//! Rows come as they are admitted and are seen by the boundaries that their time and their stamp say ([`slots`]), so that
//! neither the order of arrival nor the size of batches matters. Boundaries become final when the committed watermarks
//! have reached them; where more events can only add findings ([`monotone`]), a rule looks ahead at each arrival.

mod absent;
mod agenda;
mod bags;
mod compact;
mod condition;
mod deltas;
mod distinct;
mod extras;
mod extremes;
mod family;
mod feeds;
mod groups;
pub(crate) mod input;
mod joined;
mod judge;
mod keys;
mod late;
mod legs;
mod links;
mod live;
mod looks;
mod monotone;
mod paned;
mod restore;
mod shape;
mod sifted;
mod silence;
mod slots;
mod teller;
mod together;
mod values;

use std::collections::BTreeSet;

pub(crate) use absent::absent;
pub(crate) use family::{families, have_same_panes};
pub use live::Live;
pub(crate) use monotone::monotone;
pub(crate) use restore::restore;
pub(crate) use shape::{NoShape, Shape, shape};
pub(crate) use sifted::{Sieves, fixed};
pub(crate) use slots::Slots;
pub use teller::{Told, Usage};
pub(crate) use together::{Choices, Together};

use crate::oracle::{Entity, Held};

/// What became different when a boundary was made final.
#[derive(Default)]
pub(crate) struct Changes {
    pub began: Vec<Held>,
    pub ended: Vec<Entity>,
    /// Held before and now, with what the rule lists as evidence.
    pub went_on: Vec<Held>,
    pub null_entities: u64,
}

/// That an entity would hold at a boundary that is not final.
pub(crate) struct Ahead {
    pub slot: i64,
    pub held: Held,
}

/// What feeding rows did, and what an early look has to look at.
#[derive(Default)]
pub(crate) struct Fed {
    pub kept: u64,
    /// The state's budget is used up.
    pub refused: u64,
    /// Times too far from all others to have a boundary number.
    pub out_of_range: u64,
    slots: BTreeSet<i64>,
    /// The last boundary that sees any of the new rows.
    until: i64,
    /// Something ended or was rebuilt: what it hid may show without new rows.
    hidden: bool,
}
