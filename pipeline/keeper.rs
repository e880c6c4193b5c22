//! The keeper: merges small segments, removes expired ones after rules have remembered what they say, sweeps up and keeps
//! state tables on disk, one thing at a time, beside everything else.
//! What it does can always be done later, so it never fails the process: it says what went wrong and tries again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use detect::{Derived, Going, History, RuleSet};
use event::Offsets;
use query::TableProvider;
use store::{Expiring, Store, StoreError};

use crate::config::Upkeep;
use crate::rooms::{Committed, retained, runtime, wall_clock};
use crate::shutdown::Shutdown;

/// State tables are kept anew after so many records: a start reads about as many again at most. Or after so long.
const KEEP_RECORDS: i64 = 500_000;
const KEEP_EVERY: Duration = Duration::from_secs(600);

/// What remembering takes when events expire, at most, as a part of all time.
const REMEMBERING_ONE_IN: u32 = 20;

/// So many segments go at a time: what rules make of them is in memory, and a stop waits for it.
const EXPIRING_MAX: usize = 32;

/// What cannot be read or written now can perhaps be in some minutes. A limit that is set holds all the same.
const REMEMBERING_TRIES: u32 = 10;

/// What the rules in force remember, kept on disk.
pub struct Kept {
    derived: Arc<Derived>,
    rules: Arc<Mutex<RuleSet>>,
    /// How many records were committed at the last time, and when that was.
    last: (i64, Instant),
    /// Events expire again from then on.
    expiry_due: Instant,
    /// How often what goes could not be remembered.
    tries: u32,
}

impl Kept {
    /// The start has kept what was worth it, as of what was `committed` then.
    pub fn new(derived: Arc<Derived>, rules: Arc<Mutex<RuleSet>>, committed: &Offsets) -> Kept {
        let now = Instant::now();
        Kept { derived, rules, last: (records(committed), now), expiry_due: now, tries: 0 }
    }

    fn rules(&self) -> RuleSet {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what goes. What cannot be remembered stays for a while, unless the disk is full: it has to have room first.
    fn remember(&mut self, store: &Store, expiring: &Expiring) -> Result<()> {
        let started = Instant::now();
        let (marks, rows, stays) = (store.watermarks()?, Expire(expiring), |table: &str| expiring.stays(table));
        let going = Going { rows: &rows, tables: expiring.tables(), stays: &stays };
        let (runtime, retained) = (runtime()?, retained(store));
        let folded = loop {
            let rules = self.rules();
            let folded = runtime.block_on(retained.fold(&rules, &marks, &going))?;
            // Rules that came meanwhile have read these rows, and would not know them after a restart.
            if self.rules().bundle == rules.bundle {
                break folded;
            }
        };
        self.expiry_due = Instant::now() + started.elapsed() * REMEMBERING_ONE_IN;
        for name in &folded.too_much {
            metrics::counter!("stakeout_retained_lost_total").increment(1);
            tracing::error!(name, "needs too much memory to remember what expires");
        }
        let Some((first, reason)) = folded.failed.first() else {
            self.tries = 0;
            tracing::debug!(rows = folded.rows, files = folded.files, took = ?started.elapsed(), "remembered what goes");
            return Ok(());
        };
        let all = folded.failed.len();
        let what =
            format!("what expires cannot be remembered by {all} rules and state tables, first `{first}`: {reason}");
        self.tries += 1;
        if !folded.disk_full && self.tries < REMEMBERING_TRIES {
            bail!("{what}; it stays for now");
        }
        self.tries = 0;
        metrics::counter!("stakeout_retained_lost_total").increment(all as u64);
        tracing::error!("events expire that are not remembered: {what}");
        Ok(())
    }

    fn refresh_if_due(&mut self, store: &Store) {
        if let Err(error) = self.try_refresh(store) {
            tracing::warn!("state tables could not be kept, a start will take longer: {error:#}");
        }
    }

    fn try_refresh(&mut self, store: &Store) -> Result<()> {
        let committed = store.offsets()?;
        let (now, (before, last)) = (records(&committed), self.last);
        if now == before || (now < before.saturating_add(KEEP_RECORDS) && last.elapsed() < KEEP_EVERY) {
            return Ok(());
        }
        self.last = (now, Instant::now());
        let rules = self.rules();
        let marks = store.watermarks()?;
        let tables = runtime()?.block_on(self.derived.refresh(&rules, (&marks, &committed), &Committed(store)))?;
        let took = self.last.1.elapsed();
        tracing::debug!(tables, ?took, "kept the state tables that had changed");
        Ok(())
    }
}

/// The rows that are about to go.
struct Expire<'a>(&'a Expiring);

impl History for Expire<'_> {
    fn table(&self, name: &str) -> Arc<dyn TableProvider> {
        self.0.table(name).expect("rules ask for stored tables")
    }
}

/// Up to offsets; only differences mean something.
fn records(offsets: &Offsets) -> i64 {
    offsets.0.values().sum()
}

/// Rounds until the switch is pulled; a merge that is going on then is dropped.
pub fn keep(store: &Store, upkeep: &Upkeep, mut kept: Kept, stopping: &Shutdown) -> Result<()> {
    let mut told: Option<String> = None;
    loop {
        let result = round(store, upkeep, Some(&mut kept), &|| stopping.pulled());
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

/// Everything that is due now. Rules that remember come between two merges: they should not wait for all of them.
fn round(store: &Store, upkeep: &Upkeep, mut kept: Option<&mut Kept>, stop: &dyn Fn() -> bool) -> Result<()> {
    if kept.as_ref().is_none_or(|kept| kept.expiry_due <= Instant::now()) {
        expire(store, upkeep, kept.as_deref_mut())?;
    }
    let merged = merge_all(store, upkeep, kept, stop);
    // What was merged before an error is swept all the same.
    let waiting = store.sweep()?;
    metrics::gauge!("stakeout_folders_waiting_for_readers").set(waiting as f64);
    Ok(merged?)
}

fn expire(store: &Store, upkeep: &Upkeep, mut kept: Option<&mut Kept>) -> Result<()> {
    let expiring = store.expiring(&upkeep.retention, wall_clock())?.at_most(EXPIRING_MAX);
    if let Some(kept) = kept.as_mut().filter(|_| upkeep.remember && !expiring.is_empty()) {
        kept.remember(store, &expiring)?;
    }
    let forgets = kept.filter(|_| !upkeep.remember && !expiring.is_empty());
    // Before and after: a crash in between leaves nothing of what is gone.
    forgets.as_ref().map_or(Ok(()), |kept| kept.derived.clear())?;
    let expired = store.remove(expiring)?;
    forgets.map_or(Ok(()), |kept| kept.derived.clear())?;
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
    Ok(())
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
    mut kept: Option<&mut Kept>,
    stop: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    while !stop() {
        // A store that grows fast has something to merge at any time.
        show(store)?;
        if let Some(kept) = &mut kept {
            kept.refresh_if_due(store);
        }
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
    if let Err(error) = round(store, &quiet, None, &|| false) {
        tracing::warn!("the import is whole, but its segments could not be merged: {error}");
    }
}
