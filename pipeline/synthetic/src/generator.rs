//! Puts frames together into one stream in delivery order. Frames come one after the other, or from threads that
//! make them ahead; the stream is the same.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use event::Micros;

use crate::Event;
use crate::attack::Planted;
use crate::frame::{Due, Frame, Maker};
use crate::stream::Options;

/// Frames that each thread may be ahead.
const AHEAD: usize = 1;

/// An endless stream in delivery order.
pub struct Generator {
    maker: Arc<Maker>,
    /// The next frame to take.
    frame: u64,
    workers: Vec<Worker>,
    /// Begun and not delivered yet.
    pending: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    /// Nothing that is still to be made is due before.
    horizon: Micros,
    now: Micros,
    upcoming: VecDeque<(Micros, Vec<Planted>)>,
    planted: Vec<Planted>,
}

struct Worker {
    frames: Receiver<Frame>,
    thread: JoinHandle<()>,
}

/// By time of delivery, then in the order of making.
struct Queued {
    at: Micros,
    order: u64,
    due: Due,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Generator {
    /// Makes frames as they are needed.
    pub fn new(options: Options) -> Generator {
        let start = options.start;
        Generator {
            maker: Arc::new(Maker::new(options)),
            frame: 0,
            workers: Vec::new(),
            pending: BinaryHeap::new(),
            queued: 0,
            horizon: Micros::MIN,
            now: start,
            upcoming: VecDeque::new(),
            planted: Vec::new(),
        }
    }

    /// The same stream, made by `jobs` threads, which end with the generator.
    pub fn parallel(options: Options, jobs: usize) -> Generator {
        let mut generator = Generator::new(options);
        if jobs > 1 {
            generator.workers =
                (0..jobs as u64).map(|first| worker(generator.maker.clone(), first, jobs as u64)).collect();
        }
        generator
    }

    /// How far the stream is: when the last event that came out was delivered.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The attacks that have begun, whether or not all their events have come out.
    pub fn planted(&self) -> &[Planted] {
        &self.planted
    }

    /// Takes what has happened and is still on its way, in delivery order: the end of the stream. Attacks that have
    /// begun are carried out.
    pub fn drain(&mut self) -> Vec<Event> {
        let now = self.now;
        let rest = std::iter::from_fn(|| self.pending.pop());
        rest.filter(|Reverse(queued)| queued.due.begun <= now).map(|Reverse(queued)| queued.due.event).collect()
    }

    fn take_frame(&mut self) {
        let frame = match self.workers.len() as u64 {
            0 => self.maker.frame(self.frame),
            workers => {
                let worker = &self.workers[(self.frame % workers) as usize];
                worker.frames.recv().expect("a worker ends after the generator only")
            }
        };
        for due in frame.dues {
            self.queued += 1;
            self.pending.push(Reverse(Queued { at: due.at, order: self.queued, due }));
        }
        self.upcoming.extend(frame.planted);
        self.frame += 1;
        self.horizon = self.maker.frame_start(self.frame);
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.pending.peek().is_none_or(|Reverse(queued)| queued.at >= self.horizon) {
            self.take_frame();
        }
        let Reverse(queued) = self.pending.pop()?;
        self.now = self.now.max(queued.at);
        while self.upcoming.front().is_some_and(|(begun, _)| *begun <= self.now) {
            self.planted.extend(self.upcoming.pop_front().into_iter().flat_map(|(_, truth)| truth));
        }
        Some(queued.due.event)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        for Worker { frames, thread } in self.workers.drain(..) {
            drop(frames);
            // It has nobody to tell but the one who dropped the generator; a panic was seen when its frame was missing.
            let _ = thread.join();
        }
    }
}

fn worker(maker: Arc<Maker>, first: u64, step: u64) -> Worker {
    let (send, frames) = sync_channel(AHEAD);
    let make = move || {
        let mut frame = first;
        while send.send(maker.frame(frame)).is_ok() {
            frame += step;
        }
    };
    let thread = std::thread::Builder::new().name(format!("synthetic-{first}")).spawn(make);
    Worker { frames, thread: thread.expect("the system has threads left") }
}
