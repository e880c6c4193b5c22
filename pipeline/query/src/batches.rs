//! Batches in memory as a table. DataFusion's own `MemTable` reports exact statistics, from which `count(*)`
//! becomes a constant when the plan is made; this one promises nothing about its rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

/// A table over `batches`, which must have exactly `schema`.
pub fn batch_table(schema: SchemaRef, batches: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    let rows = Arc::new(Batches { schema: schema.clone(), batches });
    Arc::new(StreamingTable::try_new(schema, vec![rows]).expect("the partition has the table's own schema"))
}

#[derive(Debug)]
struct Batches {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl PartitionStream for Batches {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter(self.batches.clone().into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
