//! The sieve: what of an arriving batch, or of a stored table, can matter to a windowed rule. Only these rows and the
//! columns computed from them enter its window.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, LogicalPlan, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use event::{Micros, Origin, TableSchema, column};
use futures::StreamExt;

use super::slots::{Slots, Span};
use super::together::Chosen;
use crate::evidence::find;
use crate::oracle::instant;
use crate::program::{Selected, Step, direct, push_steps, run_steps};

/// One stored table's share of a rule's rows.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub table: String,
    /// What the scan reads, in its order.
    columns: Vec<String>,
    /// For stores that can skip rows by it; the steps apply it anyway.
    pub sieve: Option<Expr>,
    /// After the scan.
    steps: Vec<Step>,
    /// What its rows pass, over the table's full schema; `None` where that cannot be said apart from the steps.
    pub keeps: Option<Vec<Arc<dyn PhysicalExpr>>>,
}

/// Rows that could not be computed, with the first reason.
pub type Failed = Option<(u64, String)>;

pub fn both(failed: Failed, also: Failed) -> Failed {
    match (failed, also) {
        (Some((a, reason)), Some((b, _))) => Some((a + b, reason)),
        (a, b) => a.or(b),
    }
}

/// Rows that passed, with what the rule computes from them and the boundaries that see them.
pub struct Sifted {
    pub rows: RecordBatch,
    pub spans: Vec<Span>,
    pub times: Vec<Micros>,
    pub stamps: Vec<Micros>,
    pub failed: Failed,
}

impl Sifted {
    /// Keeps the rows with a time and stamp that are wanted.
    pub fn retain(&mut self, wanted: impl Fn(Micros, Micros) -> bool) -> Result<()> {
        let keep: BooleanArray = self.times.iter().zip(&self.stamps).map(|(t, s)| Some(wanted(*t, *s))).collect();
        if keep.true_count() == self.times.len() {
            return Ok(());
        }
        self.rows = filter_record_batch(&self.rows, &keep)?;
        let mut kept = keep.values().iter();
        self.spans.retain(|_| kept.next().unwrap_or(false));
        let mut kept = keep.values().iter();
        self.times.retain(|_| kept.next().unwrap_or(false));
        let mut kept = keep.values().iter();
        self.stamps.retain(|_| kept.next().unwrap_or(false));
        Ok(())
    }
}

impl Part {
    /// `plan` is optimized, row-local and of one table; `None` when it can return no rows.
    pub fn of(state: &SessionState, schema: &TableSchema, plan: &LogicalPlan) -> Result<Option<Part>> {
        let mut steps = Vec::new();
        if !push_steps(state, plan, &mut steps)? {
            return Ok(None);
        }
        let keeps = direct(&steps, &schema.arrow())?.map(|direct| direct.keeps);
        let columns = match steps.first() {
            Some(Step::Take(places)) => {
                let columns = places.iter().map(|at| schema.columns[*at].name.clone()).collect();
                steps.remove(0);
                columns
            }
            _ => schema.columns.iter().map(|c| c.name.clone()).collect(),
        };
        Ok(Some(Part { table: schema.name.clone(), columns, sieve: scan_filter(plan)?, steps, keeps }))
    }

    /// Rows of an admitted batch, those of one origin. Of `chosen` rows it is known that no others pass.
    pub fn sift(&self, batch: &RecordBatch, chosen: Chosen, origin: Origin, slots: Slots) -> Result<Sifted> {
        let chosen = match chosen {
            Chosen::All => None,
            Chosen::Rows(rows) => Some(self.taken(batch, rows)?),
        };
        let batch = chosen.as_ref().unwrap_or(batch);
        let origins = find(batch, column::ORIGIN)?.as_string_view();
        let mine = |row: usize| origins.value(row) == origin.name();
        let rows = match (0..batch.num_rows()).all(mine) {
            true => batch.clone(),
            false => {
                let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(mine(row))).collect();
                filter_record_batch(batch, &keep)?
            }
        };
        let times = micros(&rows, column::TIME)?;
        let stamps = micros(&rows, column::SOURCE_WATERMARK)?;
        let places = self.columns.iter().map(|name| Ok(rows.schema().index_of(name)?)).collect::<Result<Vec<_>>>()?;
        self.run(&rows.project(&places)?, &times, &stamps, slots)
    }

    /// Some rows of a batch, with the columns that are needed here.
    fn taken(&self, batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
        let schema = batch.schema();
        let own = [column::TIME, column::SOURCE_WATERMARK, column::ORIGIN];
        let mut places = self
            .columns
            .iter()
            .map(String::as_str)
            .chain(own)
            .map(|name| schema.index_of(name))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        places.sort_unstable();
        places.dedup();
        Ok(take_record_batch(&batch.project(&places)?, &UInt32Array::from(rows))?)
    }

    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    fn run(&self, scanned: &RecordBatch, times: &[Micros], stamps: &[Micros], slots: Slots) -> Result<Sifted> {
        let (Selected { rows, from }, failed) = self.run_around_errors(scanned)?;
        let pick = |values: &[Micros]| from.iter().map(|row| values[*row as usize]).collect::<Vec<_>>();
        let (times, stamps) = (pick(times), pick(stamps));
        let spans = times.iter().zip(&stamps).map(|(time, stamp)| slots.span(*time, *stamp)).collect();
        Ok(Sifted { rows, spans, times, stamps, failed })
    }

    /// One odd value must not hide its neighbours: a batch that fails is halved until only the rows at fault are out.
    fn run_around_errors(&self, scanned: &RecordBatch) -> Result<(Selected, Failed)> {
        let error = match run_steps(&self.steps, scanned) {
            Ok(selected) => return Ok((selected, None)),
            Err(error) => error,
        };
        let rows = scanned.num_rows();
        if rows <= 1 {
            let nothing = run_steps(&self.steps, &scanned.slice(0, 0))?;
            return Ok((nothing, Some((rows as u64, error.strip_backtrace()))));
        }
        let half = rows / 2;
        let (left, failed) = self.run_around_errors(&scanned.slice(0, half))?;
        let (right, also) = self.run_around_errors(&scanned.slice(half, rows - half))?;
        let joined = concat_batches(&left.rows.schema(), [&left.rows, &right.rows])?;
        let from = left.from.into_iter().chain(right.from.into_iter().map(|row| row + half as u32)).collect();
        Ok((Selected { rows: joined, from }, both(failed, also)))
    }

    /// Runs over stored rows with `from <= time < before`, a batch at a time. `also` narrows them further.
    pub async fn read(
        &self,
        stored: &SessionContext,
        range: (Micros, Micros),
        also: Option<Expr>,
        origin: Origin,
        slots: Slots,
        mut each: impl FnMut(Sifted) -> Result<()>,
    ) -> Result<()> {
        let mut condition = col(column::ORIGIN).eq(text(origin.name()));
        if range.0 != Micros::MIN {
            condition = condition.and(col(column::TIME).gt_eq(instant(range.0)));
        }
        if range.1 != Micros::MAX {
            condition = condition.and(col(column::TIME).lt(instant(range.1)));
        }
        condition = also.into_iter().chain(self.sieve.clone()).fold(condition, Expr::and);
        let quoted = |name: &str| Expr::Column(datafusion::common::Column::new_unqualified(name));
        let mut wanted: Vec<Expr> = self.columns.iter().map(|name| quoted(name)).collect();
        wanted.push(quoted(column::TIME).alias(TIME_OF_ROW));
        wanted.push(quoted(column::SOURCE_WATERMARK).alias(STAMP_OF_ROW));
        let frame = stored.table(self.table.as_str()).await?.filter(condition)?.select(wanted)?;
        let mut stream = frame.execute_stream().await?;
        let scan: Vec<usize> = (0..self.columns.len()).collect();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            let (times, stamps) = (micros(&batch, TIME_OF_ROW)?, micros(&batch, STAMP_OF_ROW)?);
            each(self.run(&batch.project(&scan)?, &times, &stamps, slots)?)?;
        }
        Ok(())
    }

    /// Over no rows: constants that cannot be computed fail here, when the rule is loaded.
    pub fn try_on_nothing(&self, schema: &TableSchema) -> Result<RecordBatch> {
        let empty = RecordBatch::new_empty(schema.arrow());
        let places = self.columns.iter().map(|name| Ok(empty.schema().index_of(name)?)).collect::<Result<Vec<_>>>()?;
        Ok(run_steps(&self.steps, &empty.project(&places)?)?.rows)
    }
}

/// Names that no table has.
pub(super) const TIME_OF_ROW: &str = "stakeout.time";
pub(super) const STAMP_OF_ROW: &str = "stakeout.source_watermark";

fn text(value: &str) -> Expr {
    lit(ScalarValue::Utf8View(Some(value.to_owned())))
}

pub(super) fn micros(batch: &RecordBatch, name: &str) -> Result<Vec<Micros>> {
    let column = find(batch, name)?;
    match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().values().to_vec()),
        _ => Ok(column.as_primitive::<TimestampMicrosecondType>().values().to_vec()),
    }
}

/// The conditions that stand directly on the scan, without its qualifier.
fn scan_filter(plan: &LogicalPlan) -> Result<Option<Expr>> {
    let mut filters: Vec<Expr> = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node
            && matches!(filter.input.as_ref(), LogicalPlan::TableScan(_))
        {
            filters.push(unnormalize_col(filter.predicate.clone()));
        }
        if let LogicalPlan::TableScan(scan) = node {
            filters.extend(scan.filters.iter().cloned().map(unnormalize_col));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(filters.into_iter().reduce(Expr::and))
}

/// Batches of no columns have rows too.
pub fn batch_of(
    columns: Vec<(Arc<arrow::datatypes::Field>, arrow::array::ArrayRef)>,
    rows: usize,
) -> Result<RecordBatch> {
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(DataFusionError::from)
}
