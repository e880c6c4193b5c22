//! The keeper: merges small segments, removes expired ones and sweeps up, one thing at a time, beside everything else.
//! What it does can always be done later, so it never fails the process: it says what went wrong and tries again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use detect::{Derived, RuleSet};
use store::{Store, StoreError};

use crate::config::Upkeep;
use crate::rooms::{Committed, runtime, wall_clock};
use crate::shutdown::Shutdown;

/// State tables are kept anew after so many rows: a start reads at most about as many of them again. Or after so long.
const KEEP_ROWS: u64 = 500_000;
const KEEP_EVERY: Duration = Duration::from_secs(600);

/// The state tables of the rules in force, kept on disk.
pub struct Kept {
    derived: Derived,
    rules: Arc<Mutex<RuleSet>>,
    /// Rows that were stored at the last time, and when that was.
    last: (u64, Instant),
}

impl Kept {
    pub fn new(derived: Derived, rules: Arc<Mutex<RuleSet>>, rows: u64) -> Kept {
        Kept { derived, rules, last: (rows, Instant::now()) }
    }

    fn refresh_if_due(&mut self, store: &Store) {
        if let Err(error) = self.try_refresh(store) {
            tracing::warn!("state tables could not be kept, a start will take longer: {error:#}");
        }
    }

    fn try_refresh(&mut self, store: &Store) -> Result<()> {
        let (rows, (last_rows, last)) = (store.stats()?.rows, self.last);
        if rows == last_rows || (rows < last_rows.saturating_add(KEEP_ROWS) && last.elapsed() < KEEP_EVERY) {
            return Ok(());
        }
        self.last = (rows, Instant::now());
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let committed = (&store.watermarks()?, &store.offsets()?);
        let tables = runtime()?.block_on(self.derived.refresh(&rules, committed, &Committed(store)))?;
        let took = self.last.1.elapsed();
        tracing::debug!(tables, ?took, "kept the state tables that had changed");
        Ok(())
    }
}

/// Rounds until the switch is pulled; a merge that is going on then is dropped.
pub fn keep(store: &Store, upkeep: &Upkeep, mut kept: Kept, stopping: &Shutdown) -> Result<()> {
    let mut told: Option<String> = None;
    loop {
        let result = round(store, upkeep, &mut || kept.refresh_if_due(store), &|| stopping.pulled());
        if stopping.wait(Duration::ZERO) {
            return Ok(());
        }
        match result {
            Ok(()) => told = None,
            Err(error) => {
                metrics::counter!("stakeout_keeper_errors_total").increment(1);
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::error!("upkeep of the store: {text}");
                    told = Some(text);
                }
            }
        }
        metrics::gauge!("stakeout_keeper_last_run_seconds").set(wall_clock() as f64 / 1e6);
        if stopping.wait(upkeep.every) {
            return Ok(());
        }
    }
}

/// Everything that is due now; `between` two merges comes what should not wait for all of them.
fn round(store: &Store, upkeep: &Upkeep, between: &mut dyn FnMut(), stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
    let expired = store.expire(&upkeep.retention, wall_clock())?;
    if expired.segments > 0 {
        metrics::counter!("stakeout_expired_segments_total").increment(expired.segments);
        metrics::counter!("stakeout_expired_rows_total").increment(expired.rows);
        metrics::counter!("stakeout_expired_bytes_total").increment(expired.bytes);
        tracing::info!(
            segments = expired.segments,
            rows = expired.rows,
            bytes = expired.bytes,
            "removed expired events"
        );
    }
    metrics::gauge!("stakeout_held_segments").set(expired.held as f64);
    let merged = merge_all(store, upkeep, between, stop);
    // What was merged before an error is swept all the same.
    let waiting = store.sweep()?;
    metrics::gauge!("stakeout_folders_waiting_for_readers").set(waiting as f64);
    show(store)?;
    merged
}

fn show(store: &Store) -> Result<(), StoreError> {
    let stats = store.stats()?;
    metrics::gauge!("stakeout_store_segments").set(stats.segments as f64);
    metrics::gauge!("stakeout_store_rows").set(stats.rows as f64);
    metrics::gauge!("stakeout_store_disk_bytes").set(stats.disk_bytes as f64);
    Ok(())
}

fn merge_all(
    store: &Store,
    upkeep: &Upkeep,
    between: &mut dyn FnMut(),
    stop: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    while !stop() {
        // A store that grows fast has something to merge at any time.
        show(store)?;
        between();
        let started = Instant::now();
        let Some(done) = store.compact(&upkeep.compaction, wall_clock(), stop)? else { return Ok(()) };
        metrics::counter!("stakeout_compactions_total").increment(1);
        metrics::counter!("stakeout_compacted_segments_total").increment(done.inputs as u64);
        metrics::counter!("stakeout_compacted_bytes_total").increment(done.bytes_before);
        metrics::histogram!("stakeout_compaction_seconds").record(started.elapsed().as_secs_f64());
        tracing::debug!(table = done.table, inputs = done.inputs, rows = done.rows, took = ?done.took, "merged segments");
    }
    Ok(())
}

/// After an import: what piled up is merged before the next command meets it. Expiring is left to a run.
pub fn tidy(store: &Store, upkeep: &Upkeep) {
    let quiet = Upkeep { retention: Default::default(), ..upkeep.clone() };
    if let Err(error) = round(store, &quiet, &mut || (), &|| false) {
        tracing::warn!("the import is whole, but its segments could not be merged: {error}");
    }
}
