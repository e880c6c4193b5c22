//! How partitions stand: lag, and what holds the watermark back.
//!
//! A partition that came to us holds its source's watermark until it is read to its end and quiet, because its state
//! is not known before the broker has said where it ends. One that left us does not: its rows go into another data
//! directory, and windows there are that directory's matter. Except when the member that holds it is dead, and its
//! rows are about to come to us, minutes later than they happened: a partition whose committed offset stands still
//! although there is something to read holds our watermark as if it were ours, for as long as a dead member can keep
//! it ([`PATIENCE`]). So the windows wait for what is being taken over, and nobody who never commits stops them for
//! good.

use std::time::{Duration, Instant};

use super::context::{Assigned, Marks};

/// Beyond this age the word on the end of a partition is not worth anything. Several intervals of asking, so that a
/// slow round is none.
pub(super) const FRESH: Duration = Duration::from_secs(15);

/// A member that lives commits more often than this: twice the default age of a seal.
pub(super) const ATTENDED: Duration = Duration::from_secs(30);

/// How long to wait for a partition that nobody attends: the default session timeout (45 s), by which the group is
/// rid of a dead member, and a slow rebalance.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Records between our position and the end of the partition; `None` while the broker's word is missing or old.
pub(super) fn lag(next: Option<i64>, assigned: &Assigned, now: Instant) -> Option<i64> {
    let marks = assigned.marks.filter(|marks| now.duration_since(marks.at) < FRESH)?;
    if assigned.drained_to >= marks.high {
        return Some(0);
    }
    let at = next.or(assigned.start).unwrap_or(marks.low);
    Some((marks.high - at.max(marks.low)).max(0))
}

/// A partition of our topics that another member of the group holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    committed: i64,
    end: i64,
    /// The end when the committed offset last moved, and when that was seen.
    end_then: i64,
    moved: Instant,
}

impl Foreign {
    /// `committed` by the group; a partition of which it knows nothing is read from its beginning.
    pub fn new(committed: Option<i64>, marks: Marks) -> Foreign {
        let committed = committed.unwrap_or(marks.low);
        Foreign { committed, end: marks.high, end_then: marks.high, moved: marks.at }
    }

    pub fn hear(&mut self, committed: Option<i64>, marks: Marks) {
        let committed = committed.unwrap_or(marks.low);
        if committed != self.committed || committed >= marks.high {
            *self = Foreign::new(Some(committed), marks);
        }
        self.end = marks.high;
    }

    /// Nobody has read it for `attended`, and it may come to us.
    pub fn holds(&self, now: Instant, attended: Duration) -> bool {
        // What lies behind the last record of a transaction is its marker, which nobody commits.
        let unread = self.end > self.end_then || self.end - self.committed > 1;
        let silent = now.duration_since(self.moved);
        unread && silent >= attended && silent < attended + PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::super::stall::Progress;
    use super::*;

    #[test]
    fn lag_is_known_only_by_a_fresh_word_of_the_broker() {
        let now = Instant::now();
        let check = |next, start, marks: Option<(i64, i64)>, drained_to, age_s, expected| {
            let at = now.checked_sub(Duration::from_secs(age_s)).unwrap();
            let marks = marks.map(|(low, high)| Marks { low, high, at });
            let progress = Progress::new(now);
            let assigned = Assigned { start, arrived: now, marks, fetched_to: -1, drained_to, progress };
            assert_eq!(lag(next, &assigned, now), expected);
        };
        check(Some(7), None, Some((0, 10)), -1, 1, Some(3));
        check(Some(10), None, Some((0, 10)), -1, 1, Some(0));
        check(Some(12), None, Some((0, 10)), -1, 1, Some(0));
        check(Some(9), None, Some((0, 10)), 10, 1, Some(0));
        check(Some(9), None, Some((0, 11)), 10, 1, Some(2));
        check(None, None, Some((4, 10)), -1, 1, Some(6));
        check(None, Some(9), Some((4, 10)), -1, 1, Some(1));
        check(Some(10), None, Some((0, 10)), -1, 60, None);
        check(Some(10), None, None, -1, 1, None);
    }

    /// (second, committed, end, holds)
    fn check_foreign(steps: &[(u64, Option<i64>, i64, bool)]) {
        let start = Instant::now();
        let mut foreign = None;
        for (second, committed, end, expected) in steps {
            let now = start + Duration::from_secs(*second);
            let marks = Marks { low: 0, high: *end, at: now };
            let foreign: &mut Foreign = foreign.get_or_insert_with(|| Foreign::new(*committed, marks));
            foreign.hear(*committed, marks);
            assert_eq!(foreign.holds(now, ATTENDED), *expected, "second {second}");
        }
    }

    #[test]
    fn a_partition_that_is_read_by_another_does_not_hold() {
        check_foreign(&[(0, Some(5), 10, false), (29, Some(5), 20, false), (31, Some(9), 20, false)]);
        check_foreign(&[(0, Some(10), 10, false), (100, Some(10), 10, false), (101, Some(10), 11, false)]);
        check_foreign(&[(0, None, 0, false), (300, None, 0, false)]);
        // The marker of a transaction.
        check_foreign(&[(0, Some(9), 10, false), (60, Some(9), 10, false)]);
    }

    #[test]
    fn a_partition_that_nobody_reads_holds_for_a_while() {
        check_foreign(&[
            (0, Some(10), 10, false),
            (10, Some(10), 11, false),
            (29, Some(10), 19, false),
            (30, Some(10), 20, true),
            (149, Some(10), 99, true),
            (150, Some(10), 99, false),
            (500, Some(10), 500, false),
            (510, Some(11), 500, false),
            (540, Some(11), 500, true),
        ]);
        check_foreign(&[(0, None, 10, false), (30, None, 10, true), (200, None, 10, false)]);
    }
}
