//! Delivery: one thread per receiver drains its part of the outbox, oldest first, one request at a time.
//!
//! An attempt is noted durably before its request leaves and settled durably after the answer. So a page that was
//! acknowledged is never sent again, and one whose answer never came (time-out, crash) is sent again under the same id,
//! by which the receiver can tell. A page that fails waits with exponential backoff, without end unless its receiver
//! has a `max_age`; meanwhile later pages of the same incident wait behind it and those of other incidents go on. When
//! several in a row fail, the receiver is taken to be down: one page at a time probes it, and when it is back everything
//! that waited goes out in order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use event::Micros;
use rusqlite::Connection;

use crate::clock::{Bell, Clock};
use crate::config::{Config, ReceiverConfig};
use crate::error::{Error, Result};
use crate::http::Http;
use crate::notification::Notification;
use crate::outbox::{self, Due, Next, Outcome};
use crate::pace::{self, Bucket, SECOND};
use crate::receiver::{Receiver, Verdict};
use crate::record::from_json;
use crate::schema;

/// One failing page is a bad page; so many in a row are a bad receiver.
const FAILURES_DOWN: i64 = 3;
/// Without anything to do: how often to look for pages recorded by another process and to refresh the gauges.
const IDLE_US: i64 = 30 * SECOND;
/// After `alerts.db` could not be read or written.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// The running delivery threads. Dropping it stops them too, without waiting.
pub struct Delivery {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

impl Delivery {
    /// Starts a thread for each receiver of `config`, on the `alerts.db` at `path`. `bell` is that of the `Alerts` which
    /// records. Fails if a secret cannot be read.
    pub fn start(
        path: &Path,
        config: &Config,
        bell: Arc<Bell>,
        http: Arc<dyn Http>,
        clock: Arc<dyn Clock>,
    ) -> Result<Delivery> {
        let mistakes = config.validate();
        let mistakes = if mistakes.is_empty() { config.check_secrets() } else { mistakes };
        if !mistakes.is_empty() {
            return Err(Error::Config(mistakes));
        }
        warn_of_orphans(&schema::open_writer(path)?, config)?;
        let mut delivery = Delivery { threads: Vec::new(), stop: Arc::default(), bell };
        let mut buckets = HashMap::new();
        for receiver in &config.receivers {
            let mut worker = Worker::new(path, receiver, http.clone(), clock.clone(), &mut buckets)?;
            let (stop, bell) = (delivery.stop.clone(), delivery.bell.clone());
            let thread = std::thread::Builder::new()
                .name(format!("page-{}", receiver.name))
                .spawn(move || worker.run(&stop, &bell))
                .map_err(|source| Error::Thread { receiver: receiver.name.clone(), source })?;
            delivery.threads.push(thread);
        }
        Ok(delivery)
    }

    /// Every thread is at work. They end only by `shutdown`.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Lets requests under way end (15 s at most) and joins the threads. What was not sent stays in the outbox.
    pub fn shutdown(mut self) {
        self.signal();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a delivery thread had panicked; its pages are still in the outbox");
            }
        }
    }

    fn signal(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.signal();
    }
}

/// Pages that wait for a receiver which is not configured any more would wait in silence.
fn warn_of_orphans(db: &Connection, config: &Config) -> Result<()> {
    for receiver in outbox::awaited(db)? {
        if !config.receivers.iter().any(|r| r.name == receiver) {
            let (pages, _) = outbox::depth(db, &receiver)?;
            tracing::warn!(receiver, pages, "pages wait for a receiver that is not configured");
        }
    }
    Ok(())
}

/// What to do next.
enum Step {
    Again,
    Until(Micros),
}

pub(crate) struct Worker {
    name: String,
    receiver: Receiver,
    max_age_us: Option<i64>,
    db: Connection,
    http: Arc<dyn Http>,
    clock: Arc<dyn Clock>,
    bucket: Arc<Mutex<Bucket>>,
    /// Failures since the last page that was accepted.
    failures: i64,
    /// No page leaves before, because the receiver asked for it or is down.
    paused_until: Micros,
    /// It answered that it is gone for good.
    gone: bool,
    /// When a receiver that forgets is told again what it was told.
    again_at: Micros,
}

impl Worker {
    pub fn new(
        path: &Path,
        config: &ReceiverConfig,
        http: Arc<dyn Http>,
        clock: Arc<dyn Clock>,
        buckets: &mut HashMap<String, Arc<Mutex<Bucket>>>,
    ) -> Result<Worker> {
        let receiver = Receiver::new(config).map_err(|mistake| Error::Config(vec![mistake]))?;
        let bucket = buckets
            .entry(receiver.bucket_key())
            .or_insert_with(|| Arc::new(Mutex::new(receiver.bucket(clock.now()))))
            .clone();
        Ok(Worker {
            name: config.name.clone(),
            receiver,
            max_age_us: config.max_age.map(|span| span.0),
            db: schema::open_writer(path)?,
            http,
            clock,
            bucket,
            failures: 0,
            paused_until: Micros::MIN,
            gone: false,
            again_at: Micros::MIN,
        })
    }

    fn run(&mut self, stop: &AtomicBool, bell: &Bell) {
        let mut recovered = false;
        while !stop.load(Ordering::SeqCst) {
            // Read before looking: a page recorded in between rings once more and ends the wait.
            let seen = bell.rings();
            let step = if recovered { self.step(stop, bell) } else { self.recover() };
            match step {
                Ok(Step::Again) => recovered = true,
                Ok(Step::Until(time)) => {
                    let now = self.clock.now();
                    bell.wait(seen, self.clock.real(time.min(now.saturating_add(IDLE_US)).saturating_sub(now)));
                }
                Err(error) => {
                    tracing::error!(receiver = self.name, %error, "pages cannot be delivered: alerts.db fails");
                    bell.wait(seen, STORAGE_RETRY);
                }
            }
        }
    }

    fn recover(&mut self) -> Result<Step> {
        let unknown = outbox::recover(&self.db, &self.name)?;
        if unknown > 0 {
            tracing::warn!(receiver = self.name, unknown, "pages with an unknown outcome are sent again");
        }
        Ok(Step::Again)
    }

    fn step(&mut self, stop: &AtomicBool, bell: &Bell) -> Result<Step> {
        let now = self.clock.now();
        self.measure(now)?;
        if self.gone {
            return Ok(Step::Until(Micros::MAX));
        }
        if self.is_paused(now) {
            return Ok(Step::Until(self.paused_until));
        }
        if self.tell_again(now)? {
            return Ok(Step::Again);
        }
        let Some(page) = outbox::due(&self.db, &self.name, now)? else {
            let next = outbox::next_due(&self.db, &self.name, now)?.unwrap_or(Micros::MAX);
            let again = self.receiver.forgetful().map_or(Micros::MAX, |_| self.again_at);
            return Ok(Step::Until(next.min(again)));
        };
        if self.max_age_us.is_some_and(|max| now.saturating_sub(page.created) > max) {
            self.bury(&page, "older than the receiver's max_age", now)?;
            return Ok(Step::Again);
        }
        let notification = match from_json::<Notification>("notification", &page.payload) {
            Ok(notification) => notification,
            Err(error) => {
                self.bury(&page, &error.to_string(), now)?;
                return Ok(Step::Again);
            }
        };
        if let Err(at) = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            return Ok(Step::Until(at));
        }
        let (attempt, verdict, outcome) = self.send(&page, &notification)?;
        let next = self.conclude(&page, &verdict);
        self.settle(&page, attempt, &outcome, next, stop, bell);
        Ok(Step::Again)
    }

    /// Tells a receiver that forgets what it has taken, when it is time to; false if it is not. That it may fail is why it is
    /// done again and again: no page's fate hangs on it.
    fn tell_again(&mut self, now: Micros) -> Result<bool> {
        let Some(receiver) = self.receiver.forgetful() else { return Ok(false) };
        // Also when the clock was set back.
        if self.again_at.saturating_sub(now) <= receiver.again_us() && now < self.again_at {
            return Ok(false);
        }
        self.again_at = now.saturating_add(receiver.again_us());
        let mut taken = Vec::new();
        for (payload, at) in outbox::taken_since(&self.db, &self.name, receiver.tells_since(now))? {
            taken.extend(
                from_json::<Notification>("notification", &payload).ok().map(|notification| (notification, at)),
            );
        }
        for request in receiver.again(&taken, now) {
            let verdict = self.receiver.judge(&self.http.post(&request), self.clock.now());
            if !matches!(verdict, Verdict::Accepted) {
                self.count("again_failed");
                tracing::warn!(receiver = self.name, ?verdict, "what fires could not be told again");
            }
            // What is refused says nothing of the others; one that does not answer is not asked again and again.
            if matches!(verdict, Verdict::Failed { .. } | Verdict::Unknown(_)) {
                break;
            }
        }
        Ok(true)
    }

    /// A pause longer than any that we choose was set by a clock that has since been set back.
    fn is_paused(&self, now: Micros) -> bool {
        now < self.paused_until && self.paused_until.saturating_sub(now) <= pace::RETRY_AFTER_MAX
    }

    /// One attempt, noted as started but not yet settled.
    pub fn send(&mut self, page: &Due, notification: &Notification) -> Result<(i64, Verdict, Outcome)> {
        let started = self.clock.now();
        let attempt = outbox::begin(&self.db, page, started)?;
        let request = self.receiver.request(&page.id, notification, started);
        let answer = self.http.post(&request);
        let ended = self.clock.now();
        let verdict = self.receiver.judge(&answer, ended);
        let (name, error) = match &verdict {
            Verdict::Accepted => ("accepted", None),
            Verdict::Refused(why) | Verdict::Gone(why) => ("refused", Some(why.clone())),
            Verdict::Failed { why, .. } => ("failed", Some(why.clone())),
            Verdict::Unknown(why) => ("unknown", Some(why.clone())),
        };
        let status = answer.ok().map(|a| a.status);
        let latency_us = ended.saturating_sub(started).max(0);
        Ok((attempt, verdict, Outcome { name, status, error, latency_us }))
    }

    /// What follows from a verdict, for the page and for the receiver.
    fn conclude(&mut self, page: &Due, verdict: &Verdict) -> Next {
        let (receiver, id) = (&self.name, &page.id);
        match verdict {
            Verdict::Accepted => {
                tracing::info!(receiver, page = id, "paged");
                self.count("delivered");
                Next::Delivered
            }
            Verdict::Refused(why) => {
                tracing::error!(receiver, page = id, why, "a page was refused and is given up");
                self.count("dead");
                Next::Dead
            }
            Verdict::Gone(why) => {
                tracing::error!(receiver, page = id, why, "the receiver is gone: no more pages to it until a restart");
                self.count("dead");
                self.gone = true;
                Next::Dead
            }
            Verdict::Failed { why, wait_us } => self.again(page, why, *wait_us),
            Verdict::Unknown(why) => self.again(page, why, None),
        }
    }

    fn again(&mut self, page: &Due, why: &str, wait_us: Option<i64>) -> Next {
        self.failures += 1;
        self.count("failed");
        let now = self.clock.now();
        let backoff = pace::backoff(page.attempts + 1, rand::random());
        let down = self.failures - FAILURES_DOWN + 1;
        if let Some(asked) = wait_us {
            self.paused_until = now.saturating_add(asked);
        }
        if down > 0 {
            self.paused_until = self.paused_until.max(now.saturating_add(pace::backoff(down, rand::random())));
        }
        tracing::warn!(
            receiver = self.name,
            page = page.id,
            attempt = page.attempts + 1,
            why,
            "a page will be sent again"
        );
        Next::Again(now.saturating_add(wait_us.unwrap_or(0).max(backoff)))
    }

    /// Tries until it is durable: an acknowledged page must not be sent again only because the disk was full.
    fn settle(&mut self, page: &Due, attempt: i64, outcome: &Outcome, next: Next, stop: &AtomicBool, bell: &Bell) {
        while let Err(error) = self.try_settle(page, attempt, outcome, next) {
            tracing::error!(receiver = self.name, page = page.id, %error, "the outcome of a page cannot be recorded");
            if stop.load(Ordering::SeqCst) {
                return;
            }
            bell.wait(bell.rings(), STORAGE_RETRY);
        }
    }

    fn try_settle(&mut self, page: &Due, attempt: i64, outcome: &Outcome, next: Next) -> Result<()> {
        let now = self.clock.now();
        outbox::settle(&mut self.db, page, attempt, outcome, next, now)?;
        // A refusal, too, comes from a receiver that is at work.
        if matches!(next, Next::Delivered | Next::Dead) {
            if self.failures >= FAILURES_DOWN {
                tracing::info!(receiver = self.name, "the receiver is back");
                outbox::release(&self.db, &self.name)?;
            }
            self.failures = 0;
        }
        Ok(())
    }

    fn bury(&mut self, page: &Due, why: &str, now: Micros) -> Result<()> {
        outbox::bury(&mut self.db, page, why, now)?;
        tracing::error!(receiver = self.name, page = page.id, why, "a page is given up");
        self.count("dead");
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("stakeout_pages_total", "receiver" => self.name.clone(), "outcome" => outcome).increment(1);
    }

    fn measure(&self, now: Micros) -> Result<()> {
        let (depth, oldest) = outbox::depth(&self.db, &self.name)?;
        let age_us = oldest.map_or(0, |created| now.saturating_sub(created).max(0));
        metrics::gauge!("stakeout_pages_pending", "receiver" => self.name.clone()).set(depth as f64);
        metrics::gauge!("stakeout_pages_oldest_seconds", "receiver" => self.name.clone())
            .set(age_us as f64 / SECOND as f64);
        Ok(())
    }
}
