//! Reading the store for many at a start, when nothing else has work: on all cores.

use std::num::NonZero;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::ExecutionPlanProperties;
use futures::StreamExt;

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

fn no_threads(error: std::io::Error) -> DataFusionError {
    DataFusionError::IoError(error)
}

/// Does `work` for each of `items`, several at a time; what it gives is in their order. The calling thread waits.
pub fn each<T: Send, R: Send, F: Future<Output = Result<R>>>(
    items: Vec<T>,
    work: impl Fn(T) -> F + Sync,
) -> Vec<Result<R>> {
    let threads = cores().min(items.len());
    let (queue, done) = (Mutex::new(items.into_iter().enumerate()), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    #[cfg(test)]
    let fault = crate::fault::injected();
    let one_by_one = || {
        #[cfg(test)]
        crate::fault::inject(fault);
        while let Some((place, item)) = next() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.map_err(no_threads).and_then(|runtime| runtime.block_on(work(item)));
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(one_by_one))));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Reads a query without an order of its own. `work` looks at each batch on the thread that reads it; `take` gets what it
/// gives, in any order, on this one.
pub async fn batches<T: Send + 'static, W: FnMut(&RecordBatch) -> Result<T> + Send + 'static>(
    frame: DataFrame,
    work: impl Fn() -> W,
    mut take: impl FnMut(T),
) -> Result<()> {
    let (state, plan) = frame.into_parts();
    let config = state.config().clone().with_target_partitions(cores());
    let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
    let plan = state.create_physical_plan(&plan).await?;
    let partitions = plan.output_partitioning().partition_count();
    if partitions == 1 {
        let (mut stream, mut work) = (plan.execute(0, state.task_ctx())?, work());
        while let Some(batch) = stream.next().await {
            take(work(&batch?)?);
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores()).enable_all().build();
    let runtime = runtime.map_err(no_threads)?;
    let (send, receive) = sync_channel(cores());
    let mut readers = Vec::new();
    for partition in 0..partitions {
        let (plan, context, send, mut work) = (plan.clone(), state.task_ctx(), send.clone(), work());
        readers.push(runtime.spawn(async move {
            let mut stream = plan.execute(partition, context)?;
            while let Some(batch) = stream.next().await {
                // Whoever takes is gone only by a panic.
                if send.send(work(&batch?)?).is_err() {
                    break;
                }
            }
            Ok(())
        }));
    }
    drop(send);
    receive.into_iter().for_each(take);
    let mut outcome = Ok(());
    for reader in readers {
        outcome = outcome.and(reader.await.unwrap_or_else(|panic| Err(DataFusionError::External(Box::new(panic)))));
    }
    // A runtime may not be waited for within another.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::datasource::MemTable;
    use datafusion::execution::context::SessionContext;

    use super::*;

    async fn sum(limit: i64) -> Result<i64> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = |n: i64| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(n * 100..(n + 1) * 100))])
        };
        let partitions: Vec<Vec<RecordBatch>> = (0..5)
            .map(|p| (0..7).map(|n| batch(p * 7 + n)).collect::<std::result::Result<_, _>>())
            .collect::<std::result::Result<_, _>>()?;
        let ctx = SessionContext::new();
        ctx.register_table("t", Arc::new(MemTable::try_new(schema, partitions)?))?;
        let mut all = 0;
        let add = move || {
            move |batch: &RecordBatch| match batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>() {
                sum if sum < limit => Ok(sum),
                _ => panic!("too much"),
            }
        };
        batches(ctx.table("t").await?, add, |sum| all += sum).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn all_of_it_is_read_or_it_is_an_error() {
        assert_eq!(sum(i64::MAX).await.unwrap(), 3_500 * 3_499 / 2);
        assert!(sum(200_000).await.unwrap_err().to_string().contains("too much"));
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let work = |n: u64| async move {
            tokio::time::sleep(std::time::Duration::from_millis(n % 7)).await;
            if n == 13 { Err(DataFusionError::Execution("13".into())) } else { Ok(n) }
        };
        let done = each((0..40).collect(), work);
        assert!(done.iter().enumerate().all(|(n, done)| if n == 13 {
            done.is_err()
        } else {
            *done.as_ref().unwrap() == n as u64
        }));
    }
}
