//! Since when a table has a history, as each row sees it: the lowest time of the rows visible to it. Kept as the few
//! (stamp, time) at which that falls.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use event::{Micros, Origin, column};

use super::at_or_after;

#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// By stamp, times falling.
    steps: BTreeMap<Micros, Micros>,
}

impl Begin {
    /// A row with this time, stamped so.
    pub fn add(&mut self, stamp: Micros, time: Micros) {
        if self.steps.range(..=stamp).next_back().is_some_and(|(_, have)| *have <= time) {
            return;
        }
        let useless: Vec<Micros> =
            self.steps.range(stamp..).take_while(|(_, have)| **have >= time).map(|(stamp, _)| *stamp).collect();
        for stamp in useless {
            self.steps.remove(&stamp);
        }
        self.steps.insert(stamp, time);
    }

    /// The lowest time of rows stamped before `boundary`.
    pub fn before(&self, boundary: Micros) -> Option<Micros> {
        self.steps.range(..boundary).next_back().map(|(_, time)| *time)
    }
}

/// The history of a table. All who will ask have their boundary above `settled`.
pub async fn load_begin(
    table: &str,
    begin: &mut Begin,
    stored: &SessionContext,
    origin: Origin,
    settled: Micros,
) -> Result<()> {
    let later = at_or_after("source_watermark", settled.saturating_add(1));
    let sql = format!(
        "SELECT CASE WHEN {later} THEN source_watermark END AS stamp, min(time) AS time FROM {table} \
         WHERE origin = '{}' GROUP BY 1",
        origin.name()
    );
    for batch in stored.sql(&sql).await?.collect().await? {
        let stamps = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        for (stamp, time) in stamps.iter().zip(times.iter()) {
            time.into_iter().for_each(|time| begin.add(stamp.unwrap_or(settled), time));
        }
    }
    Ok(())
}

/// The lowest time of the live rows of a table.
pub async fn lowest_time(table: &str, stored: &SessionContext) -> Result<Option<Micros>> {
    let sql = format!("SELECT min(time) FROM {table} WHERE origin = '{}'", Origin::Live.name());
    let batches = stored.sql(&sql).await?.collect().await?;
    let times = batches.iter().map(|b| b.column(0).as_primitive::<TimestampMicrosecondType>());
    Ok(times.flat_map(|times| times.iter().flatten()).min())
}

/// Live rows of a table that come.
pub fn note_begin(begin: &mut Begin, rows: &RecordBatch) {
    let times = |name: &str| rows.column_by_name(name).map(|c| c.as_primitive::<TimestampMicrosecondType>());
    let origins = rows.column_by_name(column::ORIGIN).map(|c| c.as_string_view());
    let (Some(times), Some(stamps), Some(origins)) = (times(column::TIME), times(column::SOURCE_WATERMARK), origins)
    else {
        return;
    };
    for row in (0..rows.num_rows()).filter(|row| origins.value(*row) == Origin::Live.name()) {
        begin.add(stamps.value(row), times.value(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boundary_has_the_lowest_time_stamped_before_it() {
        let rows = [(5, 40), (3, 50), (9, 45), (7, 20), (7, 30), (1, 60), (12, 10), (5, 39)];
        let mut begin = Begin::default();
        rows.iter().for_each(|(stamp, time)| begin.add(*stamp, *time));
        for boundary in 0..15 {
            let expected = rows.iter().filter(|(stamp, _)| *stamp < boundary).map(|(_, time)| *time).min();
            assert_eq!(begin.before(boundary), expected, "before {boundary}");
        }
        assert!(begin.steps.len() <= 5);
    }
}
