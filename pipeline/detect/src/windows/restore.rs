//! The states of many rules rebuilt together: each stored row is read once, whatever the number of rules that look back so
//! far, and one scan picks the rows for all of them, as it does for rows that are admitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::Column;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, col, lit};
use event::{Micros, Origin, TableSchema, column};
use query::QueryError;

use super::live::{Live, Reach};
use super::{Choices, Together};
use crate::memory::States;
use crate::oracle::instant;
use crate::parallel;

/// One state under way.
struct Restoring<'a> {
    id: &'a String,
    state: &'a mut Live,
    start: Micros,
    reach: Reach,
    failed: Option<QueryError>,
}

/// Brings each state to its start, the last boundary that was final, which its rules have in common. States of which `None`
/// comes back are as if the process had never stopped; of the others the error does.
pub async fn restore(
    states: &mut BTreeMap<String, Live>,
    starts: &BTreeMap<String, Micros>,
    schemas: &[Arc<TableSchema>],
    past: &States<'_>,
    base: &SessionContext,
) -> BTreeMap<String, Option<QueryError>> {
    let mut all: Vec<Restoring> = Vec::new();
    for (id, state) in states.iter_mut() {
        let start = starts.get(id).copied().unwrap_or(Micros::MIN);
        let back = state.back();
        let reach = state.reach(start, back);
        all.push(Restoring { id, state, start, reach, failed: None });
    }
    for schema in schemas {
        let readers = all.iter_mut().filter(|r| !r.state.parts(&schema.name).is_empty());
        let mut readers: Vec<&mut Restoring> = readers.collect();
        if let Err(error) = read(&mut readers, schemas, schema, past.stored).await {
            let message = error.to_string();
            readers.iter_mut().for_each(|r| r.failed = Some(QueryError::Run(message.clone())));
        }
    }
    let mut outcomes = BTreeMap::new();
    for Restoring { id, state, start, failed, .. } in all {
        let outcome = match failed {
            Some(error) => Some(error),
            None => conclude(state, start, past, base).await.err(),
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
    match state.catch_up_to(states, start, back, false).await? {
        true => Ok(()),
        false => state.rebuild(states, base, start, None, false).await,
    }
}

async fn read(
    readers: &mut [&mut Restoring<'_>],
    schemas: &[Arc<TableSchema>],
    schema: &TableSchema,
    stored: &SessionContext,
) -> Result<(), QueryError> {
    let start = readers.iter().map(|r| r.start).min().unwrap_or(Micros::MIN);
    let strata = strata(readers.iter().map(|r| r.reach.from), start);
    let (Some(oldest), Some(last)) = (readers.iter().map(|r| r.reach.oldest).min(), strata.last()) else {
        return Ok(());
    };
    // Rows from before what a rule looks back to matter to it if they came late.
    let begins = |reach: Reach| strata.iter().rfind(|low| **low <= reach.from).copied().unwrap_or(Micros::MIN);
    if oldest < *last {
        let late = bounded(oldest, Some(*last)).and(col(column::SOURCE_WATERMARK).gt_eq(instant(start)));
        pass(readers.iter_mut().collect(), late, &begins, schemas, schema, stored).await?;
    }
    for (n, low) in strata.iter().enumerate() {
        let high = strata.get(n + 1).copied();
        let looks = |r: &&mut &mut Restoring| high.is_none_or(|high| r.reach.from < high);
        let readers = readers.iter_mut().filter(looks).collect();
        pass(readers, bounded(*low, high), &|_| Micros::MAX, schemas, schema, stored).await?;
    }
    Ok(())
}

/// Where the ranges of time begin that are read one after the other. Few rules look far back: of long ago only their columns are
/// read. Each range is at least half of what is left.
fn strata(froms: impl Iterator<Item = Micros>, start: Micros) -> Vec<Micros> {
    let mut froms: Vec<Micros> = froms.collect();
    froms.sort_unstable();
    let mut strata: Vec<Micros> = Vec::new();
    for from in froms {
        match strata.last() {
            Some(last) if start.saturating_sub(from) > start.saturating_sub(*last) / 2 => {}
            Some(last) if *last == from => {}
            _ => strata.push(from),
        }
    }
    strata
}

/// Stored rows that meet `condition`, for some rules, each up to a time of its own.
async fn pass(
    mut readers: Vec<&mut &mut Restoring<'_>>,
    condition: Expr,
    until: &(dyn Fn(Reach) -> Micros + Sync),
    schemas: &[Arc<TableSchema>],
    schema: &TableSchema,
    stored: &SessionContext,
) -> Result<(), QueryError> {
    let table = schema.name.as_str();
    let columns: BTreeSet<String> = readers.iter().flat_map(|r| r.state.columns_of(table)).collect();
    let together = Arc::new(Together::new(readers.iter().map(|r| (r.id, &*r.state)), schemas));
    let wide = Wide::new(schema, &columns);
    let wanted: Vec<Expr> = wide.names().map(|name| Expr::Column(Column::new_unqualified(name))).collect();
    let frame = stored.table(table).await.map_err(QueryError::run)?;
    let frame = frame.filter(condition).and_then(|f| f.select(wanted)).map_err(QueryError::run)?;
    let choose = || {
        let (together, mut wide, table) = (together.clone(), wide.clone(), table.to_owned());
        move |batch: &RecordBatch| {
            let rows = wide.of(batch)?;
            Ok((together.choose(&table, &rows), rows))
        }
    };
    let give = |(mut choices, rows): (Choices, RecordBatch)| {
        for reader in readers.iter_mut().filter(|r| r.failed.is_none()) {
            let asked = (reader.start, reader.reach, until(reader.reach));
            reader.failed = reader.state.take_stored(table, &rows, &mut choices, asked).err();
        }
    };
    parallel::batches(frame, choose, give).await.map_err(QueryError::run)
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

/// Batches with all columns of a table, of which only some were read: the scan asks by position, and only for those.
#[derive(Clone)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_time_is_at_least_half_of_what_is_left() {
        let check = |froms: &[Micros], expected: &[Micros]| {
            assert_eq!(strata(froms.iter().copied(), 100), expected, "{froms:?}");
        };
        check(&[], &[]);
        check(&[99, 0, 10, 40, 60, 90, 95, 60], &[0, 60, 90, 95, 99]);
        check(&[50, 50, 49], &[49]);
        check(&[Micros::MIN, 0, 120], &[Micros::MIN, 0, 120]);
    }
}
