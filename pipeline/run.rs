//! The line while it runs: one thread per room, joined by bounded channels.
//!
//! source -> line (normalize, admit, append) -> detect, with the sealer beside them. Order is what safety rests on:
//! an `Admitted` goes to detect before it enters the tail, so every `Commit` follows the rows it contains; upstream
//! hears of a commit after the manifest has it. A room that fails pulls the switch and names the reason.

mod sealer;
mod stats;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use detect::RuleSet;
use event::{Admitted, Commit, Offsets, Origin, Partition, PartitionState, Polled};
use source::http::{Backlog, Server};
use source::{Feed, KafkaConfig, KafkaFeed, LogFeed};
use store::Store;

use crate::api::{self, Health, receivers};
use crate::config::{Config, Upkeep};
use crate::generate::mapping;
use crate::keeper::{Kept, keep};
use crate::reload;
use crate::rooms::{Detection, Door, Knowledge, RuleSource, alerts_db, derived, open_store, retained};
use crate::shutdown::Shutdown;

use sealer::{MERGING, in_the_background, seal};
pub use stats::{Flow, Stats};

/// Polls waiting for normalize: at 4 MiB a poll this bounds what is read ahead to 16 MiB.
const POLLS_WAITING_MAX: usize = 4;
/// Units waiting for detection. When it falls this far behind, the line waits instead of growing.
const WORK_WAITING_MAX: usize = 16;
/// What may be admitted and not yet sealed, in seals: one being written, one filling. More only fills memory: a line that is faster
/// than its sealer waits for it sooner or later.
const TAIL_SEALS_MAX: u64 = 2;
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long the source waits between looks whether the line has room again: short at first, and never so long that
/// the polls waiting could run out.
const HOLD_MIN: Duration = Duration::from_millis(1);
const HOLD_MAX: Duration = Duration::from_millis(20);
/// A topic of the embedded log that has been silent this long does not hold its source's watermark back.
const EMBEDDED_IDLE_AFTER: Duration = Duration::from_secs(5);
const SEAL_CHECK: Duration = Duration::from_millis(50);

/// What detect is told, in the order it happened.
enum Work {
    Admitted(Arc<Admitted>),
    Commit(Commit),
    Rules(Box<RuleSet>),
}

/// The first reason for which a room gave up.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<anyhow::Error>>>);

impl Failure {
    /// Runs a room; its error pulls the switch.
    fn watch(&self, room: &str, stopping: &Shutdown, work: impl FnOnce() -> Result<()>) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(anyhow!("panicked; this is a bug")));
        if let Err(error) = result {
            tracing::error!("{room} failed: {error:#}");
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert_with(|| error.context(format!("{room} failed")));
            stopping.pull();
        }
    }

    fn happened(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<anyhow::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A running line.
pub struct Running {
    pub stats: Arc<Stats>,
    pub store: Arc<Store>,
    /// Pulled by `stop`, or by a room that failed.
    pub stopping: Shutdown,
    /// `None` when `listen` is off.
    pub api: Option<std::net::SocketAddr>,
    failure: Failure,
    rooms: Vec<JoinHandle<()>>,
    delivery: alert::Delivery,
    receiving: Option<Server>,
    /// What was received and is not committed.
    backlog: Arc<Backlog>,
    _server: Option<Server>,
    health: Health,
    /// Until someone has taken it who tells detect of new rules.
    work: Option<SyncSender<Work>>,
}

pub struct Options {
    /// The stream ends when the line stops: windows still open are evaluated as final.
    pub bounded: bool,
}

/// What rules remember of events that have expired, where they were allowed to.
fn forget(config: &Config, store: &Store) -> std::io::Result<()> {
    let retained = retained(store);
    if retained.is_there() {
        // What is left after a crash in between is cleared at the next start.
        derived(config).clear()?;
        retained.clear()?;
    }
    Ok(())
}

impl Running {
    pub fn start(
        config: &Config,
        feed: impl FnOnce(&Offsets) -> Result<Box<dyn Feed>>,
        options: Options,
    ) -> Result<Running> {
        let health = Health::new(crate::telemetry::metrics());
        let server = config.listen.map(|listen| api::serve(listen, api::router(health.clone()))).transpose()?;
        let knowledge = Knowledge::load(config)?;
        let store = open_store(config, &knowledge.schemas, true)?;
        if !config.upkeep.remember {
            forget(config, &store).context("cannot forget what rules remember of expired events")?;
        }
        let door = Door::new(config, &knowledge.schemas, store.watermarks()?);
        let watched = (RuleSource::of(config, &knowledge.schemas), reload::InForce::of(&knowledge.rules));
        let rules = Arc::new(Mutex::new(knowledge.rules.clone()));
        let detection = Detection::open(config, knowledge, store.clone())?;
        let delivery = alert::Delivery::start(
            &alerts_db(config),
            &config.alerts,
            detection.bell(),
            Arc::new(alert::UreqHttp::new()),
            Arc::new(alert::SystemClock),
        )?;
        let committed = store.offsets()?;
        let kept = Kept::new(detection.derived(), rules.clone(), &committed);
        let feed = feed(&committed)?;
        let backlog = Arc::new(Backlog::new(config.receivers.as_ref().map_or(u64::MAX, |r| r.backlog_bytes_max)));
        let receiving = receivers::start(config, &committed, backlog.clone())?;

        let running = Running {
            stats: Arc::default(),
            store,
            stopping: Shutdown::new(),
            api: server.as_ref().map(|s| s.address),
            failure: Failure::default(),
            rooms: Vec::new(),
            delivery,
            receiving,
            backlog,
            _server: server,
            health,
            work: None,
        };
        let mut running =
            running.spawn_rooms(feed, door, detection, config.seal_bytes.saturating_mul(TAIL_SEALS_MAX), options)?;
        running.spawn_reload(watched, rules)?;
        running.spawn_keeper(config.upkeep.clone(), kept)?;
        Ok(running)
    }

    fn spawn_rooms(
        mut self,
        feed: Box<dyn Feed>,
        door: Door,
        detection: Detection,
        tail_bytes_max: u64,
        options: Options,
    ) -> Result<Running> {
        let (polls, polled) = sync_channel(POLLS_WAITING_MAX);
        let (work, works) = sync_channel(WORK_WAITING_MAX);
        self.work = Some(work.clone());
        // The sealer goes on until the line is done: its last seal must hold everything that was admitted.
        let (drained, sealed) = (Shutdown::new(), Shutdown::new());
        let committed: Arc<Mutex<Option<Offsets>>> = Arc::default();

        let (stopping, slot, last_seal) = (self.stopping.clone(), committed.clone(), sealed.clone());
        self.spawn("source", move |_| read(feed, polls, &slot, &stopping, &last_seal))?;

        let (stats, store, done, commits) = (self.stats.clone(), self.store.clone(), drained.clone(), work.clone());
        self.spawn("line", move |failed| {
            let _done = done.pull_on_drop();
            process(door, &polled, &work, &store, &stats, tail_bytes_max, failed)
        })?;

        let (stats, store, backlog) = (self.stats.clone(), self.store.clone(), self.backlog.clone());
        self.spawn("sealer", move |failed| {
            let _sealed = sealed.pull_on_drop();
            let tell = |offsets: &Offsets| {
                backlog.committed(offsets);
                *committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(offsets.clone());
            };
            seal(&store, &commits, &tell, &stats, &drained, failed)
        })?;

        self.spawn("detect", move |_| detect(detection, &works, &options))?;
        self.health.ready.store(true, Ordering::Relaxed);
        Ok(self)
    }

    /// Rules that change while the line runs.
    fn spawn_reload(
        &mut self,
        (source, in_force): (RuleSource, reload::InForce),
        rules: Arc<Mutex<RuleSet>>,
    ) -> Result<()> {
        let stopping = self.stopping.clone();
        let Some(work) = self.work.take() else { return Ok(()) };
        self.spawn("rules", move |_| {
            reload::watch(&source, in_force, &stopping, |new| {
                rules.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&new);
                work.send(Work::Rules(Box::new(new))).is_ok()
            });
            Ok(())
        })
    }

    /// Upkeep of the store, until the switch is pulled: the others drain without it.
    fn spawn_keeper(&mut self, upkeep: Upkeep, kept: Kept) -> Result<()> {
        let (store, stopping) = (self.store.clone(), self.stopping.clone());
        self.spawn("keeper", move |_| {
            in_the_background(MERGING);
            keep(&store, &upkeep, kept, &stopping)
        })
    }

    fn spawn(&mut self, room: &'static str, work: impl FnOnce(&Failure) -> Result<()> + Send + 'static) -> Result<()> {
        let (failure, stopping) = (self.failure.clone(), self.stopping.clone());
        let thread = std::thread::Builder::new()
            .name(room.into())
            .spawn(move || failure.watch(room, &stopping, || work(&failure)))
            .context("cannot start a thread")?;
        self.rooms.push(thread);
        Ok(())
    }

    /// Ends receiving, closes the source, lets the rooms drain, seals what is left and waits for all of it.
    pub fn stop(self) -> Result<()> {
        self.health.ready.store(false, Ordering::Relaxed);
        // What is acknowledged while this waits is still read, or is there for the next start.
        drop(self.receiving);
        self.stopping.pull();
        for room in self.rooms {
            let _ = room.join();
        }
        self.delivery.shutdown();
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// The configured source: Kafka, else the embedded log.
pub fn feed(config: &Config, offsets: &Offsets) -> Result<Box<dyn Feed>> {
    match &config.kafka {
        Some(kafka) => {
            let settings = KafkaConfig {
                brokers: kafka.brokers.clone(),
                group_instance_id: kafka.instance.clone(),
                group_id: kafka.group.clone(),
                topics: kafka.topics.iter().map(mapping).collect(),
                properties: kafka.properties.clone(),
                idle_after: kafka.idle_after,
                stall_after: KafkaConfig::STALL_AFTER,
            };
            Ok(Box::new(KafkaFeed::open(&settings, offsets.0.clone())?))
        }
        None => {
            let root = config.data_dir.join("log");
            Ok(Box::new(LogFeed::open(Arc::new(source::Disk), &root, offsets.0.clone(), EMBEDDED_IDLE_AFTER)?))
        }
    }
}

/// Polls until stopped, then stays for the last commit. The feed hears of commits on this thread, which owns it. While
/// the line has no room, one poll waits here and the feed is held: it takes nothing more and loses nothing upstream.
fn read(
    mut feed: Box<dyn Feed>,
    polls: SyncSender<Polled>,
    committed: &Mutex<Option<Offsets>>,
    stopping: &Shutdown,
    sealed: &Shutdown,
) -> Result<()> {
    let tell = |feed: &mut Box<dyn Feed>| match committed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(offsets) => feed.committed(&offsets),
        None => Ok(()),
    };
    let mut lags = Lags::default();
    'polling: while !stopping.pulled() && !feed.finished() {
        tell(&mut feed)?;
        let mut polled = feed.poll(POLL_WAIT)?;
        lags.show(&polled.partitions);
        let mut wait = HOLD_MIN;
        loop {
            polled = match polls.try_send(polled) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => back,
                Err(TrySendError::Disconnected(_)) => break 'polling,
            };
            tell(&mut feed)?;
            feed.hold(wait)?;
            wait = (2 * wait).min(HOLD_MAX);
        }
    }
    drop(polls);
    while !sealed.wait(SEAL_CHECK) {
        tell(&mut feed)?;
        feed.hold(Duration::ZERO)?;
    }
    tell(&mut feed)?;
    feed.close()?;
    Ok(())
}

/// The lag gauges. A partition that is gone or whose lag is not known shows none: NaN, which `/metrics` leaves out.
#[derive(Default)]
struct Lags(BTreeSet<Partition>);

impl Lags {
    fn show(&mut self, partitions: &[PartitionState]) {
        let mut gone = std::mem::take(&mut self.0);
        for state in partitions {
            let partition = (state.topic.clone(), state.partition);
            Lags::set(&partition, state.lag);
            gone.remove(&partition);
            self.0.insert(partition);
        }
        gone.iter().for_each(|partition| Lags::set(partition, None));
    }

    fn set((topic, partition): &Partition, lag: Option<i64>) {
        let labels = [("topic", topic.to_string()), ("partition", partition.to_string())];
        metrics::gauge!("stakeout_source_lag_records", &labels).set(lag.map_or(f64::NAN, |lag| lag as f64));
    }
}

/// Normalizes, admits, tells detect, appends. In this order.
fn process(
    mut door: Door,
    polled: &Receiver<Polled>,
    work: &SyncSender<Work>,
    store: &Store,
    stats: &Stats,
    tail_bytes_max: u64,
    failed: &Failure,
) -> Result<()> {
    while let Ok(polled) = polled.recv() {
        stats.polled(&polled.partitions);
        let admitted = Arc::new(door.admit(polled, store)?);
        stats.admitted(&admitted);
        let news = admitted.rows() > 0 || !admitted.ranges.is_empty();
        if news && work.send(Work::Admitted(admitted.clone())).is_err() {
            return Ok(());
        }
        store.append(&admitted)?;
        wait_for_the_sealer(store, tail_bytes_max, failed)?;
    }
    Ok(())
}

/// Sealing is slower than reading: what is not sealed is bounded by waiting for it.
fn wait_for_the_sealer(store: &Store, bytes_max: u64, failed: &Failure) -> Result<()> {
    let mut waited = false;
    while store.tail_bytes()? > bytes_max && !failed.happened() {
        if !std::mem::replace(&mut waited, true) {
            metrics::counter!("stakeout_backpressure_total").increment(1);
        }
        std::thread::sleep(SEAL_CHECK);
    }
    Ok(())
}

/// What a commit makes final, and what other rules find, is evaluated in slices. Between two of them comes what was admitted
/// meanwhile: what one event completes does not wait for all windows of all rules.
fn detect(mut detection: Detection, works: &Receiver<Work>, options: &Options) -> Result<()> {
    let mut left = false;
    loop {
        let work = match left {
            true => works.try_recv().ok(),
            false => match works.recv() {
                Ok(work) => Some(work),
                Err(_) => break,
            },
        };
        left = match work {
            Some(Work::Admitted(admitted)) => {
                detection.on_admitted(&admitted)?;
                left && detection.go_on()?
            }
            // What it makes final includes what an earlier one does.
            Some(Work::Commit(commit)) => detection.on_commit(&commit)?,
            Some(Work::Rules(rules)) => detection.on_rules(*rules)?,
            None => detection.go_on()?,
        };
    }
    if options.bounded {
        detection.finish(Origin::Live)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use source::SourceError;

    use super::*;

    /// Always has something; counts what is asked of it.
    #[derive(Clone, Default)]
    struct Endless(Arc<Asked>);

    #[derive(Default)]
    struct Asked {
        polls: AtomicUsize,
        holds: AtomicUsize,
        committed: AtomicUsize,
        closed: AtomicUsize,
    }

    impl Feed for Endless {
        fn poll(&mut self, _: Duration) -> Result<Polled, SourceError> {
            self.0.polls.fetch_add(1, Ordering::SeqCst);
            Ok(Polled::default())
        }

        fn hold(&mut self, wait: Duration) -> Result<(), SourceError> {
            self.0.holds.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(wait);
            Ok(())
        }

        fn committed(&mut self, _: &Offsets) -> Result<(), SourceError> {
            self.0.committed.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<(), SourceError> {
            self.0.closed.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_source_whose_line_has_no_room_is_held_and_still_hears_of_commits() {
        let feed = Endless::default();
        let (asked, stopping, sealed) = (feed.0.clone(), Shutdown::new(), Shutdown::new());
        let (polls, polled) = sync_channel(2);
        let committed: Arc<Mutex<Option<Offsets>>> = Arc::default();
        let thread = {
            let (committed, stopping, sealed) = (committed.clone(), stopping.clone(), sealed.clone());
            std::thread::spawn(move || read(Box::new(feed), polls, &committed, &stopping, &sealed))
        };
        let held = |least: usize| asked.holds.load(Ordering::SeqCst) >= least;
        until("it is held", || held(3));
        assert_eq!(asked.polls.load(Ordering::SeqCst), 3, "two wait in the channel and one with the source");
        *committed.lock().unwrap() = Some(Offsets::default());
        until("it hears of the commit", || asked.committed.load(Ordering::SeqCst) == 1);
        assert_eq!(asked.polls.load(Ordering::SeqCst), 3);
        polled.recv().unwrap();
        until("it polls again", || asked.polls.load(Ordering::SeqCst) == 4);

        // Stopping: what was polled is handed over, then the feed is held until the last seal.
        stopping.pull();
        let handed_over = std::iter::from_fn(|| polled.recv().ok()).count();
        assert_eq!(handed_over + 1, asked.polls.load(Ordering::SeqCst));
        let before = asked.holds.load(Ordering::SeqCst);
        until("it is held while the line drains", || held(before + 2));
        *committed.lock().unwrap() = Some(Offsets::default());
        sealed.pull();
        thread.join().unwrap().unwrap();
        assert_eq!(asked.committed.load(Ordering::SeqCst), 2);
        assert_eq!(asked.closed.load(Ordering::SeqCst), 1);
    }
}
