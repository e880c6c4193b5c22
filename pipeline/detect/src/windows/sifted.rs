//! A rule over its sieved window: joins, absence, window functions, whatever DataFusion plans. The rows that can matter
//! are kept; the plan runs at boundaries at which a row appears or disappears, and between them nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use event::{Micros, Origin, TableSchema, column};
use query::{Prepared, QueryError, SwapTable};

use super::compact::compact;
use super::input::{Part, Sifted as Rows};
use super::joined::{Joined, Known, joined};
use super::legs::{Empty, Leg, Split, split};
use super::links::{self, Partners, Place};
use super::live::{LATE_US_MAX, STATE_BYTES_MAX};
use super::silence::Speaking;
use super::slots::Span;
use super::{Ahead, Changes, Fed, Slots};
use crate::fault::{self, Fault};
use crate::memory::{Memory, StateTable, States};
use crate::oracle::{self, Entity, Held};
use crate::plan::empty_tables;
use crate::rule::Rule;

/// Early looks per batch: boundaries ahead beyond these are looked at when more rows come, or when they are final.
const AHEAD_MAX: usize = 16;

/// A look ahead at state tables reads all of them. One that takes longer rests for so many times as long: rules are early
/// while their tables are small, and final in any case.
const LOOK_LIGHT: Duration = if cfg!(test) { Duration::MAX } else { Duration::from_millis(5) };
const LOOK_SHARE: u32 = 10;

/// Batches kept apart; more are made one.
const CHUNKS_MAX: usize = 64;

/// What loading made of a rule's legs.
#[derive(Debug)]
pub struct Sieves {
    /// Optimized, over the tables and views that the rule names.
    plan: LogicalPlan,
    /// One per leg, then one per relation whose silence matters.
    pub sieves: Vec<Sieve>,
    legs: usize,
    empty: Empty,
    distributes: bool,
    /// By leg, what joins demand of its rows.
    places: Vec<Vec<Place>>,
    links: usize,
}

#[derive(Debug)]
pub struct Sieve {
    pub relation: String,
    pub parts: Vec<Part>,
    /// `None`: every row can matter.
    pub filter: Option<String>,
}

impl Sieves {
    pub async fn compile(
        base: &SessionContext,
        schemas: &[Arc<TableSchema>],
        plan: LogicalPlan,
        tables: &[String],
        states: &[Arc<StateTable>],
        absent: &[String],
    ) -> Result<Sieves, QueryError> {
        let fixed = fixed(base, states);
        let Split { legs, empty, distributes, links, .. } =
            split(&plan, &fixed, &mut |_, leg| SwapTable::new(leg.schema.clone()).provider())
                .map_err(QueryError::run)?;
        let places = links::places(&base.state(), &links, &legs).map_err(QueryError::run)?;
        let mut sieves = Vec::with_capacity(legs.len());
        let count = legs.len();
        for leg in legs.into_iter().chain(absent.iter().map(|name| any_row_of(name))) {
            let mut sieve = Sieve {
                relation: leg.relation.clone(),
                parts: Vec::new(),
                filter: leg.filter.as_ref().map(ToString::to_string),
            };
            for schema in schemas.iter().filter(|s| tables.contains(&s.name)) {
                let ctx = empty_tables(base, std::slice::from_ref(schema))?;
                // A view over other tables is not there when only this one is.
                let Ok(frame) = ctx.table(leg.relation.as_str()).await else { continue };
                let rows = select(frame, &leg).map_err(QueryError::run)?;
                let state = ctx.state();
                let plan = state.optimize(rows.logical_plan()).map_err(QueryError::run)?;
                if let Some(part) = Part::of(&state, schema, &plan).map_err(QueryError::run)? {
                    part.try_on_nothing(schema).map_err(QueryError::run)?;
                    sieve.parts.push(part);
                }
            }
            sieves.push(sieve);
        }
        Ok(Sieves { plan, sieves, legs: count, empty, distributes, places, links: links.len() })
    }

    pub fn legs(&self) -> &[Sieve] {
        &self.sieves[..self.legs]
    }

    fn absent(&self) -> usize {
        self.sieves.len() - self.legs
    }
}

/// What a rule may name that has no events.
pub fn fixed(base: &SessionContext, states: &[Arc<StateTable>]) -> impl Fn(&str) -> bool + use<> {
    let (lookups, states) = (query::lookups(base), states.to_vec());
    move |name| lookups.contains(name) || states.iter().any(|state| state.name == name)
}

/// Every row of a relation, for when it is rather than for what it says.
fn any_row_of(relation: &str) -> Leg {
    let time = Field::new(column::TIME, DataType::Null, true);
    Leg { relation: relation.to_owned(), schema: Arc::new(Schema::new(vec![time])), filter: None }
}

/// The rows and columns that can matter to a leg.
fn select(frame: DataFrame, leg: &Leg) -> datafusion::error::Result<DataFrame> {
    let frame = match &leg.filter {
        Some(filter) => frame.filter(filter.clone())?,
        None => frame,
    };
    let columns = leg.schema.fields().iter().map(|f| Expr::Column(Column::new_unqualified(f.name())));
    frame.select(columns.collect::<Vec<_>>())
}

/// Rows that came together.
struct Chunk {
    rows: RecordBatch,
    spans: Vec<Span>,
    /// By place of their leg, the rows' keys.
    hashes: Vec<Vec<u64>>,
    linked: Linked,
    /// The first and the last boundary that see any of them.
    first: i64,
    last: i64,
    /// Came since the last early look.
    fresh: bool,
}

/// Which rows have partners in all links that need them, as of some versions of the links.
#[derive(Default)]
struct Linked {
    versions: Vec<u64>,
    rows: Vec<bool>,
    any: bool,
}

impl Chunk {
    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.hashes.iter().map(|h| h.len() * size_of::<u64>()).sum::<usize>()
    }

    fn link(&mut self, places: &[Place], partners: &[Partners]) {
        let needing = || places.iter().enumerate().filter(|(_, place)| place.needs);
        let versions = needing().map(|(_, place)| partners[place.link].version(place.side));
        if self.linked.rows.len() == self.spans.len() && versions.clone().eq(self.linked.versions.iter().copied()) {
            return;
        }
        let mut rows = vec![true; self.spans.len()];
        for (at, place) in needing() {
            let partnered = partners[place.link].have(place.side, &self.hashes[at]);
            rows.iter_mut().zip(partnered).for_each(|(row, partnered)| *row &= partnered);
        }
        let any = rows.contains(&true);
        self.linked = Linked { versions: versions.collect(), rows, any };
    }

    /// The rows that any boundary in a range sees, of those that have their partners.
    fn seen(&self, slot: i64, last: i64) -> Result<Option<RecordBatch>, QueryError> {
        if self.last < slot || !self.linked.any {
            return Ok(None);
        }
        let is_seen = |s: &Span| s.is_seen() && s.enter <= last && slot <= s.leave;
        let rows = self.spans.iter().zip(&self.linked.rows);
        let mask: BooleanArray = rows.map(|(span, linked)| Some(*linked && is_seen(span))).collect();
        match mask.true_count() {
            0 => Ok(None),
            all if all == self.spans.len() => Ok(Some(self.rows.clone())),
            _ => filter_record_batch(&self.rows, &mask).map(Some).map_err(|e| QueryError::run(e.into())),
        }
    }
}

pub struct Sifted {
    rule: Arc<Rule>,
    sieves: Arc<Sieves>,
    plan: Prepared,
    tables: Vec<SwapTable>,
    joined: Vec<Joined>,
    origin: Origin,
    chunks: Vec<Vec<Chunk>>,
    /// By link.
    partners: Vec<Partners>,
    /// By relation whose silence matters.
    speaking: Vec<Speaking>,
    /// Boundaries at which the rows seen change.
    agenda: BTreeSet<i64>,
    slots: Slots,
    /// The last boundary that first sees any row.
    head: i64,
    now: i64,
    holding: BTreeMap<Entity, Held>,
    early: BTreeSet<Entity>,
    /// Boundaries ahead at which versions of its state tables are first seen.
    versions: BTreeSet<i64>,
    /// No look at state tables ahead of the final boundary until then.
    rests: Option<Instant>,
    bytes: usize,
}

impl Sifted {
    pub async fn new(
        base: &SessionContext,
        rule: &Arc<Rule>,
        slots: Slots,
        origin: Origin,
    ) -> Result<Sifted, QueryError> {
        let windowed = rule.windowed();
        let (sieves, states) = (windowed.sieves.clone(), &windowed.states);
        let (plan, joined) = joined(&sieves.plan, states).map_err(QueryError::run)?;
        let mut tables = Vec::new();
        let split = split(&plan, &fixed(base, states), &mut |_, leg| {
            let table = SwapTable::new(leg.schema.clone());
            tables.push(table.clone());
            table.provider()
        });
        let plan = query::prepare(&query::fork(base), split.map_err(QueryError::run)?.plan).await?;
        let chunks = sieves.legs().iter().map(|_| Vec::new()).collect();
        let speaking = (0..sieves.absent()).map(|_| Speaking::default()).collect();
        let partners = (0..sieves.links).map(|_| Partners::default()).collect();
        Ok(Sifted {
            rule: rule.clone(),
            sieves,
            plan,
            tables,
            joined,
            origin,
            chunks,
            partners,
            speaking,
            agenda: BTreeSet::new(),
            slots,
            head: i64::MIN,
            now: i64::MIN,
            holding: BTreeMap::new(),
            early: BTreeSet::new(),
            versions: BTreeSet::new(),
            rests: None,
            bytes: 0,
        })
    }

    pub fn begin(&mut self, slot: i64) {
        self.now = slot;
    }

    /// The parts that read a stored table, as (leg, part).
    pub fn parts(&self, table: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (leg, sieve) in self.sieves.sieves.iter().enumerate() {
            found.extend(sieve.parts.iter().enumerate().filter(|(_, p)| p.table == table).map(|(p, _)| (leg, p)));
        }
        found
    }

    pub fn feed(&mut self, relation: usize, sifted: Rows, watch: bool, fed: &mut Fed) {
        if let Some(of) = relation.checked_sub(self.sieves.legs) {
            let mut before = None;
            for span in sifted.spans.iter().filter(|span| span.is_seen()) {
                // Neighbours mostly have the same.
                if before.replace(*span) != Some(*span) {
                    self.speaking[of].add(span.enter, span.leave);
                }
            }
            return;
        }
        let count = sifted.rows.num_rows();
        let seen = sifted.spans.iter().filter(|s| s.is_seen() && s.leave > self.now);
        let ends = seen.map(|s| (s.enter, s.leave)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let Some((first, last)) = ends else { return };
        let places = &self.sieves.places[relation];
        let hashes = places.iter().map(|place| place.hashes(&sifted.rows)).collect();
        // Types are as they were, so that it cannot fail; if it does, the rows are only larger.
        let rows = compact(&sifted.rows).unwrap_or(sifted.rows);
        let chunk = Chunk { rows, spans: sifted.spans, hashes, linked: Linked::default(), first, last, fresh: true };
        if self.bytes() + chunk.bytes() > STATE_BYTES_MAX {
            fed.refused += count as u64;
            return;
        }
        fed.kept += count as u64;
        for span in chunk.spans.iter().filter(|s| s.is_seen() && s.leave > self.now) {
            self.agenda.insert(span.enter.max(self.now.saturating_add(1)));
            if !fault::is(Fault::LeaveNotEvaluated) {
                self.agenda.insert(span.leave + 1);
            }
            if watch {
                fed.slots.insert(span.enter);
                fed.until = fed.until.max(span.leave);
            }
            self.head = self.head.max(span.enter);
        }
        self.bytes += chunk.bytes();
        for (place, hashes) in places.iter().zip(&chunk.hashes) {
            self.partners[place.link].add(place.side, hashes);
        }
        self.chunks[relation].push(chunk);
        self.merge_chunks(relation);
    }

    fn merge_chunks(&mut self, relation: usize) {
        let chunks = &mut self.chunks[relation];
        if chunks.len() <= CHUNKS_MAX {
            return;
        }
        let schema = chunks[0].rows.schema();
        if let Ok(rows) = concat_batches(&schema, chunks.iter().map(|c| &c.rows)) {
            let spans = chunks.iter().flat_map(|c| c.spans.iter().copied()).collect();
            let first = chunks.iter().map(|c| c.first).min().unwrap_or(i64::MAX);
            let last = chunks.iter().map(|c| c.last).max().unwrap_or(i64::MIN);
            let fresh = chunks.iter().any(|c| c.fresh);
            let of_place = |place: usize| chunks.iter().flat_map(|c| c.hashes[place].iter().copied()).collect();
            let hashes = (0..chunks[0].hashes.len()).map(of_place).collect();
            *chunks = vec![Chunk { rows, spans, hashes, linked: Linked::default(), first, last, fresh }];
            self.count_bytes();
        }
    }

    fn count_bytes(&mut self) {
        self.bytes = self.chunks.iter().flatten().map(Chunk::bytes).sum();
    }

    pub fn next_change(&self) -> Option<i64> {
        // Versions come and go at any boundary.
        let next = self.now.saturating_add(1);
        let is_seen = |c: &Chunk| c.first <= next && next <= c.last;
        let any = self.joins_states() && self.chunks.iter().flatten().any(is_seen);
        let turns = self.speaking.iter().filter_map(|s| s.next_turn(self.now));
        let turns = turns.filter(|_| !fault::is(Fault::SilenceNotSeen)).chain(any.then_some(next));
        self.agenda.first().copied().into_iter().chain(turns).min()
    }

    pub fn joins_states(&self) -> bool {
        !self.joined.is_empty() && !fault::is(Fault::StateStandsStill)
    }

    /// Whether a row of this relation that is seen by these boundaries cannot change a thing: others say as much.
    pub fn adds_nothing(&self, relation: usize, (first, last): (i64, i64)) -> bool {
        relation.checked_sub(self.sieves.legs).is_some_and(|of| self.speaking[of].covers(first, last))
    }

    pub async fn step(
        &mut self,
        states: &States<'_>,
        slot: i64,
        changes: &mut Changes,
        fed: &mut Fed,
    ) -> Result<(), QueryError> {
        let held = self.answer(states, slot, &mut changes.null_entities).await?;
        self.now = slot;
        self.agenda = self.agenda.split_off(&(slot + 1));
        self.forget();
        let before = std::mem::take(&mut self.holding);
        for held in held {
            self.early.remove(&held.entity);
            match before.get(&held.entity) {
                None => changes.began.push(held.clone()),
                Some(_) if !held.evidence.is_empty() => changes.went_on.push(held.clone()),
                Some(_) => {}
            }
            self.holding.insert(held.entity.clone(), held);
        }
        let ended = changes.ended.len();
        changes.ended.extend(before.into_keys().filter(|entity| !self.holding.contains_key(entity)));
        if changes.ended.len() > ended {
            // What was hidden behind it may hold further ahead.
            fed.slots.extend(self.enters_ahead());
            fed.until = self.head;
            fed.hidden = true;
        }
        Ok(())
    }

    /// What the SELECT returns at a boundary.
    pub async fn answer(&mut self, states: &States<'_>, slot: i64, nulls: &mut u64) -> Result<Vec<Held>, QueryError> {
        self.evaluate(Known::Final(states), (slot, slot), None, nulls).await
    }

    /// The same over the rows that any boundary of a range sees; of a rule that joins no state table.
    /// With `fresh`, only the new ones of that leg.
    pub async fn answer_over(
        &mut self,
        slot: i64,
        last: i64,
        fresh: Option<usize>,
        nulls: &mut u64,
    ) -> Result<Vec<Held>, QueryError> {
        self.evaluate(Known::Nothing, (slot, last), fresh, nulls).await
    }

    async fn evaluate(
        &mut self,
        known: Known<'_>,
        (slot, last): (i64, i64),
        fresh: Option<usize>,
        nulls: &mut u64,
    ) -> Result<Vec<Held>, QueryError> {
        if self.speaking.iter().any(|s| !s.covers(slot, last)) {
            return Ok(Vec::new());
        }
        let mut empty = Vec::with_capacity(self.tables.len());
        for leg in 0..self.tables.len() {
            let seen = self.seen_in(leg, slot, last, fresh == Some(leg))?;
            empty.push(seen.is_empty());
            self.tables[leg].set(seen);
        }
        // A rule that finds something in nothing was refused.
        let nothing_fresh = fresh.is_some_and(|leg| empty[leg]);
        let nothing = empty.iter().all(|leg| *leg) || self.sieves.empty.is(&|leg| empty[leg]);
        if nothing_fresh || nothing || (fault::is(Fault::SieveOfAll) && empty.contains(&true)) {
            self.tables.iter().for_each(|table| table.set(Vec::new()));
            return Ok(Vec::new());
        }
        let boundary = self.slots.boundary(slot);
        let batches = match self.join(known, boundary).await {
            Ok(true) => self.plan.collect(oracle::LIMITS).await,
            Ok(false) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        self.tables.iter().for_each(|table| table.set(Vec::new()));
        self.joined.iter().for_each(Joined::clear);
        let answer = oracle::merge(&self.rule, &batches?, boundary).map_err(QueryError::run)?;
        *nulls += answer.null_entities;
        Ok(answer.held)
    }

    /// State tables as a boundary sees them. False if they are not at hand: then nothing is said about it yet.
    async fn join(&self, known: Known<'_>, boundary: Micros) -> Result<bool, QueryError> {
        let since = boundary.saturating_sub(self.rule.windowed().window.window_us);
        for joined in &self.joined {
            if !joined.fill(known, self.origin, (since, boundary)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A leg's rows that any boundary in a range sees.
    fn seen_in(&mut self, leg: usize, slot: i64, last: i64, fresh: bool) -> Result<Vec<RecordBatch>, QueryError> {
        let places = &self.sieves.places[leg];
        let mut seen = Vec::new();
        for chunk in self.chunks[leg].iter_mut().filter(|c| c.last >= slot && (c.fresh || !fresh)) {
            chunk.link(places, &self.partners);
            seen.extend(chunk.seen(slot, last)?);
        }
        Ok(seen)
    }

    /// Rows that no boundary ahead sees.
    fn forget(&mut self) {
        let now = self.now;
        let remembered = now.saturating_sub(self.slots.slots_of(LATE_US_MAX));
        self.speaking.iter_mut().for_each(|s| s.forget(remembered));
        self.versions = self.versions.split_off(&now.saturating_add(1));
        let mut gone = false;
        for (chunks, places) in self.chunks.iter_mut().zip(&self.sieves.places) {
            for chunk in chunks.extract_if(.., |c| c.last <= now) {
                gone = true;
                for (place, hashes) in places.iter().zip(&chunk.hashes) {
                    self.partners[place.link].remove(place.side, hashes);
                }
            }
        }
        if gone {
            self.count_bytes();
        }
    }

    pub async fn ahead(&mut self, memory: &Memory, fed: &mut Fed, ahead: &mut Vec<Ahead>) -> Result<(), QueryError> {
        match self.joined.is_empty() {
            true => self.ahead_of_rows(fed, ahead).await,
            false => self.ahead_of_states(memory, fed, ahead).await,
        }
    }

    async fn ahead_of_rows(&mut self, fed: &mut Fed, ahead: &mut Vec<Ahead>) -> Result<(), QueryError> {
        let Some(first) = fed.slots.first().copied() else { return Ok(()) };
        // A new row may complete something with one that enters after it.
        let last = fed.until.min(self.head).max(first);
        let mut ahead_of = self.agenda.range(first..=last).copied();
        let slots: Vec<i64> = ahead_of.by_ref().take(AHEAD_MAX).collect();
        let left = ahead_of.next();
        let mut nulls = 0;
        // More rows only add findings: what does not hold over all of them holds at none of these boundaries.
        let new = match (slots.first(), slots.last()) {
            (Some(first), Some(last)) => self.anything_new(*first, *last, fed.hidden, &mut nulls).await,
            _ => Ok(false),
        };
        self.looked(left, fed);
        if new? {
            for slot in slots {
                self.look_at(slot, Known::Nothing, ahead).await?;
            }
        }
        Ok(())
    }

    /// With state tables as they are known by now: at each boundary they say something else. What comes of them is looked
    /// for where rows of the window come or go, and where versions are first seen. What there is no time for, or what is
    /// not at hand yet, is looked at by a later call.
    async fn ahead_of_states(
        &mut self,
        memory: &Memory,
        fed: &mut Fed,
        ahead: &mut Vec<Ahead>,
    ) -> Result<(), QueryError> {
        let came = self.joined.iter().flat_map(|joined| joined.came(memory));
        let came: Vec<i64> = came.map(|time| sees(self.slots, time)).filter(|slot| *slot > self.now).collect();
        fed.slots.extend(came.iter().copied());
        self.versions.extend(came);
        fed.slots.retain(|slot| *slot > self.now);
        let rests = self.rests.is_some_and(|until| Instant::now() < until);
        if rests || !self.joined.iter().all(|joined| joined.is_known(memory)) {
            return Ok(());
        }
        let Some(first) = fed.slots.first().copied() else { return Ok(()) };
        let until = first..=self.head.max(first);
        let mut left = std::mem::take(&mut fed.slots);
        left.extend(self.agenda.range(until.clone()).chain(self.versions.range(until)));
        let (started, mut looks) = (Instant::now(), 0);
        let outcome = loop {
            let Some(slot) = left.pop_first() else { break Ok(()) };
            if looks == AHEAD_MAX || started.elapsed() > LOOK_LIGHT {
                left.insert(slot);
                break Ok(());
            }
            looks += 1;
            if let Err(error) = self.look_at(slot, Known::AtHand(memory), ahead).await {
                break Err(error);
            }
        };
        let took = started.elapsed();
        self.rests = (took > LOOK_LIGHT).then(|| Instant::now() + took * LOOK_SHARE);
        self.looked(None, fed);
        fed.slots = left;
        outcome
    }

    /// Rows are known to have been looked at, but for boundaries from `left` on.
    fn looked(&mut self, left: Option<i64>, fed: &mut Fed) {
        self.chunks.iter_mut().flatten().for_each(|chunk| chunk.fresh = false);
        fed.slots.clear();
        if let Some(left) = left {
            fed.slots.insert(left);
            fed.hidden = true;
        } else {
            (fed.until, fed.hidden) = (0, false);
        }
    }

    async fn look_at(&mut self, slot: i64, known: Known<'_>, ahead: &mut Vec<Ahead>) -> Result<(), QueryError> {
        for held in self.evaluate(known, (slot, slot), None, &mut 0).await? {
            if !self.holding.contains_key(&held.entity) && self.early.insert(held.entity.clone()) {
                ahead.push(Ahead { slot, held });
            }
        }
        Ok(())
    }

    /// Whether an entity that is not known yet holds over all rows that any of the boundaries sees.
    async fn anything_new(&mut self, first: i64, last: i64, hidden: bool, nulls: &mut u64) -> Result<bool, QueryError> {
        if hidden || !self.sieves.distributes {
            return Ok(first == last || self.any_new_in(first, last, None, nulls).await?);
        }
        for leg in 0..self.chunks.len() {
            if self.chunks[leg].iter().any(|c| c.fresh) && self.any_new_in(first, last, Some(leg), nulls).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn any_new_in(
        &mut self,
        first: i64,
        last: i64,
        fresh: Option<usize>,
        nulls: &mut u64,
    ) -> Result<bool, QueryError> {
        let found = self.answer_over(first, last, fresh, nulls).await?;
        Ok(found.iter().any(|h| !self.holding.contains_key(&h.entity) && !self.early.contains(&h.entity)))
    }

    fn enters_ahead(&self) -> impl Iterator<Item = i64> {
        let enters = self.chunks.iter().flatten().flat_map(|c| c.spans.iter().map(|s| s.enter));
        enters.filter(|slot| *slot > self.now)
    }

    pub fn watch_all(&mut self, memory: &Memory, fed: &mut Fed) {
        let now = self.slots.boundary(self.now);
        let seen = self.joined.iter().flat_map(|joined| joined.seen_after(memory, now));
        let seen: Vec<i64> = seen.map(|time| sees(self.slots, time)).collect();
        self.versions.extend(seen);
        self.watch_ahead(fed);
    }

    fn watch_ahead(&self, fed: &mut Fed) {
        fed.slots.extend(self.enters_ahead());
        fed.slots.insert(self.now.saturating_add(1));
        fed.until = self.head;
        fed.hidden = true;
    }

    /// Without rows again.
    pub fn clear(&mut self) {
        self.chunks.iter_mut().for_each(Vec::clear);
        self.partners.iter_mut().for_each(Partners::clear);
        self.speaking.iter_mut().for_each(Speaking::clear);
        self.agenda.clear();
        self.bytes = 0;
    }

    /// The boundaries at which what is seen changes.
    pub fn turns(&self) -> impl Iterator<Item = i64> {
        self.agenda.iter().copied().chain(self.speaking.iter().flat_map(Speaking::turns))
    }

    /// Leaves a boundary out.
    pub fn give_up(&mut self, slot: i64) {
        self.agenda = self.agenda.split_off(&(slot + 1));
    }

    /// What was found ahead of time did not come. Without new rows it may hold further ahead, if it joins state tables.
    pub fn settle_early(&mut self, entity: &Entity, fed: &mut Fed) {
        self.early.remove(entity);
        if !self.joined.is_empty() {
            self.watch_ahead(fed);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes + self.partners.iter().map(Partners::bytes).sum::<usize>()
    }
}

/// The first boundary that sees what lies before a time.
fn sees(slots: Slots, time: Micros) -> i64 {
    slots.floor(time.saturating_sub(1)).saturating_add(1)
}
