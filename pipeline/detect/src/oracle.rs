//! What a windowed rule means, word for word: its SELECT over the rows with `b-W <= time < b`,
//! `source_watermark < b` and one origin; nothing while a relation from which something is to be absent has no such row.
//! Kept plain: everything faster is tested against this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};
use datafusion::scalar::ScalarValue;
use event::{Micros, Origin, column};
use query::{HuntLimits, QueryError, batch_table};
use serde_json::{Map, Value};

use crate::derive::EVIDENCE_COLUMN;
use crate::memory::versions_stored;
use crate::rule::{Rule, Window};
use crate::value;

/// One boundary of one rule. A rule that needs longer cannot keep up, and one that returns more is no rule.
pub(crate) const LIMITS: HuntLimits = HuntLimits { rows_max: 100_000, timeout: Duration::from_secs(30) };

/// Entity columns and their values, in the rule's order.
pub type Entity = Vec<(String, String)>;

/// That (rule, entity) holds at a boundary. Rows with equal entity are merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub entity: Entity,
    /// The columns of the SELECT but for the evidence.
    pub values: Map<String, Value>,
    /// What the rule listed as evidence, if it does.
    pub evidence: Vec<String>,
}

/// One boundary's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// By entity, ascending.
    pub held: Vec<Held>,
    /// Rows dropped because an entity column was NULL.
    pub null_entities: u64,
}

/// A windowed rule at one boundary.
pub struct Look<'a> {
    /// Brings functions and limits.
    pub base: &'a SessionContext,
    pub rule: &'a Rule,
    pub window: Window,
    pub boundary: Micros,
    pub origin: Origin,
    /// The tables and views that the rule names.
    pub relations: &'a (dyn Fn(&str) -> Arc<dyn TableProvider> + Sync),
    /// The state tables that it joins, as this boundary sees them: [`joined`].
    pub joined: &'a [(String, RecordBatch)],
}

/// What a rule's state tables are at a boundary: their versions from rows before it that were stamped before it. A row that came
/// late for it does not change what was known then, not even for what late rows of the window add there.
pub async fn joined(
    rule: &Rule,
    window: Window,
    boundary: Micros,
    origin: Origin,
    stored: &SessionContext,
) -> Result<Vec<(String, RecordBatch)>> {
    let mut joined = Vec::new();
    for state in &rule.windowed().states {
        let since = boundary.saturating_sub(window.window_us);
        joined.push((state.name.clone(), versions_stored(state, origin, boundary, since, stored).await?));
    }
    Ok(joined)
}

impl Look<'_> {
    pub async fn evaluate(&self) -> Result<Answer, QueryError> {
        let ctx = self.windows()?;
        for relation in self.rule.absent() {
            let any =
                ctx.table(relation.as_str()).await.and_then(|rows| rows.limit(0, Some(1))).map_err(QueryError::run)?;
            if any.collect().await.map_err(QueryError::run)?.iter().all(|rows| rows.num_rows() == 0) {
                return Ok(Answer::default());
            }
        }
        self.answer(&ctx).await
    }

    /// The same although relations from which something is to be absent have no row.
    pub async fn evaluate_in_silence(&self) -> Result<Answer, QueryError> {
        self.answer(&self.windows()?).await
    }

    /// A session in which the rule's relations are their windows.
    fn windows(&self) -> Result<SessionContext, QueryError> {
        let ctx = query::fork(self.base);
        for relation in &self.rule.relations {
            let table = (self.relations)(&relation.name);
            let view = window_of(&relation.name, table, self.window, self.boundary, self.origin);
            view.and_then(|view| ctx.register_table(relation.name.as_str(), Arc::new(view)))
                .map_err(QueryError::run)?;
        }
        for (name, versions) in self.joined {
            let table = batch_table(versions.schema(), vec![versions.clone()]);
            ctx.register_table(name.as_str(), table).map_err(QueryError::run)?;
        }
        Ok(ctx)
    }

    async fn answer(&self, ctx: &SessionContext) -> Result<Answer, QueryError> {
        let plan = query::plan_rule(ctx, &self.rule.sql).await?;
        let batches = query::collect(ctx, plan, LIMITS).await?;
        merge(self.rule, &batches, self.boundary).map_err(QueryError::run)
    }
}

fn window_of(
    name: &str,
    table: Arc<dyn TableProvider>,
    window: Window,
    boundary: Micros,
    origin: Origin,
) -> Result<ViewTable> {
    let condition = col(column::TIME)
        .gt_eq(instant(boundary.saturating_sub(window.window_us)))
        .and(col(column::TIME).lt(instant(boundary)))
        .and(col(column::SOURCE_WATERMARK).lt(instant(boundary)))
        .and(col(column::ORIGIN).eq(lit(ScalarValue::Utf8View(Some(origin.name().to_owned())))));
    let rows = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.filter(condition)?.build()?;
    Ok(ViewTable::new(rows, None))
}

pub(crate) fn instant(time: Micros) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())))
}

/// Rows to entities. Of several rows with one entity, the one with the smallest text gives the values, so that
/// the answer does not depend on the order in which rows come.
pub(crate) fn merge(rule: &Rule, batches: &[RecordBatch], boundary: Micros) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut held: BTreeMap<Arc<Entity>, Held> = BTreeMap::new();
    for batch in batches {
        let at = vec![boundary; batch.num_rows()];
        for (_, one) in held_rows(rule, batch, &at, &mut answer.null_entities)? {
            join(&mut held, Arc::new(one.entity.clone()), one);
        }
    }
    for held in held.values_mut() {
        held.evidence.sort();
        held.evidence.dedup();
    }
    answer.held = held.into_values().collect();
    Ok(answer)
}

/// The rows of the SELECT that have an entity and are not excepted, with their numbers. `at` has the boundary of each row.
pub(crate) fn held_rows(
    rule: &Rule,
    batch: &RecordBatch,
    at: &[Micros],
    nulls: &mut u64,
) -> Result<Vec<(usize, Held)>> {
    debug_assert_eq!(at.len(), batch.num_rows());
    let mut held = Vec::with_capacity(batch.num_rows());
    let excepted = rule.excepted(batch);
    for (row, entity) in entities(&rule.entity, batch)?.into_iter().enumerate() {
        if excepted.get(row) == Some(&true) {
            continue;
        }
        let Some(entity) = entity else {
            *nulls += 1;
            continue;
        };
        let mut values = value::row(batch, row);
        let evidence = values.remove(EVIDENCE_COLUMN).map(texts).unwrap_or_default();
        held.push((row, Held { entity, values, evidence }));
    }
    Ok(held)
}

pub(crate) fn join(held: &mut BTreeMap<Arc<Entity>, Held>, entity: Arc<Entity>, one: Held) {
    match held.get_mut(&entity) {
        None => {
            held.insert(entity, one);
        }
        Some(have) => {
            have.evidence.extend(one.evidence);
            if text(&one.values) < text(&have.values) {
                have.values = one.values;
            }
        }
    }
}

/// The entity of each row; `None` where a column is NULL.
pub(crate) fn entities(columns: &[String], batch: &RecordBatch) -> Result<Vec<Option<Entity>>> {
    let mut entities: Vec<Option<Entity>> = vec![Some(Vec::with_capacity(columns.len())); batch.num_rows()];
    for name in columns {
        let column = batch.column_by_name(name).expect("loading checked that entity columns are selected");
        for (entity, text) in entities.iter_mut().zip(value::texts(column.as_ref())?) {
            match (entity.as_mut(), text) {
                (Some(entity), Some(text)) => entity.push((name.clone(), text)),
                _ => *entity = None,
            }
        }
    }
    Ok(entities)
}

fn text(values: &Map<String, Value>) -> String {
    Value::from(values.clone()).to_string()
}

fn texts(value: Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.into_iter().flat_map(texts).collect(),
        Value::String(text) => vec![text],
        _ => Vec::new(),
    }
}
