//! Rows in the making, per table: the meta columns, which every table begins with, then the table's own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, RecordBatch, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use event::{Message, Micros, Origin, RowHash, Source, TableSchema};

use crate::arena::{Arena, Blocks, Place, View};
use crate::column::{ColumnBuilder, RowPlace, int64, nulls, timestamp};
use crate::program::{Program, Uid};
use crate::walk::Found;

/// Rows of a source's table.
#[derive(Debug)]
pub(crate) struct EventRows {
    meta: Meta,
    /// One per fill of the program.
    columns: Vec<ColumnBuilder>,
}

/// Rows of `unparsed`.
#[derive(Debug)]
pub(crate) struct UnparsedRows {
    table: Arc<TableSchema>,
    meta: Meta,
    reason: Vec<View>,
    bytes: BinaryBuilder,
}

/// What the meta columns say of one row, its message apart.
pub(crate) struct Row<'a> {
    pub index: i64,
    pub time: Micros,
    pub uid: Uid<'a>,
    pub hash: &'a RowHash,
    pub raw: &'a str,
    /// `raw` is not all that was hashed.
    pub redacted: bool,
}

impl EventRows {
    pub fn new(program: &Program) -> Self {
        let columns = program.fills.iter().map(|fill| ColumnBuilder::new(fill.kind)).collect();
        EventRows { meta: Meta::default(), columns }
    }

    pub fn append(&mut self, program: &Program, message: &Message, row: Row, found: Found) {
        let raw = self.meta.append(message, row);
        let mut place = RowPlace { row: self.meta.rows() - 1, raw, arena: &mut self.meta.arena };
        for (builder, fill) in self.columns.iter_mut().zip(program.plain_fills()) {
            builder.append(fill, found, &mut place);
        }
        if let Some(pod) = program.pod(found) {
            let builders = &mut self.columns[program.plain_fills().len()..];
            for (builder, feature) in builders.iter_mut().zip(program.pod_fills().iter().filter_map(|fill| fill.pod)) {
                if let Some(made) = pod.feature(feature) {
                    builder.append_made(made, found.text, &mut place);
                }
            }
        }
    }

    pub fn finish(&mut self, program: &Program) -> Option<RecordBatch> {
        let rows = self.meta.rows();
        let (mut columns, blocks) = self.meta.finish()?;
        let filled: Vec<Option<ArrayRef>> =
            self.columns.iter_mut().map(|column| column.finish(rows, &blocks)).collect();
        // A third of the columns has no value in any row; those of a type share one array.
        let mut nulls = BTreeMap::new();
        for fill in &program.columns {
            columns.push(filled[*fill].clone().unwrap_or_else(|| {
                let kind = program.fills[*fill].kind;
                nulls.entry(kind.name()).or_insert_with(|| new_null_array(&kind.arrow(), rows)).clone()
            }));
        }
        Some(batch(&program.table, columns))
    }
}

impl UnparsedRows {
    pub fn new(table: Arc<TableSchema>) -> Self {
        UnparsedRows { table, meta: Meta::default(), reason: Vec::new(), bytes: BinaryBuilder::new() }
    }

    /// `bytes` only where `raw` does not say the same.
    pub fn append(&mut self, message: &Message, row: Row, reason: &str, bytes: Option<&[u8]>) {
        self.meta.append(message, row);
        self.reason.push(self.meta.arena.view(reason));
        self.bytes.append_option(bytes);
    }

    pub fn finish(&mut self) -> Option<RecordBatch> {
        let (mut columns, blocks) = self.meta.finish()?;
        columns.push(blocks.column(std::mem::take(&mut self.reason), None));
        columns.push(Arc::new(self.bytes.finish()));
        Some(batch(&self.table, columns))
    }
}

fn batch(table: &TableSchema, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(table.arrow(), columns).expect("builders are made from the schema and appended together")
}

/// The columns of `event::column`, in that order.
#[derive(Debug, Default)]
struct Meta {
    arena: Arena,
    time: Vec<Micros>,
    ingest_time: Vec<Micros>,
    event_uid: Vec<View>,
    source: Repeated<Source>,
    cluster: Repeated<Arc<str>>,
    origin: Repeated<Origin>,
    topic: Repeated<Arc<str>>,
    partition: Vec<i64>,
    offset: Vec<i64>,
    message_index: Vec<i64>,
    file_sha256: Repeated<Arc<str>>,
    row_hash: Vec<u8>,
    /// Which rows were redacted, in order.
    redacted: Vec<usize>,
    raw: Vec<View>,
}

impl Meta {
    fn rows(&self) -> usize {
        self.time.len()
    }

    /// Returns where `raw` lies.
    fn append(&mut self, message: &Message, row: Row) -> Place {
        let arena = &mut self.arena;
        let raw = arena.add(row.raw);
        if row.redacted {
            self.redacted.push(self.time.len());
        }
        self.time.push(row.time);
        self.ingest_time.push(message.received);
        self.event_uid.push(match row.uid {
            Uid::Part(part) => raw.view(row.raw, part),
            Uid::Made(uid) => arena.view(uid),
        });
        self.source.append(Some(&message.source), |source| source.name(), arena);
        self.cluster.append(message.cluster.as_ref(), |cluster| cluster, arena);
        self.origin.append(Some(&message.origin), |origin| origin.name(), arena);
        self.topic.append(Some(&message.topic), |topic| topic, arena);
        self.partition.push(i64::from(message.partition));
        self.offset.push(message.offset);
        self.message_index.push(row.index);
        self.file_sha256.append(message.file_sha256.as_ref(), |hash| hash, arena);
        self.row_hash.extend_from_slice(row.hash);
        self.raw.push(raw.view(row.raw, 0..row.raw.len()));
        raw
    }

    /// `None` when there are no rows.
    fn finish(&mut self) -> Option<(Vec<ArrayRef>, Blocks)> {
        let rows = self.rows();
        if rows == 0 {
            return None;
        }
        let blocks = self.arena.finish();
        let next = Meta { arena: std::mem::take(&mut self.arena), ..Meta::with_capacity(rows) };
        let done = std::mem::replace(self, next);
        let hashes = FixedSizeBinaryArray::new(size_of::<RowHash>() as i32, done.row_hash.into(), None);
        let columns: Vec<ArrayRef> = vec![
            timestamp(done.time, None),
            timestamp(done.ingest_time, None),
            blocks.column(done.event_uid, None),
            done.source.finish(&blocks),
            done.cluster.finish(&blocks),
            done.origin.finish(&blocks),
            done.topic.finish(&blocks),
            int64(done.partition, None),
            int64(done.offset, None),
            int64(done.message_index, None),
            done.file_sha256.finish(&blocks),
            timestamp(vec![Micros::MIN; rows], None),
            Arc::new(hashes),
            Arc::new(BooleanArray::new(flags(rows, &done.redacted), None)),
            blocks.column(done.raw, None),
        ];
        Some((columns, blocks))
    }

    /// For about `rows` rows.
    fn with_capacity(rows: usize) -> Meta {
        Meta {
            time: Vec::with_capacity(rows),
            ingest_time: Vec::with_capacity(rows),
            event_uid: Vec::with_capacity(rows),
            partition: Vec::with_capacity(rows),
            offset: Vec::with_capacity(rows),
            message_index: Vec::with_capacity(rows),
            row_hash: Vec::with_capacity(rows * size_of::<RowHash>()),
            raw: Vec::with_capacity(rows),
            ..Meta::default()
        }
    }
}

/// `rows` bits of which those at `set` are set.
fn flags(rows: usize, set: &[usize]) -> BooleanBuffer {
    if set.is_empty() {
        return BooleanBuffer::new_unset(rows);
    }
    let mut flags = BooleanBufferBuilder::new(rows);
    flags.append_n(rows, false);
    set.iter().for_each(|row| flags.set_bit(*row, true));
    flags.finish()
}

/// A column of few values, mostly the one of the row before.
#[derive(Debug)]
struct Repeated<T> {
    views: Vec<View>,
    /// Each value that there was, with its view.
    known: Vec<(T, View)>,
    /// Which of them the last row has; `None` for null.
    last: Option<usize>,
    /// How many rows end with it that are not in `views` yet, and which of the rows in there are null.
    run: usize,
    gaps: Vec<Range<usize>>,
}

/// Of more values than these, each is taken for new.
const KNOWN_MAX: usize = 32;

impl<T> Default for Repeated<T> {
    fn default() -> Self {
        Repeated { views: Vec::new(), known: Vec::new(), last: None, run: 0, gaps: Vec::new() }
    }
}

impl<T: Clone + PartialEq> Repeated<T> {
    #[inline]
    fn append(&mut self, value: Option<&T>, name: fn(&T) -> &str, arena: &mut Arena) {
        if self.last.map(|last| &self.known[last].0) != value {
            self.end_run();
            self.last = value.map(|value| self.place(value, name, arena));
        }
        self.run += 1;
    }

    /// Where the value is among the known ones.
    fn place(&mut self, value: &T, name: fn(&T) -> &str, arena: &mut Arena) -> usize {
        if let Some(place) = self.known.iter().position(|(known, _)| known == value) {
            return place;
        }
        self.known.truncate(KNOWN_MAX - 1);
        self.known.push((value.clone(), arena.view(name(value))));
        self.known.len() - 1
    }

    fn end_run(&mut self) {
        let rows = self.views.len() + std::mem::take(&mut self.run);
        if self.last.is_none() && rows > self.views.len() {
            self.gaps.push(self.views.len()..rows);
        }
        self.views.resize(rows, self.last.map_or(View::default(), |last| self.known[last].1));
    }

    fn finish(mut self, blocks: &Blocks) -> ArrayRef {
        self.end_run();
        let nulls = nulls(&self.gaps, self.views.len());
        blocks.column(self.views, nulls)
    }
}
