//! One builder per column type: takes what a walk found and keeps what the column can hold of it. Rows without a
//! value cost nothing until one with a value comes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, Int64Array, ListArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use event::ColumnType;

use crate::arena::{Arena, Blocks, Place, View};
use crate::memo::Memo;
use crate::program::FillSlots;
use crate::transform::{Inputs, Made};
use crate::value;
use crate::walk::Found;

/// A column in the making.
#[derive(Debug)]
pub(crate) struct ColumnBuilder {
    kind: ColumnType,
    values: Values,
    /// How many rows `values` has, and which of them are null.
    length: usize,
    gaps: Vec<Range<usize>>,
    /// Rows of the batch before: a guess at what this one will have.
    rows_before: usize,
    texts: Memo<Option<View>>,
    lists: Memo<Option<Elements>>,
}

/// Where a list's elements lie among all of a column: the first, and the one behind the last.
type Elements = (u32, u32);

#[derive(Debug)]
enum Values {
    None,
    String(Vec<View>),
    Int64(Vec<i64>),
    Bool(BooleanBufferBuilder),
    Timestamp(Vec<i64>),
    /// Where each list ends in the elements.
    StringList(Vec<i32>, Vec<View>),
}

/// The row that values are appended for: how many are before it, and where its text lies.
pub(crate) struct RowPlace<'a> {
    pub row: usize,
    pub raw: Place,
    pub arena: &'a mut Arena,
}

impl ColumnBuilder {
    pub fn new(kind: ColumnType) -> Self {
        ColumnBuilder {
            kind,
            values: Values::None,
            length: 0,
            gaps: Vec::new(),
            rows_before: 0,
            texts: Memo::default(),
            lists: Memo::default(),
        }
    }

    /// Appends one row's value. Most columns have none, so that is all that is inlined.
    #[inline(always)]
    pub fn append(&mut self, fill: &FillSlots, found: Found, place: &mut RowPlace) {
        match fill.slot(found) {
            Some(slot) => self.append_present(fill, slot, found, place),
            None => {
                if let Some(default) = fill.default(found) {
                    let view = place.arena.view(default);
                    self.append_view(place.row, view);
                }
            }
        }
    }

    fn append_present(&mut self, fill: &FillSlots, slot: usize, found: Found, place: &mut RowPlace) {
        let Some(value) = found.value(slot) else { return };
        let json = value.json;
        if let Some(transform) = fill.transform {
            match (self.kind, transform.inputs()) {
                (ColumnType::String, Inputs::First) if transform.is_costly() => {
                    let make = || match transform.apply(&[Some(value)]) {
                        Some(Made::Text(made)) => Some(made),
                        _ => None,
                    };
                    self.append_text(json, found.text, place, make);
                }
                (ColumnType::StringList, Inputs::First) if transform.is_costly() => {
                    let make = || match transform.apply(&[Some(value)]) {
                        Some(Made::List(made)) => Some(made.into_iter()),
                        _ => None,
                    };
                    self.append_list(json, found.text, place, make);
                }
                _ => {
                    if let Some(made) = fill.make(transform, slot, found) {
                        self.append_made(made, found.text, place);
                    }
                }
            }
            return;
        }
        match self.kind {
            ColumnType::Int64 => self.append_value(place.row, value::int(json)),
            ColumnType::Timestamp => self.append_value(place.row, value::time(json)),
            ColumnType::Bool => self.append_bool(place.row, value::boolean(json)),
            ColumnType::StringList => {
                self.append_list(json, found.text, place, || Some(value::elements(json).map(value::text)));
            }
            // Schemas refuse binary columns and hashes where paths fill them, so these would come out as text.
            ColumnType::String | ColumnType::Binary | ColumnType::Hash => match found.text_part(slot) {
                Some(part) => self.append_view(place.row, place.raw.view(found.text, part)),
                None => self.append_text(json, found.text, place, || Some(value.text())),
            },
        }
    }

    /// Appends the text that `make` makes of a value that stands in the row's `text`.
    fn append_text<'f>(
        &mut self,
        json: &'f str,
        text: &'f str,
        place: &mut RowPlace,
        make: impl FnOnce() -> Option<Cow<'f, str>>,
    ) {
        let made = self.texts.find(json).unwrap_or_else(|| {
            let made = make().map(|made| place.raw.view_or_add(text, &made, place.arena));
            self.texts.remember(json, made);
            made
        });
        if let Some(view) = made {
            self.append_view(place.row, view);
        }
    }

    /// Appends the list that `make` makes of a value that stands in the row's `text`.
    fn append_list<'f, L: Iterator<Item = Cow<'f, str>>>(
        &mut self,
        json: &'f str,
        text: &'f str,
        place: &mut RowPlace,
        make: impl FnOnce() -> Option<L>,
    ) {
        match self.lists.find(json) {
            Some(None) => {}
            Some(Some((first, end))) => {
                self.fill_up(place.row);
                if let Values::StringList(ends, views) = &mut self.values {
                    views.extend_from_within(first as usize..end as usize);
                    ends.push(views.len() as i32);
                    self.length += 1;
                }
            }
            None => {
                let made = make().and_then(|list| self.append_elements(list, text, place));
                self.lists.remember(json, made);
            }
        }
    }

    /// Appends a value made of the row's `text`. One of another type than the column's is left out; schemas refuse that.
    pub fn append_made(&mut self, made: Made, text: &str, place: &mut RowPlace) {
        match (self.kind, made) {
            (ColumnType::String, Made::Text(made)) => {
                let view = place.raw.view_or_add(text, &made, place.arena);
                self.append_view(place.row, view);
            }
            (ColumnType::Bool, Made::Bool(yes)) => self.append_bool(place.row, Some(yes)),
            (ColumnType::Int64, Made::Int(number)) => self.append_value(place.row, Some(number)),
            (ColumnType::StringList, Made::List(list)) => {
                self.append_elements(list.into_iter(), text, place);
            }
            (kind, made) => debug_assert!(false, "{made:?} in a column of {}", kind.name()),
        }
    }

    #[inline]
    fn append_view(&mut self, row: usize, view: View) {
        self.fill_up(row);
        if let Values::String(views) = &mut self.values {
            views.push(view);
            self.length += 1;
        }
    }

    fn append_value(&mut self, row: usize, value: Option<i64>) {
        let Some(value) = value else { return };
        self.fill_up(row);
        if let Values::Int64(values) | Values::Timestamp(values) = &mut self.values {
            values.push(value);
            self.length += 1;
        }
    }

    fn append_bool(&mut self, row: usize, value: Option<bool>) {
        let Some(value) = value else { return };
        self.fill_up(row);
        if let Values::Bool(values) = &mut self.values {
            values.append(value);
            self.length += 1;
        }
    }

    /// Returns where they lie.
    fn append_elements<'t>(
        &mut self,
        list: impl Iterator<Item = Cow<'t, str>>,
        text: &str,
        place: &mut RowPlace,
    ) -> Option<Elements> {
        self.fill_up(place.row);
        let Values::StringList(ends, views) = &mut self.values else { return None };
        let first = views.len() as u32;
        views.extend(list.map(|element| place.raw.view_or_add(text, &element, place.arena)));
        ends.push(views.len() as i32);
        self.length += 1;
        Some((first, views.len() as u32))
    }

    /// Appends nulls until there are `rows`, all of them at once.
    #[inline]
    fn fill_up(&mut self, rows: usize) {
        if self.length < rows || matches!(self.values, Values::None) {
            self.append_nulls(rows);
        }
    }

    fn append_nulls(&mut self, rows: usize) {
        if matches!(self.values, Values::None) {
            // Some more than that: growing copies everything.
            self.values = Values::new(self.kind, self.rows_before + self.rows_before / 8);
        }
        let missing = rows - self.length;
        if missing > 0 {
            self.gaps.push(self.length..rows);
            self.length = rows;
        }
        match &mut self.values {
            Values::None => {}
            Values::String(views) => views.resize(rows, View::default()),
            Values::Int64(values) | Values::Timestamp(values) => values.resize(rows, 0),
            Values::Bool(values) => values.append_n(missing, false),
            Values::StringList(ends, views) => ends.resize(rows, views.len() as i32),
        }
    }

    /// Hands over a batch of `rows` rows and starts anew; `None` when all of them are null.
    pub fn finish(&mut self, rows: usize, blocks: &Blocks) -> Option<ArrayRef> {
        self.texts.end_batch();
        self.lists.end_batch();
        if matches!(self.values, Values::None) {
            self.rows_before = rows;
            return None;
        }
        self.fill_up(rows);
        self.rows_before = rows;
        self.length = 0;
        let nulls = nulls(&self.gaps, rows);
        self.gaps.clear();
        Some(match std::mem::replace(&mut self.values, Values::None) {
            Values::None => return None,
            Values::String(views) => blocks.column(views, nulls),
            Values::Int64(values) => int64(values, nulls),
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Timestamp(values) => timestamp(values, nulls),
            Values::StringList(ends, views) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from([&[0], &ends[..]].concat()));
                let item = Arc::new(Field::new("item", DataType::Utf8View, true));
                Arc::new(ListArray::new(item, offsets, blocks.column(views, None), nulls))
            }
        })
    }
}

impl Values {
    fn new(kind: ColumnType, rows: usize) -> Self {
        match kind {
            ColumnType::Int64 => Values::Int64(Vec::with_capacity(rows)),
            ColumnType::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            ColumnType::Timestamp => Values::Timestamp(Vec::with_capacity(rows)),
            ColumnType::StringList => Values::StringList(Vec::with_capacity(rows), Vec::with_capacity(rows)),
            ColumnType::String | ColumnType::Binary | ColumnType::Hash => Values::String(Vec::with_capacity(rows)),
        }
    }
}

/// All rows but those in the gaps, which are in order.
pub(crate) fn nulls(gaps: &[Range<usize>], rows: usize) -> Option<NullBuffer> {
    if gaps.is_empty() {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(rows);
    for gap in gaps {
        valid.append_n(gap.start - valid.len(), true);
        valid.append_n(gap.len(), false);
    }
    valid.append_n(rows - valid.len(), true);
    Some(NullBuffer::new(valid.finish()))
}

pub(crate) fn int64(values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Int64Array::new(values.into(), nulls))
}

/// With the data type of [`ColumnType::Timestamp`].
pub(crate) fn timestamp(values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    let array = TimestampMicrosecondArray::new(values.into(), nulls);
    Arc::new(array.with_data_type(ColumnType::Timestamp.arrow()))
}
