//! The bytes that may be at hand at a time: bodies being read, decompressed, or waiting to be durable. Each request
//! holds its share; a share that is dropped is free for the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Clone)]
pub(super) struct InFlight {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

/// A share of them.
pub(super) struct Held {
    permit: OwnedSemaphorePermit,
    of: InFlight,
}

impl InFlight {
    pub fn new(bytes_max: usize) -> InFlight {
        // Permits are counted in 32 bits per request.
        let bytes_max = bytes_max.min(u32::MAX as usize);
        InFlight { free: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    pub fn bytes(&self) -> usize {
        self.bytes_max - self.free.available_permits()
    }

    /// Waits in line for `bytes`, at most so long.
    pub async fn hold(&self, bytes: usize, at_most: Duration) -> Option<Held> {
        let bytes = u32::try_from(bytes).ok().filter(|b| *b as usize <= self.bytes_max)?;
        let waiting = self.free.clone().acquire_many_owned(bytes);
        let permit = tokio::time::timeout(at_most, waiting).await.ok()?.ok()?;
        let held = Held { permit, of: self.clone() };
        held.show();
        Some(held)
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// More of it, at once or not: whoever holds a share does not wait for another.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else { return false };
        match self.of.free.clone().try_acquire_many_owned(bytes) {
            Ok(more) => {
                self.permit.merge(more);
                self.show();
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
        self.show();
    }

    fn show(&self) {
        metrics::gauge!("stakeout_receiver_in_flight_bytes").set(self.of.bytes() as f64);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let at_once = Duration::ZERO;
            let all = InFlight::new(100);
            let mut first = all.hold(60, at_once).await.unwrap();
            assert!(all.hold(50, at_once).await.is_none());
            assert!(all.hold(101, Duration::from_secs(60)).await.is_none(), "would never come");
            assert!(first.grow(40) && !first.grow(1));
            assert_eq!(all.bytes(), 100);
            first.shrink_to(10);
            assert_eq!(all.bytes(), 10);
            let second = all.hold(90, at_once).await.unwrap();
            drop(first);
            assert_eq!(all.bytes(), 90);
            drop(second);
            assert_eq!(all.bytes(), 0);
        });
    }
}
