//! The states of many rules rebuilt together: each stored table is read once, whatever the number of rules.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use datafusion::common::Column;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, col, lit};
use event::{Micros, Origin, column};
use futures::StreamExt;
use query::QueryError;

use super::input::{STAMP_OF_ROW, TIME_OF_ROW, micros};
use super::live::{Live, Reach};
use crate::oracle::instant;

/// One rule under way.
struct Restoring<'a> {
    state: &'a mut Live,
    start: Micros,
    reach: Reach,
    failed: Option<QueryError>,
}

/// Brings each state to its start, the last boundary that was final. States of which `None` comes back are as if the
/// process had never stopped; of the others the error does.
pub async fn restore(
    states: &mut BTreeMap<String, Live>,
    starts: &BTreeMap<String, Micros>,
    tables: &[String],
    stored: &SessionContext,
    base: &SessionContext,
) -> BTreeMap<String, Option<QueryError>> {
    let mut all: BTreeMap<&String, Restoring> = BTreeMap::new();
    for (id, state) in states.iter_mut() {
        let start = starts.get(id).copied().unwrap_or(Micros::MIN);
        let back = state.back();
        let reach = state.reach(start, back);
        all.insert(id, Restoring { state, start, reach, failed: None });
    }
    for table in tables {
        if let Err(error) = read(&mut all, table, stored).await {
            let readers = all.values_mut().filter(|r| !r.state.parts_of(table).is_empty());
            let message = error.to_string();
            readers.for_each(|r| r.failed = Some(QueryError::Run(message.clone())));
        }
    }
    let mut outcomes = BTreeMap::new();
    for (id, restoring) in all {
        let outcome = match restoring.failed {
            Some(error) => Some(error),
            None => conclude(restoring.state, restoring.start, stored, base).await.err(),
        };
        outcomes.insert(id.clone(), outcome);
    }
    outcomes
}

/// A run that may have begun before what was read sends its rule further back, alone.
async fn conclude(
    state: &mut Live,
    start: Micros,
    stored: &SessionContext,
    base: &SessionContext,
) -> Result<(), QueryError> {
    let back = state.back();
    match state.catch_up_to(start, back).await? {
        true => Ok(()),
        false => state.rebuild(stored, base, start, None).await,
    }
}

async fn read(
    all: &mut BTreeMap<&String, Restoring<'_>>,
    table: &str,
    stored: &SessionContext,
) -> Result<(), QueryError> {
    let mut readers: Vec<&mut Restoring> = all.values_mut().filter(|r| !r.state.parts_of(table).is_empty()).collect();
    let columns: BTreeSet<String> = readers.iter().flat_map(|r| r.state.columns_of(table)).collect();
    let Some(from) = readers.iter().map(|r| r.reach.from).min() else { return Ok(()) };
    let oldest = readers.iter().map(|r| r.reach.oldest).min().unwrap_or(from);
    let start = readers.iter().map(|r| r.start).min().unwrap_or(Micros::MIN);
    let mut passes = vec![bounded(from, None)];
    if oldest < from {
        passes.push(bounded(oldest, Some(from)).and(col(column::SOURCE_WATERMARK).gt_eq(instant(start))));
    }
    for condition in passes {
        let quoted = |name: &str| Expr::Column(Column::new_unqualified(name));
        let mut wanted: Vec<Expr> = columns.iter().map(|name| quoted(name)).collect();
        wanted.push(quoted(column::TIME).alias(TIME_OF_ROW));
        wanted.push(quoted(column::SOURCE_WATERMARK).alias(STAMP_OF_ROW));
        let frame = stored.table(table).await.map_err(QueryError::run)?;
        let frame = frame.filter(condition).and_then(|f| f.select(wanted)).map_err(QueryError::run)?;
        let mut stream = frame.execute_stream().await.map_err(QueryError::run)?;
        while let Some(batch) = stream.next().await {
            give(&mut readers, table, &batch.map_err(QueryError::run)?)?;
        }
    }
    Ok(())
}

fn bounded(from: Micros, before: Option<Micros>) -> Expr {
    let mut condition = col(column::ORIGIN).eq(lit(Origin::Live.name()));
    if from != Micros::MIN {
        condition = condition.and(col(column::TIME).gt_eq(instant(from)));
    }
    match before {
        Some(before) => condition.and(col(column::TIME).lt(instant(before))),
        None => condition,
    }
}

fn give(readers: &mut [&mut Restoring<'_>], table: &str, batch: &RecordBatch) -> Result<(), QueryError> {
    let times = micros(batch, TIME_OF_ROW).map_err(QueryError::run)?;
    let stamps = micros(batch, STAMP_OF_ROW).map_err(QueryError::run)?;
    for reader in readers.iter_mut().filter(|r| r.failed.is_none()) {
        let asked = (reader.start, reader.reach);
        reader.failed = reader.state.take_stored(table, batch, &times, &stamps, asked).err();
    }
    Ok(())
}
