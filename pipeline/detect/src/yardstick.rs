//! What the same single-event rules cost in stock DataFusion: one physical plan per rule and table, made once over a
//! table whose rows are swapped, run for every batch, its rows collected. For benches only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use query::QueryError;

use crate::rule::Body;
use crate::ruleset::RuleSet;
use crate::singles::Singles;

pub struct Stock {
    plans: HashMap<String, Vec<Arc<dyn ExecutionPlan>>>,
    slots: HashMap<String, Arc<Slot>>,
    task: Arc<TaskContext>,
}

impl Stock {
    pub async fn new(rules: &RuleSet) -> Result<Stock, QueryError> {
        let mut stock = Stock { plans: HashMap::new(), slots: HashMap::new(), task: rules.base.task_ctx() };
        for schema in &rules.schemas {
            let slot = Arc::new(Slot { schema: schema.arrow(), batch: Mutex::new(None) });
            stock.slots.insert(schema.name.clone(), slot.clone());
            let ctx = query::fork(&rules.base);
            let table =
                || StreamingTable::try_new(schema.arrow(), vec![slot.clone()]).expect("the slot has the schema");
            query::register_tables(&ctx, std::slice::from_ref(schema), &|_| {
                Arc::new(table()) as Arc<dyn TableProvider>
            })?;
            for rule in rules.rules.iter().filter(|r| r.tables.contains(&schema.name)) {
                if let Body::Single(_) = &rule.body {
                    let plan = query::plan_rule(&ctx, &rule.sql).await?;
                    let state = ctx.state();
                    let plan = state.create_physical_plan(&plan).await.map_err(QueryError::run)?;
                    stock.plans.entry(schema.name.clone()).or_default().push(plan);
                }
            }
        }
        Ok(stock)
    }

    /// How many rows all rules together return.
    pub async fn run(&self, table: &str, batch: &RecordBatch) -> Result<usize, QueryError> {
        let (Some(slot), Some(plans)) = (self.slots.get(table), self.plans.get(table)) else { return Ok(0) };
        *slot.batch.lock().expect("nobody panics with it") = Some(batch.clone());
        let mut rows = 0;
        for plan in plans {
            let batches = collect(plan.clone(), self.task.clone()).await.map_err(QueryError::run)?;
            rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        Ok(rows)
    }
}

#[derive(Debug)]
struct Slot {
    schema: SchemaRef,
    batch: Mutex<Option<RecordBatch>>,
}

impl PartitionStream for Slot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.batch.lock().expect("nobody panics with it").clone();
        let rows = futures::stream::iter(batch.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// The same rules in one scan.
pub struct OneScan(Singles);

impl OneScan {
    pub fn new(rules: &RuleSet) -> OneScan {
        OneScan(Singles::new(rules))
    }

    /// How many rows all rules together return; `None` if one cannot be computed.
    pub fn run(&self, table: &str, batch: &RecordBatch) -> Option<usize> {
        self.0.count(table, batch)
    }
}
