//! The engine: all rules of a set and how far they have gone. A rule that fails degrades itself, visibly, and
//! never its neighbours; what it could not evaluate is tried again and, at last, skipped with an error.

mod behind;
mod states;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use event::{Admitted, Batch, Finding, Frontier, Micros, Offsets, Origin, Ranges, Standing, Watermarks};
use query::QueryError;

use crate::cost::RuleCost;
use crate::error::DetectError;
use crate::history::History;
use crate::memory::{Derived, Memory, Report, States, of_table};
use crate::offsets::{advance_offsets, covers, raise};
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use crate::singles::Singles;
use crate::windows::{Choices, Live, Together, Usage};

/// Boundaries per rule and call: a rule that has to catch up leaves room for the others and for new rows.
const BOUNDARIES_PER_CALL: usize = 5_000;

/// A boundary that failed so often is skipped: waiting on would stop the rule for good.
const FAILURES_MAX: u32 = 3;

/// Findings of one rule and call whose events are read from the store. Of the others the query is kept.
const EVIDENCE_MAX: usize = 500;

/// What a call found, and how far detection has come by it.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub findings: Vec<Finding>,
    /// Only what moved: merge it with [`Frontier::advance`], in the transaction that keeps the findings.
    pub frontier: Frontier,
    /// Boundaries that are due are left: call again before waiting for news.
    pub pending: bool,
}

pub struct Engine {
    rules: RuleSet,
    frontier: Frontier,
    /// Windowed rules over live rows, by the id of the first of those that share panes. `None` until rows or a store are at
    /// hand.
    live: Option<BTreeMap<String, Live>>,
    /// The sieves of `live`; made when rows come.
    together: Option<Together>,
    /// Rules whose state has a gap and is rebuilt at the next commit, and how often that failed.
    broken: BTreeMap<String, u32>,
    /// Admitted and not known to be committed.
    recent: Vec<Recent>,
    /// By id; what was told ahead of time and is not settled.
    provisional: BTreeMap<String, Finding>,
    /// What is stored, as far as this engine was told: watermarks and offsets of the last commit.
    committed: (Watermarks, Offsets),
    /// Rules whose last evaluation failed, so that only changes are logged.
    failing: BTreeSet<String>,
    evidence_max: usize,
    /// After which [`Engine::on_commit`] lets others go first.
    slice: Duration,
    /// Of `live`, those that have not had their turn for the commit at hand, the longest waiting first.
    waiting: VecDeque<String>,
    /// `first_seen` and state tables.
    memory: Memory,
    /// It has not judged all that the commit at hand makes final.
    memory_waits: bool,
    singles: Singles,
}

struct Recent {
    ranges: Ranges,
    batches: Vec<Batch>,
}

impl Engine {
    /// `frontier` is what was kept at the last stop; `committed` the watermarks of the store now. A windowed rule
    /// that the frontier does not know starts after them: what lies before its deploy is history.
    /// Keep [`Engine::frontier`] before the first row comes, so that a crash cannot move that start.
    pub fn new(rules: RuleSet, mut frontier: Frontier, committed: &Watermarks) -> Engine {
        for rule in &rules.rules {
            let Some(window) = rule.window else { continue };
            let start = match watermark(rule, committed) {
                Micros::MIN => Micros::MIN,
                mark => window.floor(mark),
            };
            frontier.boundaries.entry(rule.id.clone()).or_insert(start);
        }
        let memory = Memory::new(&rules, &mut frontier, committed);
        let singles = Singles::new(&rules);
        Engine {
            rules,
            frontier,
            memory,
            singles,
            live: None,
            together: None,
            broken: BTreeMap::new(),
            recent: Vec::new(),
            provisional: BTreeMap::new(),
            committed: (committed.clone(), Offsets::default()),
            failing: BTreeSet::new(),
            evidence_max: EVIDENCE_MAX,
            slice: Duration::MAX,
            waiting: VecDeque::new(),
            memory_waits: false,
        }
    }

    /// For who has rows coming meanwhile: evaluating a commit returns after about so long, `pending`, to be called again.
    pub fn in_slices_of(mut self, slice: Duration) -> Engine {
        self.slice = slice;
        self
    }

    /// Where state tables are kept, so that the next start need not read all that is stored.
    pub fn derived_in(mut self, derived: Arc<Derived>) -> Engine {
        self.memory.keep_in(derived);
        self
    }

    /// For who only counts: findings keep their query and read no events.
    pub fn without_evidence(mut self) -> Engine {
        self.evidence_max = 0;
        self
    }

    /// Findings that were provisional at the last stop: each will be confirmed or retracted. Call before
    /// [`Engine::catch_up`].
    pub fn expect(&mut self, provisional: Vec<Finding>) {
        self.provisional.extend(provisional.into_iter().map(|f| (f.id.clone(), f)));
    }

    /// Takes up where the last process was: what rules remember and hold is read again. [`Engine::catch_up`] does so too.
    pub async fn rebuild(&mut self, provisional: Vec<Finding>, history: &dyn History) -> Result<Output, DetectError> {
        self.expect(provisional);
        let stored = self.rules.stored(history)?;
        let mut output = Output::default();
        if self.live.is_none() {
            self.restore(&stored, &mut output).await?;
        }
        Ok(output)
    }

    /// What is stored when the engine starts.
    pub fn stored_up_to(&mut self, offsets: Offsets) {
        self.committed.1 = offsets;
    }

    /// Other rules from now on. Windowed rules that are what they were keep their state; the state of the others is
    /// rebuilt from what is stored and what was admitted since, and a new rule that holds already says so at once.
    /// `provisional` are the findings that are kept as such.
    pub async fn replace_rules(
        &mut self,
        rules: RuleSet,
        provisional: Vec<Finding>,
        history: &dyn History,
    ) -> Result<Output, DetectError> {
        let (marks, offsets) = self.committed.clone();
        let before = std::mem::replace(&mut self.rules, rules);
        let fresh = Engine::new(self.rules.clone(), self.frontier.clone(), &marks);
        let known = std::mem::replace(&mut self.memory, fresh.memory);
        self.memory.inherit(known);
        (self.frontier, self.singles) = (fresh.frontier, fresh.singles);
        (self.waiting, self.memory_waits) = (fresh.waiting, fresh.memory_waits);
        self.together = None;
        let stored = self.rules.stored(history)?;
        let mut output = Output::default();
        let remembering: Vec<Finding> = provisional.into_iter().filter(|f| self.remembers(&f.rule)).collect();
        let report = self.memory.rebuild(remembering, &stored, &offsets).await;
        self.take(report, &mut output);
        // To remember a row twice changes nothing.
        let recent: Vec<Batch> = self.recent.iter().flat_map(|r| r.batches.clone()).collect();
        self.remember(&recent, &mut output);
        if self.live.is_some() {
            self.keep_what_stands(&before);
            self.mend(&stored, &offsets).await?;
        }
        let settled = self.on_commit(&marks, &offsets, history).await?;
        output.findings.extend(settled.findings);
        output.pending |= settled.pending;
        output.frontier.advance(&self.frontier);
        self.retract_of_rules_that_are_gone(&mut output);
        Ok(output)
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// How far detection has gone, in full.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// What each windowed rule costs and holds.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let states = self.live.iter().flatten().flat_map(|(_, state)| state.usage());
        states.map(|(rule, usage)| (rule.id.clone(), usage)).collect()
    }

    /// Rows that admission let through: all that single-event rules find in them, and what windowed rules that may
    /// fire early find ahead of time. A failing rule leaves rows out, counted.
    pub async fn on_admitted(&mut self, admitted: &Admitted) -> Result<Output, DetectError> {
        if self.live.is_none() {
            self.begin().await?;
        }
        let mut output = Output::default();
        for batch in &admitted.batches {
            self.evaluate_rows(&batch.table, &batch.rows, &mut output);
        }
        self.remember(&admitted.batches, &mut output);
        if !admitted.ranges.is_empty() {
            let batches = admitted.batches.clone();
            self.recent.push(Recent { ranges: admitted.ranges.clone(), batches });
        }
        self.feed(&admitted.batches, &mut output).await;
        for ((topic, partition), range) in &admitted.ranges.0 {
            raise(&mut output.frontier, (topic.clone(), *partition), range.next);
        }
        self.frontier.advance(&output.frontier);
        Ok(output)
    }

    /// Windowed rules over rows just admitted.
    async fn feed(&mut self, batches: &[Batch], output: &mut Output) {
        let Some(mut live) = self.live.take() else { return };
        let together = self.together.get_or_insert_with(|| Together::new(&live, &self.rules.schemas));
        let mut choices: Vec<Choices> = batches.iter().map(|b| together.choose(&b.table, &b.rows)).collect();
        // What is broken is made anew with all that came.
        for state in live.values_mut() {
            if self.is_broken(state) {
                continue;
            }
            match admit(state, batches, &mut choices) {
                Ok(()) => state.look_ahead(&self.memory).await,
                Err(error) => {
                    for rule in state.rules() {
                        self.failed(rule, &error.to_string());
                        self.broken.insert(rule.id.clone(), 0);
                    }
                }
            }
            self.tell_what_is_early(state, output).await;
        }
        self.live = Some(live);
        self.memory.forget_what_came();
    }

    /// Windowed rules, for the boundaries that `committed` has reached. `offsets` is what the commit covers. Rows that were admitted
    /// after it may come between two calls for one commit: no boundary that it makes final sees them.
    pub async fn on_commit(
        &mut self,
        committed: &Watermarks,
        offsets: &Offsets,
        history: &dyn History,
    ) -> Result<Output, DetectError> {
        let stored = self.rules.stored(history)?;
        let mut output = Output::default();
        if self.live.is_none() {
            self.restore(&stored, &mut output).await?;
        }
        let commit = (committed.clone(), offsets.clone());
        let goes_on = (self.memory_waits || !self.waiting.is_empty()) && self.committed == commit;
        if !goes_on {
            self.committed = commit;
            self.recent.retain(|recent| !covers(offsets, &recent.ranges));
            self.mend(&stored, offsets).await?;
            // Those that an earlier commit left waiting keep their place: else the last would wait for ever.
            let waiting: BTreeSet<&String> = self.waiting.iter().collect();
            let others = self.live.iter().flat_map(BTreeMap::keys).filter(|id| !waiting.contains(id));
            let others: Vec<String> = others.cloned().collect();
            self.waiting.extend(others);
        }
        if !goes_on || self.memory_waits {
            let report = self.memory.on_commit(committed, &stored).await;
            self.memory_waits = report.pending;
            self.take(report, &mut output);
        }
        self.evaluate_waiting(committed, &stored, &mut output).await;
        self.frontier.advance(&output.frontier);
        Ok(output)
    }

    /// Goes on with the commit that was evaluated in part. Like [`Engine::on_commit`] it may have to be called again.
    pub async fn go_on(&mut self, history: &dyn History) -> Result<Output, DetectError> {
        let (committed, offsets) = self.committed.clone();
        self.on_commit(&committed, &offsets, history).await
    }

    /// Each state has one turn: one that failed is tried again with the next commit, one that has more to do goes to the end.
    async fn evaluate_waiting(&mut self, committed: &Watermarks, stored: &SessionContext, output: &mut Output) {
        let Some(mut live) = self.live.take() else { return };
        let (started, mut again) = (Instant::now(), Vec::new());
        while let Some(id) = self.waiting.pop_front() {
            let Some(state) = live.get_mut(&id) else { continue };
            // What could not be made anew knows nothing: it is not final for it.
            if self.is_broken(state) {
                continue;
            }
            if self.advance(state, committed, stored).await {
                again.push(id);
            }
            self.tell_all(state, stored, Origin::Live, output).await;
            if state.failures() >= FAILURES_MAX {
                state.skip();
            }
            let settled = state.settled();
            for (rule, usage) in state.usage() {
                show(rule, &usage);
                if settled != Micros::MIN {
                    output.frontier.boundaries.insert(rule.id.clone(), settled);
                }
            }
            if started.elapsed() > self.slice {
                break;
            }
        }
        self.waiting.extend(again);
        output.pending |= !self.waiting.is_empty();
        self.live = Some(live);
    }

    /// True when boundaries or catch-ups are left. What fails is its rules' to tell.
    async fn advance(&self, state: &mut Live, committed: &Watermarks, stored: &SessionContext) -> bool {
        let to = watermark(state.first(), committed);
        let states = States::of(&self.memory, stored);
        let mut more = false;
        if to > state.evaluated() {
            more = match state.advance(&states, to, BOUNDARIES_PER_CALL).await {
                Ok(more) => more,
                Err(error) => {
                    state.is_stuck(error);
                    return false;
                }
            };
        }
        more |= state.catch_up(&self.rules.base, &states).await;
        state.look_ahead(&self.memory).await;
        more
    }

    /// Windowed rules over a stream that has ended: every boundary whose window has rows of `origin`, or of those
    /// that rows with times in `range` can touch. Evaluating again gives the same findings.
    pub async fn finish_bounded(
        &mut self,
        origin: Origin,
        range: Option<(Micros, Micros)>,
        history: &dyn History,
    ) -> Result<Output, DetectError> {
        let stored = self.rules.stored(history)?;
        let mut output = Output::default();
        let report = self.memory.finish(origin, range, &stored).await;
        self.take(report, &mut output);
        let mut live = if origin == Origin::Live && range.is_none() { self.live.take() } else { None };
        for rule in self.rules.rules.clone() {
            let Body::Windowed(_) = &rule.body else { continue };
            let mut replayed = None;
            let (state, outcome) = match &mut live {
                Some(live) => {
                    // Told with the first of those that it shares panes with.
                    let Some(state) = live.get_mut(&rule.id) else { continue };
                    let outcome = self.finish_live(state, &stored).await;
                    (state, outcome)
                }
                None => match Live::new(&self.rules.base, std::slice::from_ref(&rule), origin).await {
                    Ok(state) => {
                        let state = replayed.insert(state);
                        let outcome = self.replay(state, range, &stored).await;
                        (state, outcome)
                    }
                    Err(error) => {
                        self.failed(&rule, &error.to_string());
                        continue;
                    }
                },
            };
            if let Err(error) = outcome {
                state.is_stuck(error);
            }
            self.tell_all(state, &stored, origin, &mut output).await;
        }
        self.live = live;
        Ok(output)
    }

    async fn finish_live(&self, state: &mut Live, stored: &SessionContext) -> Result<(), QueryError> {
        let states = States::of(&self.memory, stored);
        state.finish(&states).await?;
        while state.catch_up(&self.rules.base, &states).await {}
        Ok(())
    }

    async fn replay(
        &self,
        state: &mut Live,
        range: Option<(Micros, Micros)>,
        stored: &SessionContext,
    ) -> Result<(), QueryError> {
        let states = States::of(&self.memory, stored);
        state.replay(&states, range).await?;
        while state.catch_up(&self.rules.base, &states).await {}
        Ok(())
    }

    fn remembers(&self, id: &str) -> bool {
        self.rules.get(id).is_some_and(|rule| matches!(rule.body, Body::Remembering(_)))
    }

    /// Rows that rules with `first_seen` or state tables remember, and what those rules find in them.
    fn remember(&mut self, batches: &[Batch], output: &mut Output) {
        let rows: Vec<_> = batches.iter().map(|b| (&*b.table, &b.rows)).collect();
        let report = self.memory.on_rows(&rows);
        self.take(report, output);
    }

    fn take(&mut self, report: Report, output: &mut Output) {
        output.findings.extend(report.findings);
        output.frontier.boundaries.extend(report.boundaries);
        output.pending |= report.pending;
        for (rule, failed) in report.fared {
            match failed {
                Some(reason) => self.failed(&rule, &reason),
                None => self.recovered(&rule),
            }
        }
    }

    /// A state table as rows with `since <= time < boundary` see it at a boundary: the versions from rows before it,
    /// stamped before it, that hold at some time from `since` on.
    pub async fn state_at(
        &self,
        state: &str,
        origin: Origin,
        boundary: Micros,
        since: Micros,
        history: &dyn History,
    ) -> Result<RecordBatch, DetectError> {
        let Some(state) = self.rules.states.iter().find(|s| s.name == state) else {
            return Err(DetectError::History(QueryError::Run(format!("there is no state table `{state}`"))));
        };
        let stored = self.rules.stored(history)?;
        Ok(States::of(&self.memory, &stored).versions(state, origin, boundary, since).await?)
    }

    /// What rules and state tables remember, in bytes, and the events whose judgement is not final.
    pub fn remembered(&self) -> (usize, usize) {
        (self.memory.bytes(), self.memory.waiting())
    }

    fn retract_of_rules_that_are_gone(&mut self, output: &mut Output) {
        let is_gone =
            |f: &Finding| self.rules.get(&f.rule).is_none_or(|rule| rule.window.is_none() && !self.remembers(&rule.id));
        let gone: Vec<String> = self.provisional.values().filter(|f| is_gone(f)).map(|f| f.id.clone()).collect();
        for id in gone {
            let finding = self.provisional.remove(&id).expect("just listed");
            output.findings.push(Finding { standing: Standing::Retracted, ..finding });
        }
    }

    /// What single-event rules cost since the start, by rule id.
    pub fn costs(&self) -> Vec<RuleCost> {
        self.singles.costs()
    }

    fn evaluate_rows(&mut self, table: &str, rows: &RecordBatch, output: &mut Output) {
        let mut failed = BTreeSet::new();
        for (rule, verdict) in self.singles.evaluate(&self.rules.bundle, table, rows) {
            count_nulls(&rule, verdict.null_entities);
            count_findings(&rule, verdict.findings.len());
            output.findings.extend(verdict.findings);
            if let Some((rows, reason)) = verdict.failed {
                self.failed(&rule, &format!("{rows} rows could not be evaluated: {reason}"));
                failed.insert(rule.id.clone());
            }
        }
        for id in self.failing.iter().filter(|id| !failed.contains(*id)).cloned().collect::<Vec<_>>() {
            if let Some(rule) = self.rules.get(&id).filter(|rule| matches!(rule.body, Body::Single(_))).cloned() {
                self.recovered(&rule);
            }
        }
        advance_offsets(&mut output.frontier, rows);
    }

    fn failed(&mut self, rule: &Rule, reason: &str) {
        metrics::counter!("stakeout_rule_errors_total", "rule" => rule.id.clone()).increment(1);
        metrics::gauge!("stakeout_rule_degraded", "rule" => rule.id.clone()).set(1.0);
        if self.failing.insert(rule.id.clone()) {
            tracing::error!(rule = %rule.id, reason, "rule is degraded");
        }
    }

    fn recovered(&mut self, rule: &Rule) {
        if self.failing.remove(&rule.id) {
            metrics::gauge!("stakeout_rule_degraded", "rule" => rule.id.clone()).set(0.0);
            tracing::info!(rule = %rule.id, "rule works again");
        }
    }
}

/// Feeds one state.
fn admit(state: &mut Live, batches: &[Batch], choices: &mut [Choices]) -> Result<(), QueryError> {
    let rule = state.first().clone();
    let mine = |(b, _): &(&Batch, &mut Choices)| rule.tables.iter().any(|t| **t == *b.table);
    let mut batches = batches.iter().zip(choices).filter(mine);
    batches.try_for_each(|(batch, choices)| state.admit(&batch.table, &batch.rows, choices))
}

fn show(rule: &Rule, usage: &Usage) {
    let label = || rule.id.clone();
    metrics::gauge!("stakeout_rule_state_bytes", "rule" => label()).set(usage.state_bytes as f64);
    metrics::counter!("stakeout_rule_rows_total", "rule" => label()).absolute(usage.rows);
    metrics::counter!("stakeout_rule_rows_kept_total", "rule" => label()).absolute(usage.kept);
    metrics::counter!("stakeout_rule_rows_refused_total", "rule" => label()).absolute(usage.refused);
    metrics::counter!("stakeout_rule_rows_failed_total", "rule" => label()).absolute(usage.failed);
    metrics::counter!("stakeout_rule_nanoseconds_total", "rule" => label()).absolute(usage.busy.as_nanos() as u64);
}

/// How far all the sources of a rule have come.
pub(crate) fn watermark(rule: &Rule, marks: &Watermarks) -> Micros {
    rule.tables.iter().map(|table| of_table(table, marks)).min().unwrap_or(Micros::MIN)
}

fn count_nulls(rule: &Rule, rows: u64) {
    if rows > 0 {
        metrics::counter!("stakeout_rule_null_entity_total", "rule" => rule.id.clone()).increment(rows);
    }
}

fn count_findings(rule: &Rule, findings: usize) {
    if findings > 0 {
        metrics::counter!("stakeout_rule_findings_total", "rule" => rule.id.clone()).increment(findings as u64);
    }
}
