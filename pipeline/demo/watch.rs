//! Tells what happens until it is time to stop: on a terminal a screen that is drawn anew twice a second, elsewhere a line per
//! incident and now and then one about the state of things.

use std::collections::{BTreeSet, VecDeque};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alert::{Filter, Incident, Reader};
use anyhow::Result;
use event::{Counts, Source};

use super::pager::Pager;
use super::score::Score;
use super::screen::Screen;
use super::stream::Made;
use super::view::{self, Snapshot, SourceRow, Story, clock};
use crate::config::Config;
use crate::rooms::{alerts_db, wall_clock};
use crate::run::{Flow, Running, Stats};
use crate::shutdown::Shutdown;

const TICK: Duration = Duration::from_millis(500);
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Rates are means over so long: shorter ones jump with each commit.
const RATE_OVER: Duration = Duration::from_secs(5);
/// Incidents asked for at once: more than a screen holds or a tick brings.
const INCIDENTS_MAX: u32 = 200;
/// Counting what was found reads every finding: that takes at most this share of the time.
const SCORE_SHARE: u32 = 20;

/// What is watched.
pub struct Watched<'a> {
    pub config: &'a Config,
    pub line: &'a Running,
    pub made: &'a Made,
    pub pager: &'a Pager,
    pub limit: Option<Duration>,
    /// Commands and addresses to go on with.
    pub look: &'a [String],
}

pub fn until_over(watched: &Watched, shutdown: &Shutdown, generator: &JoinHandle<Result<()>>) -> Result<()> {
    let started = Instant::now();
    let alerts = Reader::open(&alerts_db(watched.config))?;
    let mut face = match Screen::possible() {
        true => Face::Screen(Screen::enter(shutdown)?, Box::default()),
        false => Face::Lines(Lines { shown: BTreeSet::new(), status: Instant::now() }),
    };
    loop {
        match &mut face {
            Face::Screen(screen, progress) => {
                let size = screen.size();
                screen.show(&view::draw(&progress.snapshot(watched, &alerts, started.elapsed())?, size), size)?;
            }
            Face::Lines(lines) => lines.tell(watched, &alerts, started.elapsed())?,
        }
        let left = watched.limit.map_or(TICK, |limit| limit.saturating_sub(started.elapsed()));
        let over = shutdown.wait(left.min(TICK));
        let ended = watched.limit.is_some_and(|limit| started.elapsed() >= limit);
        if over || ended || watched.line.stopping.pulled() || generator.is_finished() {
            return Ok(());
        }
    }
}

enum Face {
    Screen(Screen, Box<Progress>),
    Lines(Lines),
}

/// Those that ask for pages, the newest last. What rules find that are still learning what is normal would bury them.
fn incidents(alerts: &Reader) -> Result<Vec<Incident>> {
    let latest = Filter { limit: Some(INCIDENTS_MAX), paging: true, ..Filter::default() };
    let mut incidents = alerts.incidents(&latest)?;
    incidents.reverse();
    Ok(incidents)
}

/// Without a terminal.
struct Lines {
    shown: BTreeSet<String>,
    status: Instant,
}

impl Lines {
    fn tell(&mut self, watched: &Watched, alerts: &Reader, elapsed: Duration) -> Result<()> {
        for i in incidents(alerts)? {
            if self.shown.insert(i.id.clone()) {
                println!("{}  {:<8}  {:<24}  {}", clock(i.last), i.severity, i.rule, i.summary);
            }
        }
        if self.status.elapsed() >= STATUS_EVERY {
            self.status = Instant::now();
            status(&watched.line.stats, elapsed, self.shown.len());
        }
        Ok(())
    }
}

fn status(stats: &Stats, elapsed: Duration, incidents: usize) {
    let counts = stats.counts();
    println!(
        "-- {:>3} s: {} events in, {:.1} MB, {} duplicates dropped, {} sealed in {} commits, {incidents} incidents that page",
        elapsed.as_secs(),
        counts.admitted,
        counts.bytes as f64 / 1e6,
        counts.duplicates,
        stats.committed_rows(),
        stats.commits(),
    );
}

/// What a screen needs to know of the moments before.
#[derive(Default)]
struct Progress {
    rates: Rates,
    tally: Tally,
    /// When it was counted, and how long that took.
    counted: Option<(Instant, Duration)>,
}

/// Found against planted, when last counted.
#[derive(Clone, Copy, Default)]
struct Tally {
    found: usize,
    planted: usize,
    wrong: usize,
    twins: usize,
    incidents: usize,
    paging: usize,
}

impl Progress {
    fn snapshot(&mut self, watched: &Watched, alerts: &Reader, elapsed: Duration) -> Result<Snapshot> {
        let stats = &watched.line.stats;
        let (counts, flows, now) = (stats.counts(), stats.flows(), wall_clock());
        self.count(watched, alerts)?;
        let mut latest = incidents(alerts)?;
        latest.sort_by_key(|i| std::cmp::Reverse(i.opened));
        let rates = self.rates.over(elapsed, &totals(&counts, |source| flows.get(&source).map_or(0, |f| f.rows)));
        let row = |(n, source): (usize, Source)| {
            let flow = flows.get(&source).copied().unwrap_or(Flow { waiting: None, ..Flow::default() });
            let behind = flow.watermark.map(|mark| Duration::from_micros(u64::try_from(now - mark).unwrap_or(0)));
            SourceRow { source, rows: flow.rows, per_second: rates[n], waiting: flow.waiting, behind }
        };
        Ok(Snapshot {
            elapsed,
            left: watched.limit.map(|limit| limit.saturating_sub(elapsed)),
            sources: Source::ALL.into_iter().enumerate().map(row).collect(),
            bytes_per_second: rates[Source::ALL.len()],
            admitted: counts.admitted,
            duplicates: counts.duplicates,
            sealed: stats.committed_rows(),
            commits: stats.commits(),
            found: self.tally.found,
            planted: self.tally.planted,
            wrong: self.tally.wrong,
            twins: self.tally.twins,
            incidents: self.tally.paging,
            quiet: self.tally.incidents - self.tally.paging,
            pages: watched.pager.taken(),
            latest: latest.into_iter().map(story).collect(),
            look: watched.look.to_vec(),
        })
    }

    fn count(&mut self, watched: &Watched, alerts: &Reader) -> Result<()> {
        if self.counted.is_some_and(|(at, took)| at.elapsed() < took * SCORE_SHARE) {
            return Ok(());
        }
        let started = Instant::now();
        let planted = watched.made.planted();
        let score = Score::of(&planted, &alerts.findings(&Filter::default())?);
        let incidents = alerts.incidents(&Filter::default())?;
        self.tally = Tally {
            found: score.found(),
            planted: score.attacks,
            wrong: score.wrong.len(),
            twins: score.twins,
            incidents: incidents.len(),
            paging: incidents.iter().filter(|incident| incident.quiet.is_none()).count(),
        };
        self.counted = Some((Instant::now(), started.elapsed()));
        Ok(())
    }
}

fn story(incident: Incident) -> Story {
    let pairs = incident.entity.iter().map(|(column, value)| format!("{column}={value}"));
    Story {
        last: incident.last,
        severity: incident.severity,
        rule: incident.rule,
        entity: pairs.collect::<Vec<_>>().join(" "),
        summary: incident.summary,
    }
}

/// Rows of each source, then bytes.
fn totals(counts: &Counts, rows: impl Fn(Source) -> u64) -> Vec<u64> {
    Source::ALL.into_iter().map(rows).chain([counts.bytes]).collect()
}

/// Counters of the last seconds.
#[derive(Default)]
struct Rates(VecDeque<(Duration, Vec<u64>)>);

impl Rates {
    /// By how much each of the counters grew a second.
    fn over(&mut self, now: Duration, totals: &[u64]) -> Vec<f64> {
        while self.0.len() > 1 && now.saturating_sub(self.0[1].0) >= RATE_OVER {
            self.0.pop_front();
        }
        self.0.push_back((now, totals.to_vec()));
        let (then, before) = &self.0[0];
        let seconds = now.saturating_sub(*then).as_secs_f64();
        let rate =
            |(new, old): (&u64, &u64)| if seconds > 0.0 { new.saturating_sub(*old) as f64 / seconds } else { 0.0 };
        totals.iter().zip(before).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_over_the_last_five_seconds() {
        let mut rates = Rates::default();
        let mut at = |second: u64, total: u64| rates.over(Duration::from_secs(second), &[total])[0];
        assert_eq!(at(0, 0), 0.0);
        assert_eq!(at(2, 200), 100.0);
        assert_eq!(at(5, 200), 40.0);
        assert_eq!(at(7, 700), 100.0, "since second 2");
        assert_eq!(at(60, 700), 0.0, "long ago is over");
    }
}
