//! A row-local SELECT compiled to physical expressions, one part per stored table. Evaluating a batch costs the
//! expressions and nothing else: no plan, no state, no task. Every output row knows the row it came from.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{Field, SchemaRef, UInt32Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use event::TableSchema;
use query::QueryError;

use crate::plan::{empty_tables, expression, not_row_local};
use crate::scan::{Expr, Projection, is_plain, replace};

#[derive(Debug)]
pub struct Program {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    table: String,
    /// In the order they are applied. Empty when the conditions contradict each other for this table.
    steps: Option<Vec<Step>>,
    /// The same in two steps, if that could be done.
    direct: Option<Direct>,
}

/// A part as one filter and one projection, both over the table's full schema: what [`crate::scan`] works on.
#[derive(Clone, Debug)]
pub struct Direct {
    pub keeps: Vec<Expr>,
    pub output: Projection,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Take(Vec<usize>),
    Keep(Arc<dyn PhysicalExpr>),
    Compute { exprs: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
}

/// Rows that the SELECT returned, and the positions in the batch they came from.
pub struct Selected {
    pub rows: RecordBatch,
    pub from: Vec<u32>,
}

/// Why there is no program.
pub enum NotCompiled {
    NotRowLocal(&'static str),
    /// No row of any table can pass.
    NeverFires,
    Error(QueryError),
}

impl From<DataFusionError> for NotCompiled {
    fn from(error: DataFusionError) -> Self {
        NotCompiled::Error(QueryError::run(error))
    }
}

impl From<QueryError> for NotCompiled {
    fn from(error: QueryError) -> Self {
        NotCompiled::Error(error)
    }
}

/// Compiles `sql` once for each of `tables`: planned with only that table present, the view `events` is that
/// table's share of it, and a row-local SELECT is a straight line of filters and projections.
pub async fn compile(
    base: &SessionContext,
    schemas: &[Arc<TableSchema>],
    sql: &str,
    tables: &[String],
) -> Result<Program, NotCompiled> {
    let mut parts = Vec::with_capacity(tables.len());
    for schema in schemas.iter().filter(|s| tables.contains(&s.name)) {
        let ctx = empty_tables(base, std::slice::from_ref(schema))?;
        let plan = query::plan_rule(&ctx, sql).await?;
        if let Some(reason) = not_row_local(&plan, false)? {
            return Err(NotCompiled::NotRowLocal(reason));
        }
        let state = ctx.state();
        let plan = state.optimize(&plan)?;
        let mut steps = Vec::new();
        let steps = push_steps(&state, &plan, &mut steps)?.then_some(steps);
        let direct = steps.as_deref().map(|steps| direct(steps, &schema.arrow())).transpose()?.flatten();
        let part = Part { table: schema.name.clone(), steps, direct };
        // Constants such as a malformed address block fail here instead of at the first event.
        part.run(&RecordBatch::new_empty(schema.arrow()))?;
        parts.push(part);
    }
    if parts.iter().all(|p| p.steps.is_none()) {
        return Err(NotCompiled::NeverFires);
    }
    Ok(Program { parts })
}

/// Appends the steps of an optimized plan, leaf first; false when it cannot return rows.
pub(crate) fn push_steps(state: &SessionState, plan: &LogicalPlan, steps: &mut Vec<Step>) -> Result<bool> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            if let Some(projection) = &scan.projection {
                steps.push(Step::Take(projection.clone()));
            }
            for filter in &scan.filters {
                steps.push(Step::Keep(expression(state, filter.clone(), &scan.projected_schema)?));
            }
            Ok(true)
        }
        LogicalPlan::SubqueryAlias(alias) => push_steps(state, &alias.input, steps),
        LogicalPlan::Filter(filter) => {
            let more = push_steps(state, &filter.input, steps)?;
            steps.push(Step::Keep(expression(state, filter.predicate.clone(), filter.input.schema())?));
            Ok(more)
        }
        LogicalPlan::Projection(projection) => {
            let more = push_steps(state, &projection.input, steps)?;
            let compile = |e: &LogicalExpr| expression(state, e.clone(), projection.input.schema());
            let exprs = projection.expr.iter().map(compile).collect::<Result<Vec<_>>>()?;
            steps.push(Step::Compute { exprs, schema: plan.schema().inner().clone() });
            Ok(more)
        }
        LogicalPlan::EmptyRelation(_) => Ok(false),
        other => Err(DataFusionError::NotImplemented(format!("a row-local rule became {}", other.display()))),
    }
}

/// The steps in terms of the table's own columns: a computed column that a later step reads is put in its place. The
/// optimizer computes what a filter needs below the filter, for every row; this takes it back.
pub(crate) fn direct(steps: &[Step], schema: &SchemaRef) -> Result<Option<Direct>> {
    let own = |(n, f): (usize, &Arc<Field>)| Arc::new(Column::new(f.name(), n)) as Expr;
    let mut columns: Vec<Expr> = schema.fields().iter().enumerate().map(own).collect();
    let mut direct = Direct { keeps: Vec::new(), output: Projection { exprs: Vec::new(), schema: schema.clone() } };
    let in_place = |expr: &Expr, columns: &[Expr]| match is_plain(expr) {
        true => replace(expr, &|column| columns[column].clone()).map(Some),
        false => Ok(None),
    };
    for step in steps {
        match step {
            Step::Take(taken) => {
                columns = taken.iter().map(|c| columns[*c].clone()).collect();
                direct.output.schema = Arc::new(direct.output.schema.project(taken)?);
            }
            Step::Keep(predicate) => match in_place(predicate, &columns)? {
                Some(predicate) => direct.keeps.push(predicate),
                None => return Ok(None),
            },
            Step::Compute { exprs, schema } => {
                let computed = exprs.iter().map(|e| in_place(e, &columns)).collect::<Result<Option<Vec<_>>>>()?;
                let Some(computed) = computed else { return Ok(None) };
                columns = computed;
                direct.output.schema = schema.clone();
            }
        }
    }
    direct.output.exprs = columns;
    Ok(Some(direct))
}

impl Program {
    /// The parts by table, with their two steps: `None` where there is only the long way. Tables of which no row can
    /// pass are left out.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Option<&Direct>)> {
        self.parts.iter().filter(|p| p.steps.is_some()).map(|p| (p.table.as_str(), p.direct.as_ref()))
    }

    /// The rows of `batch`, a batch of `table`, that the SELECT returns; `None` when it does not read the table.
    pub fn run(&self, table: &str, batch: &RecordBatch) -> Result<Option<Selected>> {
        match self.parts.iter().find(|p| p.table == table) {
            Some(part) => part.run(batch),
            None => Ok(None),
        }
    }
}

impl Part {
    fn run(&self, batch: &RecordBatch) -> Result<Option<Selected>> {
        self.steps.as_ref().map(|steps| run_steps(steps, batch)).transpose()
    }
}

/// What is left of a batch after all steps.
pub(crate) fn run_steps(steps: &[Step], batch: &RecordBatch) -> Result<Selected> {
    let mut rows = batch.clone();
    let mut from = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
    for step in steps {
        match step {
            Step::Take(columns) => rows = rows.project(columns)?,
            Step::Keep(predicate) => {
                let keep = truth(predicate.as_ref(), &rows)?;
                rows = filter_record_batch(&rows, &keep)?;
                from = filter(&from, &keep)?.as_primitive::<UInt32Type>().clone();
            }
            Step::Compute { exprs, schema } => rows = compute(exprs, schema, &rows)?,
        }
    }
    Ok(Selected { rows, from: from.values().to_vec() })
}

/// NULL is not true.
pub(crate) fn truth(predicate: &dyn PhysicalExpr, rows: &RecordBatch) -> Result<BooleanArray> {
    let value = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
    let keep = value
        .as_boolean_opt()
        .ok_or_else(|| DataFusionError::Execution("the condition is not true or false".to_owned()))?;
    Ok(if keep.null_count() > 0 { prep_null_mask_filter(keep) } else { keep.clone() })
}

pub(crate) fn compute(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let columns = exprs.iter().map(|e| e.evaluate(rows)?.into_array(count)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
