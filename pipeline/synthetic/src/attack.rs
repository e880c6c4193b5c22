//! Attacks as stories, each with a benign twin that looks alike but is everyday work, and the truth about both: when, who,
//! which events, and which detections are meant to see it. They follow the vendors' fields and the attack's logic; no
//! rule text was used to write them.

mod cast;
mod cloudtrail;
mod csr;
mod falco;
mod kubernetes;
mod scenarios;
mod scene;
mod scenery;
mod story;
mod techniques;
#[cfg(test)]
mod tests;
mod truth;

use event::Micros;

pub use scene::Spacing;
pub use story::Played;
pub use truth::{Planted, Proof, Trace, digest};

use crate::{Event, SECOND};
use story::Story;

/// How long after an attack its twin begins.
const TWIN_AFTER: Micros = 15 * SECOND;

fn stories() -> impl Iterator<Item = &'static Story> {
    static ALL: [&[Story]; 2] = [&scenarios::SCENARIOS, &techniques::TECHNIQUES];
    ALL.into_iter().flatten()
}

/// How many different stories there are.
pub fn count() -> u64 {
    stories().count() as u64
}

/// The `number`th attack of a stream, or its twin. All stories take turns.
pub fn play(seed: u64, number: u64, start: Micros, spacing: Spacing, benign: bool) -> Played {
    let turn = usize::try_from(number % count()).unwrap_or_default();
    let story = stories().nth(turn).expect("the turn is below the count");
    story.play(seed, number, start, spacing, benign)
}

/// The `number`th attack of a stream and, a little later, its twin. Starts at `at`.
pub fn plant(seed: u64, number: u64, at: Micros, spacing: Spacing) -> (Vec<Planted>, Vec<Event>) {
    let played =
        [(false, at), (true, at + TWIN_AFTER)].map(|(benign, start)| play(seed, number, start, spacing, benign));
    let (mut truth, mut events) = (Vec::new(), Vec::new());
    for Played { truth: planted, events: happened, .. } in played {
        truth.push(planted);
        events.extend(happened);
    }
    (truth, events)
}
