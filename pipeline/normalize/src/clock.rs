//! The watermark of one source: how far its event time is known to have advanced.
//!
//! It is the minimum over the partitions that are not idle of their highest event time, minus the source's lateness,
//! and never goes back. An event time counts for at most its receipt plus the allowed skew, so that one sender with a
//! wrong clock does not make everyone else late; since receipt is a fact of the row, batch sizes do not matter.
//! What holds the watermark back (a new or newly active partition) counts at once; what lets it go (idleness, a
//! revoked partition) counts after the rows that were polled with it.

use std::sync::Arc;

use event::{Micros, PartitionState};

#[derive(Debug)]
pub(crate) struct SourceClock {
    lateness: Micros,
    skew: Micros,
    watermark: Micros,
    /// Where partitions start that have not been heard of: the watermark the process started with, plus lateness.
    start: Micros,
    partitions: Vec<PartitionClock>,
    /// Minimum over the partitions that are not idle, kept to spare most rows the loop.
    floor: Option<Micros>,
    /// Index of the partition counted last: rows come in runs.
    last: usize,
}

#[derive(Debug)]
struct PartitionClock {
    topic: Arc<str>,
    partition: i32,
    highest: Micros,
    idle: bool,
}

impl SourceClock {
    pub fn new(lateness: Micros, skew: Micros, restored: Micros) -> Self {
        // The two infinities are not to be moved by a finite lateness.
        let start = if restored == Micros::MIN { Micros::MIN } else { restored.saturating_add(lateness) };
        SourceClock { lateness, skew, watermark: restored, start, partitions: Vec::new(), floor: None, last: 0 }
    }

    pub fn watermark(&self) -> Micros {
        self.watermark
    }

    /// Before the rows of a poll.
    pub fn hold<'s>(&mut self, states: impl Iterator<Item = &'s PartitionState>) {
        for state in states {
            let index = self.index(&state.topic, state.partition);
            self.partitions[index].idle &= state.idle;
        }
        self.advance();
    }

    /// Counts one row.
    pub fn count(&mut self, topic: &str, partition: i32, time: Micros, received: Micros) {
        let index = self.index(topic, partition);
        self.last = index;
        let time = time.min(received.saturating_add(self.skew));
        let clock = &mut self.partitions[index];
        let held_back = self.floor.is_none_or(|floor| clock.highest <= floor);
        let woken = std::mem::take(&mut clock.idle);
        if time > clock.highest || woken {
            clock.highest = clock.highest.max(time);
            if held_back || woken {
                self.advance();
            }
        }
    }

    /// After the rows of a poll. Partitions that are no longer assigned are forgotten.
    pub fn release(&mut self, states: &[&PartitionState], now: Micros) {
        self.partitions.retain_mut(|clock| {
            let state = states.iter().find(|s| s.partition == clock.partition && s.topic == clock.topic);
            clock.idle = state.is_some_and(|s| s.idle);
            state.is_some()
        });
        self.last = 0;
        self.advance();
        if !self.partitions.is_empty() && self.floor.is_none() {
            self.watermark = self.watermark.max(now.saturating_sub(self.lateness));
        }
    }

    fn advance(&mut self) {
        self.floor = self.partitions.iter().filter(|p| !p.idle).map(|p| p.highest).min();
        if let Some(floor) = self.floor {
            self.watermark = self.watermark.max(floor.saturating_sub(self.lateness));
        }
    }

    /// The partition's place; one not heard of is added.
    fn index(&mut self, topic: &str, partition: i32) -> usize {
        let is = |p: &PartitionClock| p.partition == partition && &*p.topic == topic;
        if self.partitions.get(self.last).is_some_and(is) {
            return self.last;
        }
        self.partitions.iter().position(is).unwrap_or_else(|| {
            let highest = self.start;
            self.partitions.push(PartitionClock { topic: topic.into(), partition, highest, idle: false });
            self.partitions.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENESS: Micros = 10;
    const SKEW: Micros = 5;

    fn state(partition: i32, idle: bool) -> PartitionState {
        PartitionState { source: event::Source::Falco, topic: "t".into(), partition, lag: Some(0), idle }
    }

    fn poll(clock: &mut SourceClock, rows: &[(i32, Micros)], states: &[PartitionState], now: Micros) -> Micros {
        clock.hold(states.iter());
        rows.iter().for_each(|(partition, time)| clock.count("t", *partition, *time, now));
        clock.release(&states.iter().collect::<Vec<_>>(), now);
        clock.watermark()
    }

    #[test]
    fn the_slowest_partition_that_is_not_idle_decides() {
        let mut clock = SourceClock::new(LATENESS, SKEW, Micros::MIN);
        let (busy, idle) = ([state(0, false), state(1, false)], [state(0, false), state(1, true)]);
        assert_eq!(poll(&mut clock, &[(0, 100)], &busy, 1000), Micros::MIN, "partition 1 has not spoken");
        assert_eq!(poll(&mut clock, &[(1, 50)], &busy, 1000), 40);
        assert_eq!(poll(&mut clock, &[(0, 200)], &busy, 1000), 40);
        assert_eq!(poll(&mut clock, &[], &idle, 1000), 190, "partition 1 lets go");
        assert_eq!(poll(&mut clock, &[(1, 60)], &busy, 1000), 190, "never back");
        assert_eq!(poll(&mut clock, &[(1, 300)], &busy, 1000), 190);
        assert_eq!(poll(&mut clock, &[(0, 250)], &busy, 1000), 240);
    }

    #[test]
    fn idle_sources_follow_the_wall_clock_and_unassigned_ones_stand() {
        let mut clock = SourceClock::new(LATENESS, SKEW, Micros::MIN);
        assert_eq!(poll(&mut clock, &[], &[state(0, true)], 1000), 990);
        assert_eq!(poll(&mut clock, &[], &[state(0, true)], 1100), 1090);
        assert_eq!(poll(&mut clock, &[], &[], 2000), 1090, "nothing assigned");
    }

    #[test]
    fn a_time_in_the_future_counts_for_receipt_plus_skew() {
        let mut clock = SourceClock::new(LATENESS, SKEW, Micros::MIN);
        assert_eq!(poll(&mut clock, &[(0, 1_000_000)], &[state(0, false)], 1000), 995);
        assert_eq!(poll(&mut clock, &[(0, 1001)], &[state(0, false)], 2000), 995, "and does not creep on");
    }

    #[test]
    fn after_a_restart_a_silent_partition_holds_the_restored_watermark() {
        let mut clock = SourceClock::new(LATENESS, SKEW, 500);
        let busy = [state(0, false), state(1, false)];
        assert_eq!(poll(&mut clock, &[(0, 900)], &busy, 1000), 500);
        assert_eq!(poll(&mut clock, &[(1, 800)], &busy, 1000), 790);
    }
}
