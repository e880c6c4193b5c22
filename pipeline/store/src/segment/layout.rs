//! What a segment's Parquet file has in place of the table's columns: columns whose values are the same in every row are written
//! once, and `raw` is cut by what other columns say (`cut.rs`). The file's own schema tells which ones, so that whoever reads it, we
//! or DataFusion, needs nothing else. Files before format 5 have the columns as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use event::column;

use super::cut;

/// Keys of the file's schema. The first has an object, columns by columns that are written instead; the second a list, the columns
/// that `raw` is cut by, in the order of their codes.
const SAME: &str = "stakeout.same";
const CUT: &str = "stakeout.cut";

/// Rows looked at to choose by what `raw` is cut: so many runs of so many neighbours.
pub const RUNS: usize = 4;
pub const RUN_ROWS: usize = 64;

/// The name of `raw` where it is cut, which no declared column can have.
pub const RAW_CUT: &str = "raw~cut";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Of columns that are not written, the one that is.
    same: BTreeMap<String, String>,
    /// Columns that are written.
    cut: Vec<String>,
}

/// How a column comes out of a file.
pub enum Stored<'l> {
    As(&'l str),
    /// From [`RAW_CUT`] and what it is cut by.
    Cut,
}

impl Layout {
    /// For rows that are all there.
    pub fn of(batches: &[RecordBatch]) -> Result<Layout, ArrowError> {
        let Some(first) = batches.first() else { return Ok(Layout::default()) };
        let alike = |a: usize, b: usize| batches.iter().all(|batch| equal(batch.column(a), batch.column(b)));
        Ok(Layout::cutting(written_once(&first.schema(), alike), &sample(batches)?))
    }

    /// For rows of several files, of which `rows` are some: what is one column in each of them. `places` says of each column of
    /// `rows` which column of each file it comes out of; `None` where it is computed.
    pub fn of_files(rows: &RecordBatch, places: &[Vec<Option<String>>]) -> Layout {
        let alike = |a: usize, b: usize| places[a] == places[b] && places[a].iter().all(Option::is_some);
        Layout::cutting(written_once(&rows.schema(), alike), rows)
    }

    /// Cut by what pays in these rows.
    fn cutting(same: BTreeMap<String, String>, rows: &RecordBatch) -> Layout {
        let Some(raw) = rows.column_by_name(column::RAW) else { return Layout { same, cut: Vec::new() } };
        let schema = rows.schema();
        let may = |name: &str| name != column::RAW && !same.contains_key(name);
        let (names, columns): (Vec<&str>, Vec<&ArrayRef>) = schema
            .fields()
            .iter()
            .zip(rows.columns())
            .map(|(field, column)| (field.name().as_str(), column))
            .filter(|(name, _)| may(name))
            .unzip();
        let chosen = cut::choose(raw.as_string_view(), &columns);
        Layout { same, cut: chosen.into_iter().map(|at| names[at].to_owned()).collect() }
    }

    /// As a file's schema says.
    pub fn read(file: &Schema) -> Option<Layout> {
        fn told<T: serde::de::DeserializeOwned + Default>(file: &Schema, key: &str) -> Option<T> {
            file.metadata.get(key).map_or(Some(T::default()), |json| serde_json::from_str(json).ok())
        }
        Some(Layout { same: told(file, SAME)?, cut: told(file, CUT)? })
    }

    /// The schema of a file for rows of a table.
    pub fn file_schema(&self, table: &Schema) -> SchemaRef {
        let fields = table.fields().iter().filter(|field| !self.same.contains_key(field.name()));
        let fields = fields.map(|field| match self.is_cut(field.name()) {
            true => Arc::new(Field::clone(field).with_name(RAW_CUT)),
            false => field.clone(),
        });
        let mut metadata = table.metadata.clone();
        for (key, json) in [(SAME, serde_json::json!(self.same)), (CUT, serde_json::json!(self.cut))] {
            metadata.insert(key.to_owned(), json.to_string());
        }
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata))
    }

    /// The schema of the rows in such a file, in no order that matters.
    pub fn row_schema(&self, file: &Schema) -> Schema {
        let mut fields: Vec<Field> = file.fields().iter().map(|field| Field::clone(field)).collect();
        for field in fields.iter_mut().filter(|field| field.name() == RAW_CUT) {
            field.set_name(column::RAW);
        }
        for (name, written) in &self.same {
            fields.extend(file.field_with_name(written).map(|field| field.clone().with_name(name)));
        }
        Schema::new(fields)
    }

    /// Rows of a table as a file has them, of which `schema` is the schema.
    pub fn cut(&self, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let of = |name: &str| rows.column_by_name(name).expect("a layout is of columns of its table");
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            RAW_CUT => {
                let by: Vec<&ArrayRef> = self.cut.iter().map(|name| of(name)).collect();
                Arc::new(cut::cut(of(column::RAW).as_string_view(), &by)) as ArrayRef
            }
            name => of(name).clone(),
        });
        RecordBatch::try_new(schema.clone(), columns.collect())
    }

    fn is_cut(&self, name: &str) -> bool {
        name == column::RAW && !self.cut.is_empty()
    }

    /// The columns by which `raw` is cut.
    pub fn cut_by(&self) -> &[String] {
        &self.cut
    }

    /// How a column of the table comes out of the file.
    pub fn stored<'l>(&'l self, name: &'l str) -> Stored<'l> {
        match self.is_cut(name) {
            true => Stored::Cut,
            false => Stored::As(self.same.get(name).map_or(name, String::as_str)),
        }
    }

    /// The columns of the file that a column of the table comes out of.
    pub fn needs<'l>(&'l self, name: &'l str) -> impl Iterator<Item = &'l str> {
        let (one, by) = match self.stored(name) {
            Stored::As(written) => (written, &[][..]),
            Stored::Cut => (RAW_CUT, self.cut_by()),
        };
        std::iter::once(one).chain(by.iter().map(String::as_str))
    }

    /// A column of the table, from rows that have the columns of the file that it needs; or why not.
    pub fn column(&self, name: &str, file: &RecordBatch) -> Result<ArrayRef, String> {
        let of = |name: &str| file.column_by_name(name).ok_or_else(|| format!("its file has no column `{name}`"));
        match self.stored(name) {
            Stored::As(written) => of(written).cloned(),
            Stored::Cut => {
                let columns: Vec<&ArrayRef> = self.cut.iter().map(|name| of(name)).collect::<Result<_, _>>()?;
                filled(of(RAW_CUT)?, &columns, &self.cut)
            }
        }
    }
}

/// Columns that are like an earlier one, by name, each with the first such one.
fn written_once(schema: &Schema, alike: impl Fn(usize, usize) -> bool) -> BTreeMap<String, String> {
    let (mut same, mut written) = (BTreeMap::new(), Vec::<usize>::new());
    // `raw` may be written in another way than as it is.
    let raw = |at: usize| schema.field(at).name() == column::RAW;
    for (at, field) in schema.fields().iter().enumerate() {
        let kind = |other: usize| schema.field(other).data_type() == field.data_type();
        let alike = |other: &usize| kind(*other) && !raw(at) && !raw(*other) && alike(*other, at);
        match written.iter().copied().find(alike) {
            Some(other) => _ = same.insert(field.name().clone(), schema.field(other).name().clone()),
            None => written.push(at),
        }
    }
    same
}

/// Values, wherever they lie.
fn equal(a: &ArrayRef, b: &ArrayRef) -> bool {
    let null = |column: &ArrayRef| column.null_count() == column.len();
    Arc::ptr_eq(a, b) || (a.null_count() == b.null_count() && (null(a) || a == b))
}

/// Some of the rows: runs of neighbours, spread over all of them, since rows long after each other repeat less than they do.
pub fn sample(batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let spread = |nth: usize| nth * rows.saturating_sub(RUN_ROWS) / (RUNS - 1);
    let wanted: BTreeSet<usize> = (0..RUNS).flat_map(|nth| spread(nth)..(spread(nth) + RUN_ROWS).min(rows)).collect();
    let mut places = Vec::with_capacity(wanted.len());
    let (mut batch, mut before) = (0, 0);
    for row in wanted {
        while row - before >= batches[batch].num_rows() {
            before += batches[batch].num_rows();
            batch += 1;
        }
        places.push((batch, row - before));
    }
    let columns = (0..schema.fields().len()).map(|at| {
        let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
        interleave(&columns, &places)
    });
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns.collect::<Result<_, _>>()?,
        &RecordBatchOptions::new().with_row_count(Some(places.len())),
    )
}

/// `raw` of what it was cut into and the columns of these names.
pub fn filled(cut: &ArrayRef, columns: &[&ArrayRef], names: &[String]) -> Result<ArrayRef, String> {
    let Some(cut) = cut.as_string_view_opt() else { return Err(format!("its column `{RAW_CUT}` is no text")) };
    match cut::filled(cut, columns) {
        Ok(raw) => Ok(Arc::new(raw)),
        Err(number) => Err(match names.get(number) {
            Some(name) => format!("its `{RAW_CUT}` has a place for a text of `{name}`, which has none"),
            None => format!("its `{RAW_CUT}` has a place for a text of no column"),
        }),
    }
}
