//! One group's numbers over boundaries: what changes at which boundary, as far as it lies ahead. A row adds at the
//! boundary that first sees it and takes away after the last, so that a number at a boundary is a sum of what came
//! before, in any order of arrival.

use std::collections::VecDeque;

/// Entries ascend. Most groups of most rules have few rows: two entries need no memory of their own.
#[derive(Clone, Debug)]
pub enum Deltas<const L: usize> {
    Few {
        used: u8,
        at: [i32; 2],
        by: [[i64; L]; 2],
    },
    #[allow(clippy::box_collection, reason = "a group of few rows should not pay for the others' deque")]
    Many(Box<VecDeque<(i32, [i64; L])>>),
}

impl<const L: usize> Default for Deltas<L> {
    fn default() -> Self {
        Deltas::Few { used: 0, at: [0; 2], by: [[0; L]; 2] }
    }
}

impl<const L: usize> Deltas<L> {
    pub fn is_empty(&self) -> bool {
        match self {
            Deltas::Few { used, .. } => *used == 0,
            Deltas::Many(entries) => entries.is_empty(),
        }
    }

    /// Adds `by` to one lane at a boundary; true if nothing changed there before.
    pub fn add(&mut self, slot: i32, lane: usize, change: i64) -> bool {
        match self {
            Deltas::Few { used, at, by } => {
                let n = usize::from(*used);
                let place = at[..n].partition_point(|a| *a < slot);
                if place < n && at[place] == slot {
                    by[place][lane] += change;
                    return false;
                }
                if n < 2 {
                    if place == 0 {
                        (at[1], by[1]) = (at[0], by[0]);
                    }
                    at[place] = slot;
                    by[place] = [0; L];
                    by[place][lane] = change;
                    *used += 1;
                    return true;
                }
                let entries = at.iter().copied().zip(by.iter().copied()).collect();
                *self = Deltas::Many(Box::new(entries));
                self.add(slot, lane, change)
            }
            Deltas::Many(entries) => {
                // Rows come almost in order: what they change is mostly the last entry.
                let place = match entries.back() {
                    Some((last, _)) if *last < slot => entries.len(),
                    Some((last, _)) if *last == slot => entries.len() - 1,
                    _ => entries.partition_point(|(a, _)| *a < slot),
                };
                if let Some((at, by)) = entries.get_mut(place)
                    && *at == slot
                {
                    by[lane] += change;
                    return false;
                }
                let mut by = [0; L];
                by[lane] = change;
                entries.insert(place, (slot, by));
                true
            }
        }
    }

    /// Takes out everything up to `slot` and adds it to `sum`.
    pub fn fold_until(&mut self, slot: i32, sum: &mut [i64; L]) {
        match self {
            Deltas::Few { used, at, by } => {
                while *used > 0 && at[0] <= slot {
                    add(sum, &by[0]);
                    (at[0], by[0]) = (at[1], by[1]);
                    *used -= 1;
                }
            }
            Deltas::Many(entries) => {
                while let Some((at, by)) = entries.front()
                    && *at <= slot
                {
                    add(sum, by);
                    entries.pop_front();
                }
                if entries.is_empty() {
                    *self = Deltas::default();
                }
            }
        }
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &[i64; L])> {
        let (few, many) = match self {
            Deltas::Few { used, at, by } => (Some((*used, at, by)), None),
            Deltas::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flat_map(|(used, at, by)| at.iter().copied().zip(by).take(usize::from(used)));
        few.chain(many.into_iter().flat_map(|entries| entries.iter().map(|(at, by)| (*at, by))))
    }
}

pub fn add<const L: usize>(sum: &mut [i64; L], by: &[i64; L]) {
    sum.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.wrapping_add(*by));
}
