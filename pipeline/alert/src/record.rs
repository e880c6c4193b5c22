//! The recorder: one transaction holds findings, their incidents, the notifications to send and how far detection has
//! gone. Recording the same findings again, in any order and any portions, changes nothing: after a crash detection
//! simply goes back to the frontier.
//!
//! A finding's standing only ever settles: provisional becomes confirmed or retracted, retracted becomes confirmed by a
//! late evaluation, confirmed stays. So an evaluation that is repeated from further back cannot unsettle anything.

use std::path::Path;
use std::sync::Arc;

use event::{Finding, FindingTime, Frontier, Micros, Standing};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::clock::Bell;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::incident::{Incidents, Policy};
use crate::schema;

/// Counters of the flood cap are kept this long.
const HOURS_KEPT: i64 = 48;

/// `alerts.db`, opened by the one that records into it.
pub struct Alerts {
    db: Connection,
    policy: Policy,
    bell: Arc<Bell>,
}

/// What one transaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Findings not known before.
    pub findings: u64,
    /// Known runs that grew.
    pub extended: u64,
    /// Known findings that were confirmed.
    pub confirmed: u64,
    /// Known findings that were retracted.
    pub retracted: u64,
    /// Incidents opened.
    pub incidents: u64,
    /// Notifications put into the outbox, those of floods and retractions included.
    pub pages: u64,
    /// Opened incidents whose pages the cap per rule and hour held back.
    pub flooded: u64,
}

impl Alerts {
    /// Creates the file when there is none. The configuration decides who is paged for what is recorded.
    pub fn open(path: &Path, config: &Config) -> Result<Alerts> {
        let policy = Policy::new(config).map_err(Error::Config)?;
        Ok(Alerts { db: schema::open_writer(path)?, policy, bell: Arc::default() })
    }

    /// Rings whenever a notification was recorded.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Keeps all of it or nothing. `now` is the wall clock; it decides only about the cap per hour.
    pub fn record(&mut self, findings: &[Finding], frontier: &Frontier, now: Micros) -> Result<Recorded> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut recorded = Recorded::default();
        let mut incidents = Incidents::new(&tx, &self.policy, now, &mut recorded);
        for finding in in_event_order(findings) {
            keep(&tx, finding, now, &mut incidents)?;
        }
        incidents.announce_floods()?;
        advance(&tx, frontier)?;
        incidents.settle()?;
        tx.execute("DELETE FROM hours WHERE hour < ?1", [hour_of(now) - HOURS_KEPT])?;
        tx.commit()?;
        if recorded.pages > 0 {
            self.bell.ring();
        }
        Ok(recorded)
    }

    /// All findings that are neither confirmed nor retracted yet, by rule and time: what a restart takes up again.
    pub fn provisional(&self) -> Result<Vec<Finding>> {
        let mut query = self.db.prepare("SELECT finding FROM findings WHERE standing = 0 ORDER BY rule, first, id")?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(from_json("finding", &row.get::<_, String>(0)?)?);
        }
        Ok(found)
    }

    /// How far detection had gone when it last recorded.
    pub fn frontier(&self) -> Result<Frontier> {
        let mut frontier = Frontier::default();
        let mut offsets = self.db.prepare("SELECT topic, partition, next FROM frontier_offsets")?;
        let mut rows = offsets.query([])?;
        while let Some(row) = rows.next()? {
            let topic: String = row.get(0)?;
            frontier.offsets.insert((topic.into(), row.get(1)?), row.get(2)?);
        }
        let mut boundaries = self.db.prepare("SELECT rule, boundary FROM frontier_boundaries")?;
        let mut rows = boundaries.query([])?;
        while let Some(row) = rows.next()? {
            frontier.boundaries.insert(row.get(0)?, row.get(1)?);
        }
        Ok(frontier)
    }
}

/// Hours since the epoch.
pub(crate) fn hour_of(time: Micros) -> i64 {
    time.div_euclid(3_600_000_000)
}

/// Within one transaction no incident is split and joined again only because its findings came in another order. What
/// is said of one finding keeps its order.
fn in_event_order(findings: &[Finding]) -> Vec<&Finding> {
    let mut ordered: Vec<&Finding> = findings.iter().collect();
    ordered.sort_by(|a, b| (a.time.first(), &a.id).cmp(&(b.time.first(), &b.id)));
    ordered
}

fn keep(db: &Connection, finding: &Finding, now: Micros, incidents: &mut Incidents) -> Result<()> {
    let Some((have, incident)) = held(db, finding)? else {
        return match finding.standing {
            // Nobody was told of it.
            Standing::Retracted => Ok(()),
            Standing::Provisional | Standing::Confirmed => keep_new(db, finding, now, incidents),
        };
    };
    let Some(becomes) = succeed(&have, finding) else { return Ok(()) };
    let incident = match becomes.standing {
        Standing::Retracted => {
            incidents.reconsider(&incident);
            incident
        }
        Standing::Provisional | Standing::Confirmed => incidents.join(&becomes, false)?,
    };
    update(db, &becomes, &incident)?;
    let count = match becomes.standing {
        standing if standing == have.standing => &mut incidents.recorded.extended,
        Standing::Retracted => &mut incidents.recorded.retracted,
        Standing::Provisional | Standing::Confirmed => &mut incidents.recorded.confirmed,
    };
    *count += 1;
    if becomes.standing != have.standing {
        note_standing(db, &becomes, now)?;
    }
    Ok(())
}

fn keep_new(db: &Connection, finding: &Finding, now: Micros, incidents: &mut Incidents) -> Result<()> {
    let incident = incidents.join(finding, true)?;
    insert(db, finding, &incident, now)?;
    note_standing(db, finding, now)?;
    incidents.recorded.findings += 1;
    Ok(())
}

/// The finding as it is known, and its incident.
fn held(db: &Connection, finding: &Finding) -> Result<Option<(Finding, String)>> {
    let row: Option<(String, String)> = db
        .prepare_cached("SELECT finding, incident FROM findings WHERE id = ?1 AND origin = ?2")?
        .query_row(params![finding.id, finding.origin.name()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((json, incident)) = row else { return Ok(None) };
    Ok(Some((from_json("finding", &json)?, incident)))
}

/// What the held finding becomes by a newer word on it, or `None` if that changes nothing.
fn succeed(have: &Finding, new: &Finding) -> Option<Finding> {
    use Standing::{Confirmed, Provisional, Retracted};
    match (have.standing, new.standing) {
        (Provisional, Provisional) | (Confirmed, Confirmed) => grow(have, new),
        (Provisional, Confirmed) => Some(new.clone()),
        (Provisional, Retracted) => {
            let mut retracted = new.clone();
            // What somebody was paged for stays to be seen, also when nothing of it holds.
            if new.evidence.count == 0 {
                retracted.evidence = have.evidence.clone();
            }
            Some(retracted)
        }
        (Retracted, Confirmed) if new.late => Some(new.clone()),
        (Retracted | Confirmed, _) => None,
    }
}

/// The held run with what the newer evaluation adds, or `None` if it adds nothing. Never shrinks: the end is the later
/// one, the evidence the larger one, and what the rule says is taken from the later end. It is late, learnt or
/// historical only as long as nothing else has found it.
fn grow(have: &Finding, new: &Finding) -> Option<Finding> {
    let (FindingTime::Run { .. }, FindingTime::Run { .. }) = (have.time, new.time) else {
        return None;
    };
    let later = (new.time.last(), new.evidence.count) > (have.time.last(), have.evidence.count);
    let more = (new.evidence.count, new.time.last()) > (have.evidence.count, have.time.last());
    let marks = |f: &Finding| (f.late, f.learning, f.historical);
    let both = (have.late && new.late, have.learning && new.learning, have.historical && new.historical);
    if !later && !more && both == marks(have) {
        return None;
    }
    let mut grown = if later { new.clone() } else { have.clone() };
    grown.evidence = if more { new.evidence.clone() } else { have.evidence.clone() };
    (grown.late, grown.learning, grown.historical) = both;
    Some(grown)
}

fn insert(db: &Connection, finding: &Finding, incident: &str, now: Micros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO findings (id, origin, incident, rule, severity, first, last, recorded, finding, standing)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        finding.id,
        finding.origin.name(),
        incident,
        finding.rule,
        severity_id(finding.severity),
        finding.time.first(),
        finding.time.last(),
        now,
        to_json("finding", finding)?,
        standing_id(finding.standing)
    ])?;
    Ok(())
}

fn update(db: &Connection, finding: &Finding, incident: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE findings SET last = ?3, finding = ?4, standing = ?5, incident = ?6 WHERE id = ?1 AND origin = ?2",
    )?
    .execute(params![
        finding.id,
        finding.origin.name(),
        finding.time.last(),
        to_json("finding", finding)?,
        standing_id(finding.standing),
        incident
    ])?;
    Ok(())
}

fn note_standing(db: &Connection, finding: &Finding, now: Micros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO standings (finding, origin, standing, recorded, last, events) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        finding.id,
        finding.origin.name(),
        standing_id(finding.standing),
        now,
        finding.time.last(),
        i64::try_from(finding.evidence.count).unwrap_or(i64::MAX)
    ])?;
    Ok(())
}

/// The frontier goes on or stays, it never goes back.
fn advance(db: &Connection, frontier: &Frontier) -> Result<()> {
    let mut offset = db.prepare_cached(
        "INSERT INTO frontier_offsets (topic, partition, next) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET next = max(next, excluded.next)",
    )?;
    for ((topic, partition), next) in &frontier.offsets {
        offset.execute(params![topic.as_ref(), partition, next])?;
    }
    let mut boundary = db.prepare_cached(
        "INSERT INTO frontier_boundaries (rule, boundary) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET boundary = max(boundary, excluded.boundary)",
    )?;
    for (rule, last) in &frontier.boundaries {
        boundary.execute(params![rule, last])?;
    }
    Ok(())
}

/// A finding that stands has less than [`RETRACTED`].
pub(crate) fn standing_id(standing: Standing) -> i64 {
    match standing {
        Standing::Provisional => 0,
        Standing::Confirmed => 1,
        Standing::Retracted => RETRACTED,
    }
}

pub(crate) const RETRACTED: i64 = 2;

/// As in OCSF, so that SQL can compare.
pub(crate) fn severity_id(severity: event::Severity) -> i64 {
    match severity {
        event::Severity::Informational => 1,
        event::Severity::Low => 2,
        event::Severity::Medium => 3,
        event::Severity::High => 4,
        event::Severity::Critical => 5,
    }
}

pub(crate) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::Unreadable { what, source })
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|source| Error::Unreadable { what, source })
}
