//! Counters of a running line: the metrics are made of them, and the terminal reads them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use event::{Admitted, Counts, Micros, PartitionState, Source};

#[derive(Default)]
pub struct Stats {
    counts: Mutex<Counts>,
    flows: Mutex<BTreeMap<Source, Flow>>,
    commits: AtomicU64,
    committed_rows: AtomicU64,
}

/// One source, as far as the line has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Rows of its table; what did not parse is in [`Counts::unparsed`].
    pub rows: u64,
    /// `None` before its first event.
    pub watermark: Option<Micros>,
    /// Records that wait in its partitions behind the last poll; `None` while that is not known.
    pub waiting: Option<u64>,
}

impl Stats {
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn committed_rows(&self) -> u64 {
        self.committed_rows.load(Ordering::Relaxed)
    }

    /// Sources that have been heard of.
    pub fn flows(&self) -> BTreeMap<Source, Flow> {
        self.lock_flows().clone()
    }

    pub(super) fn polled(&self, partitions: &[PartitionState]) {
        let mut waiting: BTreeMap<Source, Option<u64>> = BTreeMap::new();
        for state in partitions {
            let lag = state.lag.map(|lag| u64::try_from(lag).unwrap_or(0));
            let sum = waiting.entry(state.source).or_insert(Some(0));
            *sum = sum.zip(lag).map(|(sum, lag)| sum + lag);
        }
        let mut flows = self.lock_flows();
        waiting.into_iter().for_each(|(source, lag)| flows.entry(source).or_default().waiting = lag);
    }

    pub(super) fn admitted(&self, admitted: &Admitted) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(&admitted.counts);
        let counts = &admitted.counts;
        metrics::counter!("stakeout_events_admitted_total").increment(counts.admitted);
        metrics::counter!("stakeout_events_unparsed_total").increment(counts.unparsed);
        metrics::counter!("stakeout_events_duplicate_total").increment(counts.duplicates);
        metrics::counter!("stakeout_events_uid_conflict_total").increment(counts.conflicts);
        metrics::counter!("stakeout_events_late_total").increment(counts.late);
        metrics::counter!("stakeout_bytes_read_total").increment(counts.bytes);
        let mut flows = self.lock_flows();
        for (source, mark) in &admitted.watermarks.0 {
            metrics::gauge!("stakeout_watermark_seconds", "source" => source.name()).set(*mark as f64 / 1e6);
            flows.entry(*source).or_default().watermark = Some(*mark).filter(|mark| *mark > Micros::MIN);
        }
        for batch in &admitted.batches {
            if let Some(source) = Source::ALL.into_iter().find(|source| source.name() == &*batch.table) {
                flows.entry(source).or_default().rows += batch.rows.num_rows() as u64;
            }
        }
    }

    pub(super) fn committed(&self, rows: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.committed_rows.fetch_add(rows, Ordering::Relaxed);
        metrics::counter!("stakeout_commits_total").increment(1);
    }

    fn lock_flows(&self) -> MutexGuard<'_, BTreeMap<Source, Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_summed_by_source_and_unknown_if_any_partition_is() {
        let partition =
            |source, partition, lag| PartitionState { source, topic: "t".into(), partition, lag, idle: false };
        let stats = Stats::default();
        stats.polled(&[
            partition(Source::Kubernetes, 0, Some(3)),
            partition(Source::Kubernetes, 1, Some(4)),
            partition(Source::Falco, 0, Some(1)),
            partition(Source::Falco, 1, None),
        ]);
        let flows = stats.flows();
        assert_eq!(flows[&Source::Kubernetes].waiting, Some(7));
        assert_eq!(flows[&Source::Falco].waiting, None);
        assert!(!flows.contains_key(&Source::CloudTrail));
    }
}
