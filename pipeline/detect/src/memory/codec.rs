//! Values of a few columns as one string of bytes: compact, comparable for equality, and of every type that columns
//! have. Arrow's row format does the work.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;

#[derive(Debug)]
pub struct Codec {
    schema: SchemaRef,
    /// `None` when there are no columns.
    converter: Option<RowConverter>,
}

impl Codec {
    pub fn new(schema: SchemaRef) -> Result<Codec, ArrowError> {
        let fields: Vec<SortField> = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Codec { schema, converter })
    }

    pub fn can_keep(kind: &DataType) -> bool {
        RowConverter::supports_fields(&[SortField::new(kind.clone())])
    }

    /// The rows of some columns, one after the other.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        let encoded = self.converter.as_ref().map(|c| c.convert_columns(columns)).transpose()?;
        let whole = |row: &usize| columns.iter().all(|c| c.is_valid(*row));
        Ok(Encoded { rows: encoded, whole: (0..rows).map(|row| whole(&row)).collect() })
    }

    /// The columns of rows that were encoded; `None` is a row of NULLs.
    pub fn decode(&self, rows: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        if rows.iter().all(Option::is_none) {
            return Ok(self.schema.fields().iter().map(|f| new_null_array(f.data_type(), rows.len())).collect());
        }
        let nulls = self.nulls(converter)?;
        let parser = converter.parser();
        let parsed = rows.iter().map(|row| parser.parse(row.unwrap_or(&nulls)));
        Ok(converter.convert_rows(parsed)?)
    }

    pub fn batch(&self, rows: &[&[u8]]) -> Result<RecordBatch> {
        let columns = self.decode(&rows.iter().map(|row| Some(*row)).collect::<Vec<_>>())?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    fn nulls(&self, converter: &RowConverter) -> Result<Arc<[u8]>> {
        let columns: Vec<ArrayRef> = self.schema.fields().iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        Ok(converter.convert_columns(&columns)?.row(0).data().into())
    }
}

pub struct Encoded {
    rows: Option<Rows>,
    whole: Vec<bool>,
}

impl Encoded {
    pub fn row(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// The row, unless it has a NULL: NULL equals nothing.
    pub fn whole(&self, row: usize) -> Option<&[u8]> {
        self.whole[row].then(|| self.row(row))
    }
}
