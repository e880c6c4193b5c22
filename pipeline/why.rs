//! `stakeout why`: where a finding comes from. What is on record (alerts.db) is set beside what the rule of today says
//! over what the store holds today.

use std::io::{BufWriter, Write, stdout};

use alert::{PageFilter, Reader, StandingSince, StoredFinding};
use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use detect::inspect::{self, Moment};
use detect::{Rule, RuleSet};
use event::{EvidenceEvent, Finding, FindingTime, Micros, Standing, column, format_micros};
use query::HuntLimits;
use store::Store;
use tokio::runtime::Runtime;

use crate::alerts::marks_of_finding;
use crate::cli;
use crate::config::Config;
use crate::hunt;
use crate::rooms::{Committed, alerts_db, load_rules, load_schemas, read_store, runtime};

/// Of the raw event, so much fits beside its coordinates.
const RAW_CHARS: usize = 100;

/// True if there is such a finding.
pub fn run(args: &cli::Why, config: &Config) -> Result<bool> {
    let path = alerts_db(config);
    if !path.exists() {
        bail!("no alerts in {}\nhint: name the data directory with --data-dir", config.data_dir.display());
    }
    let reader = Reader::open(&path)?;
    let found = reader.findings_by_id(&args.finding)?;
    let stored = match found.as_slice() {
        [] => {
            eprintln!("no finding begins with `{}`; `stakeout alerts --findings` lists them", args.finding);
            return Ok(false);
        }
        // Live and imported rows can show the same thing under one id.
        [first, rest @ ..] if rest.iter().all(|other| other.finding.id == first.finding.id) => first,
        several => bail!("{} findings begin with `{}`\nhint: write more of the id", several.len(), args.finding),
    };
    let schemas = load_schemas(config)?;
    let rules = load_rules(config, &schemas)?;
    let store = read_store(&config.data_dir, &schemas).context("cannot open the store beside alerts.db")?;
    let runtime = runtime()?;
    let today = Today { rules: &rules, store: &store, runtime: &runtime };
    let mut out = BufWriter::new(stdout().lock());
    let pages = pages(&reader, &stored.incident)?;
    let standings = reader.standings(&stored.finding)?;
    let rows_max = args.rows;
    Report { out: &mut out, stored, rows_max }.write(&standings, &pages, &today)?;
    out.flush()?;
    Ok(true)
}

/// `pd: delivered`, one per page of the incident.
fn pages(reader: &Reader, incident: &str) -> Result<Vec<String>> {
    let filter = PageFilter { incident: Some(incident.to_owned()), ..PageFilter::default() };
    let pages = reader.outbox(&filter)?.into_iter().rev();
    Ok(pages.map(|page| format!("{} {}: {}", format_micros(page.created), page.receiver, page.state)).collect())
}

/// What rules and store say now.
struct Today<'a> {
    rules: &'a RuleSet,
    store: &'a Store,
    runtime: &'a Runtime,
}

impl Today<'_> {
    /// Its rule, if it is still there.
    fn rule(&self, finding: &Finding) -> Option<&Rule> {
        self.rules.get(&finding.rule).map(AsRef::as_ref)
    }

    fn moment(&self, rule: &Rule, finding: &Finding, boundary: Micros) -> Result<Option<Moment>> {
        let history = Committed(self.store);
        let moment = inspect::moment(self.rules, rule, &finding.entity, boundary, finding.origin, &history);
        Ok(self.runtime.block_on(moment)?)
    }

    fn rows(&self, query: &str) -> Result<Vec<RecordBatch>> {
        let session = query::session(&query::Limits::HUNT);
        hunt::register(&session, self.store)?;
        Ok(self.runtime.block_on(async {
            let plan = query::plan_hunt(&session, query).await?;
            query::collect(&session, plan, HuntLimits::default()).await
        })?)
    }

    fn count(&self, query: &str) -> Result<u64> {
        let batches = self.rows(&format!("SELECT count(*) AS n FROM ({query})"))?;
        Ok(batches.first().map_or(0, |b| b.column(0).as_primitive::<Int64Type>().value(0)) as u64)
    }

    /// The first rows in the order in which evidence is kept.
    fn events(&self, query: &str, rows_max: usize) -> Result<Vec<EvidenceEvent>> {
        let order = "time, event_uid, topic, \"partition\", \"offset\", message_index";
        let batches = self.rows(&format!("SELECT * FROM ({query}) ORDER BY {order} LIMIT {rows_max}"))?;
        Ok(batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| event_of(batch, row))).collect())
    }
}

fn event_of(batch: &RecordBatch, row: usize) -> EvidenceEvent {
    let text = |name: &str| match batch.column_by_name(name).and_then(|c| c.as_string_view_opt()) {
        Some(texts) if texts.is_valid(row) => texts.value(row).to_owned(),
        _ => String::new(),
    };
    let number = |name: &str| {
        batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>()).map_or(0, |c| c.value(row))
    };
    let time = batch.column_by_name(column::TIME).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    EvidenceEvent {
        event_uid: text(column::EVENT_UID),
        time: time.map_or(0, |c| c.value(row)),
        coordinates: event::Coordinates {
            topic: text(column::TOPIC),
            partition: number(column::PARTITION) as i32,
            offset: number(column::OFFSET),
            index: number(column::MESSAGE_INDEX) as i32,
        },
        raw: text(column::RAW),
    }
}

struct Report<'a, W: Write> {
    out: &'a mut W,
    stored: &'a StoredFinding,
    rows_max: usize,
}

impl<W: Write> Report<'_, W> {
    fn write(&mut self, standings: &[StandingSince], pages: &[String], today: &Today) -> Result<()> {
        self.on_record(standings, pages)?;
        self.versions(today)?;
        let f = &self.stored.finding;
        match (f.time, today.rule(f)) {
            (FindingTime::Run { first, last, every_us, .. }, Some(rule)) if rule.window.is_some() => {
                self.boundaries(today, rule, first, last, every_us)?;
            }
            (FindingTime::Run { .. }, _) => {
                writeln!(self.out, "boundary\n  not evaluated: today there is no such rule with a window")?;
            }
            (FindingTime::Event(_), _) => {}
        }
        self.evidence(today)
    }

    fn on_record(&mut self, standings: &[StandingSince], pages: &[String]) -> Result<()> {
        let f = &self.stored.finding;
        let marks = marks_of_finding(f);
        let marks = if marks.is_empty() { "confirmed".to_owned() } else { marks };
        writeln!(self.out, "finding {} of {} ({}, {marks}, {})", f.id, f.rule, f.severity, f.origin.name())?;
        writeln!(self.out, "  {}", f.summary)?;
        writeln!(self.out, "  {}", f.entity_text())?;
        writeln!(self.out, "  incident {}", self.stored.incident)?;
        for page in pages {
            writeln!(self.out, "  page {page}")?;
        }
        writeln!(self.out, "standing")?;
        for since in standings {
            let StandingSince { standing, recorded, last, events } = since;
            let (at, last) = (format_micros(*recorded), format_micros(*last));
            writeln!(self.out, "  {at}  {}, up to {last}, {events} events", name_of(*standing))?;
        }
        Ok(())
    }

    fn versions(&mut self, today: &Today) -> Result<()> {
        let f = &self.stored.finding;
        writeln!(self.out, "rule")?;
        match today.rule(f) {
            Some(rule) if rule.version == f.rule_version => {
                writeln!(self.out, "  version {:.12}, as today ({})", f.rule_version, rule.path.display())?;
            }
            Some(rule) => writeln!(
                self.out,
                "  version {:.12}; today it is {:.12} ({}): what follows is today's",
                f.rule_version,
                rule.version,
                rule.path.display()
            )?,
            None => writeln!(self.out, "  version {:.12}; today there is no rule `{}`", f.rule_version, f.rule)?,
        }
        let bundle = match today.rules.bundle == f.bundle {
            true => "as today".to_owned(),
            false => {
                format!("today's is {:.12}: rules, lookups, tuning or schemas have changed since", today.rules.bundle)
            }
        };
        Ok(writeln!(self.out, "  bundle {:.12}, {bundle}", f.bundle)?)
    }

    /// What the rule says where the run begins, and just before.
    fn boundaries(&mut self, today: &Today, rule: &Rule, first: Micros, last: Micros, every_us: i64) -> Result<()> {
        let f = &self.stored.finding;
        let count = (last - first) / every_us.max(1) + 1;
        writeln!(
            self.out,
            "boundary\n  held at {count} boundaries from {} to {}",
            format_micros(first),
            format_micros(last)
        )?;
        let before = today.moment(rule, f, first - every_us)?;
        let at = today.moment(rule, f, first)?;
        for moment in [&before, &at].into_iter().flatten() {
            let rows = match &moment.query {
                Some(query) => format!("{} rows", today.count(query)?),
                None => "rows that only the rule could list".to_owned(),
            };
            let says = match &moment.held {
                Some(held) => format!("holds: {}", shown(&held.values)),
                None => "does not hold".to_owned(),
            };
            writeln!(self.out, "  at {}  {rows}, {says}", format_micros(moment.boundary))?;
        }
        if at.as_ref().is_some_and(|moment| moment.held.is_none()) {
            writeln!(self.out, "  the finding cannot be evaluated again from what rule and store are today")?;
        }
        Ok(())
    }

    fn evidence(&mut self, today: &Today) -> Result<()> {
        let f = &self.stored.finding;
        let then = f.evidence.count;
        writeln!(self.out, "evidence")?;
        match today.count(&f.evidence.query) {
            Ok(now) if now == then => writeln!(self.out, "  {then} events; the same query returns as many today")?,
            Ok(now) => writeln!(
                self.out,
                "  {then} events; the same query returns {now} today: rows have {} since",
                if now > then { "come late, or been added," } else { "expired" }
            )?,
            Err(error) => writeln!(self.out, "  {then} events; the query cannot be run today: {error:#}")?,
        }
        // A run may have been prolonged or settled since the event list was cut: the store knows them all.
        let events = match today.events(&f.evidence.query, self.rows_max) {
            Ok(events) if !events.is_empty() => events,
            _ => f.evidence.events.clone(),
        };
        let tips = tipping(f);
        for event in &events {
            self.event(event, tips.is_some_and(|(from, before)| from <= event.time && event.time < before))?;
        }
        if (events.len() as u64) < then {
            writeln!(self.out, "  … {} more", then - events.len() as u64)?;
        }
        if let Some((_, first)) = tips {
            writeln!(self.out, "  + not yet in the window of the boundary before {}", format_micros(first))?;
        }
        Ok(writeln!(self.out, "query\n  {}", f.evidence.query)?)
    }

    fn event(&mut self, event: &EvidenceEvent, tipped: bool) -> Result<()> {
        let c = &event.coordinates;
        let raw: String = event.raw.chars().take(RAW_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mark = if tipped { '+' } else { ' ' };
        let (time, uid) = (format_micros(event.time), &event.event_uid);
        let place = format!("{}/{}@{}[{}]", c.topic, c.partition, c.offset, c.index);
        Ok(writeln!(self.out, "  {mark} {time}  {uid}  {place}  {raw}")?)
    }
}

/// The times of the rows that the first boundary of a run sees and the one before it did not.
fn tipping(finding: &Finding) -> Option<(Micros, Micros)> {
    match finding.time {
        FindingTime::Run { first, every_us, .. } => Some((first - every_us, first)),
        FindingTime::Event(_) => None,
    }
}

fn name_of(standing: Standing) -> &'static str {
    match standing {
        Standing::Provisional => "provisional",
        Standing::Confirmed => "confirmed",
        Standing::Retracted => "retracted",
    }
}

fn shown(values: &serde_json::Map<String, serde_json::Value>) -> String {
    let plain = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}
