//! Rows that are stored and were not looked at: a crash came between the store's transaction and the one that keeps findings.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::execution::context::SessionContext;
use event::{Batch, Partition, column};
use futures::StreamExt;

use super::{Engine, Output};
use crate::error::DetectError;
use crate::evidence;
use crate::history::History;
use crate::offsets::past;

impl Engine {
    /// Windowed rules take up where they were; single-event rules look at stored rows past the frontier: after a crash between the store's transaction and
    /// the one that keeps findings. Call before anything new is admitted.
    pub async fn catch_up(&mut self, history: &dyn History) -> Result<Output, DetectError> {
        let stored = self.rules.stored(history)?;
        let mut output = Output::default();
        if self.live.is_none() {
            self.restore(&stored, &mut output).await?;
        }
        if self.has_seen_all() {
            return Ok(output);
        }
        for schema in self.rules.schemas.clone() {
            let behind = self.behind(&stored, &schema.name).await?;
            if behind.is_empty() {
                continue;
            }
            let any = behind.iter().map(past).collect::<Vec<_>>().join(" OR ");
            let sql = format!("SELECT * FROM {} WHERE {any}", schema.name);
            let mut rows = stored.sql(&sql).await?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let batch = Batch { table: schema.name.as_str().into(), rows: batch? };
                self.evaluate_rows(&schema.name, &batch.rows, &mut output);
                self.remember(&[batch], &mut output);
            }
        }
        self.frontier.advance(&output.frontier);
        Ok(output)
    }

    /// The frontier is where the store ends, as far as this engine was told: no row needs to be looked for.
    fn has_seen_all(&self) -> bool {
        let stored = &self.committed.1.0;
        let seen = |(partition, next): (&Partition, &i64)| self.frontier.offsets.get(partition) >= Some(next);
        !stored.is_empty() && stored.iter().all(seen)
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
}
