//! `stakeout generate`: the synthetic stream to files, to Kafka or into the embedded log, at a rate or flat out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use event::{Micros, Source, format_micros};
use source::{Log, Producer, TopicMapping};
use synthetic::{Event, Generator, Options, Planted, SECOND, Spacing, Stream};

use crate::cli;
use crate::config::{Config, Topic};

/// Events handed to a sink at once: one fsync of the embedded log, one batch of the producer.
const BATCH: usize = 1_000;

/// The longest that CloudTrail was measured to take.
const CLOUDTRAIL_LATE_MAX: Micros = 608 * SECOND;

/// Where the events go.
pub enum Sink {
    Files(BTreeMap<Source, BufWriter<File>>),
    Kafka { producer: Producer, topics: Vec<Topic> },
    Embedded(Vec<(Topic, Log)>),
}

impl Sink {
    pub fn files(dir: &Path) -> Result<Sink> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut files = BTreeMap::new();
        for source in Source::ALL {
            let path = dir.join(format!("{source}.ndjson"));
            let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
            files.insert(source, BufWriter::new(file));
        }
        Ok(Sink::Files(files))
    }

    pub fn embedded(root: &Path, topics: &[Topic]) -> Result<Sink> {
        let open = |topic: &Topic| Ok((topic.clone(), Log::open(Arc::new(source::Disk), root, &mapping(topic))?));
        Ok(Sink::Embedded(topics.iter().map(open).collect::<Result<_>>()?))
    }

    pub fn send(&mut self, events: &[Event]) -> Result<()> {
        match self {
            Sink::Files(files) => {
                for event in events {
                    let file = files.get_mut(&event.source).expect("there is a file per source");
                    file.write_all(&event.bytes)?;
                    file.write_all(b"\n")?;
                }
            }
            Sink::Kafka { producer, topics } => {
                for event in events {
                    let at = pick(topics.iter(), event).with_context(|| no_topic(event))?;
                    producer.send(&topics[at].name, None, &event.bytes)?;
                }
            }
            Sink::Embedded(logs) => {
                let mut payloads: Vec<Vec<&[u8]>> = vec![Vec::new(); logs.len()];
                for event in events {
                    let at = pick(logs.iter().map(|(topic, _)| topic), event).with_context(|| no_topic(event))?;
                    payloads[at].push(&event.bytes);
                }
                for ((_, log), payloads) in logs.iter_mut().zip(payloads).filter(|(_, p)| !p.is_empty()) {
                    log.append(&payloads)?;
                }
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<()> {
        match self {
            Sink::Files(files) => {
                for (_, mut file) in files {
                    file.flush()?;
                }
            }
            Sink::Kafka { producer, .. } => producer.flush()?,
            Sink::Embedded(_) => {}
        }
        Ok(())
    }
}

fn no_topic(event: &Event) -> String {
    format!("no topic for {} events\nhint: name one in the config", event.source)
}

/// Which topic: that of the event's source and cluster, else any of its source.
fn pick<'a>(topics: impl Iterator<Item = &'a Topic> + Clone, event: &Event) -> Option<usize> {
    let mut of_source = topics.enumerate().filter(|(_, topic)| topic.source == event.source);
    let mut exact = of_source.clone();
    exact.find(|(_, topic)| topic.cluster.as_deref() == event.cluster).or_else(|| of_source.next()).map(|(at, _)| at)
}

pub fn mapping(topic: &Topic) -> TopicMapping {
    TopicMapping {
        topic: topic.name.clone(),
        source: topic.source,
        cluster: topic.cluster.clone(),
        cluster_header: topic.cluster_header.clone(),
    }
}

/// One topic per source and cluster of the generated world.
pub fn topics() -> Vec<Topic> {
    let mut topics = vec![Topic::new("cloudtrail", Source::CloudTrail, None)];
    for number in 0..synthetic::world::CLUSTERS {
        let cluster = synthetic::world::cluster(number);
        for source in [Source::Kubernetes, Source::Falco] {
            topics.push(Topic::new(&format!("{source}-{cluster}"), source, Some(cluster)));
        }
    }
    topics
}

pub fn run(args: &cli::Generate, config: &Config) -> Result<()> {
    if args.density == 0 {
        bail!("--density must be at least 1 event per second");
    }
    if !(args.world_gb.is_finite() && args.world_gb > 0.0) {
        bail!("--world-gb must be above 0");
    }
    let mut sink = match (&args.out, args.kafka) {
        (Some(dir), _) => Sink::files(dir)?,
        (None, true) => {
            let kafka = config
                .kafka
                .as_ref()
                .context("the config has no `kafka` section\nhint: add brokers and topics to stakeout.yaml")?;
            Sink::Kafka { producer: Producer::new(&kafka.brokers, &kafka.properties)?, topics: kafka.topics.clone() }
        }
        (None, false) => Sink::embedded(&config.data_dir.join("log"), &config.embedded)?,
    };
    let options = Options {
        seed: args.seed,
        start: args.start,
        gap: SECOND / args.density as i64,
        attack_every: args.attack_every,
        cloudtrail_delay: args.cloudtrail_delay,
        spacing: if args.brief { Spacing::Brief } else { Spacing::Real },
        stream: stream(args.stream),
        data_events: args.data_events,
        world_gb: args.world_gb,
    };
    let mut generator = Generator::parallel(options, args.jobs);
    let started = Instant::now();
    let (mut sent, mut bytes) = (0u64, 0u64);
    while sent < args.events {
        let take = BATCH.min((args.events - sent) as usize).min(args.rate.map_or(BATCH, |r| (r / 20).max(1) as usize));
        let events: Vec<Event> = generator.by_ref().take(take).collect();
        bytes += events.iter().map(|e| e.bytes.len() as u64).sum::<u64>();
        sent += events.len() as u64;
        sink.send(&events)?;
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    sink.finish()?;
    let planted = delivered(generator.planted(), generator.now(), late_max(args));
    if let Some(path) = truth_file(args) {
        write_truth(&path, &planted)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "made {sent} events, {:.1} MB, in {seconds:.1} s ({:.1} MB/s); planted {} whole attacks and {} benign twins (seed {})",
        bytes as f64 / 1e6,
        bytes as f64 / 1e6 / seconds,
        planted.iter().filter(|p| !p.benign).count(),
        planted.iter().filter(|p| p.benign).count(),
        args.seed,
    );
    Ok(())
}

fn stream(wanted: cli::Stream) -> Stream {
    match wanted {
        cli::Stream::Steady => Stream::Steady,
        cli::Stream::Bulk => Stream::Bulk,
        cli::Stream::Burst => Stream::Burst,
        cli::Stream::Late => Stream::Late,
        cli::Stream::HotKey => Stream::HotKey,
        cli::Stream::HighCardinality => Stream::HighCardinality,
    }
}

/// Stories all of whose events have come out. CloudTrail's come later than they happen; of the others nothing is on its way.
fn delivered(planted: &[Planted], now: Micros, cloudtrail_late: Micros) -> Vec<Planted> {
    let is_whole = |p: &&Planted| {
        let late = if p.events.iter().any(|trace| trace.source == Source::CloudTrail) { cloudtrail_late } else { 0 };
        p.last < format_micros(now - late)
    };
    planted.iter().filter(is_whole).cloned().collect()
}

fn late_max(args: &cli::Generate) -> Micros {
    let doubled = if args.stream == cli::Stream::Late { 2.0 } else { 1.0 };
    (doubled * args.cloudtrail_delay * CLOUDTRAIL_LATE_MAX as f64) as Micros
}

fn truth_file(args: &cli::Generate) -> Option<PathBuf> {
    args.truth.clone().or_else(|| args.out.as_ref().map(|dir| dir.join("truth.ndjson")))
}

pub fn write_truth(path: &Path, planted: &[Planted]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?);
    for entry in planted {
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
