//! `stakeout alerts`: incidents, or findings with their evidence.

use std::io::{BufWriter, Write, stdout};

use alert::{Filter, Incident, PageFilter, Reader, StoredFinding};
use anyhow::{Result, bail};
use event::{Finding, FindingTime, Standing, format_micros};

use crate::cli::{self, Format};
use crate::config::Config;
use crate::rooms::alerts_db;

/// True if there was something to list.
pub fn run(args: &cli::Alerts, config: &Config) -> Result<bool> {
    let path = alerts_db(config);
    if !path.exists() {
        bail!("no alerts in {}\nhint: name the data directory with --data-dir", config.data_dir.display());
    }
    let reader = Reader::open(&path)?;
    let filter = Filter {
        rule: args.rule.clone(),
        incident: args.incident.clone(),
        limit: Some(u32::try_from(args.limit).unwrap_or(u32::MAX)),
        ..Filter::default()
    };
    let mut out = BufWriter::new(stdout().lock());
    let any = if args.findings {
        let findings = reader.findings(&filter)?;
        match args.format {
            Format::Table => findings.iter().try_for_each(|f| show_finding(&mut out, f))?,
            Format::Ndjson => ndjson(&mut out, &findings)?,
            Format::Csv => findings_csv(&mut out, &findings)?,
        }
        !findings.is_empty()
    } else {
        let incidents = reader.incidents(&filter)?;
        match args.format {
            Format::Table => incidents_table(&mut out, &reader, &incidents)?,
            Format::Ndjson => ndjson(&mut out, &incidents)?,
            Format::Csv => incidents_csv(&mut out, &incidents)?,
        }
        !incidents.is_empty()
    };
    out.flush()?;
    Ok(any)
}

fn ndjson<T: serde::Serialize>(out: &mut impl Write, rows: &[T]) -> Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn incidents_table(out: &mut impl Write, reader: &Reader, incidents: &[Incident]) -> Result<()> {
    for incident in incidents {
        let pages = reader.outbox(&PageFilter { incident: Some(incident.id.clone()), ..PageFilter::default() })?;
        let page = match pages.first() {
            Some(page) => format!("page {}", page.state),
            None => "no page".to_owned(),
        };
        writeln!(
            out,
            "{}  {:<13}  {}  {} ({} findings, {page}{})",
            format_micros(incident.last),
            incident.severity,
            incident.rule,
            incident.summary,
            incident.findings,
            marks_of_incident(incident),
        )?;
    }
    writeln!(out, "{} incidents; evidence with --findings", incidents.len())?;
    Ok(())
}

/// What is unusual about it, each with a comma in front; nothing about most.
fn marks_of_incident(incident: &Incident) -> String {
    let provisional = match incident.provisional {
        0 => None,
        all if all == incident.findings => Some("provisional".to_owned()),
        some => Some(format!("{some} provisional")),
    };
    let marks = [
        provisional,
        incident.retracted.map(|at| format!("retracted {}", format_micros(at))),
        incident.late.then(|| "late".to_owned()),
        incident.quiet.clone(),
        incident.flooded.then(|| "held back by the cap".to_owned()),
    ];
    marks.into_iter().flatten().map(|mark| format!(", {mark}")).collect()
}

/// `provisional`, `late` and so on; empty for a plain confirmed finding.
pub(crate) fn marks_of_finding(finding: &Finding) -> String {
    let standing = match finding.standing {
        Standing::Provisional => Some("provisional"),
        Standing::Confirmed => None,
        Standing::Retracted => Some("retracted"),
    };
    let marks = [
        standing,
        finding.late.then_some("late"),
        finding.learning.then_some("learning"),
        finding.historical.then_some("historical"),
    ];
    marks.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// One finding as an on-call person reads it.
fn show_finding(out: &mut impl Write, stored: &StoredFinding) -> Result<()> {
    let f = &stored.finding;
    let marks = match marks_of_finding(f) {
        marks if marks.is_empty() => marks,
        marks => format!("  {}", marks.to_uppercase()),
    };
    writeln!(out, "{}  {}  {}  [{}]{marks}", format_micros(f.time.last()), f.severity, f.rule, f.id)?;
    writeln!(out, "  {}", f.summary)?;
    writeln!(out, "  entity    {}", f.entity_text())?;
    if let FindingTime::Run { first, last, window_us, .. } = f.time {
        let looks_back = window_us / 1_000_000;
        writeln!(out, "  window    {looks_back} s, held from {} to {}", format_micros(first), format_micros(last))?;
    }
    writeln!(out, "  evidence  {} events", f.evidence.count)?;
    for e in f.evidence.events.iter().take(3) {
        let c = &e.coordinates;
        let raw: String = e.raw.chars().take(160).collect();
        writeln!(out, "    {} {}/{}@{} {raw}…", format_micros(e.time), c.topic, c.partition, c.offset)?;
    }
    writeln!(out, "  all of it {}", f.evidence.query)?;
    if let Some(triage) = &f.triage {
        writeln!(out, "  triage    {}", triage.trim().replace('\n', "\n            "))?;
    }
    Ok(writeln!(out)?)
}

fn incidents_csv(out: &mut impl Write, incidents: &[Incident]) -> Result<()> {
    writeln!(out, "id,rule,severity,first,last,findings,summary,provisional,retracted,late,quiet")?;
    for i in incidents {
        let (first, last) = (format_micros(i.first), format_micros(i.last));
        let retracted = i.retracted.map(format_micros).unwrap_or_default();
        let quiet = i.quiet.as_deref().unwrap_or_default();
        writeln!(
            out,
            "{},{},{},{first},{last},{},{},{},{retracted},{},{quiet}",
            i.id,
            i.rule,
            i.severity,
            i.findings,
            cell(&i.summary),
            i.provisional,
            i.late
        )?;
    }
    Ok(())
}

fn findings_csv(out: &mut impl Write, findings: &[StoredFinding]) -> Result<()> {
    writeln!(out, "id,incident,rule,severity,first,last,entity,events,summary,marks")?;
    for stored in findings {
        let f = &stored.finding;
        let (first, last) = (format_micros(f.time.first()), format_micros(f.time.last()));
        let entity = cell(&f.entity_text());
        let events = f.evidence.count;
        writeln!(
            out,
            "{},{},{},{},{first},{last},{entity},{events},{},{}",
            f.id,
            stored.incident,
            f.rule,
            f.severity,
            cell(&f.summary),
            marks_of_finding(f)
        )?;
    }
    Ok(())
}

/// A CSV cell: quoted, quotes doubled.
fn cell(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
