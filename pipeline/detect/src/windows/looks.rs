//! Groups as they are at boundaries, kept until all that is to be looked at is evaluated together.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::{DataFusionError, Result};

use super::extras::Kept;
use super::groups::Group;
use super::input::batch_of;
use super::shape::{Output, Shape};
use super::values::Value;

/// Looks of one evaluation, and what they may list together.
const LOOKS_MAX: usize = 8_192;
const LISTED_MAX: usize = 1 << 18;

pub struct Looks {
    /// Group and boundary of each.
    places: Vec<(Group, i32)>,
    /// So many of each look; the others have as many as the shape says.
    lanes: usize,
    sums: Vec<i64>,
    leasts: Vec<Option<i64>>,
    firsts: Vec<Option<Value>>,
    bags: Vec<Option<Vec<Value>>>,
    /// Values in all bags.
    listed: usize,
}

impl Looks {
    pub fn of(shape: &Shape) -> Looks {
        Looks {
            places: Vec::new(),
            lanes: shape.lanes,
            sums: Vec::new(),
            leasts: Vec::new(),
            firsts: Vec::new(),
            bags: Vec::new(),
            listed: 0,
        }
    }

    /// Time to evaluate them.
    pub fn are_many(&self) -> bool {
        self.places.len() >= LOOKS_MAX || self.listed >= LISTED_MAX
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn places(&self) -> &[(Group, i32)] {
        &self.places
    }

    pub fn clear(&mut self) {
        self.places.clear();
        self.sums.clear();
        self.leasts.clear();
        self.firsts.clear();
        self.bags.clear();
        self.listed = 0;
    }

    /// The number of the new one. `sums` are those at that boundary.
    pub fn add(&mut self, group: Group, slot: i32, sums: &[i64], kept: Kept) -> usize {
        self.places.push((group, slot));
        self.sums.extend_from_slice(&sums[..self.lanes]);
        self.leasts.extend(kept.leasts.iter().map(|least| least.at(slot)));
        self.firsts.extend(kept.firsts.iter().map(|first| first.at(slot)));
        for bag in kept.bags {
            let values = bag.at(slot);
            self.listed += values.as_ref().map_or(0, Vec::len);
            self.bags.push(values);
        }
        self.places.len() - 1
    }

    /// The aggregation's rows.
    pub fn aggregated<'k>(
        &self,
        shape: &Shape,
        which: Range<usize>,
        key: &dyn Fn(Group) -> &'k [u8],
    ) -> Result<RecordBatch> {
        let mut columns = shape.codec.decode(self.places[which.clone()].iter().map(|(group, _)| key(*group)))?;
        let fields = shape.schema.fields();
        for (output, field) in shape.outputs.iter().zip(fields.iter().skip(columns.len())) {
            let column = self.column(shape, *output, field, which.clone())?;
            columns.push(column);
        }
        batch_of(fields.iter().cloned().zip(columns).collect(), which.len())
    }

    fn column(&self, shape: &Shape, output: Output, field: &FieldRef, which: Range<usize>) -> Result<ArrayRef> {
        let sum = |n: usize, lane: usize| self.sums[n * self.lanes + lane];
        let array: ArrayRef = match output {
            Output::Lane(lane) => Arc::new(which.map(|n| Some(sum(n, lane))).collect::<Int64Array>()),
            Output::Sum { lane, count } => {
                Arc::new(which.map(|n| (sum(n, count) > 0).then(|| sum(n, lane))).collect::<Int64Array>())
            }
            Output::Average { lane, count } => {
                let average = |n: usize| (sum(n, count) > 0).then(|| sum(n, lane) as f64 / sum(n, count) as f64);
                Arc::new(which.map(average).collect::<Float64Array>())
            }
            Output::Least { least, complement } => {
                let least = |n: usize| self.leasts[n * shape.leasts + least];
                Arc::new(which.map(|n| least(n).map(|v| if complement { !v } else { v })).collect::<Int64Array>())
            }
            Output::First(first) => {
                let first_of = |n: usize| self.firsts[n * shape.firsts.len() + first].as_deref();
                last(shape.firsts[first].decode(&which.map(first_of).collect::<Vec<_>>())?)?
            }
            Output::Bag(bag) => {
                let DataType::List(item) = field.data_type() else {
                    return Err(DataFusionError::Internal(format!("a list of type {}", field.data_type())));
                };
                let of = |n: usize| self.bags[n * shape.bags.len() + bag].as_deref();
                let offsets = OffsetBuffer::from_lengths(which.clone().map(|n| of(n).map_or(0, <[_]>::len)));
                let nulls = NullBuffer::from_iter(which.clone().map(|n| of(n).is_some()));
                let values: Vec<Option<&[u8]>> =
                    which.flat_map(|n| of(n).unwrap_or_default()).map(|value| Some(value.as_ref())).collect();
                let values = cast(&last(shape.bags[bag].codec.decode(&values)?)?, item.data_type())?;
                Arc::new(ListArray::try_new(item.clone(), offsets, values, Some(nulls))?)
            }
        };
        Ok(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? })
    }
}

/// The value of a tuple; before it is what they are sorted by.
fn last(mut columns: Vec<ArrayRef>) -> Result<ArrayRef> {
    columns.pop().ok_or_else(|| DataFusionError::Internal("a tuple of nothing".into()))
}
