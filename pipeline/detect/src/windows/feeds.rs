//! What the rows of a batch give to the aggregates of their groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;

use super::groups::{Group, Panes, Seen};
use super::keys::{KeyCodec, Keys};
use super::shape::{Into, Shape, ShapePart};
use crate::codec::Encoded;

pub fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| e.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

pub struct Feeds(Vec<FeedColumn>);

struct FeedColumn {
    into: Into,
    filter: Option<BooleanArray>,
    argument: Option<Argument>,
}

enum Argument {
    /// Counted unless NULL.
    Any(ArrayRef),
    Value(Keys),
    Number(Int64Array),
    Sorted(Encoded),
}

impl Feeds {
    pub fn of(shape: &Shape, part: &ShapePart, rows: &RecordBatch) -> Result<Feeds> {
        let count = rows.num_rows();
        let mut columns = Vec::with_capacity(part.feeds.len());
        for feed in &part.feeds {
            let evaluate = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows)?.into_array(count);
            let filter = match &feed.filter {
                Some(filter) => {
                    let array = evaluate(filter)?;
                    let mask = array.as_boolean_opt();
                    Some(
                        mask.ok_or_else(|| DataFusionError::Execution("a FILTER is not true or false".into()))?.clone(),
                    )
                }
                None => None,
            };
            let argument = match (&feed.argument, feed.into) {
                (None, _) => None,
                (Some(e), Into::Count { .. }) => Some(Argument::Any(evaluate(e)?)),
                (Some(e), Into::Distinct { .. }) => {
                    let array = evaluate(e)?;
                    let codec = KeyCodec::new(vec![array.data_type().clone()])
                        .map_err(|kind| DataFusionError::Internal(format!("no key of type {kind}")))?;
                    Some(Argument::Value(codec.read(&[array])?))
                }
                (Some(e), Into::Sum { .. } | Into::Least { .. }) => {
                    let array = cast(&evaluate(e)?, &DataType::Int64)?;
                    Some(Argument::Number(array.as_primitive::<Int64Type>().clone()))
                }
                (Some(e), Into::First { first: of, .. } | Into::Bag { bag: of }) => {
                    let codec = match feed.into {
                        Into::First { .. } => &shape.firsts[of],
                        _ => &shape.bags[of].codec,
                    };
                    let columns = feed.order.iter().chain([e]).map(evaluate).collect::<Result<Vec<_>>>()?;
                    Some(Argument::Sorted(codec.encode(&columns)?))
                }
            };
            columns.push(FeedColumn { into: feed.into, filter, argument });
        }
        Ok(Feeds(columns))
    }

    /// False if not all of it could be kept.
    pub fn add(&self, panes: &mut dyn Panes, group: Group, seen: Seen, row: usize, scratch: &mut Vec<u8>) -> bool {
        let mut whole = true;
        for column in &self.0 {
            if column.filter.as_ref().is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            match (column.into, &column.argument) {
                (Into::Count { lane }, None) => panes.add(group, seen, lane, 1),
                (Into::Count { lane }, Some(Argument::Any(values))) if values.is_valid(row) => {
                    panes.add(group, seen, lane, 1);
                }
                (Into::Distinct { lane }, Some(Argument::Value(values))) if !values.any_null(row) => {
                    scratch.clear();
                    values.write(row, scratch);
                    panes.add_distinct(group, seen, lane, scratch);
                }
                (Into::Sum { lane, count }, Some(Argument::Number(values))) if values.is_valid(row) => {
                    panes.add(group, seen, lane, values.value(row));
                    panes.add(group, seen, count, 1);
                }
                (Into::Least { least, complement }, Some(Argument::Number(values))) if values.is_valid(row) => {
                    let value = values.value(row);
                    panes.add_least(group, seen, least, if complement { !value } else { value });
                }
                (Into::First { first, nulls }, Some(Argument::Sorted(values)))
                    if nulls || values.whole(row).is_some() =>
                {
                    panes.add_first(group, seen, first, values.row(row));
                }
                (Into::Bag { bag }, Some(Argument::Sorted(values))) => {
                    whole &= panes.add_member(group, seen, bag, values.row(row));
                }
                _ => {}
            }
        }
        whole
    }
}
