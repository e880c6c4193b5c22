//! The states of many rules rebuilt together: each stored table is read once, whatever the number of rules, and one scan
//! picks the rows for all of them, as it does for rows that are admitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::Column;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, col, lit};
use event::{Micros, Origin, TableSchema, column};
use futures::StreamExt;
use query::QueryError;

use super::live::{Live, Reach};
use super::{Choices, Together};
use crate::memory::States;
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
    schemas: &[Arc<TableSchema>],
    past: &States<'_>,
    base: &SessionContext,
) -> BTreeMap<String, Option<QueryError>> {
    let together = Together::new(states, schemas);
    let mut all: BTreeMap<&String, Restoring> = BTreeMap::new();
    for (id, state) in states.iter_mut() {
        let start = starts.get(id).copied().unwrap_or(Micros::MIN);
        let back = state.back();
        let reach = state.reach(start, back);
        all.insert(id, Restoring { state, start, reach, failed: None });
    }
    for schema in schemas {
        if let Err(error) = read(&mut all, &together, schema, past.stored).await {
            let readers = all.values_mut().filter(|r| !r.state.parts_of(&schema.name).is_empty());
            let message = error.to_string();
            readers.for_each(|r| r.failed = Some(QueryError::Run(message.clone())));
        }
    }
    let mut outcomes = BTreeMap::new();
    for (id, restoring) in all {
        let outcome = match restoring.failed {
            Some(error) => Some(error),
            None => conclude(restoring.state, restoring.start, past, base).await.err(),
        };
        outcomes.insert(id.clone(), outcome);
    }
    outcomes
}

/// A run that may have begun before what was read sends its rule further back, alone.
async fn conclude(
    state: &mut Live,
    start: Micros,
    states: &States<'_>,
    base: &SessionContext,
) -> Result<(), QueryError> {
    let back = state.back();
    match state.catch_up_to(states, start, back).await? {
        true => Ok(()),
        false => state.rebuild(states, base, start, None).await,
    }
}

async fn read(
    all: &mut BTreeMap<&String, Restoring<'_>>,
    together: &Together,
    schema: &TableSchema,
    stored: &SessionContext,
) -> Result<(), QueryError> {
    let table = schema.name.as_str();
    let mut readers: Vec<&mut Restoring> = all.values_mut().filter(|r| !r.state.parts_of(table).is_empty()).collect();
    let columns: BTreeSet<String> = readers.iter().flat_map(|r| r.state.columns_of(table)).collect();
    let Some(from) = readers.iter().map(|r| r.reach.from).min() else { return Ok(()) };
    let oldest = readers.iter().map(|r| r.reach.oldest).min().unwrap_or(from);
    let start = readers.iter().map(|r| r.start).min().unwrap_or(Micros::MIN);
    let mut passes = vec![bounded(from, None)];
    if oldest < from {
        passes.push(bounded(oldest, Some(from)).and(col(column::SOURCE_WATERMARK).gt_eq(instant(start))));
    }
    let mut wide = Wide::new(schema, &columns);
    for condition in passes {
        let wanted: Vec<Expr> = wide.names().map(|name| Expr::Column(Column::new_unqualified(name))).collect();
        let frame = stored.table(table).await.map_err(QueryError::run)?;
        let frame = frame.filter(condition).and_then(|f| f.select(wanted)).map_err(QueryError::run)?;
        let mut stream = frame.execute_stream().await.map_err(QueryError::run)?;
        while let Some(batch) = stream.next().await {
            let rows = wide.of(&batch.map_err(QueryError::run)?).map_err(QueryError::run)?;
            give(&mut readers, together.choose(table, &rows), table, &rows);
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

fn give(readers: &mut [&mut Restoring<'_>], mut choices: Choices, table: &str, rows: &RecordBatch) {
    for reader in readers.iter_mut().filter(|r| r.failed.is_none()) {
        let asked = (reader.start, reader.reach);
        reader.failed = reader.state.take_stored(table, rows, &mut choices, asked).err();
    }
}

/// Batches with all columns of a table, of which only some were read: the scan asks by position, and only for those.
struct Wide {
    schema: SchemaRef,
    /// By column of the table, its place among those that are read.
    read: Vec<Option<usize>>,
    /// Stand for the others, as long as the longest batch so far.
    nulls: Vec<ArrayRef>,
}

impl Wide {
    fn new(schema: &TableSchema, columns: &BTreeSet<String>) -> Wide {
        let own = [column::TIME, column::SOURCE_WATERMARK, column::ORIGIN];
        let mut count = 0;
        let mut place = |name: &String| {
            let is_read = columns.contains(name) || own.contains(&name.as_str());
            count += usize::from(is_read);
            is_read.then(|| count - 1)
        };
        let read = schema.columns.iter().map(|c| place(&c.name)).collect();
        let arrow = schema.arrow();
        let fields: Vec<Field> = arrow.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let nulls = fields.iter().map(|f| new_null_array(f.data_type(), 0)).collect();
        Wide { schema: Arc::new(Schema::new(fields)), read, nulls }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.schema.fields().iter().zip(&self.read).filter(|(_, read)| read.is_some()).map(|(field, _)| field.name())
    }

    fn of(&mut self, batch: &RecordBatch) -> datafusion::error::Result<RecordBatch> {
        let rows = batch.num_rows();
        let columns = self.nulls.iter_mut().zip(&self.read).map(|(null, read)| match read {
            Some(at) => batch.column(*at).clone(),
            None => {
                if null.len() < rows {
                    *null = new_null_array(null.data_type(), rows);
                }
                null.slice(0, rows)
            }
        });
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect())?)
    }
}
