//! The rows that are worth remembering: a row-local SELECT, run over rows that are let in and over stored ones. Both
//! ways give the same columns, with a mark for each row.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Origin, TableSchema, column};
use futures::StreamExt;

use super::mark::{self, HASH, Mark, STAMP, TIME, UID};
use crate::evidence::{find, text_of};
use crate::program::{self, NotCompiled, Program};

/// Where a row was read from, when several tables are read as one.
const FROM_SOURCE: &str = "__source";

/// Rows of one stored table that passed.
pub struct Sieved {
    pub table: Arc<str>,
    pub rows: RecordBatch,
    pub marks: Vec<Mark>,
    /// Where they are in the batch they came from; empty when they came from a query.
    pub from: Vec<u32>,
}

/// Functions return other string types than columns have; to compare them, one would be cast row by row.
fn one_kind_of_text(schema: &SchemaRef) -> SchemaRef {
    let field = |f: &Arc<Field>| match f.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => Arc::new(f.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => f.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Rows that could not be computed, with the first reason.
pub type Failed = Option<(u64, String)>;

pub fn both(first: Failed, second: Failed) -> Failed {
    match (first, second) {
        (Some((a, reason)), Some((b, _))) => Some((a + b, reason)),
        (a, b) => a.or(b),
    }
}

#[derive(Debug)]
pub struct Sieve {
    program: Program,
    /// Of the rows that pass.
    pub schema: SchemaRef,
    /// What the SELECT returns, as SQL.
    items: String,
    from: String,
    filter: Option<String>,
    /// The stored tables that `from` spans.
    pub tables: Vec<Arc<str>>,
}

impl Sieve {
    pub async fn compile(
        base: &SessionContext,
        schemas: &[Arc<TableSchema>],
        [items, from]: [String; 2],
        filter: Option<String>,
        tables: &[String],
    ) -> Result<Sieve, NotCompiled> {
        let condition = filter.as_ref().map_or(String::new(), |f| format!(" WHERE {f}"));
        let sql = format!("SELECT {items} FROM {from}{condition}");
        let program = program::compile(base, schemas, &sql, tables).await?;
        let all = crate::plan::empty_tables(base, schemas)?;
        let schema = one_kind_of_text(query::plan_rule(&all, &sql).await?.schema().inner());
        let tables = tables.iter().map(|t| t.as_str().into()).collect();
        Ok(Sieve { program, schema, items, from, filter, tables })
    }

    /// The rows of `batch`, a batch of `table`, that pass and are of `origin`. When an expression fails, the batch is
    /// halved until only the rows at fault are left out.
    pub fn live(&self, table: &str, batch: &RecordBatch, origin: Origin, take: &mut dyn FnMut(Sieved)) -> Failed {
        let table = self.tables.iter().find(|t| ***t == *table)?;
        self.halved(table, batch, 0, origin, take)
    }

    fn halved(
        &self,
        table: &Arc<str>,
        batch: &RecordBatch,
        offset: u32,
        origin: Origin,
        take: &mut dyn FnMut(Sieved),
    ) -> Failed {
        let error = match self.try_live(table, batch, offset, origin) {
            Ok(sieved) => {
                sieved.into_iter().for_each(take);
                return None;
            }
            Err(error) => error,
        };
        let rows = batch.num_rows();
        if rows <= 1 {
            return Some((rows as u64, error.strip_backtrace()));
        }
        let half = rows / 2;
        let first = self.halved(table, &batch.slice(0, half), offset, origin, take);
        let second = self.halved(table, &batch.slice(half, rows - half), offset + half as u32, origin, take);
        both(first, second)
    }

    fn try_live(&self, table: &Arc<str>, batch: &RecordBatch, offset: u32, origin: Origin) -> Result<Option<Sieved>> {
        let Some(selected) = self.program.run(table, batch)? else { return Ok(None) };
        let origins = find(batch, column::ORIGIN)?.as_string_view();
        let of_origin = |row: &u32| origins.value(*row as usize) == origin.name();
        let (mut rows, mut from) = (selected.rows, selected.from);
        if !from.iter().all(of_origin) {
            let keep: arrow::array::BooleanArray = from.iter().map(|row| Some(of_origin(row))).collect();
            rows = arrow::compute::filter_record_batch(&rows, &keep)?;
            from.retain(of_origin);
        }
        if from.is_empty() {
            return Ok(None);
        }
        let marks = mark::of_rows(batch, &from)?;
        let rows = self.conform(&rows, from.len())?;
        Ok(Some(Sieved { table: table.clone(), rows, marks, from: from.iter().map(|row| row + offset).collect() }))
    }

    /// The stored rows that pass, are of `origin` and meet `condition`. A value that cannot be computed would fail the
    /// query as a whole: then the rows are read in full and looked at as live ones are. Rows may come twice.
    pub async fn stored(
        &self,
        stored: &SessionContext,
        origin: Origin,
        condition: &str,
        take: &mut (dyn FnMut(Sieved) + Send),
    ) -> Result<Failed> {
        if self.queried(stored, origin, condition, take).await.is_ok() {
            return Ok(None);
        }
        let mut failed: Failed = None;
        for table in &self.tables {
            let sql = format!("SELECT * FROM {table} WHERE origin = '{}' AND {condition}", origin.name());
            let mut batches = stored.sql(&sql).await?.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                let more = self.live(table, &batch?, origin, take);
                failed = both(failed, more);
            }
        }
        Ok(failed)
    }

    async fn queried(
        &self,
        stored: &SessionContext,
        origin: Origin,
        condition: &str,
        take: &mut (dyn FnMut(Sieved) + Send),
    ) -> Result<()> {
        let mut batches = stored.sql(&self.marked(origin, condition)).await?.execute_stream().await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let marks = mark::of_query(&batch)?;
            for (table, at) in self.by_table(&batch)? {
                let rows = self.conform(&batch, batch.num_rows())?;
                let (rows, marks) = match at.len() == marks.len() {
                    true => (rows, marks.clone()),
                    false => (
                        arrow::compute::take_record_batch(&rows, &arrow::array::UInt32Array::from(at.clone()))?,
                        at.iter().map(|row| marks[*row as usize].clone()).collect(),
                    ),
                };
                take(Sieved { table, rows, marks, from: Vec::new() });
            }
        }
        Ok(())
    }

    /// The SELECT over stored rows, with the marks beside its columns.
    pub fn marked(&self, origin: Origin, condition: &str) -> String {
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!("({f}) AND "));
        format!(
            "SELECT {}, {} AS \"{TIME}\", {} AS \"{UID}\", {} AS \"{STAMP}\", {} AS \"{HASH}\", \
             {} AS \"{FROM_SOURCE}\" FROM {} WHERE {filter}origin = '{}' AND {condition}",
            self.items,
            column::TIME,
            column::EVENT_UID,
            column::SOURCE_WATERMARK,
            column::ROW_HASH,
            column::SOURCE,
            self.from,
            origin.name(),
        )
    }

    /// Which rows of a query's batch are of which table: a view over several has one for each source.
    fn by_table(&self, batch: &RecordBatch) -> Result<Vec<(Arc<str>, Vec<u32>)>> {
        let rows = 0..batch.num_rows();
        if let [table] = self.tables.as_slice() {
            return Ok(vec![(table.clone(), rows.map(|row| row as u32).collect())]);
        }
        let mut by_table: Vec<(Arc<str>, Vec<u32>)> = self.tables.iter().map(|t| (t.clone(), Vec::new())).collect();
        for row in rows {
            let source = text_of(batch, FROM_SOURCE, row)?;
            match by_table.iter_mut().find(|(table, _)| **table == *source) {
                Some((_, at)) => at.push(row as u32),
                None => {
                    let message = format!("a row of the source {source} in {}", self.from);
                    return Err(DataFusionError::Execution(message));
                }
            }
        }
        by_table.retain(|(_, at)| !at.is_empty());
        Ok(by_table)
    }

    /// The columns of the SELECT alone, of exactly the types that were planned.
    fn conform(&self, rows: &RecordBatch, count: usize) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().enumerate();
        let column = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| -> Result<ArrayRef> {
            let have = rows.column(at);
            Ok(match have.data_type() == field.data_type() {
                true => have.clone(),
                false => cast(have, field.data_type())?,
            })
        };
        let columns = fields.map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
