//! An import is judged when it has ended, by all imported rows.

use std::collections::BTreeMap;

use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use event::{Finding, Micros, Origin};

use super::begin::{Begin, load_begin};
use super::judge::{Events, Recall, is_learning};
use super::mark::Mark;
use super::sieve::Sieved;
use super::tables::recall_versions;
use super::watch::{Outcome, Watch, load_seen};
use super::{at_or_after, finding};

/// Every finding of the imported rows in `range`, by all imported rows: an import is judged when it has ended. A
/// later import with earlier rows finds what is new in them; it does not take back what was found before.
pub async fn judge_import(
    watch: &Watch,
    range: Option<(Micros, Micros)>,
    stored: &SessionContext,
    bundle: &str,
    outcome: &mut Outcome,
) -> Result<()> {
    let body = &watch.body;
    let from = range.map_or(Micros::MIN, |(from, _)| from);
    let seen = load_seen(&watch.rule.id, body, stored, Origin::Import, from, "true").await?;
    let mut states = BTreeMap::new();
    for state in body.states() {
        states.insert(state.name.clone(), recall_versions(state, stored, Origin::Import, "true").await?);
    }
    let mut begins: BTreeMap<String, Begin> = BTreeMap::new();
    if body.learning_us > 0 {
        for table in &body.sieve.tables {
            let begin = begins.entry(table.to_string()).or_default();
            load_begin(table, begin, stored, Origin::Import, Micros::MIN).await?;
        }
    }
    let mut drafts = Vec::new();
    let mut error = None;
    let mut take = |sieved: Sieved| {
        let judged = (|| -> Result<()> {
            let events = Events {
                rows: body.events_of(&sieved)?,
                marks: sieved.marks.iter().collect(),
                keys: body.keys(&sieved)?,
            };
            let recall = Recall { seen: seen.as_ref(), states: &states };
            let row_of = |row: u32| (sieved.table.to_string(), sieved.marks[row as usize].clone());
            let failed = body.judge(&events, &recall, &mut |fired| {
                let (more, nulls) = finding::drafts(&watch.rule, bundle, Origin::Import, &fired, &row_of)?;
                outcome.null_entities += nulls;
                drafts.extend(more);
                Ok(())
            });
            outcome.fail_rows(failed);
            Ok(())
        })();
        if let Err(e) = judged {
            error.get_or_insert(e);
        }
    };
    let failed = body.sieve.stored(stored, Origin::Import, &at_or_after("time", from), &mut take).await?;
    if let Some(error) = error {
        return Err(error);
    }
    outcome.fail_rows(failed);
    drafts.sort_by(|a, b| (a.rows[0].1.order(), &a.finding.id).cmp(&(b.rows[0].1.order(), &b.finding.id)));
    drafts.dedup_by(|a, b| a.finding.id == b.finding.id);
    for draft in finding::with_events(stored, drafts, Default::default()).await? {
        let (table, mark): &(String, Mark) = &draft.rows[0];
        let begin = begins.get(table).and_then(|b| b.before(mark.boundary()));
        let learning = is_learning(begin, mark.time, body.learning_us);
        outcome.new += 1;
        outcome.findings.push(Finding { learning, ..draft.finding });
    }
    Ok(())
}
