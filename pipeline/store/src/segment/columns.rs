//! The columns of today over a file of yesterday: what a segment's file lacks (or has with another type) is computed
//! from `raw`, so that a reader never learns when a column was added. Without something that can compute it, reading
//! such a column is an error: nulls would look like facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use event::{Recompute, TableSchema, column};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::layout::Layout;
use crate::StoreError;

/// A stored table as the schemas of today describe it.
pub struct Columns {
    pub table: Arc<TableSchema>,
    pub recompute: Option<Arc<dyn Recompute>>,
}

impl Columns {
    /// Columns of the table that a file with these columns lacks, or has with another type.
    pub fn lacking(&self, described: Option<&BTreeMap<String, String>>, file: impl Fn(&str) -> bool) -> Vec<String> {
        let there = |c: &event::Column| match described {
            Some(described) => described.get(&c.name).is_some_and(|kind| kind == c.kind.name()),
            None => file(&c.name),
        };
        self.table.columns.iter().filter(|c| !there(c)).map(|c| c.name.clone()).collect()
    }
}

/// Batches of a segment with exactly the columns asked for, in the order asked for.
pub struct Reading {
    pub(super) reader: ParquetRecordBatchReader,
    pub(super) layout: Arc<Layout>,
    pub(super) schema: SchemaRef,
    /// Which of the schema's columns are computed; never empty with `columns` absent.
    pub(super) computed: Vec<String>,
    pub(super) columns: Option<Arc<Columns>>,
    pub(super) segment: String,
}

impl Reading {
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn complete(&self, read: &RecordBatch) -> Result<RecordBatch, StoreError> {
        let stored = |name: &str| {
            let damaged = |what| StoreError::Damaged { segment: self.segment.clone(), what };
            self.layout.column(name, read).map_err(damaged)
        };
        let mut computed: BTreeMap<&str, ArrayRef> = BTreeMap::new();
        if let Some(columns) = self.columns.as_ref().filter(|_| !self.computed.is_empty()) {
            let recompute = columns.recompute.as_ref().expect("checked before the file was opened");
            let names: Vec<&str> = self.computed.iter().map(String::as_str).collect();
            let raw = stored(column::RAW)?;
            let arrays = recompute.recompute(&columns.table, &names, raw.as_string_view());
            computed.extend(names.into_iter().zip(arrays).chain([(column::RAW, raw)]));
        }
        let arrays = self.schema.fields().iter().map(|field| match computed.get(field.name().as_str()) {
            Some(array) => Ok(array.clone()),
            None => stored(field.name()),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        let arrays = arrays.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

impl Iterator for Reading {
    type Item = Result<RecordBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.reader.next()? {
            Ok(read) => self.complete(&read),
            Err(error) => {
                Err(StoreError::Damaged { segment: self.segment.clone(), what: format!("its rows: {error}") })
            }
        })
    }
}

/// The columns of `names` that the table has, in that order.
pub(super) fn asked(schema: &Schema, names: &[&str]) -> SchemaRef {
    let fields =
        names.iter().filter_map(|name| schema.column_with_name(name)).map(|(at, _)| schema.fields()[at].clone());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
