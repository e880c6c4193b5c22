//! Values of a few columns as one string of bytes: compact, of every type that columns have, and comparable as the values
//! are. Arrow's row format does the work.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;

#[derive(Debug)]
pub struct Codec {
    schema: SchemaRef,
    /// How each column sorts.
    options: Vec<SortOptions>,
    /// `None` when there are no columns.
    converter: Option<RowConverter>,
}

/// The bytes of one mean the same to the other.
impl PartialEq for Codec {
    fn eq(&self, other: &Codec) -> bool {
        self.schema == other.schema && self.options == other.options
    }
}

impl Codec {
    pub fn new(schema: SchemaRef) -> Result<Codec, ArrowError> {
        let fields: Vec<SortField> = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let options = vec![SortOptions::default(); fields.len()];
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Codec { schema, options, converter })
    }

    /// For bytes that sort so. `None` where a type has no such form.
    pub fn sorted(columns: Vec<(DataType, SortOptions)>) -> Option<Codec> {
        let named = |(n, (kind, _)): (usize, &(DataType, SortOptions))| Field::new(n.to_string(), kind.clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().enumerate().map(named).collect::<Vec<_>>()));
        let options = columns.iter().map(|(_, options)| *options).collect();
        let field = |(kind, options)| SortField::new_with_options(kind, options);
        let fields: Vec<SortField> = columns.into_iter().map(field).collect();
        let converter = RowConverter::supports_fields(&fields).then(|| RowConverter::new(fields).ok()).flatten()?;
        Some(Codec { schema, options, converter: Some(converter) })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn can_keep(kind: &DataType) -> bool {
        RowConverter::supports_fields(&[SortField::new(kind.clone())])
    }

    /// The rows of some columns, one after the other.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Encoded> {
        let rows = self.converter.as_ref().map(|c| c.convert_columns(columns)).transpose()?;
        Ok(Encoded { rows, columns: columns.to_vec() })
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
    columns: Vec<ArrayRef>,
}

impl Encoded {
    pub fn row(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// The row, unless it has a NULL: NULL equals nothing.
    pub fn whole(&self, row: usize) -> Option<&[u8]> {
        self.columns.iter().all(|c| c.is_valid(row)).then(|| self.row(row))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringViewArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn values_come_back_and_compare_as_they_do() {
        let texts: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("b"), None, Some(""), Some("a longer text than a view holds")]));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(3), Some(1), Some(2), None]));
        let kinds = |descending: bool| {
            let options = SortOptions { descending, nulls_first: true };
            [&times, &texts].map(|c| (c.data_type().clone(), options)).to_vec()
        };
        for (descending, expected) in [(false, [3, 1, 2, 0]), (true, [3, 0, 2, 1])] {
            let codec = Codec::sorted(kinds(descending)).expect("both have a form");
            let encoded = codec.encode(&[times.clone(), texts.clone()]).expect("they are read");
            let mut order: Vec<usize> = (0..4).collect();
            order.sort_by_key(|row| encoded.row(*row).to_vec());
            assert_eq!(order, expected);
            let rows: Vec<Option<&[u8]>> = (0..4).map(|row| Some(encoded.row(row))).collect();
            assert_eq!(codec.decode(&rows).expect("they come back"), [times.clone(), texts.clone()]);
            let some = codec.decode(&[None, Some(encoded.row(0))]).expect("they come back");
            assert_eq!(some[1].as_ref(), &StringViewArray::from(vec![None, Some("b")]));
            assert!(codec.decode(&[None]).expect("nothing comes back")[1].is_null(0));
            assert_eq!((0..4).map(|row| encoded.whole(row).is_some()).collect::<Vec<_>>(), [true, false, true, false]);
        }
    }
}
