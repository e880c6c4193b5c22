//! One windowed rule over one stream: rows in, findings' runs out. What it holds is a function of the rows; all of it can
//! be rebuilt from the store.

use std::collections::BTreeMap;
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

use super::input::{Part, Sifted as Rows};
use super::paned::Paned;
use super::sifted::Sifted;
use super::together::{Choices, Chosen};
use super::{Ahead, Changes, Fed, Slots};
use crate::fault::{self, Fault};
use crate::memory::States;
use crate::offsets::before;
use crate::oracle::{Entity, Held, instant};
use crate::rule::Rule;
use crate::runs::Run;

/// What one rule may hold. More degrades it, visibly, and nobody else.
pub const STATE_BYTES_MAX: usize = 256 << 20;

/// How far back the beginning of a run that is open at a restart is looked for. A run of so many slides (a week of
/// minutes) is an incident of its own by then; its finding begins at the limit.
const LOOKBACK_SLOTS_MAX: i64 = 10_080;
const LOOKBACK_SLOTS_MIN: i64 = 32;

/// Stored rows are read in so many stretches of time at most.
const STRETCHES_MAX: i64 = 64;

/// Rows that are late by more than this trigger no catch-up.
pub(super) const LATE_US_MAX: i64 = 7 * 86_400 * 1_000_000;

/// What a rule says, in the order in which it says it.
#[derive(Clone, Debug)]
pub enum Told {
    /// Holds ahead of the final boundary.
    Provisional(Run),
    /// Was provisional at this boundary, and no longer is anything.
    Retracted { entity: Entity, first: Micros },
    /// Began, goes on, or ended: final as far as it goes.
    Confirmed(Run),
    /// Found by catching up on rows that were late; the boundary up to which rows were admitted for it.
    Late { run: Run, known: Micros },
}

/// What a rule costs and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub rows: u64,
    pub kept: u64,
    pub refused: u64,
    pub failed: u64,
    pub null_entities: u64,
    pub findings: u64,
    pub state_bytes: u64,
    pub busy: Duration,
}

enum Way {
    Paned(Box<Paned>),
    Sifted(Box<Sifted>),
}

pub struct Live {
    pub(super) rule: Arc<Rule>,
    pub(super) slots: Slots,
    pub(super) origin: Origin,
    way: Way,
    /// The last final boundary; `None` while no boundary is: rows may come for any.
    pub(super) last: Option<i64>,
    open: BTreeMap<Entity, Open>,
    /// Provisional: the boundary at which each was announced.
    early: BTreeMap<Entity, i64>,
    /// Catch-ups to come: at which boundary, over which missed ones.
    pub(super) late: BTreeMap<i64, (i64, i64)>,
    fed: Fed,
    pub failures: u32,
    pub usage: Usage,
}

/// Rows that a rebuild takes: those from `from` on, and late ones from `oldest` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub from: Micros,
    pub oldest: Micros,
}

struct Open {
    run: Run,
    /// Its end when it was last told.
    told: Micros,
}

impl Live {
    pub async fn new(base: &SessionContext, rule: Arc<Rule>, origin: Origin) -> Result<Live, QueryError> {
        let windowed = rule.windowed();
        let slots = Slots::of(windowed.window);
        let way = match &windowed.shape {
            Ok(shape) => Way::Paned(Box::new(Paned::new(rule.clone(), shape.clone(), STATE_BYTES_MAX))),
            Err(_) => Way::Sifted(Box::new(Sifted::new(base, &rule, slots, origin).await?)),
        };
        Ok(Live {
            rule,
            slots,
            origin,
            way,
            last: None,
            open: BTreeMap::new(),
            early: BTreeMap::new(),
            late: BTreeMap::new(),
            fed: Fed::default(),
            failures: 0,
            usage: Usage::default(),
        })
    }

    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
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

    /// Rows of an admitted batch, as far as they were chosen for this rule.
    pub fn admit(&mut self, table: &str, rows: &RecordBatch, choices: &mut Choices) -> Result<(), QueryError> {
        let started = Instant::now();
        let rule = self.rule.clone();
        let watch = rule.windowed().early.is_ok();
        for (relation, part) in self.parts(table) {
            let chosen = choices.of(&rule.id, relation, part);
            if matches!(&chosen, Chosen::Rows(rows) if rows.is_empty()) {
                continue;
            }
            let part = part_of(&rule, relation, part);
            let sifted = part.sift(rows, chosen, self.origin, self.slots).map_err(QueryError::run)?;
            self.take(table, relation, sifted, watch)?;
        }
        self.usage.rows += rows.num_rows() as u64;
        self.usage.busy += started.elapsed();
        Ok(())
    }

    /// (leg, part number, part) of the way that the rule goes.
    pub(super) fn all_parts(&self) -> Vec<(usize, usize, &Part)> {
        match &self.rule.windowed().shape {
            Ok(shape) => shape.parts.iter().enumerate().map(|(n, part)| (0, n, &part.input)).collect(),
            Err(_) => {
                let legs = self.rule.windowed().sieves.sieves.iter().enumerate();
                legs.flat_map(|(leg, s)| s.parts.iter().enumerate().map(move |(n, part)| (leg, n, part))).collect()
            }
        }
    }

    /// The parts of the rule that read a stored table: (relation, part).
    fn parts(&self, table: &str) -> Vec<(usize, usize)> {
        match &self.way {
            Way::Paned(paned) => paned.part(table).map(|part| (0, part)).into_iter().collect(),
            Way::Sifted(sifted) => sifted.parts(table),
        }
    }

    fn take(&mut self, table: &str, relation: usize, rows: Rows, watch: bool) -> Result<(), QueryError> {
        self.note_late(relation, &rows);
        if let Some((count, reason)) = &rows.failed {
            self.usage.failed += count;
            tracing::warn!(rule = %self.rule.id, rows = count, reason, "rows could not be evaluated");
        }
        match &mut self.way {
            Way::Paned(paned) => {
                let part = paned.part(table).expect("asked before");
                paned.feed(part, &rows, watch, &mut self.fed).map_err(QueryError::run)?;
            }
            Way::Sifted(sifted) => sifted.feed(relation, rows, watch, &mut self.fed),
        }
        self.usage.kept += std::mem::take(&mut self.fed.kept);
        self.usage.refused += std::mem::take(&mut self.fed.refused) + std::mem::take(&mut self.fed.out_of_range);
        Ok(())
    }

    fn note_late(&mut self, relation: usize, rows: &Rows) {
        for (span, (time, stamp)) in rows.spans.iter().zip(rows.times.iter().zip(&rows.stamps)) {
            let Some((from, to)) = span.missed().filter(|_| !fault::is(Fault::LateDropped)) else { continue };
            if stamp.saturating_sub(*time) > LATE_US_MAX {
                metrics::counter!("stakeout_rule_too_late_total", "rule" => self.rule.id.clone()).increment(1);
                continue;
            }
            // At the first boundary by which the row counts as known.
            let at = span.enter;
            if self.last.is_none_or(|last| at > last) {
                if matches!(&self.way, Way::Sifted(sifted) if sifted.adds_nothing(relation, (from, to))) {
                    continue;
                }
                let missed = self.late.entry(at).or_insert((from, to));
                *missed = (missed.0.min(from), missed.1.max(to));
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
    pub async fn look_ahead(&mut self, told: &mut Vec<Told>) -> Result<(), QueryError> {
        if self.rule.windowed().early.is_err() {
            return Ok(());
        }
        let started = Instant::now();
        let mut ahead = Vec::new();
        match &mut self.way {
            Way::Paned(paned) => paned.ahead(&mut ahead).map_err(QueryError::run)?,
            Way::Sifted(sifted) => sifted.ahead(&mut self.fed, &mut ahead).await?,
        }
        ahead.sort_by(|a, b| (a.slot, &a.held.entity).cmp(&(b.slot, &b.held.entity)));
        for Ahead { slot, held } in ahead {
            if self.open.contains_key(&held.entity) || self.early.contains_key(&held.entity) {
                continue;
            }
            self.early.insert(held.entity.clone(), slot);
            told.push(Told::Provisional(Run::new(held, self.slots.boundary(slot))));
        }
        self.usage.busy += started.elapsed();
        Ok(())
    }

    /// What a store said was provisional when the process ended.
    pub fn expect(&mut self, entity: Entity, first: Micros) {
        self.early.insert(entity, self.slots.floor(first));
    }

    /// Makes boundaries final up to `to`, at most `budget` of those at which something changes. True when some are left.
    pub async fn advance(
        &mut self,
        states: &States<'_>,
        to: Micros,
        budget: usize,
        told: &mut Vec<Told>,
    ) -> Result<bool, QueryError> {
        let started = Instant::now();
        let to = self.slots.floor(to);
        let watch = self.rule.windowed().early.is_ok();
        let more = match &mut self.way {
            Way::Paned(_) => self.step_panes(to, budget, watch, told),
            Way::Sifted(_) => self.step_sifted(states, to, budget, told).await,
        };
        if matches!(more, Ok(false)) {
            self.last = Some(self.last.map_or(to, |last| last.max(to)));
            self.retract_what_did_not_come(told);
            self.prolong(told);
        }
        self.usage.busy += started.elapsed();
        more
    }

    /// True when boundaries are left. What could not be evaluated is left out where it would have come or gone, and reported.
    fn step_panes(&mut self, to: i64, budget: usize, watch: bool, told: &mut Vec<Told>) -> Result<bool, QueryError> {
        let Way::Paned(paned) = &mut self.way else { return Ok(false) };
        let mut all = Vec::new();
        let steps = paned.step(to, budget, watch, &mut |slot, changes| all.push((slot, changes)));
        let more = paned.next_change().is_some_and(|slot| slot <= to);
        for (slot, changes) in all {
            self.apply(slot, changes, told);
            self.last = Some(slot);
        }
        if steps.map_err(QueryError::run)? > 0 {
            self.failures = 0;
        }
        Ok(more)
    }

    async fn step_sifted(
        &mut self,
        states: &States<'_>,
        to: i64,
        budget: usize,
        told: &mut Vec<Told>,
    ) -> Result<bool, QueryError> {
        let mut steps = 0;
        while let Some(slot) = self.next_change().filter(|slot| *slot <= to) {
            if steps == budget {
                return Ok(true);
            }
            steps += 1;
            let mut changes = Changes::default();
            if let Way::Sifted(sifted) = &mut self.way {
                sifted.step(states, slot, &mut changes, &mut self.fed).await?;
            }
            self.apply(slot, changes, told);
            self.last = Some(slot);
            self.failures = 0;
        }
        Ok(false)
    }

    /// Gives up on a boundary that keeps failing.
    pub fn skip(&mut self) {
        if let (Some(slot), Way::Sifted(sifted)) = (self.next_change(), &mut self.way) {
            sifted.begin(slot);
            sifted.give_up(slot);
            self.last = Some(slot);
        }
        self.failures = 0;
    }

    fn apply(&mut self, slot: i64, changes: Changes, told: &mut Vec<Told>) {
        let boundary = self.slots.boundary(slot);
        self.usage.null_entities += changes.null_entities;
        for held in changes.went_on {
            if let Some(open) = self.open.get_mut(&held.entity) {
                open.run.evidence.extend(held.evidence);
                open.run.evidence.sort();
                open.run.evidence.dedup();
            }
        }
        for entity in changes.ended {
            if let Some(Open { mut run, .. }) = self.open.remove(&entity) {
                run.last = self.slots.boundary(slot - 1);
                told.push(Told::Confirmed(run));
            }
        }
        for held in changes.began {
            self.settle(&held, slot, told);
            let run = Run::new(held, boundary);
            told.push(Told::Confirmed(run.clone()));
            self.usage.findings += 1;
            self.open.insert(run.entity.clone(), Open { run, told: boundary });
        }
    }

    /// A run begins where it was announced, or it was announced wrongly.
    fn settle(&mut self, held: &Held, slot: i64, told: &mut Vec<Told>) {
        if let Some(announced) = self.early.remove(&held.entity)
            && announced != slot
        {
            told.push(Told::Retracted { entity: held.entity.clone(), first: self.slots.boundary(announced) });
        }
    }

    fn retract_what_did_not_come(&mut self, told: &mut Vec<Told>) {
        let Some(last) = self.last else { return };
        let is_gone = |slot: &i64| *slot <= last && !fault::is(Fault::NotRetracted);
        let gone: Vec<Entity> = self.early.iter().filter(|(_, slot)| is_gone(slot)).map(|(e, _)| e.clone()).collect();
        for entity in gone {
            let slot = self.early.remove(&entity).expect("just found");
            if let Way::Sifted(sifted) = &mut self.way {
                sifted.settle_early(&entity);
            }
            told.push(Told::Retracted { entity, first: self.slots.boundary(slot) });
        }
    }

    /// A run that goes on is told again each window, so that its incident does not look quiet.
    fn prolong(&mut self, told: &mut Vec<Told>) {
        let Some(last) = self.last.map(|slot| self.slots.boundary(slot)) else { return };
        let window = self.rule.windowed().window.window_us;
        for open in self.open.values_mut() {
            open.run.last = last;
            if last.saturating_sub(open.told) >= window {
                open.told = last;
                told.push(Told::Confirmed(open.run.clone()));
            }
        }
    }

    /// Everything that is scheduled, final: the stream has ended.
    pub async fn finish(&mut self, states: &States<'_>, told: &mut Vec<Told>) -> Result<(), QueryError> {
        while let Some(slot) = self.next_change() {
            self.advance(states, self.slots.boundary(slot), usize::MAX, told).await?;
        }
        let open: Vec<Entity> = self.early.keys().cloned().collect();
        for entity in open {
            let slot = self.early.remove(&entity).expect("just listed");
            told.push(Told::Retracted { entity, first: self.slots.boundary(slot) });
        }
        Ok(())
    }

    /// Holds what it would hold had it seen all stored rows, with everything up to `start` final and told.
    /// With `up_to`, only rows before these offsets.
    pub async fn rebuild(
        &mut self,
        states: &States<'_>,
        base: &SessionContext,
        start: Micros,
        up_to: Option<&Offsets>,
    ) -> Result<(), QueryError> {
        let committed = up_to.and_then(before);
        let mut back = self.back();
        loop {
            let mut fresh = Live::new(base, self.rule.clone(), self.origin).await?;
            fresh.usage = self.usage;
            let reach = fresh.reach(start, back);
            fresh.read(states.stored, (reach.from, Micros::MAX), committed.clone()).await?;
            if reach.oldest < reach.from {
                let stamped = col(column::SOURCE_WATERMARK).gt_eq(instant(start));
                let stamped = committed.clone().into_iter().fold(stamped, Expr::and);
                fresh.read(states.stored, (reach.oldest, reach.from), Some(stamped)).await?;
            }
            if fresh.catch_up_to(states, start, back).await? {
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
        let window = self.rule.windowed().window;
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
    ) -> Result<bool, QueryError> {
        if start == Micros::MIN {
            return Ok(true);
        }
        self.advance(states, start, usize::MAX, &mut Vec::new()).await?;
        let begun = self.slots.boundary(self.slots.floor(start) - back + 1);
        let cut = self.open.values().any(|open| open.run.first <= begun) && !fault::is(Fault::BeginsAtRestart);
        if cut && back < LOOKBACK_SLOTS_MAX {
            return Ok(false);
        }
        if cut {
            tracing::warn!(rule = %self.rule.id, "open runs began before the look-back limit");
        }
        let last = self.slots.floor(start);
        self.late.retain(|at, _| *at > last);
        self.usage.findings = 0;
        self.open.values_mut().for_each(|open| open.told = open.run.last);
        Ok(true)
    }

    /// What of a stored table this rule looks at: (relation, part).
    pub(super) fn parts_of(&self, table: &str) -> Vec<(usize, usize)> {
        self.parts(table)
    }

    /// Rows of a stored table, those that [`Live::reach`] asked for.
    pub(super) fn take_stored(
        &mut self,
        table: &str,
        batch: &RecordBatch,
        choices: &mut Choices,
        (start, reach, until): (Micros, Reach, Micros),
    ) -> Result<(), QueryError> {
        let rule = self.rule.clone();
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
        parts.into_iter().flat_map(|(r, p)| part_of(&self.rule, r, p).columns().to_vec()).collect()
    }

    /// For rules that look ahead: everything is new after a rebuild.
    pub fn watch_all(&mut self) {
        if self.rule.windowed().early.is_ok() {
            match &mut self.way {
                Way::Paned(paned) => paned.watch_all(),
                Way::Sifted(sifted) => sifted.watch_all(&mut self.fed),
            }
        }
    }

    /// A bounded stream of stored rows from its first boundary to its last, in stretches of time. With `range`, only the
    /// boundaries that rows with times in it can touch.
    pub async fn replay(
        &mut self,
        states: &States<'_>,
        range: Option<(Micros, Micros)>,
        told: &mut Vec<Told>,
    ) -> Result<(), QueryError> {
        let window = self.rule.windowed().window;
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
            self.advance(states, to, usize::MAX, told).await?;
            from = to;
        }
        match range {
            Some((_, to)) => {
                self.advance(states, window.last_reaching(to), usize::MAX, told).await?;
                told.extend(self.open.values().map(|open| Told::Confirmed(open.run.clone())));
                Ok(())
            }
            None => self.finish(states, told).await,
        }
    }

    /// The times of the first and last stored row that can matter.
    async fn edges(&self, stored: &SessionContext) -> Result<Option<(Micros, Micros)>, QueryError> {
        let mut edges: Option<(Micros, Micros)> = None;
        let legs = self.rule.windowed().sieves.legs().len();
        // Of the others it only matters that they speak.
        for (_, _, part) in all_parts(&self.rule).into_iter().filter(|(leg, ..)| *leg < legs) {
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
        let rule = self.rule.clone();
        for (relation, table, part) in all_parts(&rule) {
            let mut batches = Vec::new();
            let keep = |rows: Rows| -> datafusion::error::Result<()> {
                batches.push(rows);
                Ok(())
            };
            let read = part.read(stored, range, also.clone(), self.origin, self.slots, keep);
            read.await.map_err(QueryError::run)?;
            for rows in batches {
                self.take(&table, relation, rows, false)?;
            }
        }
        Ok(())
    }

    pub fn usage(&self) -> Usage {
        let bytes = match &self.way {
            Way::Paned(paned) => paned.bytes(),
            Way::Sifted(sifted) => sifted.bytes(),
        };
        Usage { state_bytes: bytes as u64, ..self.usage }
    }
}

fn part_of(rule: &Rule, relation: usize, part: usize) -> &Part {
    match &rule.windowed().shape {
        Ok(shape) => &shape.parts[part].input,
        Err(_) => &rule.windowed().sieves.sieves[relation].parts[part],
    }
}

/// (relation, stored table, part) of the way that the rule goes.
fn all_parts(rule: &Rule) -> Vec<(usize, String, &Part)> {
    match &rule.windowed().shape {
        Ok(shape) => shape.parts.iter().map(|p| (0, p.input.table.clone(), &p.input)).collect(),
        Err(_) => {
            let relations = rule.windowed().sieves.sieves.iter().enumerate();
            relations.flat_map(|(r, s)| s.parts.iter().map(move |p| (r, p.table.clone(), p))).collect()
        }
    }
}
