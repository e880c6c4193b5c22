//! `stakeout demo`: the whole line on synthetic events, with a pager on loopback that takes the pages. Ten minutes of
//! history are replayed first, so that windows are full; then events come live. It ends with what was found
//! against what was planted, and leaves a data directory to look around in.

pub(crate) mod pager;
mod score;
mod screen;
mod stream;
mod view;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alert::{Filter, Reader};
use anyhow::{Context, Result, bail};
use event::Source;
use source::LogFeed;

use crate::cli;
use crate::config::Config;
use crate::generate::{Sink, topics, write_truth};
use crate::rooms::alerts_db;
use crate::run::{Options, Running, Stats};
use crate::shutdown::Shutdown;
use pager::Pager;
use score::Score;
use stream::Made;
use watch::Watched;

/// Marks a folder as one that a demo may clear.
const MARKER: &str = "made-by-stakeout-demo";
const IDLE_AFTER: Duration = Duration::from_secs(3);
/// How long the end waits for the line to have seen everything, and for the last pages.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What a demo ended with.
pub struct Outcome {
    /// Planted attacks, and those that their rule found.
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

    let made = Arc::new(Made::default());
    let stop = Shutdown::new();
    let generator = {
        let (made, stop, seed, rate) = (made.clone(), stop.clone(), args.seed, args.rate);
        let work = move || stream::generate(sink, seed, rate, &made, &stop);
        std::thread::Builder::new().name("generator".into()).spawn(work)?
    };
    let look = look(&config, &line);
    let watched = Watched { config: &config, line: &line, made: &made, pager: &pager, limit: args.limit, look: &look };
    watch::until_over(&watched, shutdown, &generator)?;
    stop.pull();
    println!("ending: what is on its way is still evaluated");
    generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
    drain(&line.stats, &made);
    let stats = line.stats.clone();
    line.stop()?;
    pager.wait_for_quiet(&config, DRAIN_MAX)?;
    write_truth(&config.data_dir.join("truth.ndjson"), &made.planted())?;
    conclude(&config, &stats, &made, &pager)
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
    config.alerts = pager.section(config)?;
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

/// Where to look while it runs.
fn look(config: &Config, line: &Running) -> Vec<String> {
    let mut look: Vec<String> = line.api.iter().map(|api| format!("metrics  http://{api}/metrics")).collect();
    look.extend(commands(config).into_iter().take(1).map(|command| format!("alerts   {command}")));
    look
}

/// Waits until everything made has been admitted or dropped as a duplicate.
fn drain(stats: &Stats, made: &Made) {
    let started = Instant::now();
    let seen = || stats.counts().admitted + stats.counts().duplicates;
    while seen() < made.events() && started.elapsed() < DRAIN_MAX {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn conclude(config: &Config, stats: &Stats, made: &Made, pager: &Pager) -> Result<Outcome> {
    let alerts = Reader::open(&alerts_db(config))?;
    let findings = alerts.findings(&Filter::default())?;
    let incidents = alerts.incidents(&Filter::default())?.len();
    let planted = made.planted();
    let score = Score::of(&planted, &findings);
    let counts = stats.counts();

    println!();
    println!(
        "{} events admitted, {} duplicates dropped, {} unparsed",
        counts.admitted, counts.duplicates, counts.unparsed
    );
    println!("{} findings in {incidents} incidents; {} pages acknowledged", findings.len(), pager.taken());
    println!(
        "found {} of {} planted attacks by all of their rules ({} of {} findings); {} of {} benign twins raised an alert",
        score.found(),
        score.attacks,
        score.met,
        score.wanted,
        score.wrong.len(),
        score.twins
    );
    for (p, by) in &score.missed {
        println!("  missed: {} {} at {} ({})", p.id, p.title, p.first, by.join(", "));
    }
    for (p, by) in &score.wrong {
        println!("  wrongly: {} {} at {} ({})", p.id, p.title, p.first, by.join(", "));
    }
    println!();
    println!("look around:");
    commands(config).iter().for_each(|command| println!("  {command}"));
    Ok(Outcome { planted: score.attacks, found: score.found(), twins_found: score.wrong.len() })
}

/// To be copied into a shell: the binary is named as it was for this demo.
fn commands(config: &Config) -> [String; 3] {
    let stakeout = std::env::args().next().unwrap_or_else(|| "stakeout".to_owned());
    let (stakeout, dir) = (quoted(&stakeout), quoted(&config.data_dir.display().to_string()));
    [
        format!("{stakeout} alerts --data-dir {dir}"),
        format!("{stakeout} search 'objectref_subresource:exec' --data-dir {dir}"),
        format!(
            "{stakeout} sql \"SELECT source, count(*) AS events, min(time), max(time) FROM events GROUP BY source\" --data-dir {dir}"
        ),
    ]
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_./-+:,@%=".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_folder_with_any_name_is_one_word_of_a_shell() {
        assert_eq!(quoted("/tmp/demo-1"), "/tmp/demo-1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
