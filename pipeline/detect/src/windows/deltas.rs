//! One group's numbers over boundaries: what changes at which boundary, as far as it lies ahead. A row adds at the
//! boundary that first sees it and takes away after the last, so that a number at a boundary is a sum of what came
//! before, in any order of arrival.

/// What changes at one boundary.
pub type Change<const L: usize> = (i32, [i64; L]);

/// Room for so many when two are not enough, so that a group that goes on growing is not moved at each row.
const MANY: usize = 8;

/// Looked through one by one before searching.
const NEAR: usize = 4;

/// Changes ascend. Most groups of most rules have few rows: two changes need no memory of their own.
#[derive(Clone, Debug)]
pub enum Deltas<const L: usize> {
    Few {
        used: u8,
        changes: [Change<L>; 2],
    },
    /// Those before `from` are over.
    Many {
        from: u32,
        changes: Vec<Change<L>>,
    },
}

impl<const L: usize> Default for Deltas<L> {
    fn default() -> Self {
        Deltas::Few { used: 0, changes: [(0, [0; L]); 2] }
    }
}

impl<const L: usize> Deltas<L> {
    /// Ascending.
    pub fn changes(&self) -> &[Change<L>] {
        match self {
            Deltas::Few { used, changes } => &changes[..usize::from(*used)],
            Deltas::Many { from, changes } => &changes[*from as usize..],
        }
    }

    pub fn is_empty(&self) -> bool {
        self.changes().is_empty()
    }

    /// Adds `by` to one lane at a boundary; true if nothing changed there before.
    pub fn add(&mut self, slot: i32, lane: usize, by: i64) -> bool {
        let ahead = self.changes();
        let place = place_of(ahead, slot);
        if ahead.get(place).is_some_and(|(at, _)| *at == slot) {
            let (_, lanes) = match self {
                Deltas::Few { changes, .. } => &mut changes[place],
                Deltas::Many { from, changes } => &mut changes[*from as usize + place],
            };
            lanes[lane] += by;
            return false;
        }
        let mut lanes = [0; L];
        lanes[lane] = by;
        self.insert(place, (slot, lanes));
        true
    }

    fn insert(&mut self, place: usize, change: Change<L>) {
        match self {
            Deltas::Few { used, changes } if usize::from(*used) < changes.len() => {
                changes.copy_within(place..usize::from(*used), place + 1);
                changes[place] = change;
                *used += 1;
            }
            Deltas::Few { changes: few, .. } => {
                let mut changes = Vec::with_capacity(MANY);
                changes.extend_from_slice(few);
                changes.insert(place, change);
                *self = Deltas::Many { from: 0, changes };
            }
            Deltas::Many { from, changes } => {
                let first = *from as usize;
                // Whichever side is shorter moves.
                if first > 0 && place < changes.len() - first - place {
                    changes.copy_within(first..first + place, first - 1);
                    *from -= 1;
                    changes[first - 1 + place] = change;
                } else {
                    changes.insert(first + place, change);
                }
            }
        }
    }

    /// Takes out everything up to `slot` and adds it to `sum`.
    pub fn fold_until(&mut self, slot: i32, sum: &mut [i64; L]) {
        let due = self.changes().iter().take_while(|(at, _)| *at <= slot);
        let due = due.map(|(_, by)| add(sum, by)).count();
        match self {
            Deltas::Few { used, changes } => {
                changes.copy_within(due.., 0);
                *used -= due as u8;
            }
            Deltas::Many { from, changes } => {
                *from += due as u32;
                let over = *from as usize;
                if over == changes.len() {
                    *self = Deltas::default();
                } else if over >= MANY && 2 * over >= changes.len() {
                    changes.drain(..over);
                    *from = 0;
                }
            }
        }
    }
}

/// Where a boundary is or belongs. Rows come almost in order: what they change is mostly the last change or among the first.
fn place_of<const L: usize>(changes: &[Change<L>], slot: i32) -> usize {
    match changes.last() {
        None => 0,
        Some((last, _)) if *last < slot => changes.len(),
        Some((last, _)) if *last == slot => changes.len() - 1,
        Some(_) => match changes.iter().take(NEAR).position(|(at, _)| *at >= slot) {
            Some(place) => place,
            None => changes.partition_point(|(at, _)| *at < slot),
        },
    }
}

pub fn add<const L: usize>(sum: &mut [i64; L], by: &[i64; L]) {
    sum.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.wrapping_add(*by));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn changes_are_kept_like_a_sorted_map() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut deltas, mut map) = (Deltas::<2>::default(), BTreeMap::<i32, [i64; 2]>::new());
            let (mut now, mut sum, mut expected) = (0, [0; 2], [0; 2]);
            for _ in 0..300 {
                if random.random_bool(0.8) {
                    let near = random.random_bool(0.5);
                    let slot = now + 1 + if near { random.random_range(0..3) } else { random.random_range(0..60) };
                    let (lane, by) = (random.random_range(0..2), random.random_range(-3..4));
                    let is_new = !map.contains_key(&slot);
                    map.entry(slot).or_default()[lane] += by;
                    assert_eq!(deltas.add(slot, lane, by), is_new, "seed {seed}");
                } else {
                    now += random.random_range(1..20);
                    deltas.fold_until(now, &mut sum);
                    let ahead = map.split_off(&(now + 1));
                    map.values().for_each(|by| add(&mut expected, by));
                    map = ahead;
                    assert_eq!(sum, expected, "seed {seed}");
                }
                assert!(deltas.changes().iter().copied().eq(map.iter().map(|(at, by)| (*at, *by))), "seed {seed}");
            }
        }
    }
}
