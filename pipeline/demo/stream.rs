//! The demo's events: ten minutes of history flat out, so that windows are full, then live at a rate, into the embedded log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use event::Micros;
use synthetic::{Event, Generator, Options, Planted, SECOND, Spacing};

use crate::generate::Sink;
use crate::rooms::wall_clock;
use crate::shutdown::Shutdown;

const HISTORY: Micros = 600 * SECOND;
/// Events a second of the replayed history: 60,000 events in all.
const HISTORY_DENSITY: i64 = 100;
const HISTORY_ATTACK_EVERY: u64 = 4_000;
/// Seconds between two live attacks.
const ATTACK_SECONDS: u64 = 8;
/// CloudTrail delivers after minutes; nobody watches a demo for that long.
const CLOUDTRAIL_DELAY: f64 = 0.03;
const BATCH: usize = 500;
const TICK: Duration = Duration::from_millis(50);

/// What has been made so far.
#[derive(Default)]
pub struct Made {
    events: AtomicU64,
    planted: Mutex<Vec<Planted>>,
}

impl Made {
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Also those whose last events are still on their way.
    pub fn planted(&self) -> Vec<Planted> {
        self.planted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn plant(&self, before: &[Planted], more: &[Planted]) {
        let mut planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        planted.truncate(before.len());
        planted.extend_from_slice(more);
    }
}

/// Until it is stopped; what CloudTrail has not delivered by then is sent at the end.
pub fn generate(mut sink: Sink, seed: u64, rate: u64, made: &Made, stop: &Shutdown) -> Result<()> {
    let now = wall_clock();
    let stream = |seed, start, gap, attack_every| Options {
        seed,
        start,
        gap,
        attack_every,
        cloudtrail_delay: CLOUDTRAIL_DELAY,
        spacing: Spacing::Brief,
        ..Options::default()
    };
    let mut send = |events: &[Event]| -> Result<()> {
        sink.send(events)?;
        made.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(())
    };

    let mut history = Generator::new(stream(seed, now - HISTORY, SECOND / HISTORY_DENSITY, HISTORY_ATTACK_EVERY));
    while history.now() < now && !stop.pulled() {
        send(&history.by_ref().take(BATCH).collect::<Vec<_>>())?;
        made.plant(&[], history.planted());
    }

    let rate = rate.clamp(1, SECOND as u64);
    let gap = SECOND / rate as i64;
    let mut live = Generator::new(stream(seed + 1, wall_clock(), gap, ATTACK_SECONDS * rate));
    let mut late = history.drain();
    while !stop.wait(TICK) {
        let now = wall_clock();
        let mut events: Vec<Event> = late.extract_if(.., |event| event.time <= now).collect();
        while live.now() < now {
            events.extend(live.next());
        }
        send(&events)?;
        made.plant(history.planted(), live.planted());
    }
    late.extend(live.drain());
    send(&late)?;
    sink.finish()
}
