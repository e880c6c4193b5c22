//! The boundaries at which a relation speaks: those that see any of its rows. Kept as runs, which a steady stream joins to
//! one.

use std::collections::BTreeMap;

/// First and last boundary of each run; runs do not touch.
#[derive(Debug, Default)]
pub struct Speaking(BTreeMap<i64, i64>);

impl Speaking {
    pub fn add(&mut self, mut first: i64, mut last: i64) {
        let near = self.0.range(..=last.saturating_add(1)).rev().take_while(|(_, end)| **end >= first - 1);
        let joined: Vec<(i64, i64)> = near.map(|(first, last)| (*first, *last)).collect();
        for (begin, end) in joined {
            self.0.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }

    /// Whether it speaks at all of these.
    pub fn covers(&self, first: i64, last: i64) -> bool {
        self.0.range(..=first).next_back().is_some_and(|(_, end)| *end >= last)
    }

    /// Where it begins or ceases.
    pub fn turns(&self) -> impl Iterator<Item = i64> {
        self.0.iter().flat_map(|(first, last)| [*first, last.saturating_add(1)])
    }

    pub fn next_turn(&self, now: i64) -> Option<i64> {
        let within =
            self.0.range(..=now).next_back().map(|(_, last)| last.saturating_add(1)).filter(|turn| *turn > now);
        within.or_else(|| self.0.range(now.saturating_add(1)..).next().map(|(first, _)| *first))
    }

    /// Runs that ended before `slot`.
    pub fn forget(&mut self, slot: i64) {
        while let Some(run) = self.0.first_entry().filter(|run| *run.get() < slot) {
            run.remove();
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_a_set_of_boundaries_says() {
        let mut random = crate::tests::streams::Random::new(7);
        for _ in 0..2_000 {
            let mut speaking = Speaking::default();
            let mut set = std::collections::BTreeSet::new();
            for _ in 0..random.below(12) {
                let first = random.below(40) as i64;
                let last = first + random.below(6) as i64;
                speaking.add(first, last);
                set.extend(first..=last);
            }
            for slot in -1..50 {
                let turn = (slot + 1..60).find(|n| set.contains(n) != set.contains(&(n - 1)));
                assert_eq!(speaking.next_turn(slot), turn);
                for last in slot..50 {
                    assert_eq!(speaking.covers(slot, last), (slot..=last).all(|n| set.contains(&n)));
                }
            }
        }
    }
}
