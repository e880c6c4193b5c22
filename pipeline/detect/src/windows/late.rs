//! What rows that came late for a boundary would have made of it: evaluated again over all rows, when they are known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datafusion::execution::context::SessionContext;
use event::Micros;
use query::QueryError;

use super::Fed;
use super::input::Sifted as Rows;
use super::sifted::Sifted;
use super::teller::{Teller, Told};
use crate::memory::States;
use crate::oracle::Entity;
use crate::rule::Rule;
use crate::runs::Run;

/// How often a catch-up looks further, by a window each time.
const LATE_WIDENINGS_MAX: usize = 8;

/// Catch-ups of a rule that wait; more are made fewer.
const CATCH_UPS_MAX: usize = 32;

/// A catch-up that failed so often, while boundaries became final, is given up: waiting on would stop those behind it for
/// good.
const FAILURES_MAX: u32 = 3;

/// Boundaries that one catch-up evaluates at most.
const LATE_SLOTS_MAX: usize = 4_096;

/// Stored rows by leg, for catching up; with those on time as they were seen.
struct Past {
    range: (i64, i64),
    rows: Vec<(usize, Rows)>,
    on_time: Sifted,
    complete: Sifted,
}

impl Teller {
    /// Catch-ups that are due: what rows that came late would have made of boundaries that were final. What does not fit
    /// into one call's time is left to the next: then it is true.
    pub(super) async fn catch_up(
        &mut self,
        base: &SessionContext,
        states: &States<'_>,
        last: i64,
        time: Duration,
    ) -> Result<bool, QueryError> {
        self.merge_catch_ups(last);
        let started = Instant::now();
        let mut past: Option<Past> = None;
        while let Some((at, missed)) = self.late.first_key_value().map(|(at, missed)| (*at, *missed)) {
            if at > last || started.elapsed() > time {
                break;
            }
            match self.catch_up_at(base, states, &mut past, (at, missed)).await {
                Ok(runs) => {
                    let known = self.slots.boundary(at);
                    self.told.extend(runs.into_iter().map(|run| Told::Late { run, known }));
                }
                Err(error) => {
                    let (before, when) = self.late_failures;
                    // One call after the other says nothing new.
                    self.late_failures = (before + u32::from(when != last), last);
                    if self.late_failures.0 < FAILURES_MAX {
                        return Err(error);
                    }
                    tracing::error!(rule = %self.rule.id, %error, "what late rows would have added is given up");
                    skipped(&self.rule, (missed.1 - missed.0 + 1).unsigned_abs());
                }
            }
            self.late_failures = (0, i64::MIN);
            self.late.remove(&at);
        }
        self.usage.busy += started.elapsed();
        Ok(self.late.first_key_value().is_some_and(|(at, _)| *at <= last))
    }

    /// A source that is later than its lateness allows, all the time: the oldest catch-ups are made one, which knows what
    /// the last of them knew.
    fn merge_catch_ups(&mut self, last: i64) {
        let due: Vec<i64> = self.late.range(..=last).map(|(at, _)| *at).collect();
        let Some(many) = due.len().checked_sub(CATCH_UPS_MAX).filter(|many| *many > 0) else { return };
        let mut hull = (i64::MAX, i64::MIN);
        for at in &due[..many] {
            let missed = self.late.remove(at).expect("just listed");
            hull = (hull.0.min(missed.0), hull.1.max(missed.1));
        }
        let missed = self.late.entry(due[many]).or_insert(hull);
        *missed = (missed.0.min(hull.0), missed.1.max(hull.1));
        metrics::counter!("stakeout_rule_catch_ups_merged_total", "rule" => self.rule.id.clone())
            .increment(many as u64);
    }

    /// Evaluates the missed boundaries with and without the rows that were late for them. What holds only with them is
    /// followed to where it begins and ends, which earlier latecomers may have moved.
    async fn catch_up_at(
        &self,
        base: &SessionContext,
        states: &States<'_>,
        past: &mut Option<Past>,
        (at, missed): (i64, (i64, i64)),
    ) -> Result<Vec<Run>, QueryError> {
        let known = self.slots.boundary(at);
        let mut range = (missed.0 - 1, (missed.1 + 1).min(at - 1));
        for _ in 0..LATE_WIDENINGS_MAX {
            let runs = self.in_addition(base, states, past, range, known).await?;
            let wider = self.widened(&runs, range, at);
            if wider == range {
                return Ok(runs);
            }
            range = wider;
        }
        let runs = self.in_addition(base, states, past, range, known).await?;
        if self.widened(&runs, range, at) != range {
            tracing::warn!(rule = %self.rule.id, "what late rows add goes on beyond the boundaries that are looked at");
        }
        Ok(runs)
    }

    /// Further on the sides that runs reach.
    fn widened(&self, runs: &[Run], range: (i64, i64), at: i64) -> (i64, i64) {
        let mut wider = range;
        if runs.iter().any(|run| run.first == self.slots.boundary(range.0)) {
            wider.0 = range.0 - self.slots.panes();
        }
        if runs.iter().any(|run| run.last == self.slots.boundary(range.1)) {
            wider.1 = (range.1 + self.slots.panes()).min(at - 1);
        }
        wider
    }

    /// What holds in a range of final boundaries only if late rows that were known by `known` count.
    async fn in_addition(
        &self,
        base: &SessionContext,
        states: &States<'_>,
        past: &mut Option<Past>,
        range: (i64, i64),
        known: Micros,
    ) -> Result<Vec<Run>, QueryError> {
        let covers = |past: &Past| past.range.0 <= range.0 && range.1 <= past.range.1;
        if !past.as_ref().is_some_and(covers) {
            let have = past.as_ref().map_or(range, |past| past.range);
            let both = (have.0.min(range.0), have.1.max(range.1));
            *past = Some(self.past(base, states.stored, both).await?);
        }
        let past = past.as_mut().expect("just made");
        past.complete.clear();
        for (leg, rows) in &past.rows {
            past.complete.feed(*leg, self.as_if_on_time(rows, known), false, &mut Fed::default());
        }
        self.compare(states, range, &mut past.on_time, &mut past.complete).await
    }

    /// The stored rows that boundaries in a range look at.
    async fn past(
        &self,
        base: &SessionContext,
        stored: &SessionContext,
        range: (i64, i64),
    ) -> Result<Past, QueryError> {
        let mut past = Past {
            range,
            rows: Vec::new(),
            on_time: Sifted::new(base, &self.rule, self.slots, self.origin).await?,
            complete: Sifted::new(base, &self.rule, self.slots, self.origin).await?,
        };
        let window = self.rule.windowed().window;
        let times = (self.slots.boundary(range.0) - window.window_us, self.slots.boundary(range.1));
        for (leg, sieve) in self.rule.windowed().sieves.sieves.iter().enumerate() {
            for part in &sieve.parts {
                let rows = &mut past.rows;
                let keep = |sifted: Rows| -> datafusion::error::Result<()> {
                    rows.push((leg, sifted));
                    Ok(())
                };
                part.read(stored, times, None, self.origin, self.slots, keep).await.map_err(QueryError::run)?;
            }
        }
        for (leg, rows) in &past.rows {
            let again = Rows {
                rows: rows.rows.clone(),
                spans: rows.spans.clone(),
                times: vec![],
                stamps: vec![],
                failed: None,
            };
            past.on_time.feed(*leg, again, false, &mut Fed::default());
        }
        Ok(past)
    }

    fn as_if_on_time(&self, rows: &Rows, known: Micros) -> Rows {
        let span = |(time, stamp): (&Micros, &Micros)| {
            self.slots.span(*time, if *stamp < known { Micros::MIN } else { Micros::MAX })
        };
        let spans = rows.times.iter().zip(&rows.stamps).map(span).collect();
        Rows { rows: rows.rows.clone(), spans, times: Vec::new(), stamps: Vec::new(), failed: None }
    }

    /// The runs of boundaries at which an entity holds with all rows and not with those on time.
    async fn compare(
        &self,
        states: &States<'_>,
        range: (i64, i64),
        on_time: &mut Sifted,
        complete: &mut Sifted,
    ) -> Result<Vec<Run>, QueryError> {
        let mut nulls = 0;
        // More rows only add findings: what does not hold over all of them holds nowhere.
        if self.rule.windowed().early.is_ok()
            && self.rule.windowed().states.is_empty()
            && complete.answer_over(range.0, range.1, None, &mut nulls).await?.is_empty()
        {
            return Ok(Vec::new());
        }
        let mut turns = vec![range.0];
        if on_time.joins_states() {
            turns.extend(range.0 + 1..=range.1);
        }
        for side in [&*on_time, &*complete] {
            turns.extend(side.turns().filter(|slot| range.0 < *slot && *slot <= range.1));
        }
        turns.sort_unstable();
        turns.dedup();
        if turns.len() > LATE_SLOTS_MAX {
            let left = turns.len() - LATE_SLOTS_MAX;
            tracing::error!(rule = %self.rule.id, boundaries = left, "late rows: not all boundaries are caught up");
            skipped(&self.rule, left as u64);
            turns.truncate(LATE_SLOTS_MAX);
        }
        let (mut ended, mut runs) = (Vec::new(), BTreeMap::<Entity, Run>::new());
        for (n, slot) in turns.iter().enumerate() {
            let until = turns.get(n + 1).map_or(range.1, |next| next - 1);
            let all = complete.answer(states, *slot, &mut nulls).await?;
            let found = if all.is_empty() { Vec::new() } else { on_time.answer(states, *slot, &mut nulls).await? };
            let mut before = std::mem::take(&mut runs);
            for held in all {
                if found.iter().any(|f| f.entity == held.entity) {
                    continue;
                }
                let mut run = match before.remove(&held.entity) {
                    Some(mut run) => {
                        run.evidence.extend(held.evidence);
                        run.evidence.sort();
                        run.evidence.dedup();
                        run
                    }
                    None => Run::new(held, self.slots.boundary(*slot)),
                };
                run.last = self.slots.boundary(until);
                runs.insert(run.entity.clone(), run);
            }
            ended.extend(before.into_values());
        }
        ended.extend(runs.into_values());
        Ok(ended)
    }
}

/// Boundaries of which nobody will know what late rows would have made of them.
fn skipped(rule: &Rule, boundaries: u64) {
    metrics::counter!("stakeout_rule_late_boundaries_skipped_total", "rule" => rule.id.clone()).increment(boundaries);
}
