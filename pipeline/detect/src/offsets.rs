//! Offsets against rows: which stored ones lie before or past some, and how far rows have come.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::{Expr, col, lit};
use event::{Frontier, Offsets, Partition, Ranges, column};

use crate::value::sql_text;

/// Rows that lie before the offsets of their partitions.
pub fn before(offsets: &Offsets) -> Option<Expr> {
    let of = |((topic, partition), next): (&Partition, &i64)| {
        let topic = col(column::TOPIC).eq(lit(topic.as_ref()));
        let partition = col(column::PARTITION).eq(lit(i64::from(*partition)));
        topic.and(partition).and(col(column::OFFSET).lt(lit(*next)))
    };
    offsets.0.iter().map(of).reduce(Expr::or)
}

/// Rows that were not stored when the store had come to `from`.
pub fn since(from: &Offsets) -> String {
    if from.0.is_empty() {
        return "true".to_owned();
    }
    let before = |((topic, partition), next): (&Partition, &i64)| {
        format!("(topic = {} AND \"partition\" = {partition} AND \"offset\" < {next})", sql_text(topic))
    };
    format!("NOT ({})", from.0.iter().map(before).collect::<Vec<_>>().join(" OR "))
}

/// Rows of one partition from an offset on.
pub fn past(((topic, partition), next): &(Partition, i64)) -> String {
    let topic = sql_text(topic);
    match *next {
        i64::MIN => format!("(topic = {topic} AND \"partition\" = {partition})"),
        next => format!("(topic = {topic} AND \"partition\" = {partition} AND \"offset\" >= {next})"),
    }
}

/// All of `ranges` lies before `offsets`.
pub fn covers(offsets: &Offsets, ranges: &Ranges) -> bool {
    ranges.0.iter().all(|(partition, range)| offsets.0.get(partition).is_some_and(|next| range.next <= *next))
}

pub fn raise(frontier: &mut Frontier, partition: Partition, next: i64) {
    let have = frontier.offsets.entry(partition).or_insert(next);
    *have = (*have).max(next);
}

/// Rows carry their coordinates: of an import, whose ranges are empty, they are all there is.
pub fn advance_offsets(frontier: &mut Frontier, rows: &RecordBatch) {
    let numbers = |name: &str| rows.column_by_name(name).map(|c| c.as_primitive::<Int64Type>().values().clone());
    let topics = rows.column_by_name(column::TOPIC).map(|c| c.as_string_view());
    let (Some(topics), Some(partitions), Some(offsets)) = (topics, numbers(column::PARTITION), numbers(column::OFFSET))
    else {
        return;
    };
    let mut last: Option<(Partition, i64)> = None;
    for row in 0..rows.num_rows() {
        let (topic, partition, next) = (topics.value(row), partitions[row] as i32, offsets[row] + 1);
        match &mut last {
            Some(((t, p), have)) if t.as_ref() == topic && *p == partition => *have = (*have).max(next),
            _ => {
                if let Some((partition, next)) = last.replace((((Arc::from(topic)), partition), next)) {
                    raise(frontier, partition, next);
                }
            }
        }
    }
    if let Some((partition, next)) = last {
        raise(frontier, partition, next);
    }
}
