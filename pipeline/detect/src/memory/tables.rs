//! State tables as a whole: as windows see them, and as the store has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Micros, Origin};

use super::sieve::{Failed, Sieved};
use super::versions::Versions;
use super::{Memory, Retained, STATE_BYTES_MAX, StateTable, at_or_after, too_much};

/// State tables as windows see them: from memory where that reaches, else from the store, which is then read once.
pub struct States<'a> {
    memory: &'a Memory,
    pub stored: &'a SessionContext,
    read: Mutex<BTreeMap<(String, Origin), Arc<Versions>>>,
}

impl<'a> States<'a> {
    pub fn of(memory: &'a Memory, stored: &'a SessionContext) -> States<'a> {
        States { memory, stored, read: Mutex::default() }
    }

    /// The versions of a state table that are visible before `boundary` and hold at some time from `since` on: rows with
    /// `since <= time < boundary` join them.
    pub async fn versions(
        &self,
        state: &StateTable,
        origin: Origin,
        boundary: Micros,
        since: Micros,
    ) -> Result<RecordBatch> {
        if let Some(versions) = self.memory.versions(state, origin, boundary, since) {
            return versions;
        }
        let key = (state.name.clone(), origin);
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let versions = match known {
            Some(versions) => versions,
            None => {
                let versions = Arc::new(recall_versions(state, self.stored, origin, "true").await?);
                self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(key, versions.clone());
                versions
            }
        };
        state.table_of(&versions, boundary, since)
    }
}

/// The same as [`States::versions`], from the store: the table's meaning, word for word.
pub async fn versions_stored(
    state: &StateTable,
    origin: Origin,
    boundary: Micros,
    since: Micros,
    stored: &SessionContext,
) -> Result<RecordBatch> {
    let visible = StateTable::visible_before(boundary);
    if origin == Origin::Live && Retained::of(stored).is_some_and(|retained| retained.has(state)) {
        let versions = recall_versions(state, stored, origin, &visible).await?;
        return state.table_of(&versions, boundary, since);
    }
    let view = state.view(origin, &visible);
    let sql = format!("SELECT * FROM ({view}) WHERE {}", at_or_after("valid_to", since.saturating_add(1)));
    let batches = stored.sql(&sql).await?.collect().await?;
    let batches = batches.iter().map(|b| state.conform(b)).collect::<Result<Vec<_>>>()?;
    Ok(arrow::compute::concat_batches(&state.schema, &batches)?)
}

/// All versions in stored rows that meet `condition`, and what remains of expired ones that were stamped after `known`:
/// who knows those up to there may have forgotten how they ended.
pub async fn load_versions(
    state: &StateTable,
    stored: &SessionContext,
    origin: Origin,
    condition: &str,
    known: Micros,
) -> Result<(Versions, Failed)> {
    let mut versions = Versions::default();
    let mut error = None;
    let mut take = |sieved: Sieved| {
        // More than the budget is refused by whoever asked; it need not be read to the end for that.
        if versions.bytes() <= STATE_BYTES_MAX
            && let Err(e) = state.remember(&sieved, &mut versions, &mut |_| ())
        {
            error.get_or_insert(e);
        }
    };
    let failed = state.sieve.stored(stored, origin, condition, &mut take).await?;
    if let Some(error) = error {
        return Err(error);
    }
    // After the rows: what expires meanwhile is in one or both.
    if origin == Origin::Live
        && let Some(retained) = Retained::of(stored).map(|r| r.versions(state)).transpose()?.flatten()
    {
        versions.absorb_after(known, retained);
    }
    Ok((versions, failed))
}

/// The same for one use, in which nothing may be missing.
pub async fn recall_versions(
    state: &StateTable,
    stored: &SessionContext,
    origin: Origin,
    condition: &str,
) -> Result<Versions> {
    let (versions, _) = load_versions(state, stored, origin, condition, Micros::MIN).await?;
    match versions.bytes() > STATE_BYTES_MAX {
        true => Err(DataFusionError::Execution(too_much(STATE_BYTES_MAX))),
        false => Ok(versions),
    }
}
