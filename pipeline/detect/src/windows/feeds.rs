//! What the rows of a batch give to the aggregates of their groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;

use super::groups::{Group, Panes, Seen};
use super::keys::{KeyCodec, Keys};
use super::shape::{Into, ShapePart};

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
}

impl Feeds {
    pub fn of(part: &ShapePart, rows: &RecordBatch) -> Result<Feeds> {
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
            };
            columns.push(FeedColumn { into: feed.into, filter, argument });
        }
        Ok(Feeds(columns))
    }

    pub fn add(&self, panes: &mut dyn Panes, group: Group, seen: Seen, row: usize, scratch: &mut Vec<u8>) {
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
                (Into::Least { extreme, complement }, Some(Argument::Number(values))) if values.is_valid(row) => {
                    let value = values.value(row);
                    panes.add_least(group, seen, extreme, if complement { !value } else { value });
                }
                _ => {}
            }
        }
    }
}
