//! Reading the store for many at a start, when nothing else has work: on all cores.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use datafusion::error::Result;

/// Does `work` for each of `items`, several at a time; what it gives is in their order. The calling thread waits.
pub fn each<T: Send, R: Send, F: Future<Output = Result<R>>>(
    items: Vec<T>,
    work: impl Fn(T) -> F + Sync,
) -> Vec<Result<R>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let (queue, done) = (Mutex::new(items.into_iter().enumerate()), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let one_by_one = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        while let Some((place, item)) = next() {
            let result = match &runtime {
                Ok(runtime) => runtime.block_on(work(item)),
                Err(error) => Err(datafusion::error::DataFusionError::Execution(format!("no runtime: {error}"))),
            };
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(one_by_one))));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
