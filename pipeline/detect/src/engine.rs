//! The engine: all rules of a set and how far they have gone. A rule that fails degrades itself, visibly, and
//! never its neighbours; what it could not evaluate is tried again and, at last, skipped with an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use event::{
    Admitted, Evidence, Finding, FindingTime, Frontier, Micros, Origin, Partition, Source, Standing, Watermarks, column,
};
use futures::StreamExt;
use query::QueryError;

use crate::error::DetectError;
use crate::evidence;
use crate::history::History;
use crate::ident;
use crate::cost::RuleCost;
use crate::rule::{Body, Rule, Window};
use crate::ruleset::RuleSet;
use crate::runs::Run;
use crate::singles::Singles;
use crate::value;
use crate::windowed::{Found, State, Walk};

/// Boundaries per rule and call: a rule that has to catch up leaves room for the others and for new rows.
const BOUNDARIES_PER_CALL: usize = 500;

/// A boundary that failed so often is skipped: waiting on would stop the rule for good.
const FAILURES_MAX: u32 = 3;

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
    /// By rule id; windowed rules over live rows.
    states: BTreeMap<String, State>,
    /// Rules whose last evaluation failed, so that only changes are logged.
    failing: BTreeSet<String>,
    singles: Singles,
}

impl Engine {
    /// `frontier` is what was kept at the last stop; `committed` the watermarks of the store now. A windowed rule
    /// that the frontier does not know starts after them: what lies before its deploy is history.
    /// Keep [`Engine::frontier`] before the first row comes, so that a crash cannot move that start.
    pub fn new(rules: RuleSet, mut frontier: Frontier, committed: &Watermarks) -> Engine {
        let mut states = BTreeMap::new();
        for rule in &rules.rules {
            let Some(window) = rule.window else { continue };
            let start = match watermark(rule, committed) {
                Micros::MIN => Micros::MIN,
                mark => window.floor(mark),
            };
            let evaluated = *frontier.boundaries.entry(rule.id.clone()).or_insert(start);
            states.insert(rule.id.clone(), State::at(evaluated));
        }
        let singles = Singles::new(&rules);
        Engine { rules, frontier, states, failing: BTreeSet::new(), singles }
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// How far detection has gone, in full.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Single-event rules over rows that admission let through. Never fails: a failing rule leaves rows out,
    /// counted.
    pub fn on_admitted(&mut self, admitted: &Admitted) -> Output {
        let mut output = Output::default();
        for batch in &admitted.batches {
            self.evaluate_rows(&batch.table, &batch.rows, &mut output);
        }
        for ((topic, partition), range) in &admitted.ranges.0 {
            raise(&mut output.frontier, (topic.clone(), *partition), range.next);
        }
        self.frontier.advance(&output.frontier);
        output
    }

    /// Windowed rules over live committed rows, for the boundaries that `committed` has reached.
    pub async fn on_commit(&mut self, committed: &Watermarks, history: &dyn History) -> Result<Output, DetectError> {
        let stored = self.stored(history)?;
        let mut output = Output::default();
        for rule in self.rules.rules.clone() {
            let Some(window) = rule.window else { continue };
            let to = watermark(&rule, committed);
            let mut state = self.states.remove(&rule.id).expect("every windowed rule got a state");
            if to > state.evaluated {
                let walk = self.walk(&stored, &rule, window, Origin::Live);
                let mut found = Found::default();
                let outcome = walk.advance(&mut state, to, BOUNDARIES_PER_CALL, &mut found).await;
                self.report(&stored, &rule, window, Origin::Live, found, &mut output).await;
                self.judge(&rule, window, &mut state, outcome);
                output.pending |= state.evaluated != Micros::MIN && state.evaluated < window.floor(to);
                output.frontier.boundaries.insert(rule.id.clone(), state.evaluated);
            }
            self.states.insert(rule.id.clone(), state);
        }
        self.frontier.advance(&output.frontier);
        Ok(output)
    }

    /// Windowed rules over a stream that has ended: every boundary whose window has rows of `origin`, or of those
    /// that rows with times in `range` can touch. Evaluating again gives the same findings.
    pub async fn finish_bounded(
        &mut self,
        origin: Origin,
        range: Option<(Micros, Micros)>,
        history: &dyn History,
    ) -> Result<Output, DetectError> {
        let stored = self.stored(history)?;
        let mut output = Output::default();
        for rule in self.rules.rules.clone() {
            let Some(window) = rule.window else { continue };
            let mut state = State::at(range.map_or(Micros::MIN, |(from, _)| window.floor(from)));
            let mut found = Found::default();
            loop {
                let outcome = self.finish(&stored, &rule, window, origin, range, &mut state, &mut found).await;
                let failed = outcome.is_err();
                self.judge(&rule, window, &mut state, outcome);
                // Before its first boundary a rule that fails has nothing to skip.
                if !failed || (state.evaluated == Micros::MIN && state.failures == 0) {
                    break;
                }
            }
            self.report(&stored, &rule, window, origin, found, &mut output).await;
        }
        Ok(output)
    }

    #[allow(clippy::too_many_arguments, reason = "the loop of finish_bounded, with its locals")]
    async fn finish(
        &self,
        stored: &SessionContext,
        rule: &Rule,
        window: Window,
        origin: Origin,
        range: Option<(Micros, Micros)>,
        state: &mut State,
        found: &mut Found,
    ) -> Result<(), QueryError> {
        let walk = self.walk(stored, rule, window, origin);
        let last = match range {
            Some((_, last)) => Some(last),
            None => walk.last_time().await?,
        };
        match last {
            Some(last) => walk.advance(state, window.last_reaching(last), usize::MAX, found).await,
            None => Ok(()),
        }
    }

    /// Single-event rules over stored rows past the frontier: after a crash between the store's transaction and
    /// the one that keeps findings. Call before anything new is admitted.
    pub async fn catch_up(&mut self, history: &dyn History) -> Result<Output, DetectError> {
        let stored = self.stored(history)?;
        let mut output = Output::default();
        for schema in self.rules.schemas.clone() {
            let behind = self.behind(&stored, &schema.name).await?;
            if behind.is_empty() {
                continue;
            }
            let any = behind.iter().map(past).collect::<Vec<_>>().join(" OR ");
            let sql = format!("SELECT * FROM {} WHERE {any}", schema.name);
            let mut rows = stored.sql(&sql).await?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                self.evaluate_rows(&schema.name, &batch?, &mut output);
            }
        }
        self.frontier.advance(&output.frontier);
        Ok(output)
    }

    /// The partitions of a table that hold rows past the frontier, with the first offset of those.
    async fn behind(&self, stored: &SessionContext, table: &str) -> Result<Vec<(Partition, i64)>, DetectError> {
        let sql =
            format!("SELECT topic, \"partition\", max(\"offset\") AS last FROM {table} GROUP BY topic, \"partition\"");
        let mut behind = Vec::new();
        for batch in stored.sql(&sql).await?.collect().await? {
            for row in 0..batch.num_rows() {
                let topic = evidence::text_of(&batch, column::TOPIC, row)?;
                let partition = batch.column(1).as_primitive::<Int64Type>().value(row) as i32;
                let last = batch.column(2).as_primitive::<Int64Type>().value(row);
                let key: Partition = (topic.into(), partition);
                let next = self.frontier.offsets.get(&key).copied().unwrap_or(i64::MIN);
                if last >= next {
                    behind.push((key, next));
                }
            }
        }
        Ok(behind)
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
            if let Some(rule) = self.rules.get(&id).filter(|rule| rule.window.is_none()).cloned() {
                self.recovered(&rule);
            }
        }
        advance_offsets(&mut output.frontier, rows);
    }

    /// Turns the runs of a rule into findings.
    async fn report(
        &self,
        stored: &SessionContext,
        rule: &Rule,
        window: Window,
        origin: Origin,
        found: Found,
        output: &mut Output,
    ) {
        count_nulls(rule, found.null_entities);
        count_findings(rule, found.runs.len());
        for run in found.runs.into_values() {
            output.findings.push(self.finding(stored, rule, window, origin, run).await);
        }
    }

    async fn finding(&self, stored: &SessionContext, rule: &Rule, window: Window, origin: Origin, run: Run) -> Finding {
        let Body::Windowed { evidence: source, .. } = &rule.body else {
            unreachable!("runs come from windowed rules only");
        };
        let query = evidence::run_query(rule, window, source, &run, origin);
        let mut evidence = match evidence::collect(stored, query.clone()).await {
            Ok(evidence) => evidence,
            // A finding without its events is better than none; the query is with it.
            Err(error) => {
                metrics::counter!("stakeout_evidence_errors_total", "rule" => rule.id.clone()).increment(1);
                tracing::error!(rule = %rule.id, error = %error.strip_backtrace(), "evidence could not be read");
                Evidence { query, ..Evidence::default() }
            }
        };
        if !run.evidence.is_empty() {
            evidence.count = run.evidence.len() as u64;
        }
        Finding {
            id: ident::of_run(&rule.id, &run.entity, origin, run.first),
            rule: rule.id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            attack: rule.attack.clone(),
            time: FindingTime::Run {
                first: run.first,
                last: run.last,
                window_us: window.window_us,
                every_us: window.every_us,
            },
            origin,
            tables: rule.tables.clone(),
            summary: value::fill(&rule.summary, &run.values),
            triage: rule.triage.clone(),
            entity: run.entity,
            values: run.values,
            evidence,
            suppress_us: rule.suppress_us,
            rule_version: rule.version.clone(),
            bundle: self.rules.bundle.clone(),
            standing: Standing::Confirmed,
            late: false,
            learning: false,
            historical: false,
        }
    }

    fn judge(&mut self, rule: &Rule, window: Window, state: &mut State, outcome: Result<(), QueryError>) {
        let Err(error) = outcome else { return self.recovered(rule) };
        self.failed(rule, &error.to_string());
        state.failures += 1;
        if state.failures >= FAILURES_MAX {
            tracing::error!(rule = %rule.id, after = state.evaluated, "rule skips a boundary it could not evaluate");
            metrics::counter!("stakeout_rule_boundaries_skipped_total", "rule" => rule.id.clone()).increment(1);
            state.skip(window.every_us);
        }
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

    fn walk<'a>(&'a self, stored: &'a SessionContext, rule: &'a Rule, window: Window, origin: Origin) -> Walk<'a> {
        Walk { base: &self.rules.base, stored, rule, window, origin }
    }

    fn stored(&self, history: &dyn History) -> Result<SessionContext, DetectError> {
        let ctx = query::fork(&self.rules.base);
        query::register_tables(&ctx, &self.rules.schemas, &|name| history.table(name))?;
        Ok(ctx)
    }
}

/// How far all the sources of a rule have come. Rows of `unparsed` come from any source.
fn watermark(rule: &Rule, marks: &Watermarks) -> Micros {
    let of_table = |table: &String| match table.parse::<Source>() {
        Ok(source) => marks.get(source),
        Err(_) => marks.0.values().copied().min().unwrap_or(Micros::MIN),
    };
    rule.tables.iter().map(of_table).min().unwrap_or(Micros::MIN)
}

fn past(((topic, partition), next): &(Partition, i64)) -> String {
    let topic = value::sql_text(topic);
    match *next {
        i64::MIN => format!("(topic = {topic} AND \"partition\" = {partition})"),
        next => format!("(topic = {topic} AND \"partition\" = {partition} AND \"offset\" >= {next})"),
    }
}

fn raise(frontier: &mut Frontier, partition: Partition, next: i64) {
    let have = frontier.offsets.entry(partition).or_insert(next);
    *have = (*have).max(next);
}

/// Rows carry their coordinates: of an import, whose ranges are empty, they are all there is.
fn advance_offsets(frontier: &mut Frontier, rows: &RecordBatch) {
    let numbers = |name: &str| rows.column_by_name(name).map(|c| c.as_primitive::<Int64Type>().values().clone());
    let topics = rows.column_by_name(column::TOPIC).map(|c| c.as_string_view());
    let (Some(topics), Some(partitions), Some(offsets)) = (topics, numbers(column::PARTITION), numbers(column::OFFSET))
    else {
        return;
    };
    let mut last: Option<(Partition, i64)> = None;
    for row in 0..rows.num_rows() {
        let (topic, partition, next) = (topics.value(row), partitions[row] as i32, offsets[row] + 1);
        match &mut last {
            Some(((t, p), have)) if t.as_ref() == topic && *p == partition => *have = (*have).max(next),
            _ => {
                if let Some((partition, next)) = last.replace((((Arc::from(topic)), partition), next)) {
                    raise(frontier, partition, next);
                }
            }
        }
    }
    if let Some((partition, next)) = last {
        raise(frontier, partition, next);
    }
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
