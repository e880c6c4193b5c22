//! Rows on stdout: a table for people, NDJSON or CSV for programs.

use std::io::Write;

use anyhow::Result;
use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;

use crate::cli::Format;

/// Widest cell of a table; longer text is cut with an ellipsis. NDJSON and CSV are never cut.
const CELL_CHARS_MAX: usize = 80;

pub struct Output<W: Write> {
    out: W,
    format: Format,
    /// A table is laid out when all rows are known.
    held: Vec<RecordBatch>,
    header_written: bool,
}

impl<W: Write> Output<W> {
    pub fn new(out: W, format: Format) -> Output<W> {
        Output { out, format, held: Vec::new(), header_written: false }
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self.format {
            Format::Table => self.held.push(shorten(&printable(batch)?)?),
            Format::Ndjson => {
                let mut writer = arrow::json::LineDelimitedWriter::new(&mut self.out);
                writer.write(&printable(batch)?)?;
                writer.finish()?;
            }
            Format::Csv => {
                let header = !std::mem::replace(&mut self.header_written, true);
                let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut self.out);
                writer.write(&flat(batch)?)?;
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        if self.format == Format::Table && !self.held.is_empty() {
            writeln!(self.out, "{}", arrow::util::pretty::pretty_format_batches(&self.held)?)?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Binary columns as hex text: JSON and terminals have no bytes.
fn printable(batch: &RecordBatch) -> Result<RecordBatch> {
    map_columns(batch, |array| match array.data_type() {
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary();
            Some(Arc::new(bytes.iter().map(|b| b.map(hex)).collect::<StringArray>()))
        }
        DataType::Binary => {
            Some(Arc::new(array.as_binary::<i32>().iter().map(|b| b.map(hex)).collect::<StringArray>()))
        }
        DataType::BinaryView => {
            Some(Arc::new(array.as_binary_view().iter().map(|b| b.map(hex)).collect::<StringArray>()))
        }
        _ => None,
    })
}

/// Everything nested as text: CSV cells have no lists.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    map_columns(&printable(batch)?, |array| array.data_type().is_nested().then(|| as_text(array, usize::MAX)))
}

fn shorten(batch: &RecordBatch) -> Result<RecordBatch> {
    map_columns(batch, |array| Some(as_text(array, CELL_CHARS_MAX)))
}

fn as_text(array: &ArrayRef, chars_max: usize) -> ArrayRef {
    let options = FormatOptions::default().with_display_error(true);
    let Ok(formatter) = ArrayFormatter::try_new(array, &options) else { return array.clone() };
    let texts = (0..array.len()).map(|row| {
        if array.is_null(row) {
            return None;
        }
        let text = formatter.value(row).to_string().replace(['\n', '\r', '\t'], " ");
        match text.char_indices().nth(chars_max) {
            Some((at, _)) => Some(format!("{}…", &text[..at])),
            None => Some(text),
        }
    });
    Arc::new(texts.collect::<StringArray>())
}

fn map_columns(batch: &RecordBatch, change: impl Fn(&ArrayRef) -> Option<ArrayRef>) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns: Vec<(Field, ArrayRef)> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(array, field)| match change(array) {
            Some(changed) => (Field::new(field.name(), changed.data_type().clone(), true), changed),
            None => (field.as_ref().clone(), array.clone()),
        })
        .collect();
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
