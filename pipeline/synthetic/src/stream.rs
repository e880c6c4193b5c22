//! Which stream to make: what happens how often, and what is odd about it.

use event::Micros;

use crate::attack::Spacing;

/// The streams of the benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// Kubernetes 80 %, CloudTrail 18 %, Falco 2 % of events; of Kubernetes 85 % Metadata, 5 % Request, 10 %
    /// RequestResponse.
    #[default]
    Steady,
    /// Kubernetes at RequestResponse only, one in 500 of 60 to 220 KB: for parsers and memory limits.
    Bulk,
    /// Steady, at ten times the rate of the rest for five seconds of every minute.
    Burst,
    /// Steady, with lateness and repeats doubled.
    Late,
    /// Steady, with one principal behind 91 % of CloudTrail (57 % of a trail with data events).
    HotKey,
    /// Steady, with a new pod, container and address every 20 events; pods' lives are logged at Metadata only.
    HighCardinality,
}

impl Stream {
    pub const ALL: [Stream; 6] =
        [Stream::Steady, Stream::Bulk, Stream::Burst, Stream::Late, Stream::HotKey, Stream::HighCardinality];

    /// Background events between the creation of one pod and the next.
    pub(crate) fn events_per_pod(self) -> u64 {
        if self == Stream::HighCardinality { 20 } else { 128 }
    }

    /// Lateness and repeats are multiplied by it.
    pub(crate) fn disorder(self) -> f64 {
        if self == Stream::Late { 2.0 } else { 1.0 }
    }

    pub(crate) fn hot_percent(self, data_events: bool) -> f64 {
        match self {
            Stream::HotKey if data_events => 57.0,
            // Of what services do not do for themselves: 91 % of all.
            Stream::HotKey => 91.7,
            _ => 0.0,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Event time of the first event.
    pub start: Micros,
    /// Event time between two background events, on average over a day.
    pub gap: Micros,
    /// Background events between two attacks; 0 plants none.
    pub attack_every: u64,
    /// Multiplies CloudTrail's measured delivery delay (p50 191 s, p95 455 s).
    pub cloudtrail_delay: f64,
    /// How far apart the steps of attacks are.
    pub spacing: Spacing,
    pub stream: Stream,
    /// CloudTrail also records what happens to objects.
    pub data_events: bool,
    /// How large a stream the world is made for: it grows with the 0.6th power.
    pub world_gb: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            // 2026-01-15T09:00:00Z
            start: 1_768_467_600_000_000,
            gap: 1_000,
            attack_every: 100_000,
            cloudtrail_delay: 1.0,
            spacing: Spacing::Real,
            stream: Stream::Steady,
            data_events: false,
            world_gb: 1.0,
        }
    }
}
