//! What Prometheus is shown of each assigned partition. One that is taken away is taken out: its gauges become NaN,
//! which the page of metrics leaves out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event::{Partition, Positions};
use metrics::gauge;

/// Scrapes are seconds apart.
const SHOW_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Gauges {
    shown: BTreeSet<Partition>,
    at: Instant,
}

impl Gauges {
    pub fn new() -> Gauges {
        Gauges { shown: BTreeSet::new(), at: Instant::now() }
    }

    pub fn due(&self) -> bool {
        self.at.elapsed() >= SHOW_EVERY
    }

    /// Positions of the assigned partitions (`None`: not known yet), the manifest's, and how many stand still.
    pub fn show(&mut self, assigned: &[(Partition, Option<i64>)], durable: &Positions, stalled: usize) {
        self.at = Instant::now();
        gauge!("stakeout_source_stalled_partitions").set(stalled as f64);
        let mut gone = std::mem::take(&mut self.shown);
        for (partition, position) in assigned {
            set(partition, *position, durable.get(partition).copied());
            gone.remove(partition);
            self.shown.insert(partition.clone());
        }
        gone.iter().for_each(|partition| set(partition, None, None));
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show(&[], &Positions::new(), 0);
    }
}

fn set((topic, partition): &Partition, position: Option<i64>, committed: Option<i64>) {
    let labels = [("topic", topic.to_string()), ("partition", partition.to_string())];
    let value = |at: Option<i64>| at.map_or(f64::NAN, |at| at as f64);
    gauge!("stakeout_source_position", &labels).set(value(position));
    gauge!("stakeout_source_committed_position", &labels).set(value(committed));
}
