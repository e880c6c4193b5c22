//! Synthetic audit streams: one world seen by Kubernetes, CloudTrail and Falco, steady background traffic with
//! planted attacks, redeliveries and CloudTrail's lateness. Deterministic in the seed: event `n` depends on the
//! seed and `n` only. It contains no recorded event.

pub mod attack;
mod cloudtrail;

mod falco;
mod kubernetes;
pub mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use event::{Micros, Source};
use rand::Rng;
use rand::rngs::SmallRng;

pub use attack::{Planted, Played, Proof, Spacing, Trace, digest};

pub const SECOND: Micros = 1_000_000;

/// One event as its source would emit it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When it happened.
    pub time: Micros,
    pub source: Source,
    pub cluster: Option<&'static str>,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Event time of the first event.
    pub start: Micros,
    /// Event time between two background events.
    pub gap: Micros,
    /// Background events between two attacks; 0 plants none.
    pub attack_every: u64,
    /// Multiplies CloudTrail's measured delivery delay (p50 191 s, p95 455 s).
    pub cloudtrail_delay: f64,
}

/// An endless stream in delivery order.
pub struct Generator {
    options: Options,
    spacing: Spacing,
    number: u64,
    /// Delivered later than made: CloudTrail's lateness and the steps of attacks, by delivery time.
    pending: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    made: u64,
    planted: Vec<Planted>,
}

/// Share of events, in percent: Kubernetes 80, CloudTrail 18, Falco 2.
const KUBERNETES_BELOW: u32 = 80;
const CLOUDTRAIL_BELOW: u32 = 98;
/// CloudTrail delivers about one record in five twice; the repeat comes in another file, some way later.
const REDELIVERED_PERCENT: u32 = 20;
const REDELIVERY_DISTANCE: u64 = 700;

impl Generator {
    pub fn new(options: Options) -> Generator {
        Generator {
            options,
            spacing: Spacing::Real,
            number: 0,
            pending: BinaryHeap::new(),
            made: 0,
            planted: Vec::new(),
        }
    }

    /// How far apart the steps of attacks are; as in life unless said here.
    pub fn spaced(self, spacing: Spacing) -> Generator {
        Generator { spacing, ..self }
    }

    /// Event time of the next background event.
    pub fn now(&self) -> Micros {
        self.options.start + self.number as i64 * self.options.gap
    }

    /// What has been planted so far, whether or not all its events have come out.
    pub fn planted(&self) -> &[Planted] {
        &self.planted
    }

    /// Takes what is still on its way, in delivery order: the end of the stream.
    pub fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.pending.pop()).map(|Reverse((_, _, event))| event).collect()
    }

    fn advance(&mut self) {
        let number = self.number;
        let now = self.now();
        self.number += 1;
        if self.options.attack_every > 0 && number % self.options.attack_every == self.options.attack_every / 2 {
            let (truth, events) =
                attack::plant(self.options.seed, number / self.options.attack_every, now + SECOND, self.spacing);
            self.planted.extend(truth);
            for event in events {
                let delay = if event.source == Source::CloudTrail { self.delay(self.made) } else { 0 };
                self.deliver(event.time + delay, event);
            }
        }
        let event = background(&self.options, number);
        let delay = if event.source == Source::CloudTrail { self.delay(number) } else { 0 };
        if let Some(repeat) = self.redelivery(number) {
            self.deliver(now, repeat);
        }
        self.deliver(now + delay, event);
    }

    fn deliver(&mut self, at: Micros, event: Event) {
        self.made += 1;
        self.pending.push(Reverse((at, self.made, event)));
    }

    /// Log-normal around the measured quantiles: median 191 s, 95 % within 455 s, never above 608 s.
    fn delay(&self, number: u64) -> Micros {
        let mut rng = world::draw(self.options.seed ^ 0xDE1A_F000, number);
        let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let seconds = (191.0 * (0.528 * normal).exp()).min(608.0);
        (seconds * self.options.cloudtrail_delay * SECOND as f64) as Micros
    }

    /// The record that a second CloudTrail file delivers again at this point, byte for byte.
    fn redelivery(&self, number: u64) -> Option<Event> {
        let earlier = number.checked_sub(REDELIVERY_DISTANCE)?;
        let mut rng = world::draw(self.options.seed ^ 0x5EC0_0D00, earlier);
        if rng.random_range(0..100) >= REDELIVERED_PERCENT {
            return None;
        }
        let event = background(&self.options, earlier);
        (event.source == Source::CloudTrail).then_some(event)
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(Reverse((due, _, _))) = self.pending.peek()
                && *due < self.now()
            {
                return self.pending.pop().map(|Reverse((_, _, event))| event);
            }
            self.advance();
        }
    }
}

fn background(options: &Options, number: u64) -> Event {
    let mut rng: SmallRng = world::draw(options.seed, number);
    let time = options.start + number as i64 * options.gap + rng.random_range(0..options.gap.max(1));
    match rng.random_range(0..100) {
        0..KUBERNETES_BELOW => {
            let (cluster, bytes) = kubernetes::background(&mut rng, time);
            Event { source: Source::Kubernetes, cluster: Some(cluster), time, bytes }
        }
        KUBERNETES_BELOW..CLOUDTRAIL_BELOW => {
            let time = time - time.rem_euclid(SECOND);
            Event { source: Source::CloudTrail, cluster: None, time, bytes: cloudtrail::background(&mut rng, time) }
        }
        _ => {
            let (cluster, bytes) = falco::background(&mut rng, time);
            Event { source: Source::Falco, cluster: Some(cluster), time, bytes }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seed: u64) -> Options {
        Options { seed, start: 1_760_000_000 * SECOND, gap: 10_000, attack_every: 500, cloudtrail_delay: 0.1 }
    }

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let take = |seed| Generator::new(options(seed)).take(5_000).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn every_event_is_json_and_the_mix_is_as_documented() {
        let quiet = Options { attack_every: 0, ..options(3) };
        let events: Vec<Event> = Generator::new(quiet).take(20_000).collect();
        let mut share = std::collections::BTreeMap::new();
        for event in &events {
            serde_json::from_slice::<serde_json::Value>(&event.bytes)
                .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&event.bytes)));
            *share.entry(event.source).or_insert(0.0) += 100.0 / events.len() as f64;
        }
        // Redeliveries come on top of CloudTrail's 18 %, attacks would on top of all.
        assert!((75.0..82.0).contains(&share[&Source::Kubernetes]), "{share:?}");
        assert!((17.0..25.0).contains(&share[&Source::CloudTrail]), "{share:?}");
        assert!((1.5..2.6).contains(&share[&Source::Falco]), "{share:?}");
    }

    #[test]
    fn cloudtrail_repeats_itself_byte_for_byte_and_nothing_else_does() {
        let mut seen = std::collections::HashSet::new();
        let mut repeats = 0;
        for event in Generator::new(options(5)).take(20_000) {
            if !seen.insert(event.bytes.clone()) {
                assert_eq!(event.source, Source::CloudTrail);
                repeats += 1;
            }
        }
        assert!(repeats > 400, "{repeats}");
    }

    #[test]
    fn each_attack_has_a_benign_twin() {
        let mut generator = Generator::new(options(1));
        generator.by_ref().take(20_000).for_each(drop);
        let (twins, attacks): (Vec<_>, Vec<_>) = generator.planted().iter().partition(|p| p.benign);
        assert_eq!(twins.len(), attacks.len());
        assert!(attacks.len() > 20);
    }
}
