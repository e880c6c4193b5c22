//! What detection remembers longer than a batch: `first_seen` and state tables.
//!
//! A rule without a window may, besides conditions on its row alone, ask two things of the past.
//!
//! **`first_seen(I, k…)`** is true for a row `e` if no other row that meets the rule's other conditions on the row
//! alone (those of WHERE; joins do not count) has equal `k` and lies in `[e.time - I, e)`. Rows are ordered by (time,
//! event_uid). A row with a NULL in `k` is never new.
//!
//! **A state table** ([`state`]) gives what held at the row's time: the join is `=` on its key and
//! `e.time >= s.valid_from AND e.time < s.valid_to`, inner or left.
//!
//! **What a row sees** is a fact of the data. Let `b(e) = max(e.time, e.source_watermark) + 1us`. A remembered row `s`
//! is visible to `e` if it has the same origin, (s.time, s.event_uid) is not after (e.time, e.event_uid), and
//! `s.source_watermark < b(e)`. Nothing else counts: not when rows were read, in which batches, or what happened in
//! between.
//!
//! **Early and final.** A row that fires by what is known when it is let in gives a provisional finding at once. When
//! the committed watermarks of all the rule's sources (those of its state tables too) have reached `b(e)`, whatever
//! comes later is stamped at or above `b(e)` and invisible, so that what the row sees is complete: the finding is
//! said again as confirmed or retracted, under its id; a row that did not fire before may then, for a version that came
//! later. (A row that is not new when it comes cannot become so: that an earlier row is visible is a fact.) Nothing is
//! final at admission, however late a row is: its stamp is a fact only once it is committed, and a crash before that
//! gives it another one. Rows of an import are judged once, when the import ends: there is nothing to be early for.
//!
//! **Memory is a function of the store.** The frontier keeps, per rule, the boundary up to which judgements are final.
//! On a start the stored rows that can still matter are read again ([`Memory::rebuild`]): what `first_seen` looks back
//! on, all versions, and the events whose boundary lies above the frontier's. Rows not yet committed come again by
//! admission. To remember a row twice changes nothing, so that it does not matter what a crash lets come twice. What state
//! tables remember of all that is stored is also kept on disk, as of some offsets ([`derived`]); then only what came since
//! is read. What rows said that retention has removed is kept apart ([`retained`]).
//!
//! **Limits.** A rule or state table that needs more memory than [`RULE_BYTES_MAX`] or [`STATE_BYTES_MAX`] stops,
//! alone and visibly: it never forgets what it needs. What is too old to be needed is dropped, and a row so late that
//! it would need it is judged from the store ([`seen`], [`versions`]).

mod begin;
mod derived;
mod disk;
mod finding;
mod import;
mod judge;
mod mark;
mod retained;
mod seen;
mod shape;
mod sieve;
pub mod state;
mod tables;
mod versions;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility};
use event::{Finding, Frontier, Micros, Offsets, Origin, Watermarks};

pub use derived::Derived;
pub(crate) use judge::{Remembering, compile};
pub use retained::{Folded, Going, Retained};
pub(crate) use shape::{asks_what_is_new, remembers};
pub use state::StateTable;
pub use tables::{States, versions_stored};

use begin::{Begin, load_begin, note_begin};
use derived::Came;
use import::judge_import;
use mark::Mark;
pub(crate) use versions::ENDED_US;
use versions::Versions;
use watch::{Outcome, Shared, Watch};

use crate::engine::watermark;
use crate::parallel::each;
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use crate::value::sql_time;

/// What one rule may remember. A million keys take some 100 MB. Less in tests, so that they can reach it.
pub const RULE_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// What one state table may remember, for all rules that join it.
pub const STATE_BYTES_MAX: usize = if cfg!(test) { 2 << 20 } else { 512 << 20 };

/// History that a source must have before what is new in it is worth a page.
pub const LEARNING_DEFAULT_US: i64 = 7 * 86_400_000_000;

/// What more versions at once complete in windows is found when it is final.
const CAME_MAX: usize = 10_000;

/// How far a rule may be behind the source of a state table and still be answered from memory.
const BEHIND_US: i64 = 7 * 86_400_000_000;

/// What a call found, per rule how it fared, and how far judgements are final.
#[derive(Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub boundaries: BTreeMap<String, Micros>,
    /// Rules that were evaluated, with the reason if that failed.
    pub fared: Vec<(Arc<Rule>, Option<String>)>,
    /// More is final than was judged.
    pub pending: bool,
}

impl Report {
    fn add(&mut self, rule: &Arc<Rule>, outcome: Outcome) {
        count(outcome.null_entities, "stakeout_rule_null_entity_total", rule);
        count(outcome.null_keys, "stakeout_rule_null_key_total", rule);
        count(outcome.new, "stakeout_rule_findings_total", rule);
        self.findings.extend(outcome.findings);
        self.fared.push((rule.clone(), outcome.failed));
    }
}

fn count(rows: u64, name: &'static str, rule: &Rule) {
    if rows > 0 {
        metrics::counter!(name, "rule" => rule.id.clone()).increment(rows);
    }
}

/// Memory of all rules of an engine, over live rows.
pub struct Memory {
    watches: Vec<Watch>,
    tables: Vec<Arc<StateTable>>,
    states: BTreeMap<String, Versions>,
    /// Of state tables that windows join: times from which on versions can be seen that came since windows last looked ahead.
    came: BTreeMap<String, BTreeSet<Micros>>,
    begins: BTreeMap<String, Begin>,
    /// State tables and histories that what is stored has been read for.
    loaded: BTreeSet<String>,
    begins_loaded: bool,
    /// State tables that needed too much.
    stopped: BTreeSet<String>,
    bundle: String,
    context: String,
    derived: Option<Arc<Derived>>,
    /// What was stored when it was rebuilt.
    committed: Offsets,
}

impl Memory {
    /// `frontier` gets the boundaries of rules it does not know: they start at what is committed.
    pub fn new(rules: &RuleSet, frontier: &mut Frontier, committed: &Watermarks) -> Memory {
        let mut watches = Vec::new();
        let mut begins = BTreeMap::new();
        for rule in &rules.rules {
            let Body::Remembering(body) = &rule.body else { continue };
            let start = watermark(rule, committed);
            let settled = *frontier.boundaries.entry(rule.id.clone()).or_insert(start);
            if body.learning_us > 0 {
                body.sieve.tables.iter().for_each(|t| drop(begins.insert(t.to_string(), Begin::default())));
            }
            watches.push(Watch::new(rule.clone(), body.clone(), settled));
        }
        let tables: Vec<Arc<StateTable>> = rules.states.iter().filter(|state| rules.joins(state)).cloned().collect();
        let states = tables.iter().map(|s| (s.name.clone(), Versions::default())).collect();
        let windowed = rules.rules.iter().filter(|rule| rule.window.is_some());
        let came = windowed.flat_map(|rule| &rule.states).map(|name| (name.clone(), BTreeSet::new())).collect();
        Memory {
            watches,
            tables,
            states,
            came,
            begins,
            loaded: BTreeSet::new(),
            begins_loaded: false,
            stopped: BTreeSet::new(),
            bundle: rules.bundle.clone(),
            context: rules.context.clone(),
            derived: None,
            committed: Offsets::default(),
        }
    }

    /// Where state tables are kept for the next start.
    pub fn keep_in(&mut self, derived: Arc<Derived>) {
        self.derived = Some(derived);
    }

    /// Takes over the state tables that are what they were.
    pub fn inherit(&mut self, before: Memory) {
        self.derived = before.derived;
        let version =
            |tables: &[Arc<StateTable>], name: &str| tables.iter().find(|s| s.name == name).map(|s| s.version.clone());
        for (name, versions) in before.states {
            let is_same = version(&self.tables, &name) == version(&before.tables, &name);
            let is_whole = before.loaded.contains(&name) && !before.stopped.contains(&name);
            if before.context == self.context && is_same && is_whole {
                self.states.insert(name.clone(), versions);
                self.loaded.insert(name);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.tables.is_empty()
    }

    /// Bytes remembered by rules and state tables.
    pub fn bytes(&self) -> usize {
        self.watches.iter().map(Watch::bytes).sum::<usize>() + self.states.values().map(Versions::bytes).sum::<usize>()
    }

    /// Events whose judgement is not final.
    pub fn waiting(&self) -> usize {
        self.watches.iter().map(Watch::waiting).sum()
    }

    /// Remembers what is stored. `provisional` are the findings that were kept as such: those whose rows turn out
    /// otherwise are retracted. What fails is tried again with the next commit. At least `committed` is stored.
    pub async fn rebuild(&mut self, provisional: Vec<Finding>, stored: &SessionContext, committed: &Offsets) -> Report {
        self.committed = committed.clone();
        for finding in provisional {
            if let Some(watch) = self.watches.iter_mut().find(|w| w.rule.id == finding.rule) {
                watch.tell(finding);
            }
        }
        let mut report = Report::default();
        self.load(stored, &mut report).await;
        report
    }

    async fn load(&mut self, stored: &SessionContext, report: &mut Report) {
        let mut failures: BTreeMap<String, String> = BTreeMap::new();
        let known = |name: &String| self.loaded.contains(name) || self.stopped.contains(name);
        let missing: Vec<Arc<StateTable>> = self.tables.iter().filter(|s| !known(&s.name)).cloned().collect();
        for (state, versions) in missing.iter().zip(each(missing.iter().collect(), |state| self.come(state, stored))) {
            match versions {
                Ok(Came { is_too_much: true, .. }) => self.stop_state(state),
                Ok(Came { versions, failed, .. }) => {
                    self.states.entry(state.name.clone()).and_modify(|have| have.absorb(versions));
                    self.loaded.insert(state.name.clone());
                    if let Some((rows, reason)) = failed {
                        state_failed(state, &format!("{rows} rows could not be evaluated: {reason}"));
                    }
                }
                Err(error) => {
                    state_failed(state, &error.strip_backtrace());
                    failures.insert(state.name.clone(), error.strip_backtrace());
                }
            }
        }
        self.stop_over_budget();
        let begins = self.load_begins(stored).await.err().map(|e| e.strip_backtrace());
        let lacks = |watch: &Watch| {
            let state = watch.body.states().find_map(|s| failures.get(&s.name).map(|e| format!("{}: {e}", s.name)));
            state.or_else(|| begins.clone().filter(|_| watch.body.learning_us > 0))
        };
        let mut loading = Vec::new();
        for watch in self.watches.iter_mut().filter(|w| !w.loaded && w.stopped.is_none()) {
            match lacks(watch) {
                Some(failed) => report.add(&watch.rule, Outcome { failed: Some(failed), ..Outcome::default() }),
                None => loading.push(watch),
            }
        }
        let rules: Vec<Arc<Rule>> = loading.iter().map(|watch| watch.rule.clone()).collect();
        for (rule, outcome) in rules.iter().zip(each(loading, |watch| watch.load(stored))) {
            let outcome = outcome.unwrap_or_else(|error| Outcome {
                failed: Some(format!("what is stored could not be read: {}", error.strip_backtrace())),
                ..Outcome::default()
            });
            report.add(rule, outcome);
        }
    }

    async fn come(&self, state: &StateTable, stored: &SessionContext) -> Result<Came> {
        let Some(derived) = &self.derived else { return Came::from_the_store(state, stored).await };
        let came = derived.come(state, &self.context, &self.committed, stored).await?;
        derived.keep(state, &self.context, &came, &self.committed);
        Ok(came)
    }

    async fn load_begins(&mut self, stored: &SessionContext) -> Result<()> {
        if self.begins_loaded {
            return Ok(());
        }
        let settled = self.watches.iter().filter(|w| w.body.learning_us > 0).map(|w| w.settled).min();
        let settled = settled.unwrap_or(Micros::MIN);
        for (table, begin) in &mut self.begins {
            load_begin(table, begin, stored, Origin::Live, settled).await?;
        }
        self.begins_loaded = true;
        Ok(())
    }

    /// Rows that admission let through, or that are stored past the frontier.
    pub fn on_rows(&mut self, batches: &[(&str, &RecordBatch)]) -> Report {
        let mut report = Report::default();
        if self.is_empty() {
            return report;
        }
        for (table, rows) in batches {
            if let Some(begin) = self.begins.get_mut(*table) {
                note_begin(begin, rows);
            }
        }
        for state in self.tables.iter().filter(|s| !self.stopped.contains(&s.name)) {
            let versions = self.states.get_mut(&state.name).expect("every state table in use has its memory");
            let mut came = self.came.get_mut(&state.name);
            let mut new = |mark: &Mark| {
                if let Some(came) = came.as_mut().filter(|came| came.len() < CAME_MAX) {
                    came.insert(mark.boundary());
                }
            };
            for (table, rows) in batches {
                let mut error = None;
                let failed = state.sieve.live(table, rows, Origin::Live, &mut |sieved| match state
                    .remember(&sieved, versions, &mut new)
                {
                    Ok(nulls) => count_state_nulls(state, nulls),
                    Err(e) => drop(error.get_or_insert(e.strip_backtrace())),
                });
                let failed = failed.map(|(rows, reason)| format!("{rows} rows could not be evaluated: {reason}"));
                error.or(failed).into_iter().for_each(|reason| state_failed(state, &reason));
            }
        }
        self.stop_over_budget();
        let shared = Shared { bundle: &self.bundle, states: &self.states, begins: &self.begins };
        for watch in self.watches.iter_mut().filter(|w| w.stopped.is_none()) {
            let outcome = watch.on_rows(batches, &shared);
            report.add(&watch.rule, outcome);
        }
        report
    }

    /// Times from which on versions of a state table can be seen that came since windows last looked ahead.
    pub fn came(&self, state: &StateTable) -> impl Iterator<Item = Micros> {
        self.came.get(&state.name).into_iter().flatten().copied()
    }

    /// What is stored of a state table has been read.
    pub fn has(&self, state: &StateTable) -> bool {
        self.loaded.contains(&state.name)
    }

    /// Times behind `now` from which on versions of a state table can be seen.
    pub fn seen_after(&self, state: &StateTable, now: Micros) -> impl Iterator<Item = Micros> {
        self.states.get(&state.name).into_iter().flat_map(move |versions| versions.seen_after(now))
    }

    /// Windows have looked ahead.
    pub fn forget_what_came(&mut self) {
        self.came.values_mut().for_each(BTreeSet::clear);
    }

    /// What [`States::versions`] says, as far as it is remembered: `None` if that takes the store.
    pub fn versions(
        &self,
        state: &StateTable,
        origin: Origin,
        boundary: Micros,
        since: Micros,
    ) -> Option<Result<RecordBatch>> {
        if self.stopped.contains(&state.name) {
            let what = format!("the state table `{}`: {}", state.name, too_much(STATE_BYTES_MAX));
            return Some(Err(DataFusionError::Execution(what)));
        }
        let is_known = origin == Origin::Live && self.has(state);
        let versions = self.states.get(&state.name).filter(|versions| is_known && versions.reaches(since))?;
        Some(state.table_of(versions, boundary, since))
    }

    /// Judges for good what `committed` makes final.
    pub async fn on_commit(&mut self, committed: &Watermarks, stored: &SessionContext) -> Report {
        let mut report = Report::default();
        if self.is_empty() {
            return report;
        }
        self.load(stored, &mut report).await;
        let shared = Shared { bundle: &self.bundle, states: &self.states, begins: &self.begins };
        for watch in self.watches.iter_mut() {
            let mut outcome = Outcome::default();
            let to = watermark(&watch.rule, committed);
            match &watch.stopped {
                Some(reason) => outcome.fail(reason.clone()),
                None if !watch.loaded || to <= watch.settled => continue,
                None => match watch.settle(to, stored, &shared, &mut outcome).await {
                    Ok(more) => report.pending |= more,
                    Err(error) => outcome.fail(error.strip_backtrace()),
                },
            }
            report.boundaries.insert(watch.rule.id.clone(), watch.settled);
            metrics::gauge!("stakeout_rule_memory_bytes", "rule" => watch.rule.id.clone()).set(watch.bytes() as f64);
            report.add(&watch.rule, outcome);
        }
        for state in &self.tables {
            let needed = self.needed_from(state, committed);
            let versions = self.states.get_mut(&state.name).expect("every state table in use has its memory");
            versions.advance(needed);
            metrics::gauge!("stakeout_state_memory_bytes", "state" => state.name.clone()).set(versions.bytes() as f64);
        }
        report
    }

    /// From when on rules look at a state table: one that is behind still needs what was then, up to a limit.
    fn needed_from(&self, state: &StateTable, committed: &Watermarks) -> Micros {
        let now = of_table(&state.table, committed);
        let users =
            self.watches.iter().filter(|w| w.stopped.is_none() && w.body.states().any(|s| s.name == state.name));
        let behind = users.map(|w| w.settled).min().unwrap_or(now);
        behind.clamp(now.saturating_sub(BEHIND_US), now)
    }

    /// The stream of `origin` has ended; of an import, the part with times in `range`.
    pub async fn finish(&mut self, origin: Origin, range: Option<(Micros, Micros)>, stored: &SessionContext) -> Report {
        let mut report = Report::default();
        if self.is_empty() {
            return report;
        }
        self.load(stored, &mut report).await;
        let shared = Shared { bundle: &self.bundle, states: &self.states, begins: &self.begins };
        for watch in self.watches.iter_mut().filter(|w| w.stopped.is_none() && w.loaded) {
            let mut outcome = Outcome::default();
            let finished = match origin {
                Origin::Live => watch.finish(stored, &shared, &mut outcome).await,
                Origin::Import => judge_import(watch, range, stored, &self.bundle, &mut outcome).await,
            };
            if let Err(error) = finished {
                outcome.fail(error.strip_backtrace());
            }
            report.add(&watch.rule, outcome);
        }
        report
    }

    fn stop_state(&mut self, state: &StateTable) {
        if self.stopped.insert(state.name.clone()) {
            self.states.insert(state.name.clone(), Versions::default());
            state_failed(state, &too_much(STATE_BYTES_MAX));
        }
    }

    fn stop_over_budget(&mut self) {
        for state in self.tables.clone() {
            if self.states[&state.name].bytes() > STATE_BYTES_MAX {
                self.stop_state(&state);
            }
        }
        for watch in self.watches.iter_mut().filter(|w| w.stopped.is_none()) {
            let state = watch.body.states().find(|s| self.stopped.contains(&s.name)).map(|s| s.name.clone());
            if let Some(state) = state {
                watch.stop(format!("the state table `{state}` needs too much memory"));
            }
        }
    }
}

fn too_much(bytes_max: usize) -> String {
    format!("its memory needs more than {} MB", bytes_max >> 20)
}

/// Times that SQL can say; what lies outside is before or after everything.
const TIME_MIN: Micros = -62_135_596_800_000_000;
const TIME_MAX: Micros = 253_402_300_799_999_999;

/// A condition on a column of times.
fn at_or_after(column: &str, time: Micros) -> String {
    match time {
        ..=TIME_MIN => "true".to_owned(),
        TIME_MAX.. => format!("{column} > {}", sql_time(TIME_MAX)),
        time => format!("{column} >= {}", sql_time(time)),
    }
}

/// How far the source of one table has come. Rows of `unparsed` come from any source.
pub(crate) fn of_table(table: &str, marks: &Watermarks) -> Micros {
    match table.parse::<event::Source>() {
        Ok(source) => marks.get(source),
        Err(_) => marks.0.values().copied().min().unwrap_or(Micros::MIN),
    }
}

fn state_failed(state: &StateTable, reason: &str) {
    metrics::counter!("stakeout_state_errors_total", "state" => state.name.clone()).increment(1);
    tracing::error!(state = %state.name, reason, "state table is degraded");
}

fn count_state_nulls(state: &StateTable, rows: u64) {
    if rows > 0 {
        metrics::counter!("stakeout_state_null_key_total", "state" => state.name.clone()).increment(rows);
    }
}

/// `first_seen` as SQL knows it: it can be planned, so that mistakes are found where they are. It is taken out of a
/// rule before anything runs.
pub(crate) fn first_seen_function() -> ScalarUDF {
    let refuse = |_: &[ColumnarValue]| -> Result<ColumnarValue> {
        Err(DataFusionError::Execution("first_seen stands only in the WHERE of rules without a window".to_owned()))
    };
    let any = Signature::variadic_any(Volatility::Immutable);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(shape::FIRST_SEEN, any, DataType::Boolean, Arc::new(refuse)))
}
