//! One windowed rule, or a family of them, over one stream: rows in, findings' runs out. What it holds is a function of the
//! rows; all of it can be rebuilt from the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{Expr, col, lit};
use event::{Micros, Offsets, Origin, column};
use query::QueryError;

use super::input::{Part, Sifted as Rows, both};
use super::paned::Paned;
use super::sifted::Sifted;
use super::teller::{Teller, Usage};
use super::together::{Choices, Chosen};
use super::{Changes, Fed, Slots};
use crate::fault::{self, Fault};
use crate::memory::{Memory, States};
use crate::offsets::before;
use crate::oracle::instant;
use crate::rule::Rule;

/// What one rule may hold. More degrades it, visibly, and nobody else.
pub const STATE_BYTES_MAX: usize = 256 << 20;

/// How far back the beginning of a run that is open at a restart is looked for. A run of so many slides (a week of
/// minutes) is an incident of its own by then; its finding begins at the limit.
const LOOKBACK_SLOTS_MAX: i64 = 10_080;
const LOOKBACK_SLOTS_MIN: i64 = 32;

/// Stored rows are read in so many stretches of time at most.
const STRETCHES_MAX: i64 = 64;

/// What catching up may take of one call.
const CATCH_UP_TIME: Duration = Duration::from_millis(200);

/// Rows that are late by more than this trigger no catch-up.
pub(super) const LATE_US_MAX: i64 = 7 * 86_400 * 1_000_000;

enum Way {
    Paned(Box<Paned>),
    Sifted(Box<Sifted>),
}

pub struct Live {
    /// One for each rule: at least one, and several only over panes.
    tellers: Vec<Teller>,
    slots: Slots,
    origin: Origin,
    way: Way,
    /// The last final boundary; `None` while no boundary is: rows may come for any.
    last: Option<i64>,
    fed: Fed,
    /// How often in a row the next boundary could not be passed.
    failures: u32,
}

/// Rows that a rebuild takes: those from `from` on, and late ones from `oldest` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub from: Micros,
    pub oldest: Micros,
}

impl Live {
    /// `rules` are one family, see [`super::family`].
    pub async fn new(base: &SessionContext, rules: &[Arc<Rule>], origin: Origin) -> Result<Live, QueryError> {
        let windowed = rules[0].windowed();
        let slots = Slots::of(windowed.window);
        let way = match &windowed.shape {
            Ok(_) => Way::Paned(Box::new(Paned::new(rules, slots, STATE_BYTES_MAX))),
            Err(_) => Way::Sifted(Box::new(Sifted::new(base, &rules[0], slots, origin).await?)),
        };
        let tellers = rules.iter().map(|rule| Teller::new(rule.clone(), origin)).collect();
        Ok(Live { tellers, slots, origin, way, last: None, fed: Fed::default(), failures: 0 })
    }

    /// Stands for what the rules have in common.
    pub fn first(&self) -> &Arc<Rule> {
        self.tellers[0].rule()
    }

    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.tellers.iter().map(Teller::rule)
    }

    pub fn tellers(&mut self) -> &mut [Teller] {
        &mut self.tellers
    }

    /// Of the rules, only those go on here. False if none does.
    pub fn retain(&mut self, stays: impl Fn(&Rule) -> bool) -> bool {
        self.tellers.retain(|teller| stays(teller.rule()));
        if let Way::Paned(paned) = &mut self.way {
            paned.retain(stays);
        }
        !self.tellers.is_empty()
    }

    /// The boundary before the first that is to be evaluated.
    pub fn begin(&mut self, boundary: Micros) {
        let slot = self.slots.floor(boundary);
        self.last = Some(slot);
        match &mut self.way {
            Way::Paned(paned) => paned.begin(slot),
            Way::Sifted(sifted) => sifted.begin(slot),
        }
    }

    /// The last final boundary, [`Micros::MIN`] while there is none.
    pub fn evaluated(&self) -> Micros {
        self.last.map_or(Micros::MIN, |slot| self.slots.boundary(slot))
    }

    /// From where a later process has to go on: the last final boundary, unless catch-ups on late rows wait.
    pub fn settled(&self) -> Micros {
        let settled = |last: i64| self.tellers.iter().map(|teller| teller.settled(last)).min().unwrap_or(last);
        self.last.map_or(Micros::MIN, |last| self.slots.boundary(settled(last)))
    }

    /// Rows of an admitted batch, as far as they were chosen for this rule.
    pub fn admit(&mut self, table: &str, rows: &RecordBatch, choices: &mut Choices) -> Result<(), QueryError> {
        let started = Instant::now();
        let rule = self.first().clone();
        for (relation, part) in self.parts(table) {
            let chosen = choices.of(&rule.id, relation, part);
            if matches!(&chosen, Chosen::Rows(rows) if rows.is_empty()) {
                continue;
            }
            let part = part_of(&rule, relation, part);
            let sifted = part.sift(rows, chosen, self.origin, self.slots).map_err(QueryError::run)?;
            self.take(table, relation, sifted, true)?;
        }
        self.tellers.iter_mut().for_each(|teller| teller.usage.rows += rows.num_rows() as u64);
        self.was_busy(started);
        Ok(())
    }

    fn was_busy(&mut self, since: Instant) {
        let each = since.elapsed() / self.tellers.len() as u32;
        self.tellers.iter_mut().for_each(|teller| teller.usage.busy += each);
    }

    pub(super) fn all_parts(&self) -> Vec<(usize, usize, &Part)> {
        all_parts(self.first())
    }

    /// The parts of the rule that read a stored table: (relation, part).
    pub(super) fn parts(&self, table: &str) -> Vec<(usize, usize)> {
        match &self.way {
            Way::Paned(paned) => paned.part(table).map(|part| (0, part)).into_iter().collect(),
            Way::Sifted(sifted) => sifted.parts(table),
        }
    }

    /// `watch`: what rules look at ahead of the final boundary is noted.
    fn take(&mut self, table: &str, relation: usize, rows: Rows, watch: bool) -> Result<(), QueryError> {
        self.note_late(relation, &rows);
        let mut failed = rows.failed.clone();
        match &mut self.way {
            Way::Paned(paned) => {
                let part = paned.part(table).expect("asked before");
                let also = paned.feed(part, &rows, watch, &mut self.fed).map_err(QueryError::run)?;
                failed = both(failed, also);
            }
            Way::Sifted(sifted) => {
                let watch = watch && self.tellers[0].rule.windowed().early.is_ok();
                sifted.feed(relation, rows, watch, &mut self.fed);
            }
        }
        let kept = std::mem::take(&mut self.fed.kept);
        let refused = std::mem::take(&mut self.fed.refused) + std::mem::take(&mut self.fed.out_of_range);
        let failed = failed.map_or(0, |(count, reason)| {
            let rules: Vec<&str> = self.rules().map(|rule| rule.id.as_str()).collect();
            tracing::warn!(?rules, rows = count, reason, "rows could not be evaluated");
            count
        });
        for usage in self.tellers.iter_mut().map(|teller| &mut teller.usage) {
            usage.failed += failed;
            usage.kept += kept;
            usage.refused += refused;
        }
        Ok(())
    }

    fn note_late(&mut self, relation: usize, rows: &Rows) {
        for (span, (time, stamp)) in rows.spans.iter().zip(rows.times.iter().zip(&rows.stamps)) {
            let Some((from, to)) = span.missed().filter(|_| !fault::is(Fault::LateDropped)) else { continue };
            if stamp.saturating_sub(*time) > LATE_US_MAX {
                for rule in self.rules() {
                    metrics::counter!("stakeout_rule_too_late_total", "rule" => rule.id.clone()).increment(1);
                }
                continue;
            }
            // At the first boundary by which the row counts as known.
            let at = span.enter;
            if self.last.is_none_or(|last| at > last) {
                if matches!(&self.way, Way::Sifted(sifted) if sifted.adds_nothing(relation, (from, to))) {
                    continue;
                }
                self.tellers.iter_mut().for_each(|teller| teller.note_late(at, (from, to)));
            }
        }
    }

    fn next_change(&self) -> Option<i64> {
        match &self.way {
            Way::Paned(paned) => paned.next_change(),
            Way::Sifted(sifted) => sifted.next_change(),
        }
    }

    /// Looks ahead of the final boundary at what rows just admitted have changed.
    pub async fn look_ahead(&mut self, memory: &Memory) {
        let started = Instant::now();
        for n in 0..self.tellers.len() {
            if self.tellers[n].rule.windowed().early.is_err() {
                continue;
            }
            let mut ahead = Vec::new();
            let failed = match &mut self.way {
                Way::Paned(paned) => {
                    paned.ahead(n, &mut ahead);
                    paned.take_failure(n).map(QueryError::run)
                }
                Way::Sifted(sifted) => sifted.ahead(memory, &mut self.fed, &mut ahead).await.err(),
            };
            if let Some(error) = failed {
                self.tellers[n].fail(error);
            }
            self.tellers[n].announce(ahead);
        }
        self.was_busy(started);
    }

    /// Makes boundaries final up to `to`, at most `budget` of those at which something changes. True when some are left.
    /// An error is a boundary that could not be passed; what of panes cannot be evaluated is left out, see
    /// [`Teller::take_failure`].
    pub async fn advance(&mut self, states: &States<'_>, to: Micros, budget: usize) -> Result<bool, QueryError> {
        let started = Instant::now();
        let to = self.slots.floor(to);
        let more = match &mut self.way {
            Way::Paned(_) => Ok(self.step_panes(to, budget)),
            Way::Sifted(_) => self.step_sifted(states, to, budget).await,
        };
        if matches!(more, Ok(false)) {
            let last = self.last.map_or(to, |last| last.max(to));
            self.last = Some(last);
            for teller in &mut self.tellers {
                let gone = teller.retract_what_did_not_come(last);
                if let Way::Sifted(sifted) = &mut self.way {
                    gone.iter().for_each(|entity| sifted.settle_early(entity, &mut self.fed));
                }
                teller.prolong(last);
            }
        }
        self.was_busy(started);
        more
    }

    fn step_panes(&mut self, to: i64, budget: usize) -> bool {
        let Way::Paned(paned) = &mut self.way else { return false };
        let mut all = Vec::new();
        paned.step(to, budget, &mut |rule, slot, changes| all.push((rule, slot, changes)));
        for (n, teller) in self.tellers.iter_mut().enumerate() {
            if let Some(error) = paned.take_failure(n) {
                teller.fail(QueryError::run(error));
            }
        }
        let more = paned.next_change().is_some_and(|slot| slot <= to);
        for (rule, slot, changes) in all {
            self.tellers[rule].apply(slot, changes);
            self.last = self.last.max(Some(slot));
        }
        more
    }

    async fn step_sifted(&mut self, states: &States<'_>, to: i64, budget: usize) -> Result<bool, QueryError> {
        let (Way::Sifted(sifted), teller) = (&mut self.way, &mut self.tellers[0]) else { return Ok(false) };
        let mut steps = 0;
        while let Some(slot) = sifted.next_change().filter(|slot| *slot <= to) {
            if steps == budget {
                return Ok(true);
            }
            steps += 1;
            let mut changes = Changes::default();
            sifted.step(states, slot, &mut changes, &mut self.fed).await?;
            teller.apply(slot, changes);
            self.failures = 0;
            self.last = Some(slot);
        }
        Ok(false)
    }

    /// Catch-ups that are due, see [`Teller::catch_up`]. True when some are left.
    pub async fn catch_up(&mut self, base: &SessionContext, states: &States<'_>) -> bool {
        let Some(last) = self.last else { return false };
        let (mut more, time) = (false, CATCH_UP_TIME / self.tellers.len() as u32);
        for teller in &mut self.tellers {
            match teller.catch_up(base, states, last, time).await {
                Ok(left) => more |= left,
                Err(error) => teller.fail(error),
            }
        }
        more
    }

    /// The next boundary could not be passed: it is tried again. Panes always can.
    pub fn is_stuck(&mut self, error: QueryError) {
        self.failures += 1;
        self.tellers[0].fail(error);
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Gives up on a boundary that keeps failing.
    pub fn skip(&mut self) {
        let (rule, after) = (self.first().id.clone(), self.evaluated());
        tracing::error!(rule, after, "rule skips a boundary it could not evaluate");
        metrics::counter!("stakeout_rule_boundaries_skipped_total", "rule" => rule).increment(1);
        if let (Some(slot), Way::Sifted(sifted)) = (self.next_change(), &mut self.way) {
            sifted.begin(slot);
            sifted.give_up(slot);
            self.last = Some(slot);
        }
        self.failures = 0;
    }

    /// Everything that is scheduled, final: the stream has ended.
    pub async fn finish(&mut self, states: &States<'_>) -> Result<(), QueryError> {
        while let Some(slot) = self.next_change() {
            self.advance(states, self.slots.boundary(slot), usize::MAX).await?;
        }
        self.tellers.iter_mut().for_each(Teller::retract_all);
        Ok(())
    }

    /// Holds what it would hold had it seen all stored rows, with everything up to `start` final and told.
    /// With `up_to`, only rows before these offsets. `skips` boundaries that cannot be evaluated.
    pub async fn rebuild(
        &mut self,
        states: &States<'_>,
        base: &SessionContext,
        start: Micros,
        up_to: Option<&Offsets>,
        skips: bool,
    ) -> Result<(), QueryError> {
        let committed = up_to.and_then(before);
        let mut back = self.back();
        loop {
            let rules: Vec<Arc<Rule>> = self.rules().cloned().collect();
            let mut fresh = Live::new(base, &rules, self.origin).await?;
            fresh.tellers.iter_mut().zip(&self.tellers).for_each(|(fresh, known)| fresh.usage = known.usage);
            let reach = fresh.reach(start, back);
            fresh.read(states.stored, (reach.from, Micros::MAX), committed.clone()).await?;
            if reach.oldest < reach.from {
                let stamped = col(column::SOURCE_WATERMARK).gt_eq(instant(start));
                let stamped = committed.clone().into_iter().fold(stamped, Expr::and);
                fresh.read(states.stored, (reach.oldest, reach.from), Some(stamped)).await?;
            }
            if fresh.catch_up_to(states, start, back, skips).await? {
                *self = fresh;
                return Ok(());
            }
            back = (back * 4).min(LOOKBACK_SLOTS_MAX);
        }
    }

    /// How many slides before the last final boundary a rebuild begins.
    pub(super) fn back(&self) -> i64 {
        match fault::is(Fault::RebuiltTooShort) || fault::is(Fault::BeginsAtRestart) {
            true => 1,
            false => self.slots.panes().max(LOOKBACK_SLOTS_MIN),
        }
    }

    /// Begins `back` slides before `start`, and says which rows that takes.
    pub(super) fn reach(&mut self, start: Micros, back: i64) -> Reach {
        if start == Micros::MIN {
            return Reach { from: Micros::MIN, oldest: Micros::MIN };
        }
        let window = self.first().windowed().window;
        let low = self.slots.boundary(self.slots.floor(start) - back);
        self.begin(low);
        let reach = if fault::is(Fault::RebuiltTooShort) { window.every_us } else { window.window_us };
        let from = low.saturating_sub(reach);
        Reach { from, oldest: start.saturating_sub(LATE_US_MAX).min(from) }
    }

    /// Makes everything up to `start` final, in silence; false if a run that is open there may have begun earlier.
    pub(super) async fn catch_up_to(
        &mut self,
        states: &States<'_>,
        start: Micros,
        back: i64,
        skips: bool,
    ) -> Result<bool, QueryError> {
        if start == Micros::MIN {
            return Ok(true);
        }
        while let Err(error) = self.advance(states, start, usize::MAX).await {
            if !skips {
                return Err(error);
            }
            tracing::error!(rule = %self.first().id, %error, "a state is made anew without a boundary");
            self.skip();
        }
        let begun = self.slots.boundary(self.slots.floor(start) - back + 1);
        let cut = self.tellers.iter().any(|teller| teller.has_open_since(begun));
        let cut = cut && !fault::is(Fault::BeginsAtRestart);
        if cut && back < LOOKBACK_SLOTS_MAX {
            return Ok(false);
        }
        for teller in self.tellers.iter().filter(|teller| cut && teller.has_open_since(begun)) {
            tracing::warn!(rule = %teller.rule().id, "open runs began before the look-back limit");
        }
        let last = self.slots.floor(start);
        self.tellers.iter_mut().for_each(|teller| teller.all_was_told(last));
        Ok(true)
    }

    /// Rows of a stored table, those that [`Live::reach`] asked for.
    pub(super) fn take_stored(
        &mut self,
        table: &str,
        batch: &RecordBatch,
        choices: &mut Choices,
        (start, reach, until): (Micros, Reach, Micros),
    ) -> Result<(), QueryError> {
        let rule = self.first().clone();
        for (relation, part) in self.parts(table) {
            let chosen = choices.of(&rule.id, relation, part);
            if matches!(&chosen, Chosen::Rows(rows) if rows.is_empty()) {
                continue;
            }
            let part = part_of(&rule, relation, part);
            let mut rows = part.sift(batch, chosen, self.origin, self.slots).map_err(QueryError::run)?;
            let looks = |time: Micros, stamp: Micros| time >= reach.from || (stamp >= start && time >= reach.oldest);
            rows.retain(|time, stamp| time < until && looks(time, stamp)).map_err(QueryError::run)?;
            self.take(table, relation, rows, false)?;
        }
        Ok(())
    }

    pub(super) fn columns_of(&self, table: &str) -> Vec<String> {
        let parts = self.parts(table);
        parts.into_iter().flat_map(|(r, p)| part_of(self.first(), r, p).columns().to_vec()).collect()
    }

    /// For rules that look ahead: everything is new after a rebuild.
    pub fn watch_all(&mut self, memory: &Memory) {
        let is_early = self.first().windowed().early.is_ok();
        match &mut self.way {
            Way::Paned(paned) => paned.watch_all(),
            Way::Sifted(sifted) if is_early => sifted.watch_all(memory, &mut self.fed),
            Way::Sifted(_) => {}
        }
    }

    /// A bounded stream of stored rows from its first boundary to its last, in stretches of time. With `range`, only the
    /// boundaries that rows with times in it can touch.
    pub async fn replay(&mut self, states: &States<'_>, range: Option<(Micros, Micros)>) -> Result<(), QueryError> {
        let window = self.first().windowed().window;
        let (first, last) = match range {
            Some((from, to)) => {
                self.begin(from);
                (from.saturating_sub(window.window_us), window.last_reaching(to))
            }
            None => match self.edges(states.stored).await? {
                Some((first, last)) => (first, last.saturating_add(1)),
                None => return Ok(()),
            },
        };
        let stretch = window.window_us.max(LOOKBACK_SLOTS_MIN * window.every_us).max((last - first) / STRETCHES_MAX);
        let mut from = first;
        while from < last {
            let to = window.floor(from.saturating_add(stretch)).max(from + 1).min(last);
            self.read(states.stored, (from, to), None).await?;
            self.advance(states, to, usize::MAX).await?;
            from = to;
        }
        match range {
            Some((_, to)) => {
                self.advance(states, window.last_reaching(to), usize::MAX).await?;
                self.tellers.iter_mut().for_each(Teller::tell_open);
                Ok(())
            }
            None => self.finish(states).await,
        }
    }

    /// The times of the first and last stored row that can matter.
    async fn edges(&self, stored: &SessionContext) -> Result<Option<(Micros, Micros)>, QueryError> {
        let mut edges: Option<(Micros, Micros)> = None;
        let legs = self.first().windowed().sieves.legs().len();
        // Of the others it only matters that they speak.
        for (_, _, part) in all_parts(self.first()).into_iter().filter(|(leg, ..)| *leg < legs) {
            let mut frame = stored.table(part.table.as_str()).await.map_err(QueryError::run)?;
            let origin = lit(self.origin.name());
            let condition = part.sieve.clone().into_iter().fold(col(column::ORIGIN).eq(origin), Expr::and);
            frame = frame.filter(condition).map_err(QueryError::run)?;
            let frame = frame.aggregate(vec![], vec![min(col(column::TIME)), max(col(column::TIME))]);
            for batch in frame.map_err(QueryError::run)?.collect().await.map_err(QueryError::run)? {
                let of =
                    |at: usize| batch.column(at).as_primitive::<TimestampMicrosecondType>().iter().next().flatten();
                if let (Some(a), Some(b)) = (of(0), of(1)) {
                    edges = Some(edges.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
                }
            }
        }
        Ok(edges)
    }

    async fn read(
        &mut self,
        stored: &SessionContext,
        range: (Micros, Micros),
        also: Option<Expr>,
    ) -> Result<(), QueryError> {
        let rule = self.first().clone();
        for (relation, _, part) in all_parts(&rule) {
            let mut batches = Vec::new();
            let keep = |rows: Rows| -> datafusion::error::Result<()> {
                batches.push(rows);
                Ok(())
            };
            let read = part.read(stored, range, also.clone(), self.origin, self.slots, keep);
            read.await.map_err(QueryError::run)?;
            for rows in batches {
                self.take(&part.table, relation, rows, false)?;
            }
        }
        Ok(())
    }

    /// By rule.
    pub fn usage(&self) -> impl Iterator<Item = (&Arc<Rule>, Usage)> {
        let bytes = match &self.way {
            Way::Paned(paned) => paned.bytes(),
            Way::Sifted(sifted) => sifted.bytes(),
        };
        let state_bytes = (bytes / self.tellers.len()) as u64;
        self.tellers.iter().map(move |teller| (&teller.rule, Usage { state_bytes, ..teller.usage }))
    }
}

fn part_of(rule: &Rule, relation: usize, part: usize) -> &Part {
    match &rule.windowed().shape {
        Ok(shape) => &shape.parts[part].input,
        Err(_) => &rule.windowed().sieves.sieves[relation].parts[part],
    }
}

/// (relation, number, part) of the way that the rule goes.
fn all_parts(rule: &Rule) -> Vec<(usize, usize, &Part)> {
    match &rule.windowed().shape {
        Ok(shape) => shape.parts.iter().enumerate().map(|(n, part)| (0, n, &part.input)).collect(),
        Err(_) => {
            let relations = rule.windowed().sieves.sieves.iter().enumerate();
            relations.flat_map(|(r, s)| s.parts.iter().enumerate().map(move |(n, part)| (r, n, part))).collect()
        }
    }
}
