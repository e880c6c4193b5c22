//! Time and waiting for the delivery threads: the wall clock behind a trait, so that tests can make it run faster, and
//! the bell that `record` rings when there is something to send.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::Micros;

pub trait Clock: Send + Sync {
    fn now(&self) -> Micros;

    /// How long to really wait for `span_us` of this clock to pass.
    fn real(&self, span_us: i64) -> Duration;
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn real(&self, span_us: i64) -> Duration {
        Duration::from_micros(u64::try_from(span_us).unwrap_or(0))
    }
}

/// Wakes the delivery threads. A ring is never missed: it is counted, and a waiter says which it has seen.
#[derive(Debug, Default)]
pub struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }

    pub(crate) fn rings(&self) -> u64 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the bell has rung after `seen`, or after `at_most`.
    pub(crate) fn wait(&self, seen: u64, at_most: Duration) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rung.wait_timeout_while(rings, at_most, |rings| *rings == seen));
    }
}
