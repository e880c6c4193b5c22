//! The least value among the rows that a boundary sees. What the final boundaries have seen is kept as far as it can
//! still be the least; what they have not is kept whole. The greatest value is the least of complements, or of bytes that sort
//! the other way round.

use std::collections::VecDeque;

use crate::fault::{self, Fault};

#[derive(Clone, Debug)]
pub struct Least<V> {
    /// (last boundary that sees it, value), both ascending: nothing kept is outlived by something smaller.
    entered: VecDeque<(i32, V)>,
    /// (first, last, value), first ones ahead of the final boundary.
    ahead: Vec<(i32, i32, V)>,
}

impl<V> Default for Least<V> {
    fn default() -> Self {
        Least { entered: VecDeque::new(), ahead: Vec::new() }
    }
}

impl<V: Clone + Ord> Least<V> {
    pub fn add(&mut self, enter: i32, leave: i32, value: V, now: i32) {
        if enter <= now {
            return self.enter(leave, value);
        }
        match self.ahead.iter_mut().rev().find(|(e, l, _)| (*e, *l) == (enter, leave)) {
            Some((_, _, have)) if *have <= value => {}
            Some((_, _, have)) => *have = value,
            None => self.ahead.push((enter, leave, value)),
        }
    }

    fn enter(&mut self, leave: i32, value: V) {
        let place = self.entered.partition_point(|(l, _)| *l < leave);
        // Ascending values: the one behind is the least of those that last longer.
        if self.entered.get(place).is_some_and(|(_, v)| *v <= value) {
            return;
        }
        let mut from = place;
        while from > 0 && self.entered[from - 1].1 >= value {
            from -= 1;
        }
        let until = place + usize::from(self.entered.get(place).is_some_and(|(l, _)| *l == leave));
        self.entered.drain(from..until);
        self.entered.insert(from, (leave, value));
    }

    /// Boundary `slot` is final from now on.
    pub fn advance(&mut self, slot: i32) {
        if !self.ahead.is_empty() {
            let (due, ahead) = std::mem::take(&mut self.ahead).into_iter().partition(|(enter, ..)| *enter <= slot);
            self.ahead = ahead;
            let mut due: Vec<_> = due;
            due.sort_unstable_by_key(|(_, leave, _)| *leave);
            due.into_iter().for_each(|(_, leave, value)| self.enter(leave, value));
        }
        while self.entered.front().is_some_and(|(leave, _)| *leave < slot) && !fault::is(Fault::LeastOutlives) {
            self.entered.pop_front();
        }
    }

    /// At the final boundary or one ahead of it.
    pub fn at(&self, slot: i32) -> Option<V> {
        let lasts = |leave: i32| leave >= slot || fault::is(Fault::LeastOutlives);
        let entered = self.entered.iter().find(|(leave, _)| lasts(*leave)).map(|(_, value)| value);
        let ahead = self.ahead.iter().filter(|(enter, leave, _)| *enter <= slot && *leave >= slot).map(|(.., v)| v);
        entered.into_iter().chain(ahead).min().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_the_least_of_what_a_boundary_sees() {
        // Exhaustive over small histories: three rows, a final boundary that moves between them.
        let spans = [(1, 3, 5), (2, 3, 4), (2, 5, 7), (4, 6, 1), (1, 6, 9)];
        for a in spans {
            for b in spans {
                for c in spans {
                    for now in 0..4 {
                        let (mut least, rows) = (Least::default(), [a, b, c]);
                        least.add(a.0, a.1, a.2, 0);
                        least.advance(now);
                        least.add(b.0, b.1, b.2, now);
                        least.add(c.0, c.1, c.2, now);
                        for slot in now..8 {
                            // A row that came after its first boundary was final is seen from the next one on.
                            let seen = rows.iter().filter(|(e, l, _)| *e <= slot && slot <= *l).map(|(.., v)| *v).min();
                            assert_eq!(least.at(slot), seen, "{rows:?} now {now} at {slot}");
                        }
                    }
                }
            }
        }
    }
}
