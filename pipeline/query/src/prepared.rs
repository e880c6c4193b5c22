//! A plan that is run again and again over rows that change: planned once, its state reset before each run.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use crate::hunt::{collect_physical, interruptible};
use crate::{HuntLimits, QueryError};

/// A table whose rows can be exchanged between runs.
#[derive(Clone, Debug)]
pub struct SwapTable {
    schema: SchemaRef,
    rows: Arc<Mutex<Vec<RecordBatch>>>,
}

impl SwapTable {
    pub fn new(schema: SchemaRef) -> SwapTable {
        SwapTable { schema, rows: Arc::default() }
    }

    pub fn set(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub fn provider(&self) -> Arc<dyn TableProvider> {
        let rows = Arc::new(self.clone());
        Arc::new(
            StreamingTable::try_new(self.schema.clone(), vec![rows]).expect("the partition has the table's schema"),
        )
    }
}

impl PartitionStream for SwapTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

pub struct Prepared {
    ctx: SessionContext,
    plan: Arc<dyn ExecutionPlan>,
}

/// Plans once what is to be run over [`SwapTable`]s.
pub async fn prepare(ctx: &SessionContext, plan: LogicalPlan) -> Result<Prepared, QueryError> {
    let plan = ctx.state().create_physical_plan(&plan).await.map_err(QueryError::run)?;
    Ok(Prepared { ctx: ctx.clone(), plan: interruptible(plan).map_err(QueryError::run)? })
}

impl Prepared {
    pub async fn collect(&self, limits: HuntLimits) -> Result<Vec<RecordBatch>, QueryError> {
        // Joins, sorts and scalar subqueries keep what they computed: a second run without this is silently wrong.
        let plan = reset_plan_states(self.plan.clone()).map_err(QueryError::run)?;
        collect_physical(&self.ctx, plan, limits).await
    }
}
