//! What `stakeout alerts` shows: incidents, findings, pages and each attempt to send them. Read-only and safe beside a
//! running process.

use std::path::Path;

use event::{Finding, Micros, Severity, Standing};
use rusqlite::{Connection, Row, ToSql, params_from_iter};

use crate::error::Result;
use crate::notification::Notification;
use crate::record::{RETRACTED, from_json, severity_id};
use crate::schema;

/// `alerts.db` for reading.
pub struct Reader {
    db: Connection,
}

/// Everything is optional; what is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Event time: whatever ended before is left out.
    pub since: Option<Micros>,
    /// At least this severe.
    pub severity: Option<Severity>,
    pub rule: Option<String>,
    /// One incident and its findings.
    pub incident: Option<String>,
    /// Only incidents that ask for pages: rules that are still learning, and history, are left out.
    pub paging: bool,
    /// The newest so many.
    pub limit: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Incident {
    pub id: String,
    pub rule: String,
    pub title: String,
    /// Of the finding that opened it.
    pub summary: String,
    pub severity: Severity,
    pub origin: String,
    pub entity: Vec<(String, String)>,
    pub episode: i64,
    /// Event time.
    pub first: Micros,
    pub last: Micros,
    pub findings: i64,
    /// Wall clock.
    pub opened: Micros,
    pub updated: Micros,
    /// Its pages were held back by the cap per rule and hour.
    pub flooded: bool,
    /// How many of its findings are neither confirmed nor retracted.
    pub provisional: i64,
    /// What it paged for was found in rows that came after their windows had been final.
    pub late: bool,
    /// `learning` or `historical`: why it has not asked for a page.
    pub quiet: Option<String>,
    /// Wall clock: all of its findings are retracted since.
    pub retracted: Option<Micros>,
}

/// What a finding was taken for since when.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StandingSince {
    pub standing: Standing,
    /// Wall clock.
    pub recorded: Micros,
    /// Its last boundary or its time, and the events it rested on, at that moment.
    pub last: Micros,
    pub events: i64,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StoredFinding {
    pub incident: String,
    /// Wall clock.
    pub recorded: Micros,
    pub finding: Finding,
}

#[derive(Clone, Debug, Default)]
pub struct PageFilter {
    pub incident: Option<String>,
    pub receiver: Option<String>,
    /// `pending`, `delivered` or `dead`.
    pub state: Option<String>,
    pub limit: Option<u32>,
}

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Page {
    /// Constant over retries; `webhook-id` of webhooks.
    pub id: String,
    pub receiver: String,
    pub incident: String,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    pub created: Micros,
    pub attempts: i64,
    /// When a pending page is tried again; 0 for at once.
    pub next_attempt: Micros,
    pub finished: Option<Micros>,
    pub last_error: Option<String>,
    #[serde(skip)]
    pub notification: Notification,
}

/// One try to send a page.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Attempt {
    pub time: Micros,
    /// `accepted`, `refused`, `failed` (answered, try again), `unknown` (no answer), `started` (under way).
    pub outcome: String,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub latency_us: Option<i64>,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Reader> {
        Ok(Reader { db: schema::open_reader(path)? })
    }

    /// Newest first.
    pub fn incidents(&self, filter: &Filter) -> Result<Vec<Incident>> {
        let mut query = Query::new(
            "SELECT id, rule, title, summary, severity, origin, entity, episode, first, last, findings, opened, updated,
                    flooded, (SELECT count(*) FROM findings f WHERE f.incident = incidents.id AND f.standing = 0),
                    late, quiet, retracted
             FROM incidents WHERE merged_into IS NULL",
        );
        query.filter(filter, "id");
        if filter.paging {
            query.sql.push_str(" AND quiet IS NULL");
        }
        query.run(&self.db, "last DESC, seq DESC", filter.limit, |row| {
            let entity: String = row.get(6)?;
            Ok(Incident {
                id: row.get(0)?,
                rule: row.get(1)?,
                title: row.get(2)?,
                summary: row.get(3)?,
                severity: severity_of(row.get(4)?),
                origin: row.get(5)?,
                entity: from_json("entity", &entity)?,
                episode: row.get(7)?,
                first: row.get(8)?,
                last: row.get(9)?,
                findings: row.get(10)?,
                opened: row.get(11)?,
                updated: row.get(12)?,
                flooded: row.get(13)?,
                provisional: row.get(14)?,
                late: row.get(15)?,
                quiet: row.get(16)?,
                retracted: row.get(17)?,
            })
        })
    }

    /// Newest first.
    pub fn findings(&self, filter: &Filter) -> Result<Vec<StoredFinding>> {
        let mut query = Query::new("SELECT incident, recorded, finding FROM findings WHERE true");
        query.filter(filter, "incident");
        query.run(&self.db, "last DESC, id DESC", filter.limit, |row| {
            let finding: String = row.get(2)?;
            Ok(StoredFinding { incident: row.get(0)?, recorded: row.get(1)?, finding: from_json("finding", &finding)? })
        })
    }

    /// Those whose id begins so; live ones first.
    pub fn findings_by_id(&self, prefix: &str) -> Result<Vec<StoredFinding>> {
        let mut query = Query::new("SELECT incident, recorded, finding FROM findings WHERE true");
        query.and("id >=", prefix.to_owned());
        // Ids are hexadecimal: `g` comes after all of them.
        query.and("id <", format!("{prefix}g"));
        query.run(&self.db, "origin DESC, id", None, |row| {
            let finding: String = row.get(2)?;
            Ok(StoredFinding { incident: row.get(0)?, recorded: row.get(1)?, finding: from_json("finding", &finding)? })
        })
    }

    /// What was thought of a finding, oldest first.
    pub fn standings(&self, finding: &Finding) -> Result<Vec<StandingSince>> {
        let mut query = Query::new("SELECT standing, recorded, last, events FROM standings WHERE true");
        query.and("finding =", finding.id.clone());
        query.and("origin =", finding.origin.name().to_owned());
        query.run(&self.db, "seq", None, |row| {
            Ok(StandingSince {
                standing: standing_of(row.get(0)?),
                recorded: row.get(1)?,
                last: row.get(2)?,
                events: row.get(3)?,
            })
        })
    }

    /// Newest first.
    pub fn outbox(&self, filter: &PageFilter) -> Result<Vec<Page>> {
        let mut query = Query::new(
            "SELECT id, receiver, incident, state, created, attempts, next_attempt, finished, last_error, payload
             FROM outbox WHERE true",
        );
        query.equal("incident", filter.incident.as_deref());
        query.equal("receiver", filter.receiver.as_deref());
        query.equal("state", filter.state.as_deref());
        query.run(&self.db, "seq DESC", filter.limit, |row| {
            let payload: String = row.get(9)?;
            Ok(Page {
                id: row.get(0)?,
                receiver: row.get(1)?,
                incident: row.get(2)?,
                state: row.get(3)?,
                created: row.get(4)?,
                attempts: row.get(5)?,
                next_attempt: row.get(6)?,
                finished: row.get(7)?,
                last_error: row.get(8)?,
                notification: from_json("notification", &payload)?,
            })
        })
    }

    /// Of one page, oldest first.
    pub fn attempts(&self, page: &str) -> Result<Vec<Attempt>> {
        let mut query = Query::new(
            "SELECT time, outcome, status, error, latency_us FROM attempts
             WHERE outbox = (SELECT seq FROM outbox WHERE id = ?1)",
        );
        query.values.push(Box::new(page.to_owned()));
        query.run(&self.db, "seq", None, |row| {
            Ok(Attempt {
                time: row.get(0)?,
                outcome: row.get(1)?,
                status: row.get(2)?,
                error: row.get(3)?,
                latency_us: row.get(4)?,
            })
        })
    }
}

/// A SELECT under construction: conditions and the values they are bound to.
struct Query {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Query {
    fn new(sql: &str) -> Query {
        Query { sql: sql.to_owned(), values: Vec::new() }
    }

    fn filter(&mut self, filter: &Filter, incident: &str) {
        if let Some(since) = filter.since {
            self.and("last >=", since);
        }
        if let Some(severity) = filter.severity {
            self.and("severity >=", severity_id(severity));
        }
        self.equal("rule", filter.rule.as_deref());
        self.equal(incident, filter.incident.as_deref());
    }

    fn equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.and(&format!("{column} ="), value.to_owned());
        }
    }

    fn and(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.values.push(Box::new(value));
        self.sql.push_str(&format!(" AND {condition} ?{}", self.values.len()));
    }

    fn run<T>(
        mut self,
        db: &Connection,
        order: &str,
        limit: Option<u32>,
        read: impl Fn(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.sql.push_str(&format!(" ORDER BY {order}"));
        if let Some(limit) = limit {
            self.sql.push_str(&format!(" LIMIT {limit}"));
        }
        let mut statement = db.prepare(&self.sql)?;
        let mut rows = statement.query(params_from_iter(self.values.iter()))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

fn standing_of(id: i64) -> Standing {
    match id {
        0 => Standing::Provisional,
        RETRACTED => Standing::Retracted,
        _ => Standing::Confirmed,
    }
}

fn severity_of(id: i64) -> Severity {
    match id {
        1 => Severity::Informational,
        2 => Severity::Low,
        3 => Severity::Medium,
        4 => Severity::High,
        _ => Severity::Critical,
    }
}
