//! Two sets of rules over the same rows: what the second finds that the first does not, and the other way round.
//!
//! A finding is the same if rule and id are: then rule, entity and first boundary (or row) are. One that only begins at
//! another boundary is told as moved.

use std::collections::BTreeMap;

use anyhow::Result;
use event::{Finding, format_micros};
use serde_json::json;

use super::{Format, Tried, cell, ndjson};

/// Of many alike, so many are told in a table.
const TOLD_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Added,
    Removed,
    /// The same rule and entity, beginning elsewhere.
    Moved,
    Unchanged,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Moved => "moved",
            Change::Unchanged => "unchanged",
        }
    }
}

/// True if both find the same.
pub(super) fn write(before: &[Tried], after: &[Tried], format: Format) -> Result<bool> {
    let findings = |tried: &'_ [Tried]| tried.iter().flat_map(|t| t.findings.clone()).collect::<Vec<_>>();
    let (before, after) = (findings(before), findings(after));
    let changes = compare(&before, &after);
    match format {
        Format::Table => table(&changes),
        Format::Ndjson => {
            ndjson(changes.iter().map(|(change, finding)| json!({ "change": change.name(), "finding": finding })))?;
        }
        Format::Csv => csv(&changes),
    }
    Ok(changes.iter().all(|(change, _)| *change == Change::Unchanged))
}

/// By rule, kind of change and time. Of a moved finding the later set's is given.
fn compare<'a>(before: &'a [Finding], after: &'a [Finding]) -> Vec<(Change, &'a Finding)> {
    let key = |f: &'a Finding| (f.rule.as_str(), f.id.as_str(), f.origin.name());
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (before.iter().map(|f| (key(f), f)).collect(), after.iter().map(|f| (key(f), f)).collect());
    let mut changes: Vec<(Change, &Finding)> =
        new.iter().filter(|(key, _)| old.contains_key(*key)).map(|(_, f)| (Change::Unchanged, *f)).collect();
    let mut gone: Vec<&Finding> = old.iter().filter(|(key, _)| !new.contains_key(*key)).map(|(_, f)| *f).collect();
    for (_, finding) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        let place = |f: &Finding| (f.rule.clone(), f.entity.clone(), f.origin.name());
        let near = gone.iter().position(|f| place(f) == place(finding) && overlap(f, finding));
        match near {
            Some(at) => {
                gone.remove(at);
                changes.push((Change::Moved, finding));
            }
            None => changes.push((Change::Added, finding)),
        }
    }
    changes.extend(gone.into_iter().map(|f| (Change::Removed, f)));
    changes.sort_by(|(a, f), (b, g)| (&f.rule, a, f.time.first(), &f.id).cmp(&(&g.rule, b, g.time.first(), &g.id)));
    changes
}

/// Their runs share a boundary.
fn overlap(a: &Finding, b: &Finding) -> bool {
    a.time.first() <= b.time.last() && b.time.first() <= a.time.last()
}

fn table(changes: &[(Change, &Finding)]) {
    let mut counts: BTreeMap<&str, BTreeMap<Change, usize>> = BTreeMap::new();
    for (change, finding) in changes {
        let count = counts.entry(&finding.rule).or_default().entry(*change).or_default();
        *count += 1;
        if *change == Change::Unchanged || *count > TOLD_MAX {
            continue;
        }
        let sign = match change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Moved | Change::Unchanged => '~',
        };
        let (time, who) = (format_micros(finding.time.first()), finding.entity_text());
        println!("{sign} {}  {time}  {who}  {}  [{:.12}]", finding.rule, finding.summary, finding.id);
    }
    let width = counts.keys().map(|rule| rule.len()).max().unwrap_or(0).max(4);
    println!("{:<width$}     added   removed     moved  unchanged", "rule");
    for (rule, counts) in &counts {
        let of = |change| counts.get(&change).copied().unwrap_or(0);
        println!(
            "{rule:<width$}  {:>8}  {:>8}  {:>8}  {:>9}",
            of(Change::Added),
            of(Change::Removed),
            of(Change::Moved),
            of(Change::Unchanged)
        );
    }
}

fn csv(changes: &[(Change, &Finding)]) {
    println!("change,rule,id,first,last,entity,summary");
    for (change, f) in changes {
        println!(
            "{},{},{},{},{},{},{}",
            change.name(),
            f.rule,
            f.id,
            format_micros(f.time.first()),
            format_micros(f.time.last()),
            cell(&f.entity_text()),
            cell(&f.summary)
        );
    }
}
