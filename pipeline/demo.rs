//! `stakeout demo`: the whole line on synthetic events, with a pager on loopback that takes the pages. Ten minutes of
//! history are replayed first, so that windows are full; then events come live. It ends with what was found
//! against what was planted, and leaves a data directory to look around in.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alert::{Filter, Reader};
use anyhow::{Context, Result, bail};
use event::{Micros, Source, format_micros};
use source::LogFeed;
use synthetic::{Event, Generator, Options as Stream, Planted, Proof, SECOND, Spacing};

use crate::api;
use crate::cli;
use crate::config::Config;
use crate::generate::{Sink, topics, write_truth};
use crate::rooms::{alerts_db, wall_clock};
use crate::run::{Options, Running, Stats};
use crate::shutdown::Shutdown;

const HISTORY: Micros = 600 * SECOND;
/// Events a second of the replayed history: 60,000 events in all.
const HISTORY_DENSITY: i64 = 100;
const HISTORY_ATTACK_EVERY: u64 = 6_000;
/// Seconds between two live attacks.
const ATTACK_SECONDS: u64 = 8;
/// CloudTrail delivers after minutes; nobody watches a demo for that long.
const CLOUDTRAIL_DELAY: f64 = 0.03;
/// Marks a folder as one that a demo may clear.
const MARKER: &str = "made-by-stakeout-demo";
const STATUS_EVERY: Duration = Duration::from_secs(5);
const BATCH: usize = 500;
const IDLE_AFTER: Duration = Duration::from_secs(3);
/// How long the end waits for the line to have seen everything.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What a demo ended with.
pub struct Outcome {
    /// Planted attacks, and those that all of their rules found.
    pub planted: usize,
    pub found: usize,
    /// Benign twins that raised an alert.
    pub twins_found: usize,
}

pub fn run(args: &cli::Demo, mut config: Config, data_dir: Option<&Path>, shutdown: &Shutdown) -> Result<Outcome> {
    config.data_dir = data_dir.map_or_else(|| "stakeout-demo".into(), Path::to_owned);
    clear(&config.data_dir)?;
    let pager = Pager::start()?;
    configure(&mut config, &pager)?;

    let logs = config.data_dir.join("log");
    let sink = Sink::embedded(&logs, &config.embedded)?;
    let line = Running::start(
        &config,
        |offsets| Ok(Box::new(LogFeed::open(Arc::new(source::Disk), &logs, offsets.0.clone(), IDLE_AFTER)?)),
        Options { bounded: true },
    )?;
    say_hello(&config, &line, &pager);

    let made = Arc::new(AtomicU64::new(0));
    let stop = Shutdown::new();
    let generator = {
        let (made, stop, args) = (made.clone(), stop.clone(), (args.seed, args.rate));
        std::thread::Builder::new().name("generator".into()).spawn(move || generate(sink, args, &made, &stop))?
    };
    watch(args, &config, &line, shutdown, &generator)?;
    stop.pull();
    let planted = generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
    drain(&line.stats, &made);
    let stats = line.stats.clone();
    line.stop()?;
    pager.wait_for_quiet(&config)?;
    write_truth(&config.data_dir.join("truth.ndjson"), &planted)?;
    conclude(&config, &stats, &planted, &pager)
}

fn clear(dir: &Path) -> Result<()> {
    if dir.exists() {
        let empty = dir.read_dir().with_context(|| format!("cannot read {}", dir.display()))?.next().is_none();
        if !empty && !dir.join(MARKER).exists() {
            bail!(
                "{} holds something else than a demo's data\nhint: name another folder with --data-dir",
                dir.display()
            );
        }
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(std::fs::write(dir.join(MARKER), "the next demo clears this folder\n")?)
}

/// Topics of the generated world, short lateness (the stream is local), pages to the loopback pager.
fn configure(config: &mut Config, pager: &Pager) -> Result<()> {
    config.kafka = None;
    config.embedded = topics();
    config.lateness.insert(Source::Kubernetes, Duration::from_secs(5));
    config.lateness.insert(Source::Falco, Duration::from_secs(5));
    config.lateness.insert(Source::CloudTrail, Duration::from_secs(25));
    config.seal_age = Duration::from_secs(3);
    // The default port may be taken by a real one.
    config.listen = config.listen.map(|mut listen| {
        listen.set_port(0);
        listen
    });
    let secret = config.data_dir.join("pager.secret");
    std::fs::write(&secret, "whsec_c3Rha2VvdXQgZGVtbyBvbmx5LCBub3Qgc2VjcmV0ISE=\n")?;
    config.alerts = serde_json::from_value(serde_json::json!({
        "receivers": [{"name": "pager", "webhook": {"url": pager.url(), "secrets": [{"file": secret}]}}],
        "route": {"receiver": "pager"},
    }))?;
    Ok(())
}

fn say_hello(config: &Config, line: &Running, pager: &Pager) {
    println!("stakeout demo: synthetic Kubernetes, CloudTrail and Falco events -> embedded log -> rules -> pager");
    println!("  data     {}", config.data_dir.display());
    if let Some(api) = line.api {
        println!("  metrics  http://{api}/metrics");
    }
    println!("  pager    {} (a webhook receiver inside this process)", pager.url());
    println!();
}

/// History flat out, then live at the rate. Returns what was planted.
fn generate(mut sink: Sink, (seed, rate): (u64, u64), made: &AtomicU64, stop: &Shutdown) -> Result<Vec<Planted>> {
    let now = wall_clock();
    let stream = |seed, start, gap, attack_every| Stream {
        seed,
        start,
        gap,
        attack_every,
        cloudtrail_delay: CLOUDTRAIL_DELAY,
        spacing: Spacing::Brief,
        ..Stream::default()
    };
    let mut send = |events: &[Event]| -> Result<()> {
        sink.send(events)?;
        made.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(())
    };

    let mut history = stream(seed, now - HISTORY, SECOND / HISTORY_DENSITY, HISTORY_ATTACK_EVERY);
    while history.now() < now && !stop.pulled() {
        send(&history.by_ref().take(BATCH).collect::<Vec<_>>())?;
    }
    let mut planted = history.planted().to_vec();

    let rate = rate.max(1);
    let mut live = stream(seed + 1, wall_clock(), SECOND / rate as i64, ATTACK_SECONDS * rate);
    let mut late = history.drain();
    while !stop.wait(Duration::from_millis(50)) {
        let now = wall_clock();
        let mut events: Vec<Event> = Vec::new();
        late.retain(|event| {
            let due = event.time <= now;
            if due {
                events.push(event.clone());
            }
            !due
        });
        while live.now() < now {
            events.extend(live.next());
        }
        send(&events)?;
    }
    late.extend(live.drain());
    send(&late)?;
    planted.extend(live.planted().iter().cloned());
    sink.finish()?;
    Ok(planted)
}

/// Tells what happens until it is time to stop: incidents as they open, a status line now and then.
fn watch(
    args: &cli::Demo,
    config: &Config,
    line: &Running,
    shutdown: &Shutdown,
    generator: &std::thread::JoinHandle<Result<Vec<Planted>>>,
) -> Result<()> {
    let started = Instant::now();
    let alerts = Reader::open(&alerts_db(config))?;
    let mut shown = BTreeSet::new();
    let mut status = Instant::now();
    loop {
        let left = args.limit.map_or(Duration::from_millis(500), |limit| limit.saturating_sub(started.elapsed()));
        let over = shutdown.wait(left.min(Duration::from_millis(500)));
        show_new_incidents(&alerts, &mut shown)?;
        if status.elapsed() >= STATUS_EVERY {
            status = Instant::now();
            show_status(&line.stats, started.elapsed(), shown.len());
        }
        let ended = args.limit.is_some_and(|limit| started.elapsed() >= limit);
        if over || ended || line.stopping.pulled() || generator.is_finished() {
            return Ok(());
        }
    }
}

fn show_new_incidents(alerts: &Reader, shown: &mut BTreeSet<String>) -> Result<()> {
    for incident in alerts.incidents(&Filter { limit: Some(200), ..Filter::default() })?.into_iter().rev() {
        if shown.insert(incident.id.clone()) {
            println!("{}  {:<8}  {:<24}  {}", clock(incident.last), incident.severity, incident.rule, incident.summary);
        }
    }
    Ok(())
}

fn clock(time: Micros) -> String {
    format_micros(time).get(11..19).unwrap_or_default().to_owned()
}

fn show_status(stats: &Stats, elapsed: Duration, incidents: usize) {
    let counts = stats.counts();
    println!(
        "-- {:>3} s: {} events in, {:.1} MB, {} duplicates dropped, {} sealed in {} commits, {incidents} incidents",
        elapsed.as_secs(),
        counts.admitted,
        counts.bytes as f64 / 1e6,
        counts.duplicates,
        stats.committed_rows.load(Ordering::Relaxed),
        stats.commits.load(Ordering::Relaxed),
    );
}

/// Waits until everything made has been admitted or dropped as a duplicate.
fn drain(stats: &Stats, made: &AtomicU64) {
    let started = Instant::now();
    let seen = || stats.counts().admitted + stats.counts().duplicates;
    while seen() < made.load(Ordering::Relaxed) && started.elapsed() < DRAIN_MAX {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn conclude(config: &Config, stats: &Stats, planted: &[Planted], pager: &Pager) -> Result<Outcome> {
    let alerts = Reader::open(&alerts_db(config))?;
    let findings = alerts.findings(&Filter::default())?;
    let incidents = alerts.incidents(&Filter::default())?.len();
    // A finding is about a story if one of the story's events is in its evidence.
    let mut proof = Proof::default();
    for stored in &findings {
        for event in &stored.finding.evidence.events {
            proof.add(&stored.finding.rule, &event.event_uid, event.raw.as_bytes());
        }
    }
    // What only rules see that first learn for a week is nothing that a demo can find.
    let judged = planted.iter().filter(|p| !p.detections.is_empty());
    let (twins, attacks): (Vec<&Planted>, Vec<&Planted>) = judged.partition(|p| p.benign);
    let missed: Vec<_> = attacks.iter().filter(|p| !p.missed(&proof).is_empty()).collect();
    let wrong: Vec<_> = twins.iter().filter(|p| !p.raised(&proof).is_empty()).collect();
    let (wanted, unmet) =
        attacks.iter().fold((0, 0), |(wanted, unmet), p| (wanted + p.detections.len(), unmet + p.missed(&proof).len()));
    let outcome = Outcome { planted: attacks.len(), found: attacks.len() - missed.len(), twins_found: wrong.len() };
    let counts = stats.counts();

    println!();
    println!(
        "{} events admitted, {} duplicates dropped, {} unparsed",
        counts.admitted, counts.duplicates, counts.unparsed
    );
    println!("{} findings in {incidents} incidents; {} pages acknowledged", findings.len(), pager.taken());
    println!(
        "found {} of {} planted attacks by all of their rules ({} of {wanted}); {} of {} benign twins raised an alert",
        attacks.len() - missed.len(),
        attacks.len(),
        wanted - unmet,
        wrong.len(),
        twins.len()
    );
    for p in missed {
        println!("  missed: {} {} at {} ({})", p.id, p.title, p.first, p.missed(&proof).join(", "));
    }
    for p in wrong {
        println!("  wrongly: {} {} at {} ({})", p.id, p.title, p.first, p.raised(&proof).join(", "));
    }
    println!();
    println!("look around:");
    let dir = config.data_dir.display();
    println!("  stakeout alerts --data-dir {dir}");
    println!("  stakeout search 'objectref_subresource:exec' --data-dir {dir}");
    println!(
        "  stakeout sql \"SELECT source, count(*) AS events, min(time), max(time) FROM events GROUP BY source\" --data-dir {dir}"
    );
    Ok(outcome)
}

/// A pager that says yes. It counts distinct `webhook-id`s: what was acknowledged once counts once.
struct Pager {
    server: source::http::Server,
    pages: Arc<Mutex<BTreeSet<String>>>,
}

impl Pager {
    fn start() -> Result<Pager> {
        let pages: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let taken = pages.clone();
        let take = move |headers: axum::http::HeaderMap| {
            let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            taken.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            std::future::ready("ok")
        };
        let router = axum::Router::new().route("/page", axum::routing::post(take));
        Ok(Pager { server: api::serve(([127, 0, 0, 1], 0).into(), router)?, pages })
    }

    fn url(&self) -> String {
        format!("http://{}/page", self.server.address)
    }

    fn taken(&self) -> u64 {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// The last findings come with the end of the stream; their pages are sent before the demo says goodbye.
    fn wait_for_quiet(&self, config: &Config) -> Result<()> {
        let alerts = alert::Alerts::open(&alerts_db(config), &config.alerts)?;
        let delivery = alert::Delivery::start(
            &alerts_db(config),
            &config.alerts,
            alerts.bell(),
            Arc::new(alert::UreqHttp::new()),
            Arc::new(alert::SystemClock),
        )?;
        let reader = Reader::open(&alerts_db(config))?;
        let pending = alert::PageFilter { state: Some("pending".to_owned()), ..alert::PageFilter::default() };
        let started = Instant::now();
        while !reader.outbox(&pending)?.is_empty() && started.elapsed() < DRAIN_MAX {
            std::thread::sleep(Duration::from_millis(50));
        }
        delivery.shutdown();
        Ok(())
    }
}
