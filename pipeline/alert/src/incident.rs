//! Incidents: the findings of one rule and entity until it has been quiet, in event time, for the rule's `suppress`.
//! Opening one puts a notification for each routed receiver into the outbox; joining one pages nobody.
//!
//! A finding that comes out of order joins the incident around it. If it closes the gap between two, the younger becomes
//! part of the older (`merged_into`), so that the incidents are in the end the same for every order of arrival.

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, Micros, Origin, Severity};
use rusqlite::{Connection, OptionalExtension, params};

use crate::config::Config;
use crate::error::Result;
use crate::notification::{Flood, Notification, Subject, id_of, sha256_hex};
use crate::record::{Recorded, hour_of, severity_id, to_json};
use crate::route::{Labels, Router};

/// Who is paged for what.
pub(crate) struct Policy {
    router: Option<Router>,
    page_imports: bool,
    pages_per_hour_max: i64,
    link: Option<String>,
}

impl Policy {
    pub fn new(config: &Config) -> std::result::Result<Policy, Vec<String>> {
        Ok(Policy {
            router: config.router()?,
            page_imports: config.page_imports,
            pages_per_hour_max: i64::from(config.pages_per_hour_max),
            link: config.link.clone(),
        })
    }

    fn receivers(&self, finding: &Finding) -> Vec<&str> {
        match &self.router {
            Some(router) if finding.origin == Origin::Live || self.page_imports => {
                router.receivers(&Labels::of(finding))
            }
            _ => Vec::new(),
        }
    }

    fn link(&self, incident: &str) -> Option<String> {
        self.link.as_ref().map(|link| link.replace("{incident}", incident))
    }
}

/// The incidents within one recording transaction.
pub(crate) struct Incidents<'a> {
    db: &'a Connection,
    policy: &'a Policy,
    now: Micros,
    pub recorded: &'a mut Recorded,
    /// Rules beyond their cap in this transaction.
    floods: BTreeMap<String, Overflow>,
}

struct Overflow {
    title: String,
    severity: Severity,
    incidents: i64,
    receivers: BTreeSet<String>,
}

/// An incident that a finding touches.
struct Touched {
    id: String,
    first: Micros,
    last: Micros,
    findings: i64,
}

impl<'a> Incidents<'a> {
    pub fn new(db: &'a Connection, policy: &'a Policy, now: Micros, recorded: &'a mut Recorded) -> Self {
        Incidents { db, policy, now, recorded, floods: BTreeMap::new() }
    }

    /// The incident of this finding, which it opens, prolongs or makes of several. A finding that is not `new` is
    /// counted already.
    pub fn join(&mut self, finding: &Finding, new: bool) -> Result<String> {
        let mut touched = self.touched(finding)?.into_iter();
        let Some(mut incident) = touched.next() else {
            return self.open(finding);
        };
        incident.first = incident.first.min(finding.time.first());
        incident.last = incident.last.max(finding.time.last());
        incident.findings += i64::from(new);
        for younger in touched {
            self.merge(&younger, &incident.id)?;
            incident.first = incident.first.min(younger.first);
            incident.last = incident.last.max(younger.last);
            incident.findings += younger.findings;
        }
        self.db
            .prepare_cached("UPDATE incidents SET first = ?2, last = ?3, findings = ?4, updated = ?5 WHERE id = ?1")?
            .execute(params![incident.id, incident.first, incident.last, incident.findings, self.now])?;
        Ok(incident.id)
    }

    /// The incidents within `suppress` of the finding, oldest first.
    fn touched(&self, finding: &Finding) -> Result<Vec<Touched>> {
        let mut query = self.db.prepare_cached(
            "SELECT id, first, last, findings FROM incidents
             WHERE rule = ?1 AND origin = ?2 AND entity = ?3 AND last >= ?4 AND first <= ?5 AND merged_into IS NULL
             ORDER BY seq",
        )?;
        let rows = query.query_map(
            params![
                finding.rule,
                finding.origin.name(),
                to_json("entity", &finding.entity)?,
                finding.time.first().saturating_sub(finding.suppress_us),
                finding.time.last().saturating_add(finding.suppress_us)
            ],
            |row| Ok(Touched { id: row.get(0)?, first: row.get(1)?, last: row.get(2)?, findings: row.get(3)? }),
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn merge(&self, younger: &Touched, older: &str) -> Result<()> {
        self.db
            .prepare_cached("UPDATE incidents SET merged_into = ?2, updated = ?3 WHERE id = ?1")?
            .execute(params![younger.id, older, self.now])?;
        self.db
            .prepare_cached("UPDATE findings SET incident = ?2 WHERE incident = ?1")?
            .execute(params![younger.id, older])?;
        Ok(())
    }

    fn open(&mut self, finding: &Finding) -> Result<String> {
        let entity = to_json("entity", &finding.entity)?;
        let origin = finding.origin.name();
        let id = id_of(&[origin, &finding.rule, &entity, &finding.id]);
        let episode: i64 = self
            .db
            .prepare_cached(
                "SELECT coalesce(max(episode), 0) + 1 FROM incidents WHERE rule = ?1 AND origin = ?2 AND entity = ?3",
            )?
            .query_row(params![finding.rule, origin, entity], |row| row.get(0))?;
        self.db
            .prepare_cached(
                "INSERT INTO incidents
                 (id, rule, origin, entity, episode, title, summary, severity, first, last, findings, opened, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11)",
            )?
            .execute(params![
                id,
                finding.rule,
                origin,
                entity,
                episode,
                finding.title,
                finding.summary,
                severity_id(finding.severity),
                finding.time.first(),
                finding.time.last(),
                self.now
            ])?;
        self.recorded.incidents += 1;
        self.page(&id, episode, finding)?;
        Ok(id)
    }

    fn page(&mut self, incident: &str, episode: i64, finding: &Finding) -> Result<()> {
        let receivers = self.policy.receivers(finding);
        if receivers.is_empty() {
            return Ok(());
        }
        let incidents = self.count_in_hour(&finding.rule)?;
        if incidents > self.policy.pages_per_hour_max {
            return self.hold_back(incident, finding, incidents, &receivers);
        }
        let evidence_sha256 = sha256_hex(to_json("evidence", &finding.evidence)?.as_bytes());
        let notification = Notification {
            incident: incident.to_owned(),
            episode,
            opened: self.now,
            link: self.policy.link(incident),
            subject: Subject::Finding { finding: Box::new(finding.clone()), evidence_sha256 },
        };
        self.put(&notification, receivers.into_iter())
    }

    /// Only incidents that would page count: a storm that nobody hears must not silence one that matters.
    fn count_in_hour(&self, rule: &str) -> Result<i64> {
        Ok(self
            .db
            .prepare_cached(
                "INSERT INTO hours (rule, hour, incidents) VALUES (?1, ?2, 1)
                 ON CONFLICT DO UPDATE SET incidents = incidents + 1 RETURNING incidents",
            )?
            .query_row(params![rule, hour_of(self.now)], |row| row.get(0))?)
    }

    fn hold_back(&mut self, incident: &str, finding: &Finding, incidents: i64, receivers: &[&str]) -> Result<()> {
        self.db.prepare_cached("UPDATE incidents SET flooded = 1 WHERE id = ?1")?.execute([incident])?;
        self.recorded.flooded += 1;
        let flood = self.floods.entry(finding.rule.clone()).or_insert_with(|| Overflow {
            title: finding.title.clone(),
            severity: finding.severity,
            incidents,
            receivers: BTreeSet::new(),
        });
        flood.incidents = incidents;
        flood.receivers.extend(receivers.iter().map(|r| (*r).to_owned()));
        Ok(())
    }

    /// One notice per rule, hour and receiver; later transactions of the hour find it there.
    pub fn announce_floods(&mut self) -> Result<()> {
        let hour = hour_of(self.now);
        for (rule, overflow) in std::mem::take(&mut self.floods) {
            let incident = id_of(&["flood", &rule, &hour.to_string()]);
            let flood = Flood {
                query: format!("stakeout alerts --rule {rule}"),
                rule,
                title: overflow.title,
                severity: overflow.severity,
                hour: hour * 3_600_000_000,
                incidents: overflow.incidents,
                cap: self.policy.pages_per_hour_max,
            };
            tracing::warn!(rule = flood.rule, incidents = flood.incidents, "flood: pages of a rule are held back");
            // No link: it would be to an incident, and a flood is many.
            let subject = Subject::Flood(flood);
            let notification = Notification { incident, episode: 1, opened: self.now, link: None, subject };
            self.put(&notification, overflow.receivers.iter().map(String::as_str))?;
        }
        Ok(())
    }

    /// The id of an outbox row is a function of incident and receiver, and unique.
    fn put<'r>(&mut self, notification: &Notification, receivers: impl Iterator<Item = &'r str>) -> Result<()> {
        let payload = to_json("notification", notification)?;
        let mut insert = self.db.prepare_cached(
            "INSERT INTO outbox (id, receiver, incident, created, payload) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING RETURNING seq",
        )?;
        for receiver in receivers {
            let id = format!("page_{}", id_of(&[&notification.incident, receiver]));
            let row: Option<i64> = insert
                .query_row(params![id, receiver, notification.incident, self.now, payload], |row| row.get(0))
                .optional()?;
            self.recorded.pages += u64::from(row.is_some());
        }
        Ok(())
    }
}
