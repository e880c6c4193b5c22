//! The sealer: makes what was admitted durable, gently where there is time, and with patience where the disk has none.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::Result;
use event::{Commit, Offsets};
use store::{Store, StoreError};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use super::{Failure, SEAL_CHECK, Stats, Work};
use crate::shutdown::Shutdown;

/// Of 0 to 99; where threads have niceness, 9 and 15.
const SEALING: u8 = 25;
pub(super) const MERGING: u8 = 10;

/// Sealing and merging take most of the time of a busy line, in long stretches: where they compete for a core with what pages
/// somebody, that goes first, and merging comes last.
pub(super) fn in_the_background(priority: u8) {
    let priority = ThreadPriorityValue::try_from(priority).unwrap_or(ThreadPriorityValue::MIN);
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority)) {
        tracing::debug!(?error, "a thread of the store has no lower priority");
    }
}

/// A seal gets what the line leaves. One that needs nearly all of the time until the next is due would soon make the line wait at
/// its bound, and every event with it: then the next ones compete on equal terms.
#[derive(Default)]
struct Pace {
    began: Option<Instant>,
    hurries: bool,
}

impl Pace {
    fn seal(&mut self, store: &Store) -> Result<Option<Commit>, StoreError> {
        let (began, hurries) = (Instant::now(), self.hurries);
        let between = self.began.replace(began).map(|before| began - before);
        // In a thread of its own: one that has a lower priority may not have its old one back.
        let seal = || {
            if !hurries {
                in_the_background(SEALING);
            }
            store.seal()
        };
        let sealed = std::thread::scope(|scope| scope.spawn(seal).join());
        let spare = if hurries { 2.0 } else { 1.15 };
        self.hurries = between.is_some_and(|between| began.elapsed().mul_f64(spare) > between);
        sealed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Seals when it is due, and once more when the line has drained.
pub(super) fn seal(
    store: &Store,
    commits: &SyncSender<Work>,
    tell: &dyn Fn(&Offsets),
    stats: &Stats,
    drained: &Shutdown,
    failed: &Failure,
) -> Result<()> {
    let (mut patience, mut pace) = (Patience::default(), Pace::default());
    loop {
        let last = drained.wait(SEAL_CHECK);
        if !last && !store.seal_due(Instant::now()) {
            continue;
        }
        // A line that failed may have appended what detect never saw; the next start reads it again.
        if last && failed.happened() {
            return Ok(());
        }
        let sealed = match pace.seal(store) {
            Err(error) if error.can_heal() && patience.lasts(last) => {
                patience.wait(&error, drained);
                continue;
            }
            other => other?,
        };
        patience.relief();
        if let Some(commit) = sealed {
            stats.committed(commit.rows);
            tell(&commit.offsets);
            if commits.send(Work::Commit(commit)).is_err() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// For a disk that is full or not to be written: trying again rather than ending, since a restart would only read
/// everything again and meet the same disk. Meanwhile the line waits once the tail has reached its bound, and nothing is
/// lost.
#[derive(Default)]
struct Patience {
    tries: u32,
    waited: Option<Instant>,
}

/// At a stop, an operator is waiting.
const LAST_TRIES_MAX: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

impl Patience {
    fn lasts(&self, last: bool) -> bool {
        !last || self.tries < LAST_TRIES_MAX
    }

    fn wait(&mut self, error: &StoreError, drained: &Shutdown) {
        if self.tries == 0 {
            tracing::error!("cannot seal, trying again until it works: {error}");
        }
        self.waited.get_or_insert_with(Instant::now);
        metrics::counter!("stakeout_seal_failures_total").increment(1);
        metrics::gauge!("stakeout_seal_blocked").set(1.0);
        let pause = RETRY_FIRST.saturating_mul(1 << self.tries.min(16)).min(RETRY_MAX);
        self.tries += 1;
        // Already drained: this returns at once, and the last tries still want a moment each.
        if drained.wait(pause) {
            std::thread::sleep(RETRY_FIRST);
        }
    }

    fn relief(&mut self) {
        if let Some(since) = self.waited.take() {
            tracing::info!(blocked = ?since.elapsed(), tries = self.tries, "sealing works again");
            metrics::gauge!("stakeout_seal_blocked").set(0.0);
        }
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::sync_channel;

    use event::{Admitted, OffsetRange, Ranges};
    use store::{Disk, OsDisk, StoreOptions};

    use super::*;

    /// A disk that is full for the first so many writes.
    struct FullDisk(AtomicU32);

    impl Disk for FullDisk {
        fn create_dir_all(&self, path: &Path) -> io::Result<()> {
            OsDisk.create_dir_all(path)
        }

        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            OsDisk.write(path, bytes)
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn io::Write + Send>> {
            OsDisk.create(path)
        }

        fn sync_file(&self, path: &Path) -> io::Result<()> {
            OsDisk.sync_file(path)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            OsDisk.sync_dir(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            OsDisk.rename(from, to)
        }

        fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
            OsDisk.remove_dir_all(path)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
            OsDisk.list(path)
        }

        fn point(&self, _: &str) -> io::Result<()> {
            let full = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        }
    }

    /// Seals once with a disk that is full `times` times, at a stop or while running; returns the committed offset.
    fn sealed(times: u32, stopping: bool) -> (Result<()>, Option<i64>) {
        let dir = tempfile::tempdir().expect("a folder");
        let options = StoreOptions {
            seal_after: Duration::ZERO,
            disk: Arc::new(FullDisk(times.into())),
            ..StoreOptions::default()
        };
        let store =
            Store::open(dir.path(), crate::rooms::stored(&normalize::Schemas::builtin()), options).expect("opens");
        let mut ranges = Ranges::default();
        ranges.push(&"audit".into(), 0, OffsetRange { from: 0, next: 5 }).expect("continues");
        store.append(&Admitted { ranges, ..Admitted::default() }).expect("appends");
        let (commits, heard) = sync_channel(4);
        let (drained, failed) = (Shutdown::new(), Failure::default());
        if stopping {
            drained.pull();
        }
        let result = std::thread::scope(|scope| {
            let sealer = scope.spawn(|| seal(&store, &commits, &|_| {}, &Stats::default(), &drained, &failed));
            if !stopping {
                let heard = heard.recv_timeout(Duration::from_secs(60));
                assert!(matches!(heard, Ok(Work::Commit(_))), "committed once there is room");
                drained.pull();
            }
            sealer.join().expect("does not panic")
        });
        (result, store.offsets().expect("offsets").next("audit", 0))
    }

    #[test]
    fn a_full_disk_delays_a_seal_and_loses_nothing() {
        let (result, offset) = sealed(2, false);
        result.expect("heals");
        assert_eq!(offset, Some(5));
        let (result, offset) = sealed(2, true);
        result.expect("heals in time");
        assert_eq!(offset, Some(5));
    }

    #[test]
    fn a_full_disk_at_a_stop_is_an_error_after_a_few_tries() {
        let (result, offset) = sealed(1_000, true);
        let error = result.expect_err("is full").to_string();
        assert!(error.contains("hint: free some space"), "{error}");
        assert_eq!(offset, None, "never a commit past lost data");
    }
}
