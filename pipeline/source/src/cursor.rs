//! Range bookkeeping without I/O: where each partition stands and what the poll under way has covered. Makes a
//! message that was handed out before invisible, and ranges that do not continue impossible.

use std::sync::Arc;

use event::{OffsetRange, Partition, Positions, Ranges};

#[derive(Debug, Default)]
pub(crate) struct Cursor {
    next: Positions,
    covered: Ranges,
}

impl Cursor {
    pub fn new(next: Positions) -> Self {
        Cursor { next, covered: Ranges::default() }
    }

    /// The next offset to hand out; `None` for a partition that never was.
    pub fn next(&self, partition: &Partition) -> Option<i64> {
        self.next.get(partition).copied()
    }

    /// Covers `offset` and everything between the position and it (compacted or aborted records). False: it was
    /// handed out before. A partition met for the first time starts at `offset`.
    pub fn take(&mut self, topic: &Arc<str>, partition: i32, offset: i64) -> bool {
        self.advance(topic, partition, offset, offset + 1)
    }

    /// Gives up what lies before `to`: it does not exist any more.
    pub fn skip(&mut self, topic: &Arc<str>, partition: i32, to: i64) {
        self.advance(topic, partition, to, to);
    }

    /// Follows the manifest where it is ahead of us (it is when another feed of this data directory was).
    pub fn raise(&mut self, positions: &Positions) {
        for (partition, &at) in positions {
            let next = self.next.entry(partition.clone()).or_insert(at);
            let jumps = at > *next && self.covered.0.contains_key(partition);
            debug_assert!(!jumps, "a position is not raised over what is about to be handed over");
            *next = (*next).max(at);
        }
    }

    /// What was covered since the last drain.
    pub fn drain(&mut self) -> Ranges {
        std::mem::take(&mut self.covered)
    }

    fn advance(&mut self, topic: &Arc<str>, partition: i32, first: i64, next: i64) -> bool {
        let at = self.next.entry((topic.clone(), partition)).or_insert(first);
        if first < *at {
            return false;
        }
        let range = OffsetRange { from: *at, next };
        *at = next;
        self.covered.push(topic, partition, range).expect("ranges of one cursor start where the last one ended");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start: Option<i64>, offsets: &[i64], taken: &[i64], range: Option<(i64, i64)>) {
        let topic: Arc<str> = "audit".into();
        let mut cursor = Cursor::new(start.map(|at| ((topic.clone(), 0), at)).into_iter().collect());
        let got: Vec<i64> = offsets.iter().copied().filter(|&o| cursor.take(&topic, 0, o)).collect();
        assert_eq!(got, taken);
        let covered = cursor.drain().0.into_values().next().map(|r| (r.from, r.next));
        assert_eq!(covered, range);
        assert!(cursor.drain().is_empty());
    }

    #[test]
    fn covers_gaps_and_refuses_repeats() {
        check(None, &[7, 8, 9], &[7, 8, 9], Some((7, 10)));
        check(Some(5), &[7, 8], &[7, 8], Some((5, 9)));
        check(Some(5), &[3, 4, 5, 5, 6, 4, 9], &[5, 6, 9], Some((5, 10)));
        check(Some(5), &[1], &[], None);
    }

    #[test]
    fn a_skip_is_covered_too() {
        let topic: Arc<str> = "audit".into();
        let mut cursor = Cursor::new([((topic.clone(), 0), 5)].into());
        cursor.skip(&topic, 0, 100);
        assert!(!cursor.take(&topic, 0, 99));
        assert!(cursor.take(&topic, 0, 100));
        assert_eq!(cursor.drain().0[&(topic.clone(), 0)], OffsetRange { from: 5, next: 101 });
        cursor.raise(&[((topic.clone(), 0), 50), ((topic.clone(), 1), 7)].into());
        assert_eq!((cursor.next(&(topic.clone(), 0)), cursor.next(&(topic, 1))), (Some(101), Some(7)));
    }
}
