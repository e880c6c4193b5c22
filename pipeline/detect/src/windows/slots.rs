//! Boundaries as numbers: boundary `n` is `n` slides after the epoch. A row is seen by a run of boundaries without
//! gaps, so that all a window needs to know of it is where that run begins and ends.

use event::Micros;

use crate::fault::{self, Fault};
use crate::rule::Window;

#[derive(Clone, Copy, Debug)]
pub struct Slots {
    every_us: i64,
    /// Slides per window.
    panes: i64,
}

/// The boundaries that see a row: `enter..=leave`, none when `enter > leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub enter: i64,
    pub leave: i64,
    /// The first boundary whose window holds the row. Those before `enter` were final when it came.
    pub due: i64,
}

impl Span {
    pub fn is_seen(&self) -> bool {
        self.enter <= self.leave
    }

    /// The boundaries that the row missed because it came late.
    pub fn missed(&self) -> Option<(i64, i64)> {
        (self.due < self.enter).then(|| (self.due, (self.enter - 1).min(self.leave)))
    }
}

impl Slots {
    pub fn of(window: Window) -> Slots {
        Slots { every_us: window.every_us, panes: window.window_us / window.every_us }
    }

    /// `b-W <= time < b` and `stamp < b`, solved for `b`.
    pub fn span(&self, time: Micros, stamp: Micros) -> Span {
        let pane = time.div_euclid(self.every_us);
        let closed = if fault::is(Fault::StampIgnored) { pane } else { stamp.div_euclid(self.every_us) };
        let enter = pane.max(closed) + i64::from(!fault::is(Fault::SeenAtItsEdge));
        let leave = pane + self.panes - i64::from(fault::is(Fault::GoneEarly));
        Span { enter, leave, due: pane + 1 }
    }

    pub fn boundary(&self, slot: i64) -> Micros {
        slot.saturating_mul(self.every_us)
    }

    /// The last boundary at or before `time`.
    pub fn floor(&self, time: Micros) -> i64 {
        time.div_euclid(self.every_us)
    }

    /// How many slides a span of time takes.
    pub fn slots_of(&self, us: i64) -> i64 {
        us / self.every_us + 1
    }

    pub fn panes(&self) -> i64 {
        self.panes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_seen_by_the_boundaries_of_the_definition() {
        let window = Window { window_us: 30, every_us: 10 };
        let slots = Slots::of(window);
        for time in -45..45 {
            for stamp in [i64::MIN, -100, -31, -30, -11, -10, -1, 0, 1, 9, 10, 11, 29, 30, 31, 100, i64::MAX] {
                let by_definition: Vec<i64> =
                    (-20..20).filter(|n| n * 10 - 30 <= time && time < n * 10 && stamp < n * 10).collect();
                let span = slots.span(time, stamp);
                let seen: Vec<i64> = (span.enter.max(-20)..=span.leave).collect();
                assert_eq!(seen, by_definition, "time {time}, stamp {stamp}");
            }
        }
    }
}
