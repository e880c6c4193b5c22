//! Findings of rules that remember, with the events they rest on: the event itself and the rows behind the versions
//! it was joined with.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use event::{Evidence, EvidenceEvent, Finding, FindingTime, Origin, RowHash, Standing, column};

use super::judge::Fired;
use super::mark::Mark;
use crate::evidence::{COLUMNS, event_of, find, row_query};
use crate::ident;
use crate::oracle::{Entity, entities};
use crate::rule::Rule;
use crate::value::{self, sql_text, sql_time};

/// Rows looked for by one query.
const ROWS_PER_QUERY: usize = 200;

/// Events from the store, by table and row hash.
pub type Events = HashMap<(String, RowHash), EvidenceEvent>;

/// A finding in the making: everything but the events.
pub struct Draft {
    pub finding: Finding,
    /// The event's own row first: table and mark.
    pub rows: Vec<(String, Mark)>,
    /// Which of the events judged.
    pub from: u32,
}

/// What fired, without rows that have a NULL in their entity, which are counted.
pub fn drafts(
    rule: &Rule,
    bundle: &str,
    origin: Origin,
    fired: &Fired,
    row_of: &dyn Fn(u32) -> (String, Mark),
) -> Result<(Vec<Draft>, u64)> {
    let mut drafts = Vec::new();
    let mut nulls = 0;
    let excepted = rule.excepted(&fired.rows);
    for (row, entity) in entities(&rule.entity, &fired.rows)?.into_iter().enumerate() {
        if excepted.get(row) == Some(&true) {
            continue;
        }
        let Some(entity) = entity else {
            nulls += 1;
            continue;
        };
        let from = fired.from[row];
        let mut rows = vec![row_of(from)];
        for version in &fired.versions[row] {
            let same = |(table, mark): &(String, Mark)| *table == version.0 && mark.hash == version.1.hash;
            if !rows.iter().any(same) {
                rows.push(version.clone());
            }
        }
        drafts.push(Draft { finding: draft(rule, bundle, origin, entity, &fired.rows, row, &rows), rows, from });
    }
    Ok((drafts, nulls))
}

fn draft(
    rule: &Rule,
    bundle: &str,
    origin: Origin,
    entity: Entity,
    output: &RecordBatch,
    row: usize,
    rows: &[(String, Mark)],
) -> Finding {
    let (table, mark) = &rows[0];
    let values = value::row(output, row);
    let query = |(table, mark): &(String, Mark)| row_query(table, mark.time, &mark.uid, &mark.hash);
    Finding {
        id: ident::of_row(&rule.id, &entity, table, &mark.hash),
        rule: rule.id.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        attack: rule.attack.clone(),
        entity,
        time: FindingTime::Event(mark.time),
        origin,
        tables: vec![table.clone()],
        summary: value::fill(&rule.summary, &values),
        triage: rule.triage.clone(),
        values,
        evidence: Evidence {
            count: rows.len() as u64,
            query: rows.iter().map(query).collect::<Vec<_>>().join(" UNION ALL "),
            events: Vec::new(),
        },
        suppress_us: rule.suppress_us,
        rule_version: rule.version.clone(),
        bundle: bundle.to_owned(),
        standing: Standing::Confirmed,
        late: false,
        learning: false,
        historical: false,
    }
}

/// Gives drafts their events, as far as the store has them.
pub async fn with_events(stored: &SessionContext, drafts: Vec<Draft>, mut known: Events) -> Result<Vec<Draft>> {
    let mut missing: HashMap<String, Vec<Mark>> = HashMap::new();
    for (table, mark) in drafts.iter().flat_map(|d| &d.rows) {
        if !known.contains_key(&(table.clone(), mark.hash)) {
            missing.entry(table.clone()).or_default().push(mark.clone());
        }
    }
    for (table, mut marks) in missing {
        marks.sort_by(|a, b| (a.order(), a.hash).cmp(&(b.order(), b.hash)));
        marks.dedup();
        for marks in marks.chunks(ROWS_PER_QUERY) {
            fetch(stored, &table, marks, &mut known).await?;
        }
    }
    let event_of = |(table, mark): &(String, Mark)| known.get(&(table.clone(), mark.hash)).cloned();
    Ok(drafts
        .into_iter()
        .map(|mut draft| {
            draft.finding.evidence.events = draft.rows.iter().filter_map(event_of).collect();
            draft
        })
        .collect())
}

/// `marks` are in order of time.
async fn fetch(stored: &SessionContext, table: &str, marks: &[Mark], events: &mut Events) -> Result<()> {
    let (first, last) = (marks[0].time, marks[marks.len() - 1].time);
    let uids = marks.iter().map(|m| sql_text(&m.uid)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT {COLUMNS}, {} FROM {table} WHERE time >= {} AND time <= {} AND event_uid IN ({uids})",
        column::ROW_HASH,
        sql_time(first),
        sql_time(last)
    );
    for batch in stored.sql(&sql).await?.collect().await? {
        let hashes = find(&batch, column::ROW_HASH)?.as_fixed_size_binary();
        for row in 0..batch.num_rows() {
            if let Ok(hash) = RowHash::try_from(hashes.value(row)) {
                events.insert((table.to_owned(), hash), event_of(&batch, row)?);
            }
        }
    }
    Ok(())
}
