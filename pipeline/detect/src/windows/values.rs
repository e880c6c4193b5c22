//! Values of any type as bytes that compare as the values do, and kept once, however many groups have them.

use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::{DataFusionError, Result};
use hashbrown::HashSet;

pub type Value = Arc<[u8]>;

/// Tuples: what they are sorted by, then the value itself.
#[derive(Debug)]
pub struct Codec(RowConverter);

impl Codec {
    /// `None` where a type has no such form.
    pub fn new(order: &[(DataType, SortOptions)], value: (DataType, SortOptions)) -> Option<Codec> {
        let fields = order.iter().cloned().chain([value]);
        let fields = fields.map(|(kind, options)| SortField::new_with_options(kind, options)).collect::<Vec<_>>();
        if !RowConverter::supports_fields(&fields) {
            return None;
        }
        RowConverter::new(fields).ok().map(Codec)
    }

    pub fn read(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.0.convert_columns(columns)?)
    }

    /// The values themselves, NULL where there is none.
    pub fn decode<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let (parser, mut rows, mut places) = (self.0.parser(), Vec::new(), Vec::new());
        for value in values {
            places.push(value.map(|_| rows.len() as u32));
            rows.extend(value.map(|value| parser.parse(value)));
        }
        let columns = self.0.convert_rows(rows)?;
        let values = columns.last().ok_or_else(|| DataFusionError::Internal("a tuple of nothing".into()))?;
        match places.iter().all(Option::is_some) {
            true => Ok(values.clone()),
            false => Ok(take(values, &UInt32Array::from(places), None)?),
        }
    }
}

/// Interned values are looked through for those that nobody holds when so many more have come.
const SWEEP_MIN: usize = 1_024;

/// The values that groups hold.
pub struct Values {
    all: HashSet<Value, RandomState>,
    sweep_at: usize,
    bytes: usize,
}

impl Default for Values {
    fn default() -> Self {
        Values { all: HashSet::with_hasher(RandomState::new()), sweep_at: SWEEP_MIN, bytes: 0 }
    }
}

impl Values {
    pub fn intern(&mut self, bytes: &[u8]) -> Value {
        if let Some(value) = self.all.get(bytes) {
            return value.clone();
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|value| Arc::strong_count(value) > 1);
            self.bytes = self.all.iter().map(|value| value.len()).sum();
            self.sweep_at = (2 * self.all.len()).max(SWEEP_MIN);
        }
        let value: Value = bytes.into();
        self.bytes += bytes.len();
        self.all.insert(value.clone());
        value
    }

    /// Two counts and an allocator's head beside the bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.all.len() * 24 + self.all.capacity() * (size_of::<Value>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringViewArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn values_come_back_and_compare_as_they_do() {
        let texts: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("b"), None, Some(""), Some("a longer text than a view holds")]));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(3), Some(1), Some(2), None]));
        let ascending = SortOptions { descending: false, nulls_first: true };
        let kinds = [times.data_type().clone(), texts.data_type().clone()].map(|kind| (kind, ascending));
        let codec = Codec::new(&kinds[..1], kinds[1].clone()).expect("both have a form");
        let rows = codec.read(&[times, texts.clone()]).expect("they are read");
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by_key(|row| rows.row(*row).data().to_vec());
        assert_eq!(order, [3, 1, 2, 0]);
        let back = codec.decode((0..4).map(|row| Some(rows.row(row).data()))).expect("they come back");
        assert_eq!(back.as_ref(), texts.as_ref());
        let some = codec.decode([None, Some(rows.row(0).data())].into_iter()).expect("they come back");
        assert_eq!(some.as_ref(), &StringViewArray::from(vec![None, Some("b")]));
        assert!(codec.decode([None].into_iter()).expect("nothing comes back").is_null(0));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut values = Values::default();
        let held = values.intern(b"held");
        for n in 0..10 * SWEEP_MIN {
            values.intern(&n.to_le_bytes());
        }
        assert!(values.all.len() <= 2 * SWEEP_MIN && values.bytes < 20 * SWEEP_MIN);
        assert!(Arc::ptr_eq(&held, &values.intern(b"held")));
    }
}
