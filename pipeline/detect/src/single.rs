//! Single-event rules over one batch: each row the SELECT returns is a finding.

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use event::{Evidence, Finding, FindingTime, Origin, Standing, column};

use crate::evidence::{event_of, find, row_query, text_of};
use crate::ident;
use crate::oracle::{Entity, entities};
use crate::program::{Program, Selected};
use crate::rule::Rule;
use crate::value;

/// What one rule made of one batch.
#[derive(Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    pub null_entities: u64,
    /// Rows that the rule could not be computed for, with the first reason.
    pub failed: Option<(u64, String)>,
}

impl Verdict {
    fn add(&mut self, other: Verdict) {
        self.findings.extend(other.findings);
        self.null_entities += other.null_entities;
        self.failed = match (self.failed.take(), other.failed) {
            (Some((a, reason)), Some((b, _))) => Some((a + b, reason)),
            (a, b) => a.or(b),
        };
    }
}

/// Evaluates one rule over one batch of `table`. When an expression fails (a CAST of one odd value fails them
/// all), the batch is halved until only the rows at fault are left out: they must not hide their neighbours.
pub fn evaluate(rule: &Rule, program: &Program, bundle: &str, table: &str, batch: &RecordBatch) -> Verdict {
    let error = match try_evaluate(rule, program, bundle, table, batch) {
        Ok(verdict) => return verdict,
        Err(error) => error,
    };
    let rows = batch.num_rows();
    if rows <= 1 {
        return Verdict { failed: Some((rows as u64, error.strip_backtrace())), ..Verdict::default() };
    }
    let mut verdict = evaluate(rule, program, bundle, table, &batch.slice(0, rows / 2));
    verdict.add(evaluate(rule, program, bundle, table, &batch.slice(rows / 2, rows - rows / 2)));
    verdict
}

fn try_evaluate(rule: &Rule, program: &Program, bundle: &str, table: &str, batch: &RecordBatch) -> Result<Verdict> {
    match program.run(table, batch)? {
        Some(selected) => judge(rule, bundle, table, batch, selected),
        None => Ok(Verdict::default()),
    }
}

/// What the rows that the SELECT returned for a batch mean.
pub fn judge(rule: &Rule, bundle: &str, table: &str, batch: &RecordBatch, selected: Selected) -> Result<Verdict> {
    let Selected { rows, from } = selected;
    let mut verdict = Verdict::default();
    if rows.num_rows() == 0 {
        return Ok(verdict);
    }
    let excepted = rule.excepted(&rows);
    for (row, entity) in entities(&rule.entity, &rows)?.into_iter().enumerate() {
        if excepted.get(row) == Some(&true) {
            continue;
        }
        match entity {
            Some(entity) => {
                let source = Source { table, batch, row: from[row] as usize };
                verdict.findings.push(finding(rule, bundle, entity, &rows, row, source)?);
            }
            None => verdict.null_entities += 1,
        }
    }
    Ok(verdict)
}

/// The stored row behind an output row.
struct Source<'a> {
    table: &'a str,
    batch: &'a RecordBatch,
    row: usize,
}

fn finding(
    rule: &Rule,
    bundle: &str,
    entity: Entity,
    rows: &RecordBatch,
    row: usize,
    source: Source<'_>,
) -> Result<Finding> {
    let event = event_of(source.batch, source.row)?;
    let hash = find(source.batch, column::ROW_HASH)?.as_fixed_size_binary().value(source.row);
    let origin = match text_of(source.batch, column::ORIGIN, source.row)? {
        "import" => Origin::Import,
        _ => Origin::Live,
    };
    let values = value::row(rows, row);
    Ok(Finding {
        id: ident::of_row(&rule.id, &entity, source.table, hash),
        rule: rule.id.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        attack: rule.attack.clone(),
        entity,
        time: FindingTime::Event(event.time),
        origin,
        tables: vec![source.table.to_owned()],
        summary: value::fill(&rule.summary, &values),
        triage: rule.triage.clone(),
        values,
        evidence: Evidence {
            count: 1,
            query: row_query(source.table, event.time, &event.event_uid, hash),
            events: vec![event],
        },
        suppress_us: rule.suppress_us,
        rule_version: rule.version.clone(),
        bundle: bundle.to_owned(),
        standing: Standing::Confirmed,
        late: false,
        learning: false,
        historical: false,
    })
}
