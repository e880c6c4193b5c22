//! `stakeout bench` and `cargo bench`: the whole picture in one run, as ratios to floors that are measured beside it, printed and,
//! with `--json`, written for a later `--compare`. What there is to measure, and the goals, stand in `benches/goals.yaml`.

mod compare;
mod figure;
mod hunt;
mod live;
mod measure;
mod report;
mod rules;
mod stages;
mod windows;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cli::{self, Part};
use figure::Figures;
use live::Load;
use measure::{messages, normalized, steady};
use report::Report;

/// Events of the steady stream; everything else is sized by them.
const EVENTS: usize = 100_000;
const EVENTS_QUICK: usize = 20_000;
/// Below this some questions have no answer in the stream.
const EVENTS_MIN: usize = 1_000;
const ROUNDS: usize = 3;
const ROUNDS_QUICK: usize = 2;
/// Of each of the two rates at which latencies are measured.
const PHASE: Duration = Duration::from_secs(60);
const PHASE_QUICK: Duration = Duration::from_secs(12);

/// False if a comparison finds something worse.
pub fn run(args: &cli::Bench) -> Result<bool> {
    if let Some(files) = &args.compare {
        let [a, b] = files.as_slice() else { bail!("--compare takes two files") };
        let (text, worse) = compare::compare(&Report::read(a)?, &Report::read(b)?, args.threshold);
        print!("{text}");
        return Ok(!worse);
    }
    let (events, rounds, phase) = match args.quick {
        true => (EVENTS_QUICK, ROUNDS_QUICK, PHASE_QUICK),
        false => (EVENTS, ROUNDS, PHASE),
    };
    let events = args.events.unwrap_or(events);
    if events < EVENTS_MIN {
        bail!("{events} events are too few to measure anything\nhint: --events {EVENTS_MIN} or more");
    }
    let mut figures = Figures::new()?;
    Bench { events, rounds, phase, seed: args.seed, only: &args.only }.measure(&mut figures)?;
    let report = Report::new(args.quick, args.seed, events, figures.finish()?);
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    print!("{}", report.table());
    Ok(true)
}

struct Bench<'a> {
    events: usize,
    rounds: usize,
    phase: Duration,
    seed: u64,
    /// Empty: all parts.
    only: &'a [Part],
}

impl Bench<'_> {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn measure(&self, figures: &mut Figures) -> Result<()> {
        let Bench { events, rounds, phase, seed, .. } = *self;
        let started = Instant::now();
        let step = |what: &str| eprintln!("{:>4} s  {what}", started.elapsed().as_secs());
        // First, while the process holds nothing else: its memory is what is measured.
        if self.has(Part::Line) {
            step("the running line: capacity, latencies, memory");
            let skip = stages::skip(rounds, &steady(seed, events.min(EVENTS_QUICK)));
            live::live(&Load { burst: events, phase, seed }, &skip, figures)?;
        }
        let stream = steady(seed, events);
        let skip = stages::skip(rounds, &stream);
        if self.has(Part::Normalize) {
            step("normalize");
            stages::normalize("normalize-synthetic", rounds, &stream, figures);
            if let Some(real) = stages::real_cloudtrail() {
                stages::normalize("normalize-real", rounds, &real, figures);
            }
        }
        if self.has(Part::Path) || self.has(Part::Hunt) {
            step("the whole path, stage by stage");
            let mut stored = stages::whole_path(&stream, &skip, figures)?;
            if self.has(Part::Hunt) {
                step("search and sql over what it stored");
                hunt::hunt(&mut stored, &stream, seed, rounds, figures)?;
            }
            if self.has(Part::Path) {
                step("merging what it stored");
                stored.merge(figures)?;
            }
        }
        let messages = messages(&stream);
        if self.has(Part::Rules) {
            step("100 and 1,000 single-event rules");
            rules::many_rules(&normalized(&messages), rounds, figures)?;
        }
        if self.has(Part::Windows) {
            step("windows");
            windows::windows(&messages, &skip, rounds, figures)?;
        }
        step("done");
        Ok(())
    }
}
