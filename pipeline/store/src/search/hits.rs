//! Search results: newest first, in a stable order (time descending, then table, segment, row), streamed. A segment is
//! searched only when the results come down to its newest time, so the first page of a wide search is cheap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray, new_null_array};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use event::{Column, Micros, TableSchema, column};

use super::query::Query;
use super::rows::Node;
use super::sealed;
use crate::StoreError;
use crate::segment::{Segment, span};
use crate::store::Snapshot;

/// Rows per batch of results: bounds the memory that their `raw` takes.
const HITS_CHUNK: usize = 1024;

/// The first result column: the stored table that the row is from.
pub const TABLE_COLUMN: &str = "table";

/// `from` included, `to` excluded.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeRange {
    pub from: Option<Micros>,
    pub to: Option<Micros>,
}

impl TimeRange {
    fn contains(&self, time: Micros) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}

#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    pub range: TimeRange,
    /// `None`: all.
    pub limit: Option<usize>,
    /// Stored tables to search; `None`: all.
    pub tables: Option<Vec<String>>,
}

/// What a search looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Segments searched; those whose time does not overlap the range are not.
    pub segments: u64,
    /// Committed rows in them.
    pub sealed_rows: u64,
    /// Rows searched that are not committed yet: a crash now would have them read again from the source.
    pub unsealed_rows: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub rows: u64,
    pub coverage: Coverage,
}

/// A segment, or all unsealed rows of a table.
enum Rows {
    Sealed(Arc<Segment>),
    Unsealed(RecordBatch),
}

struct Part {
    table: usize,
    /// Unsealed rows come after every ULID.
    name: String,
    newest: Micros,
    rows: Rows,
}

/// Parts that may hold rows of the range.
fn parts(
    tables: &[Arc<TableSchema>],
    snapshot: &Snapshot,
    range: TimeRange,
    wanted: Option<&[String]>,
) -> Result<Vec<Part>, StoreError> {
    let overlaps = |first, last| range.from.is_none_or(|from| from <= last) && range.to.is_none_or(|to| first < to);
    if let Some(unknown) = wanted.into_iter().flatten().find(|name| tables.iter().all(|t| t.name != **name)) {
        return Err(StoreError::UnknownTable(unknown.clone()));
    }
    let mut parts = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        if wanted.is_some_and(|wanted| !wanted.contains(&table.name)) {
            continue;
        }
        for segment in snapshot.segments_of(&table.name) {
            let time = segment.meta.time;
            if overlaps(time.first, time.last) {
                let rows = Rows::Sealed(segment.clone());
                parts.push(Part { table: index, name: segment.meta.ulid.clone(), newest: time.last, rows });
            }
        }
        let batches = snapshot.unsealed(&table.name);
        let time = span(&batches, column::TIME);
        if !batches.is_empty() && overlaps(time.first, time.last) {
            let rows = Rows::Unsealed(concat_batches(&table.arrow(), &batches)?);
            parts.push(Part { table: index, name: "~".to_owned(), newest: time.last, rows });
        }
    }
    Ok(parts)
}

impl Part {
    /// Matching rows in the range with their times, in row order.
    fn search(&self, node: &Node, range: TimeRange) -> Result<Vec<(Micros, u32)>, StoreError> {
        let mut hits = Vec::new();
        let mut take = |times: &ArrayRef, rows: &mut dyn Iterator<Item = usize>| {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            for (index, row) in rows.take(times.len()).enumerate() {
                let time = times.value(index);
                if range.contains(time) {
                    hits.push((time, row as u32));
                }
            }
        };
        match &self.rows {
            Rows::Sealed(segment) => {
                let found = sealed::matches(node, segment)?;
                let mut rows = found.iter();
                if !found.is_empty() {
                    for batch in segment.data()?.read(&[column::TIME], found.iter())? {
                        take(batch?.column(0), &mut rows);
                    }
                }
            }
            Rows::Unsealed(batch) => {
                let found = node.matches(batch);
                let times = batch.column_by_name(column::TIME).expect("checked when the store was opened");
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let inside = |row: &usize| found[*row] && range.contains(times.value(*row));
                hits.extend((0..batch.num_rows()).filter(inside).map(|row| (times.value(row), row as u32)));
            }
        }
        Ok(hits)
    }

    /// How many rows match; does not read times where the whole segment lies in the range.
    fn count(&self, node: &Node, range: TimeRange) -> Result<u64, StoreError> {
        match &self.rows {
            Rows::Sealed(segment)
                if range.contains(segment.meta.time.first) && range.contains(segment.meta.time.last) =>
            {
                Ok(sealed::matches(node, segment)?.count() as u64)
            }
            _ => Ok(self.search(node, range)?.len() as u64),
        }
    }

    /// The given rows (ascending) with the columns of `schema`; null where the part has no such column.
    fn read(&self, rows: &[u32], schema: &SchemaRef, table: &str) -> Result<RecordBatch, StoreError> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let batch = match &self.rows {
            Rows::Sealed(segment) => {
                let reader = segment.data()?.read(&names, rows.iter().map(|row| *row as usize))?;
                concat_batches(&reader.schema(), &reader.collect::<Result<Vec<_>, _>>()?)?
            }
            Rows::Unsealed(batch) => {
                let rows = arrow::array::UInt32Array::from(rows.to_vec());
                arrow::compute::take_record_batch(batch, &rows)?
            }
        };
        let column = |field: &Arc<Field>| -> ArrayRef {
            if field.name() == TABLE_COLUMN {
                return Arc::new(StringViewArray::from_iter_values(rows.iter().map(|_| table)));
            }
            let found = batch.column_by_name(field.name()).filter(|found| found.data_type() == field.data_type());
            found.cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows.len()))
        };
        Ok(RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())?)
    }
}

/// Counts matching rows.
pub fn count(
    tables: &[Arc<TableSchema>],
    snapshot: &Snapshot,
    query: &Query,
    range: TimeRange,
) -> Result<Count, StoreError> {
    let mut count = Count::default();
    let nodes: Vec<Node> = tables.iter().map(|table| Node::bind(&query.expr, table)).collect();
    for part in parts(tables, snapshot, range, None)? {
        count.coverage.add(&part);
        count.rows += part.count(&nodes[part.table], range)?;
    }
    Ok(count)
}

impl Coverage {
    fn add(&mut self, part: &Part) {
        match &part.rows {
            Rows::Sealed(segment) => {
                self.segments += 1;
                self.sealed_rows += segment.meta.rows;
            }
            Rows::Unsealed(batch) => self.unsealed_rows += batch.num_rows() as u64,
        }
    }
}

/// A result's place in the order: greatest first out of the heap.
type Place = (Micros, Reverse<usize>, Reverse<String>, Reverse<u32>, usize);

/// Results in batches of up to a thousand rows. Columns: `table`, the meta columns, the columns common to all
/// sources.
pub struct Hits {
    tables: Vec<Arc<TableSchema>>,
    nodes: Vec<Node>,
    range: TimeRange,
    schema: SchemaRef,
    parts: Vec<Part>,
    /// Parts not searched yet, the one with the newest row last.
    waiting: Vec<usize>,
    /// Per searched part, its results, the next one last.
    found: HashMap<usize, Vec<(Micros, u32)>>,
    next: BinaryHeap<Place>,
    left: usize,
    coverage: Coverage,
}

impl Hits {
    pub fn new(
        tables: &[Arc<TableSchema>],
        snapshot: &Snapshot,
        query: &Query,
        options: &SearchOptions,
    ) -> Result<Hits, StoreError> {
        let parts = parts(tables, snapshot, options.range, options.tables.as_deref())?;
        let mut waiting: Vec<usize> = (0..parts.len()).collect();
        waiting.sort_by_key(|part| parts[*part].newest);
        Ok(Hits {
            tables: tables.to_vec(),
            nodes: tables.iter().map(|table| Node::bind(&query.expr, table)).collect(),
            range: options.range,
            schema: result_schema(tables),
            parts,
            waiting,
            found: HashMap::new(),
            next: BinaryHeap::new(),
            left: options.limit.unwrap_or(usize::MAX),
            coverage: Coverage::default(),
        })
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// What has been searched so far; all of it once the iterator has ended without reaching a limit.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    fn chunk(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        let mut chunk: Vec<(usize, u32)> = Vec::new();
        while chunk.len() < HITS_CHUNK.min(self.left) {
            let Some(hit) = self.next_hit()? else { break };
            chunk.push(hit);
        }
        self.left -= chunk.len();
        match chunk.is_empty() {
            true => Ok(None),
            false => self.fetch(&chunk).map(Some),
        }
    }

    /// Part and row of the next result.
    fn next_hit(&mut self) -> Result<Option<(usize, u32)>, StoreError> {
        // Equal times are ordered by table and segment, so a part whose newest row is as new must be searched too.
        while let Some(part) = self.waiting.last().copied()
            && self.next.peek().is_none_or(|place| self.parts[part].newest >= place.0)
        {
            self.waiting.pop();
            self.coverage.add(&self.parts[part]);
            let mut hits = self.parts[part].search(&self.nodes[self.parts[part].table], self.range)?;
            hits.sort_by_key(|(time, row)| (*time, Reverse(*row)));
            self.found.insert(part, hits);
            self.offer(part);
        }
        let Some((_, _, _, Reverse(row), part)) = self.next.pop() else { return Ok(None) };
        self.offer(part);
        Ok(Some((part, row)))
    }

    /// Puts the part's next result into the heap.
    fn offer(&mut self, part: usize) {
        let of = &self.parts[part];
        match self.found.get_mut(&part).and_then(Vec::pop) {
            Some((time, row)) => {
                self.next.push((time, Reverse(of.table), Reverse(of.name.clone()), Reverse(row), part));
            }
            None => {
                self.found.remove(&part);
            }
        }
    }

    /// Reads the rows part by part and puts them into the order of the chunk.
    fn fetch(&self, chunk: &[(usize, u32)]) -> Result<RecordBatch, StoreError> {
        let mut wanted: HashMap<usize, Vec<u32>> = HashMap::new();
        chunk.iter().for_each(|(part, row)| wanted.entry(*part).or_default().push(*row));
        let mut batches = Vec::new();
        let mut places: HashMap<(usize, u32), (usize, usize)> = HashMap::new();
        for (part, mut rows) in wanted {
            rows.sort_unstable();
            places.extend(rows.iter().enumerate().map(|(at, row)| ((part, *row), (batches.len(), at))));
            let from = &self.parts[part];
            batches.push(from.read(&rows, &self.schema, &self.tables[from.table].name)?);
        }
        let order: Vec<(usize, usize)> = chunk.iter().map(|hit| places[hit]).collect();
        let column = |index: usize| {
            let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            interleave(&columns, &order)
        };
        let columns = (0..self.schema.fields().len()).map(column).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl Iterator for Hits {
    type Item = Result<RecordBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunk().transpose().inspect(|result| {
            if result.is_err() {
                self.left = 0;
            }
        })
    }
}

/// `table`, the meta columns, then every common column of any table.
fn result_schema(tables: &[Arc<TableSchema>]) -> SchemaRef {
    let mut fields = vec![Field::new(TABLE_COLUMN, DataType::Utf8View, false)];
    let raw_at = |table: &TableSchema| table.columns.iter().position(|c| c.name == column::RAW).unwrap_or(0);
    for table in tables {
        let meta = raw_at(table);
        let shown = |(index, c): &(usize, &Column)| *index <= meta || c.common;
        for (_, column) in table.columns.iter().enumerate().filter(shown) {
            if fields.iter().all(|field| field.name() != &column.name) {
                fields.push(Field::new(&column.name, column.kind.arrow(), true));
            }
        }
    }
    Arc::new(Schema::new(fields))
}
