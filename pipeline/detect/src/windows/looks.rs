//! Groups as they are at boundaries, kept until all that is to be looked at is evaluated together.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::FieldRef;
use datafusion::error::Result;

use super::extremes::Least;
use super::groups::Group;
use super::input::batch_of;
use super::shape::{Output, Shape};

pub struct Looks {
    /// Group and boundary of each.
    places: Vec<(Group, i32)>,
    lanes: usize,
    /// So many of each.
    sums: Vec<i64>,
    extremes: usize,
    leasts: Vec<Option<i64>>,
}

impl Looks {
    pub fn of(shape: &Shape) -> Looks {
        let (lanes, extremes) = (shape.lanes, shape.extremes);
        Looks { places: Vec::new(), lanes, sums: Vec::new(), extremes, leasts: Vec::new() }
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
    }

    /// The number of the new one. `sums` are those at that boundary.
    pub fn add(&mut self, group: Group, slot: i32, sums: &[i64], leasts: &[Least]) -> usize {
        self.places.push((group, slot));
        self.sums.extend_from_slice(&sums[..self.lanes]);
        self.leasts.extend(leasts.iter().map(|least| least.at(slot)));
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
            let column = self.column(*output, field, which.clone())?;
            columns.push(column);
        }
        batch_of(fields.iter().cloned().zip(columns).collect(), which.len())
    }

    fn column(&self, output: Output, field: &FieldRef, which: Range<usize>) -> Result<ArrayRef> {
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
            Output::Least { extreme, complement } => {
                let least = |n: usize| self.leasts[n * self.extremes + extreme];
                Arc::new(which.map(|n| least(n).map(|v| if complement { !v } else { v })).collect::<Int64Array>())
            }
        };
        Ok(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? })
    }
}
