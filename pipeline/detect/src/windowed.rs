//! Walking a windowed rule over the boundaries that are due. Rows are read a stretch of boundaries at a time,
//! only the columns that the rule uses and, where the rule is over one table, only those that pass its WHERE;
//! each boundary is then the oracle over the rows in memory. Stretches without rows are jumped over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionContext;
use event::{Micros, Origin, column};
use futures::StreamExt;
use query::{Limits, QueryError, batch_table};

use crate::load::derived;
use crate::oracle::{self, Answer, Entity};
use crate::rule::{Relation, Rule, Window};
use crate::runs::{OpenRuns, Run};
use crate::value::sql_time;

/// Windows read ahead at once: the rows before the first boundary are read for nothing, so that four windows of
/// boundaries cost five of rows.
const STRETCH_WINDOWS: i64 = 4;

/// Boundaries of a stretch at least, for rules whose slide is their window.
const STRETCH_BOUNDARIES_MIN: i64 = 32;

/// How far back the beginning of a run that was open at a restart is looked for. A run of so many slides (a
/// week of minutes) is an incident of its own by then; its finding begins at the limit.
const LOOKBACK_BOUNDARIES_MAX: i64 = 10_080;

/// Where one rule is. A function of the store and the frontier: only `evaluated` is ever kept.
#[derive(Clone, Debug)]
pub struct State {
    /// The last boundary evaluated; [`Micros::MIN`] before the first.
    pub evaluated: Micros,
    /// Runs that held there; `None` until they have been looked up.
    open: Option<OpenRuns>,
    /// Failures in a row at the next boundary.
    pub failures: u32,
}

impl State {
    pub fn at(evaluated: Micros) -> State {
        State { evaluated, open: None, failures: 0 }
    }

    /// Gives up on the boundary that keeps failing.
    pub fn skip(&mut self, every_us: i64) {
        if self.evaluated != Micros::MIN {
            self.evaluated = self.evaluated.saturating_add(every_us);
        }
        self.open = Some(OpenRuns::default());
        self.failures = 0;
    }
}

/// What a walk found, also when it ended early.
#[derive(Default)]
pub struct Found {
    /// Runs that began or went on, by first boundary and entity.
    pub runs: BTreeMap<(Micros, Entity), Run>,
    pub null_entities: u64,
}

/// One rule over one stream of stored rows.
pub struct Walk<'a> {
    pub base: &'a SessionContext,
    /// Tables and views over the stored rows.
    pub stored: &'a SessionContext,
    pub rule: &'a Rule,
    pub window: Window,
    pub origin: Origin,
}

impl Walk<'_> {
    /// Evaluates the boundaries after `state.evaluated` up to `to`, at most `budget` of them; those without rows
    /// cost none. Whatever happens, `state` and `found` agree.
    pub async fn advance(
        &self,
        state: &mut State,
        to: Micros,
        mut budget: usize,
        found: &mut Found,
    ) -> Result<(), QueryError> {
        let every = self.window.every_us;
        let to = self.window.floor(to);
        if state.open.is_none() {
            state.open = Some(self.open_runs_at(state.evaluated).await?);
        }
        while state.evaluated < to && budget > 0 {
            if state.evaluated == Micros::MIN {
                match self.edge("min", None).await? {
                    // Boundaries up to `to` are final; rows still to come can matter to those after it.
                    Some(first) => state.evaluated = self.window.floor(first).min(to),
                    None => return Ok(()),
                }
                continue;
            }
            let start = state.evaluated + every;
            let end = to.min(start.saturating_add((self.stretch() - 1) * every));
            let rows = self.read(start.saturating_sub(self.window.window_us), end).await?;
            if rows.times.is_empty() {
                state.open = Some(OpenRuns::default());
                let next = self.edge("min", Some(end)).await?.map(|time| self.window.floor(time));
                state.evaluated = next.map_or(to, |next| next.min(to)).max(end);
                continue;
            }
            self.stretch_of(&rows, start, end, state, &mut budget, found).await?;
        }
        Ok(())
    }

    async fn stretch_of(
        &self,
        rows: &Rows,
        start: Micros,
        end: Micros,
        state: &mut State,
        budget: &mut usize,
        found: &mut Found,
    ) -> Result<(), QueryError> {
        let every = self.window.every_us;
        let mut boundary = start;
        while boundary <= end && *budget > 0 {
            let answer = match rows.any_in(boundary - self.window.window_us, boundary) {
                true => {
                    *budget -= 1;
                    self.answer(rows, boundary).await?
                }
                false => Answer::default(),
            };
            found.null_entities += answer.null_entities;
            let open = state.open.get_or_insert_default();
            open.step(boundary, every, answer.held, &mut found.runs);
            state.evaluated = boundary;
            state.failures = 0;
            boundary += every;
        }
        Ok(())
    }

    /// The last instant of the stream, for streams that end.
    pub async fn last_time(&self) -> Result<Option<Micros>, QueryError> {
        self.edge("max", None).await
    }

    /// The runs that hold at `boundary`, with their beginnings: evaluated backwards until each no longer holds.
    async fn open_runs_at(&self, boundary: Micros) -> Result<OpenRuns, QueryError> {
        if boundary == Micros::MIN {
            return Ok(OpenRuns::default());
        }
        let (window, every) = (self.window.window_us, self.window.every_us);
        let rows = self.read(boundary.saturating_sub(window), boundary).await?;
        if rows.times.is_empty() {
            return Ok(OpenRuns::default());
        }
        let held = self.answer(&rows, boundary).await?.held;
        let mut runs: BTreeMap<Entity, Run> =
            held.into_iter().map(|h| (h.entity.clone(), Run::new(h, boundary))).collect();
        let mut growing: BTreeSet<Entity> = runs.keys().cloned().collect();
        let mut at = boundary - every;
        let limit = boundary.saturating_sub(LOOKBACK_BOUNDARIES_MAX * every);
        while !growing.is_empty() && at > limit {
            let low = at - (self.stretch() - 1) * every;
            let rows = self.read(low - window, at).await?;
            while !growing.is_empty() && at >= low && at > limit {
                let answer = match rows.any_in(at - window, at) {
                    true => self.answer(&rows, at).await?,
                    false => Answer::default(),
                };
                grow(&mut runs, &mut growing, answer, at);
                at -= every;
            }
        }
        if !growing.is_empty() {
            tracing::warn!(rule = %self.rule.id, runs = growing.len(), "open runs began before the look-back limit");
        }
        Ok(OpenRuns::new(runs.into_values().collect()))
    }

    async fn answer(&self, rows: &Rows, boundary: Micros) -> Result<Answer, QueryError> {
        oracle::evaluate(self.base, self.rule, self.window, boundary, self.origin, &|name| rows.table(name)).await
    }

    fn stretch(&self) -> i64 {
        (STRETCH_WINDOWS * (self.window.window_us / self.window.every_us)).max(STRETCH_BOUNDARIES_MIN)
    }

    /// Rows with `from <= time < before`, those of one table that cannot matter to the rule left out.
    async fn read(&self, from: Micros, before: Micros) -> Result<Rows, QueryError> {
        let mut rows = Rows::default();
        let mut bytes = 0;
        for relation in &self.rule.relations {
            let columns = relation.columns.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ");
            let bounds = format!("time >= {} AND time < {}", sql_time(from), sql_time(before));
            let sql = format!("SELECT {columns} {} AND {bounds}", self.source_clause(relation));
            let frame = self.stored.sql(&sql).await.map_err(QueryError::run)?;
            let mut schema: SchemaRef = frame.schema().inner().clone();
            let mut stream = frame.execute_stream().await.map_err(QueryError::run)?;
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(QueryError::run)?;
                bytes += batch.get_array_memory_size();
                if bytes > Limits::RULE.memory_bytes {
                    let limit = Limits::RULE.memory_bytes >> 20;
                    return Err(QueryError::Memory(format!("its window holds more than {limit} MB")));
                }
                rows.times.extend(
                    batch
                        .column_by_name(column::TIME)
                        .expect("every relation reads time")
                        .as_primitive::<TimestampMicrosecondType>()
                        .values(),
                );
                schema = batch.schema();
                batches.push(batch);
            }
            rows.relations.insert(relation.name.clone(), (schema, batches));
        }
        rows.times.sort_unstable();
        rows.times.dedup();
        Ok(rows)
    }

    /// The first or last time of rows, at or after `from`.
    async fn edge(&self, aggregate: &str, from: Option<Micros>) -> Result<Option<Micros>, QueryError> {
        let bound = from.map_or(String::new(), |from| format!(" AND time >= {}", sql_time(from)));
        let mut edge: Option<Micros> = None;
        for relation in &self.rule.relations {
            let sql = format!("SELECT {aggregate}(time) AS edge {}{bound}", self.source_clause(relation));
            let frame = self.stored.sql(&sql).await.map_err(QueryError::run)?;
            for batch in frame.collect().await.map_err(QueryError::run)? {
                for time in batch.column(0).as_primitive::<TimestampMicrosecondType>().iter().flatten() {
                    edge = Some(match (edge, aggregate) {
                        (Some(have), "min") => have.min(time),
                        (Some(have), _) => have.max(time),
                        (None, _) => time,
                    });
                }
            }
        }
        Ok(edge)
    }

    /// `FROM … WHERE …`, to be continued with AND. A rule over one table is read with its own WHERE.
    fn source_clause(&self, relation: &Relation) -> String {
        let (from, filter) = match derived(self.rule) {
            Some(derived) => (derived.from.clone(), derived.filter_and()),
            None => (format!("\"{}\"", relation.name), String::new()),
        };
        format!("FROM {from} WHERE {filter}origin = '{}'", self.origin.name())
    }
}

/// Lengthens backwards the runs that hold at `at` too.
fn grow(runs: &mut BTreeMap<Entity, Run>, growing: &mut BTreeSet<Entity>, answer: Answer, at: Micros) {
    let mut still = BTreeSet::new();
    for held in answer.held {
        if growing.contains(&held.entity)
            && let Some(run) = runs.get_mut(&held.entity)
        {
            still.insert(held.entity);
            run.first = at;
            run.values = held.values;
            run.evidence.extend(held.evidence);
            run.evidence.sort();
            run.evidence.dedup();
        }
    }
    *growing = still;
}

/// Rows of a stretch in memory.
#[derive(Default)]
struct Rows {
    relations: HashMap<String, (SchemaRef, Vec<RecordBatch>)>,
    /// Ascending, distinct, over all relations.
    times: Vec<Micros>,
}

impl Rows {
    fn table(&self, name: &str) -> Arc<dyn TableProvider> {
        let (schema, batches) = &self.relations[name];
        batch_table(schema.clone(), batches.clone())
    }

    fn any_in(&self, from: Micros, before: Micros) -> bool {
        let at = self.times.partition_point(|time| *time < from);
        self.times.get(at).is_some_and(|time| *time < before)
    }
}
