//! What the receivers count. Prometheus names are here only, and nothing is logged per request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use metrics::{Counter, Gauge, counter, gauge};

/// Upper bounds in seconds: from a quick disk's sync to a broker that is about to be given up.
const ACK_BUCKETS: [&str; 13] =
    ["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];

/// A histogram kept as plain counters: one that keeps samples grows while nobody scrapes it.
pub(super) struct AckTime {
    buckets: Vec<(f64, Counter)>,
    all: Counter,
    count: Counter,
    sum: Gauge,
}

impl AckTime {
    pub fn new() -> AckTime {
        let bucket = |le: &'static str| counter!("stakeout_receiver_ack_seconds_bucket", "le" => le);
        AckTime {
            buckets: ACK_BUCKETS.map(|le| (le.parse().unwrap_or(f64::MAX), bucket(le))).into(),
            all: bucket("+Inf"),
            count: counter!("stakeout_receiver_ack_seconds_count"),
            sum: gauge!("stakeout_receiver_ack_seconds_sum"),
        }
    }

    pub fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.buckets.iter().filter(|(le, _)| seconds <= *le).for_each(|(_, bucket)| bucket.increment(1));
        self.all.increment(1);
        self.count.increment(1);
        self.sum.increment(seconds);
    }
}

pub(super) fn answered(path: &'static str, status: StatusCode) {
    counter!("stakeout_receiver_requests_total", "path" => path, "code" => status.as_str().to_owned()).increment(1);
}

pub(super) fn taken(path: &'static str, bytes: usize) {
    counter!("stakeout_receiver_bytes_total", "path" => path).increment(bytes as u64);
}

pub(super) fn refused(reason: &'static str) {
    counter!("stakeout_receiver_refused_total", "reason" => reason).increment(1);
}

/// At most one message a minute, which knows how many it stands for.
#[derive(Default)]
pub(super) struct Pace(Mutex<(Option<Instant>, u64)>);

const PACE: Duration = Duration::from_secs(60);

impl Pace {
    /// How many times it happened since it was last told, if it is to be told now.
    pub fn tell(&self) -> Option<u64> {
        let (told, happened) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *happened += 1;
        if told.is_some_and(|at| at.elapsed() < PACE) {
            return None;
        }
        *told = Some(Instant::now());
        Some(std::mem::take(happened))
    }
}
