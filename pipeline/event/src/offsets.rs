//! Offsets as values: the next offset per partition, and contiguous ranges that advance it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Topic and partition.
pub type Partition = (Arc<str>, i32);

/// The next offset to read per partition: everything below it has been dealt with.
pub type Positions = BTreeMap<Partition, i64>;

/// Offsets `from..next` of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    pub from: i64,
    pub next: i64,
}

/// The ranges that one unit of work covers, one per partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub BTreeMap<Partition, OffsetRange>);

/// Two ranges that do not meet: between them events would be lost or stored twice.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("offsets of {topic}/{partition} do not continue: have {have}, got {got}")]
pub struct Gap {
    pub topic: Arc<str>,
    pub partition: i32,
    pub have: i64,
    pub got: i64,
}

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends one range; it must start where the partition's range ends.
    pub fn push(&mut self, topic: &Arc<str>, partition: i32, range: OffsetRange) -> Result<(), Gap> {
        debug_assert!(range.from <= range.next, "an offset range runs forward");
        match self.0.get_mut(&(topic.clone(), partition)) {
            None => {
                self.0.insert((topic.clone(), partition), range);
            }
            Some(have) if have.next == range.from => have.next = range.next,
            Some(have) => {
                return Err(Gap { topic: topic.clone(), partition, have: have.next, got: range.from });
            }
        }
        Ok(())
    }

    pub fn extend(&mut self, later: &Ranges) -> Result<(), Gap> {
        later.0.iter().try_for_each(|((topic, partition), range)| self.push(topic, *partition, *range))
    }
}

/// Committed positions of a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets(pub Positions);

impl Offsets {
    pub fn next(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(&(Arc::from(topic), partition)).copied()
    }

    /// Advances by `ranges`, which must continue what is there. A partition seen for the first time may
    /// start anywhere (Kafka retention may have removed its beginning).
    pub fn advance(&mut self, ranges: &Ranges) -> Result<(), Gap> {
        for ((topic, partition), range) in &ranges.0 {
            let have = self.0.entry((topic.clone(), *partition)).or_insert(range.from);
            if *have != range.from {
                return Err(Gap { topic: topic.clone(), partition: *partition, have: *have, got: range.from });
            }
            *have = range.next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: i64, next: i64) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.push(&"audit".into(), 0, OffsetRange { from, next }).unwrap();
        ranges
    }

    #[test]
    fn ranges_continue_or_are_refused() {
        let mut ranges = range(5, 9);
        ranges.extend(&range(9, 12)).unwrap();
        assert_eq!(ranges, range(5, 12));
        let gap = ranges.extend(&range(13, 14)).unwrap_err();
        assert_eq!((gap.have, gap.got), (12, 13));
    }

    #[test]
    fn offsets_start_anywhere_and_then_continue() {
        let mut offsets = Offsets::default();
        offsets.advance(&range(100, 110)).unwrap();
        assert_eq!(offsets.next("audit", 0), Some(110));
        assert_eq!(offsets.advance(&range(100, 110)).unwrap_err().have, 110);
        offsets.advance(&range(110, 110)).unwrap();
        assert_eq!(offsets.next("audit", 0), Some(110));
    }
}
