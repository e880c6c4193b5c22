//! Hunts: SQL that a person typed, run under a row limit and a time limit. Reaching either ends the stream with
//! an error that says so, after the rows that were found.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::{Purpose, QueryError, sandbox};

#[derive(Clone, Copy, Debug)]
pub struct HuntLimits {
    pub rows_max: u64,
    pub timeout: Duration,
}

impl Default for HuntLimits {
    /// What a terminal can use and a person waits for.
    fn default() -> Self {
        HuntLimits { rows_max: 1_000_000, timeout: Duration::from_secs(300) }
    }
}

/// Plans one SELECT (or EXPLAIN, DESCRIBE, SHOW TABLES).
pub async fn plan_hunt(ctx: &SessionContext, sql: &str) -> Result<LogicalPlan, QueryError> {
    sandbox::plan(ctx, sql, Purpose::Hunt).await
}

/// Runs a plan of [`plan_hunt`]. Dropping the stream cancels the query.
pub async fn run_hunt(
    ctx: &SessionContext,
    plan: LogicalPlan,
    limits: HuntLimits,
) -> Result<BoxStream<'static, Result<RecordBatch, QueryError>>, QueryError> {
    let deadline = Instant::now() + limits.timeout;
    let start = async {
        let plan = ctx.state().create_physical_plan(&plan).await?;
        execute_stream(interruptible(plan)?, ctx.task_ctx())
    };
    let rows = match tokio::time::timeout_at(deadline, start).await {
        Ok(rows) => rows.map_err(QueryError::run)?,
        Err(_) => return Err(QueryError::Timeout { seconds: limits.timeout.as_secs() }),
    };
    Ok(limited(rows, limits, deadline))
}

fn limited(
    rows: SendableRecordBatchStream,
    limits: HuntLimits,
    deadline: Instant,
) -> BoxStream<'static, Result<RecordBatch, QueryError>> {
    let hunt = Hunt { rows, limits, deadline, rows_left: limits.rows_max, cut: false, over: false };
    stream::unfold(hunt, |mut hunt| async move { hunt.next().await.map(|item| (item, hunt)) }).boxed()
}

/// Runs a plan that [`interruptible`] made to its end, or to a limit.
pub(crate) async fn collect_physical(
    ctx: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    limits: HuntLimits,
) -> Result<Vec<RecordBatch>, QueryError> {
    let deadline = Instant::now() + limits.timeout;
    let rows = execute_stream(plan, ctx.task_ctx()).map_err(QueryError::run)?;
    limited(rows, limits, deadline).try_collect().await
}

/// Runs a plan of [`plan_rule`](crate::plan_rule) or [`plan_hunt`] to its end, or to a limit.
pub async fn collect(
    ctx: &SessionContext,
    plan: LogicalPlan,
    limits: HuntLimits,
) -> Result<Vec<RecordBatch>, QueryError> {
    run_hunt(ctx, plan, limits).await?.try_collect().await
}

/// A join makes many rows of few, for minutes on end without a pause in which a timeout could act. With this it
/// pauses every so many batches of its own; DataFusion itself only counts those that are read.
pub(crate) fn interruptible(plan: Arc<dyn ExecutionPlan>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let multiplies = |name: &str| name.ends_with("JoinExec") || name == "UnnestExec";
    plan.transform_up(|node| match multiplies(node.name()) {
        true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)),
        false => Ok(Transformed::no(node)),
    })
    .data()
}

struct Hunt {
    rows: SendableRecordBatchStream,
    limits: HuntLimits,
    deadline: Instant,
    rows_left: u64,
    /// Part of the last batch was withheld.
    cut: bool,
    over: bool,
}

impl Hunt {
    async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.over {
            return None;
        }
        let item = self.limited().await;
        self.over = matches!(item, Some(Err(_)) | None);
        item
    }

    async fn limited(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        let too_many = QueryError::RowsMax { rows_max: self.limits.rows_max };
        if self.cut {
            return Some(Err(too_many));
        }
        let batch = match tokio::time::timeout_at(self.deadline, self.rows.next()).await {
            Ok(Some(Ok(batch))) => batch,
            Ok(Some(Err(error))) => return Some(Err(QueryError::run(error))),
            Ok(None) => return None,
            Err(_) => return Some(Err(QueryError::Timeout { seconds: self.limits.timeout.as_secs() })),
        };
        let rows = batch.num_rows() as u64;
        if self.rows_left == 0 && rows > 0 {
            return Some(Err(too_many));
        }
        let kept = rows.min(self.rows_left);
        // The rows that fit come first, the error when the next batch is asked for.
        self.cut = kept < rows;
        self.rows_left -= kept;
        Some(Ok(batch.slice(0, kept as usize)))
    }
}
