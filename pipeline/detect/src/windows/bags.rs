//! What the rows of a group have, as a set or with repetitions, at any boundary: each value with the boundaries that see
//! its rows.

use std::collections::BTreeMap;

use super::groups::Seen;
use super::values::Value;
use crate::fault::{self, Fault};

/// What is over is looked for when so many more have come.
const PRUNE_MIN: usize = 16;

pub struct Bag {
    /// A set: what rows of one value are seen by is joined.
    once: bool,
    members: BTreeMap<Value, Vec<Seen>>,
    /// Of all members.
    spans: usize,
    prune_at: usize,
}

impl Bag {
    pub fn new(once: bool) -> Bag {
        Bag { once, members: BTreeMap::new(), spans: 0, prune_at: 0 }
    }

    /// A value of a row. `now` is the final boundary.
    pub fn add(&mut self, value: Value, seen: Seen, now: i32) {
        if self.spans >= self.prune_at {
            self.prune(now);
        }
        let spans = self.members.entry(value).or_default();
        match spans.last_mut().filter(|_| self.once) {
            Some(last) if last.enter <= seen.enter && seen.enter <= last.leave.saturating_add(1) => {
                last.leave = last.leave.max(seen.leave);
            }
            _ => {
                spans.push(seen);
                self.spans += 1;
            }
        }
    }

    /// Forgets what no boundary behind `now` sees.
    pub fn prune(&mut self, now: i32) {
        self.members.retain(|_, spans| {
            spans.retain(|seen| seen.leave > now);
            !spans.is_empty()
        });
        self.spans = self.members.values().map(Vec::len).sum();
        self.prune_at = (2 * self.spans).max(PRUNE_MIN);
    }

    /// At the final boundary or one ahead of it, in their order. Nothing is `None`, as it is to `array_agg`.
    pub fn at(&self, slot: i32) -> Option<Vec<Value>> {
        let sees = |seen: &&Seen| (seen.enter <= slot && slot <= seen.leave) || fault::is(Fault::MemberStays);
        let count = |spans: &[Seen]| match self.once {
            true => usize::from(spans.iter().any(|seen| sees(&seen))),
            false => spans.iter().filter(sees).count(),
        };
        let seen = self.members.iter().flat_map(|(value, spans)| std::iter::repeat_n(value.clone(), count(spans)));
        Some(seen.collect::<Vec<_>>()).filter(|seen| !seen.is_empty())
    }

    pub fn spans(&self) -> usize {
        self.spans
    }

    /// Returns how many spans there were.
    pub fn clear(&mut self) -> usize {
        std::mem::replace(self, Bag::new(self.once)).spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_has_what_a_boundary_sees() {
        // Exhaustive over small histories, as long as pruning takes.
        let spans = [(1, 3, "a"), (2, 3, "b"), (2, 5, "a"), (4, 6, "a"), (6, 6, "b")];
        for a in spans {
            for b in spans {
                for c in spans {
                    for now in 0..6 {
                        let (mut set, mut all, rows) = (Bag::new(true), Bag::new(false), [a, b, c]);
                        for (enter, leave, value) in rows {
                            for bag in [&mut set, &mut all] {
                                bag.add(value.as_bytes().into(), Seen { enter, leave }, now);
                                bag.prune(now);
                            }
                        }
                        for slot in now + 1..8 {
                            let seen = rows.iter().filter(|(e, l, _)| *e <= slot && slot <= *l);
                            let mut seen: Vec<Value> = seen.map(|(.., value)| value.as_bytes().into()).collect();
                            seen.sort();
                            assert_eq!(all.at(slot).unwrap_or_default(), seen, "{rows:?} now {now} at {slot}");
                            seen.dedup();
                            assert_eq!(set.at(slot).unwrap_or_default(), seen, "{rows:?} now {now} at {slot}");
                        }
                    }
                }
            }
        }
    }
}
