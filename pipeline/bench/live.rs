//! The line as it runs, with a pager on loopback: what it takes in flat out, and at parts of that how long an event takes
//! to become a finding and a page.
//!
//! An event's clock starts when it is handed to the log, before that has synced it. A finding's time is the one its transaction
//! is stamped with, a page's when the pager has its request. The completing event of a finding is the last of its evidence
//! that had been handed over when it was recorded; where evidence does not show all that it rests on, it
//! is left out. So are findings that only a watermark can complete: they wait for lateness by definition.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alert::{Filter, PageFilter, Reader, StoredFinding};
use anyhow::{Context, Result, bail};
use event::{FindingTime, Micros, Source, Standing};
use source::LogFeed;
use synthetic::{Event, Generator, Options as Stream, Spacing};

use super::figure::Figures;
use super::measure::{SECOND, Scratch, forget_peak, peak_memory, quantile};
use super::stages::Skip;
use crate::config::Config;
use crate::demo::pager::Pager;
use crate::generate::{Sink, topics};
use crate::rooms::{alerts_db, wall_clock};
use crate::run::{Options, Running};

const IDLE_AFTER: Duration = Duration::from_secs(3);
/// Short, so that what was taken in flat out is stored and counted soon after; a longer one makes larger segments.
const SEAL_AGE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(20);
/// Attacks a second. Each makes some pages, and a webhook is given ten a second at most: more would measure that.
const ATTACKS_PER_SECOND: f64 = 1.0;
/// How long the line may take for what it was given.
const DRAIN_MAX: Duration = Duration::from_secs(300);
const BURST_APPEND: usize = 1_000;
const SYNCS: usize = 50;

pub struct Load {
    /// Given to the line at once, to see what it takes in flat out.
    pub burst: usize,
    /// How long each of the rates lasts.
    pub phase: Duration,
    pub seed: u64,
}

pub fn live(load: &Load, skip: &Skip, figures: &mut Figures) -> Result<()> {
    let dir = Scratch::new("live")?;
    let (pager, quiet) = (Pager::start()?, Pager::start()?);
    let config = config(dir.path(), &pager, &quiet)?;
    let logs = dir.path().join("log");
    let mut feeder = Feeder { sink: Sink::embedded(&logs, &config.embedded)?, sent: 0, handed: HashMap::new() };

    // Before the line starts: what waits there is read as fast as it can be.
    let gap = SECOND / 1_000;
    let start = wall_clock() - load.burst as i64 * gap;
    let mut burst = Generator::new(stream(load.seed, start, gap, 10_000)).take(load.burst);
    loop {
        let events: Vec<Event> = burst.by_ref().take(BURST_APPEND).collect();
        if events.is_empty() {
            break;
        }
        feeder.send(&events)?;
    }
    forget_peak();
    let line = Running::start(
        &config,
        |offsets| Ok(Box::new(LogFeed::open(Arc::new(source::Disk), &logs, offsets.0.clone(), IDLE_AFTER)?)),
        Options { bounded: true },
    )?;
    let started = Instant::now();
    Shadow::new(load.seed, &dir.path().join("shadow"), &config)?.follow(&line, feeder.sent)?;
    wait_until_done(&line, &config, feeder.sent)?;
    let capacity = load.burst as f64 / started.elapsed().as_secs_f64().max(1e-9);
    figures.add_against("capacity", capacity, skip.events_per_second);

    let alerts = Reader::open(&alerts_db(&config))?;
    let mut phases = Vec::new();
    for (number, share) in [(1, 0.5), (2, 0.7), (3, 0.8)] {
        // What the phase before had to tell is not this one's to wait for.
        wait_until_told(&line, &alerts)?;
        let from = wall_clock();
        feeder.at_rate(load.seed + number, capacity * share, load.phase, &line)?;
        wait_until_done(&line, &config, feeder.sent)?;
        phases.push((share, from..wall_clock()));
    }
    figures.add("peak-memory", peak_memory() as f64 / f64::from(1 << 20));
    line.stop()?;
    pager.wait_for_quiet(&config, DRAIN_MAX)?;

    let sync = sync_p50_ms(dir.path())?;
    let completed = completed(&alerts, &feeder.handed)?;
    let arrivals = pager.arrivals();
    for (share, during) in phases {
        let at = (share * 100.0) as u32;
        let of_phase = completed.iter().filter(|c| during.contains(&c.handed));
        let found: Vec<f64> = of_phase.clone().map(|c| ms(c.recorded - c.handed)).collect();
        let pages = pages(&alerts, of_phase, &arrivals)?;
        for (what, mut took) in [("finding", found), ("page", pages)] {
            if took.is_empty() {
                bail!(
                    "no {what} at {at} % of capacity: nothing to measure\nhint: more --events make the phases longer"
                );
            }
            took.sort_by(f64::total_cmp);
            figures.add_against(&format!("{what}-p50-at-{at}"), quantile(&took, 0.5), sync);
            figures.add_against(&format!("{what}-p99-at-{at}"), quantile(&took, 0.99), sync);
        }
    }
    Ok(())
}

/// As the README has it: what is high or critical pages somebody, everything else goes elsewhere. A webhook is given ten a second
/// at most, and what is measured is how long one takes.
fn config(dir: &Path, pager: &Pager, quiet: &Pager) -> Result<Config> {
    let mut config = Config { data_dir: dir.to_owned(), listen: None, embedded: topics(), ..Config::default() };
    for source in Source::ALL {
        config.lateness.insert(source, Duration::from_secs(5));
    }
    config.seal_age = SEAL_AGE;
    let secret = Pager::secret(&config)?;
    let webhook = |pager: &Pager| serde_json::json!({"url": pager.url(), "secrets": [{"file": secret}]});
    config.alerts = serde_json::from_value(serde_json::json!({
        "receivers": [{"name": "pager", "webhook": webhook(pager)}, {"name": "quiet", "webhook": webhook(quiet)}],
        "route": {
            "receiver": "quiet",
            "routes": [{"receiver": "pager", "matchers": ["severity=~\"high|critical\""]}],
        },
    }))?;
    // Attacks come thick here; a flood page in place of each would measure nothing.
    config.alerts.pages_per_hour_max = u32::MAX;
    Ok(config)
}

/// CloudTrail's delivery delay is the cloud's, and no part of what is measured.
fn stream(seed: u64, start: Micros, gap: Micros, attack_every: u64) -> Stream {
    Stream { seed, start, gap, attack_every, cloudtrail_delay: 0.0, spacing: Spacing::Brief, ..Stream::default() }
}

/// What feeding costs, beside a line that reads what was there before: so that a share of what it takes in flat out is a share of
/// what it takes in while it is fed.
struct Shadow {
    events: Generator,
    feeder: Feeder,
}

impl Shadow {
    fn new(seed: u64, logs: &Path, config: &Config) -> Result<Shadow> {
        let sink = Sink::embedded(logs, &config.embedded)?;
        let events = Generator::new(stream(seed, wall_clock(), SECOND / 1_000, 10_000));
        Ok(Shadow { events, feeder: Feeder { sink, sent: 0, handed: HashMap::new() } })
    }

    fn follow(mut self, line: &Running, until: u64) -> Result<()> {
        while self.feeder.sent < until && !line.stopping.pulled() {
            let counts = line.stats.counts();
            let behind = (counts.admitted + counts.duplicates).saturating_sub(self.feeder.sent);
            let events: Vec<Event> = self.events.by_ref().take(behind as usize).collect();
            self.feeder.send(&events)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

/// Appends to the log and remembers when each event was handed to it.
struct Feeder {
    sink: Sink,
    sent: u64,
    handed: HashMap<(u64, u64), Micros>,
}

impl Feeder {
    fn send(&mut self, events: &[Event]) -> Result<()> {
        let now = wall_clock();
        for event in events {
            self.handed.entry(key(&event.bytes)).or_insert(now);
        }
        self.sent += events.len() as u64;
        self.sink.send(events)
    }

    fn at_rate(&mut self, seed: u64, rate: f64, time: Duration, line: &Running) -> Result<()> {
        let gap = ((SECOND as f64 / rate.max(1.0)) as i64).max(1);
        let attack_every = ((rate / ATTACKS_PER_SECOND) as u64).max(1);
        let mut generator = Generator::new(stream(seed, wall_clock(), gap, attack_every));
        // A world takes a second to make; what was due meanwhile is no load that the rate means.
        let (started, behind) = (Instant::now(), wall_clock() - generator.now());
        while started.elapsed() < time && !line.stopping.pulled() {
            let now = wall_clock();
            let mut events = Vec::new();
            while generator.now() + behind < now {
                events.extend(generator.next());
                if events.len() >= BURST_APPEND {
                    self.send(&std::mem::take(&mut events))?;
                }
            }
            self.send(&events)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

/// An event by its bytes, as evidence has them. Which events are equal here is no matter of trust.
fn key(bytes: &[u8]) -> (u64, u64) {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, bytes).hash(&mut hasher);
        hasher.finish()
    };
    (half(0), half(1))
}

/// Until everything is admitted, committed and evaluated.
fn wait_until_done(line: &Running, config: &Config, sent: u64) -> Result<()> {
    let frontier = alert::Alerts::open(&alerts_db(config), &config.alerts)?;
    let started = Instant::now();
    loop {
        let counts = line.stats.counts();
        let (read, stored) = (counts.admitted + counts.duplicates, line.stats.committed_rows());
        // Offsets of the embedded log are dense from 0: together they are the number of events.
        let evaluated: i64 = frontier.frontier()?.offsets.values().sum();
        if read >= sent && stored >= counts.admitted && evaluated >= sent as i64 {
            return Ok(());
        }
        if line.stopping.pulled() || started.elapsed() > DRAIN_MAX {
            bail!("of {sent} events {read} were read, {stored} stored, {evaluated} evaluated, and then no more");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Until every page has been sent.
fn wait_until_told(line: &Running, alerts: &Reader) -> Result<()> {
    let pending = PageFilter { state: Some("pending".to_owned()), ..PageFilter::default() };
    let started = Instant::now();
    loop {
        let waiting = alerts.outbox(&pending)?.len();
        if waiting == 0 {
            return Ok(());
        }
        if line.stopping.pulled() || started.elapsed() > DRAIN_MAX {
            bail!("{waiting} pages were not taken by a pager on loopback");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A finding and the event that completed it.
struct Completed {
    id: String,
    incident: String,
    handed: Micros,
    recorded: Micros,
}

fn completed(alerts: &Reader, handed: &HashMap<(u64, u64), Micros>) -> Result<Vec<Completed>> {
    let mut completed = Vec::new();
    for stored in alerts.findings(&Filter::default())? {
        let Some(first) = alerts.standings(&stored.finding)?.into_iter().next() else { continue };
        let at_once = matches!(stored.finding.time, FindingTime::Event(_)) || first.standing == Standing::Provisional;
        if let (true, Some(at)) = (at_once, completing(&stored, handed)) {
            let StoredFinding { incident, recorded, finding } = stored;
            completed.push(Completed { id: finding.id, incident, handed: at, recorded });
        }
    }
    Ok(completed)
}

/// When the event that completed it was handed over. A run may have grown since: what came after it was recorded does not
/// count.
fn completing(stored: &StoredFinding, handed: &HashMap<(u64, u64), Micros>) -> Option<Micros> {
    let evidence = &stored.finding.evidence;
    if evidence.count > evidence.events.len() as u64 {
        return None;
    }
    let at = |raw: &str| handed.get(&key(raw.as_bytes())).copied();
    let times: Vec<Micros> = evidence.events.iter().map(|e| at(&e.raw)).collect::<Option<_>>()?;
    times.into_iter().filter(|at| *at <= stored.recorded).max()
}

/// Of incidents whose first finding is among these: until their first page arrived.
fn pages<'a>(
    alerts: &Reader,
    completed: impl Iterator<Item = &'a Completed>,
    arrivals: &BTreeMap<String, Micros>,
) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for c in completed {
        let of_incident = Filter { incident: Some(c.incident.clone()), ..Filter::default() };
        let earlier = alerts.findings(&of_incident)?.iter().any(|f| (f.recorded, &f.finding.id) < (c.recorded, &c.id));
        if earlier {
            continue;
        }
        let pages = alerts.outbox(&PageFilter { incident: Some(c.incident.clone()), ..PageFilter::default() })?;
        if let Some(arrived) = pages.iter().filter_map(|page| arrivals.get(&page.id)).min() {
            took.push(ms(arrived - c.handed));
        }
    }
    Ok(took)
}

fn ms(micros: Micros) -> f64 {
    micros as f64 / 1e3
}

/// What a promise of the disk costs, without anything of ours around it.
fn sync_p50_ms(dir: &Path) -> Result<f64> {
    let path = dir.join("sync");
    let mut file = std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    super::measure::median_ms(SYNCS, || {
        file.write_all(&[0x5a; 4096])?;
        Ok(file.sync_data()?)
    })
}
