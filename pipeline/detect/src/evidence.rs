//! The events a finding rests on: the query that returns them, how many there are, and the first of them.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Coordinates, Evidence, EvidenceEvent, Micros, Origin, column};

use crate::derive::{Derived, EvidenceSource};
use crate::ident::hex;
use crate::oracle::Entity;
use crate::rule::{Rule, Window};
use crate::runs::Run;
use crate::value::{sql_text, sql_time};

/// What every evidence query returns.
pub const COLUMNS: &str = "event_uid, time, topic, \"partition\", \"offset\", message_index, raw";

/// The first events are those of the lowest time; the rest makes the order total.
const ORDER: &str = "time, event_uid, topic, \"partition\", \"offset\", message_index";

/// Listed uids in a query's text. A finding that lists more keeps its true count and the query for the first.
const LISTED_MAX: usize = 1_000;

/// The query for one row of a stored table.
pub fn row_query(table: &str, time: Micros, event_uid: &str, row_hash: &[u8]) -> String {
    format!(
        "SELECT {COLUMNS} FROM {table} WHERE time = {} AND event_uid = {} AND encode(row_hash, 'hex') = '{}'",
        sql_time(time),
        sql_text(event_uid),
        hex(row_hash)
    )
}

/// The query for a run: the rows that its boundaries looked at, narrowed to its entity. `known`: rows admitted up to
/// there count, for a run that late rows made.
pub fn run_query(
    rule: &Rule,
    window: Window,
    source: &EvidenceSource,
    run: &Run,
    origin: Origin,
    known: Option<Micros>,
) -> String {
    let bounds = format!(
        "time >= {} AND time < {} AND source_watermark < {} AND origin = '{}'",
        sql_time(run.first - window.window_us),
        sql_time(run.last),
        sql_time(known.unwrap_or(run.last)),
        origin.name()
    );
    match source {
        EvidenceSource::Derived(derived) => {
            let entity = entity_condition(derived, &run.entity);
            format!("SELECT {COLUMNS} FROM {} WHERE {}{entity} AND {bounds}", derived.from, derived.filter_and())
        }
        EvidenceSource::Listed => {
            let uids: Vec<String> = run.evidence.iter().take(LISTED_MAX).map(|uid| sql_text(uid)).collect();
            let uids = if uids.is_empty() { "NULL".to_owned() } else { uids.join(", ") };
            let per_table = |t: &String| format!("SELECT {COLUMNS} FROM {t} WHERE event_uid IN ({uids}) AND {bounds}");
            rule.tables.iter().map(per_table).collect::<Vec<_>>().join(" UNION ALL ")
        }
    }
}

fn entity_condition(derived: &Derived, entity: &Entity) -> String {
    let equal = |(expression, (_, value)): (&String, &(String, String))| format!("{expression} = {}", sql_text(value));
    derived.entity.iter().zip(entity).map(equal).collect::<Vec<_>>().join(" AND ")
}

/// Runs a query of this module over `ctx`.
pub async fn collect(ctx: &SessionContext, query: String) -> Result<Evidence> {
    let counted = ctx.sql(&format!("SELECT count(*) AS n FROM ({query})")).await?.collect().await?;
    let count = counted.first().map_or(0, |b| b.column(0).as_primitive::<Int64Type>().value(0));
    let first = format!("SELECT * FROM ({query}) ORDER BY {ORDER} LIMIT {}", Evidence::EVENTS_MAX);
    let mut events = Vec::new();
    for batch in ctx.sql(&first).await?.collect().await? {
        for row in 0..batch.num_rows() {
            events.push(event_of(&batch, row)?);
        }
    }
    Ok(Evidence { count: count as u64, events, query })
}

/// One row that has the columns of an evidence query.
pub fn event_of(batch: &RecordBatch, row: usize) -> Result<EvidenceEvent> {
    let number = |name: &str| -> Result<i64> { Ok(find(batch, name)?.as_primitive::<Int64Type>().value(row)) };
    Ok(EvidenceEvent {
        event_uid: text_of(batch, column::EVENT_UID, row)?.to_owned(),
        time: time_of(batch, row)?,
        coordinates: Coordinates {
            topic: text_of(batch, column::TOPIC, row)?.to_owned(),
            partition: number(column::PARTITION)? as i32,
            offset: number(column::OFFSET)?,
            index: number(column::MESSAGE_INDEX)? as i32,
        },
        raw: text_of(batch, column::RAW, row)?.to_owned(),
    })
}

pub fn time_of(batch: &RecordBatch, row: usize) -> Result<Micros> {
    Ok(find(batch, column::TIME)?.as_primitive::<TimestampMicrosecondType>().value(row))
}

pub fn text_of<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Result<&'a str> {
    Ok(find(batch, name)?.as_string_view().value(row))
}

pub fn find<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    let column = batch.column_by_name(name).map(|c| c.as_ref());
    column.ok_or_else(|| DataFusionError::Execution(format!("the rows have no column `{name}`")))
}
