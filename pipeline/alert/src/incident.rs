//! Incidents: the findings of one rule and entity until it has been quiet, in event time, for the rule's `suppress`.
//! Opening one puts a notification for each routed receiver into the outbox; joining one pages nobody.
//!
//! A finding that comes out of order joins the incident around it. If it closes the gap between two, the younger becomes
//! part of the older (`merged_into`), so that the incidents are in the end the same for every order of arrival.
//!
//! A page is owed once the incident has a finding that may page; `learning` and `historical` ones may not. An incident
//! whose findings are all retracted is retracted. It still takes findings, because a provisional one is often followed by
//! a confirmed one over the same rows with another first boundary, and that must not page again. Only when every window
//! over those rows is final is it closed: then whoever was paged is told, and what comes later is another incident.

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, FindingTime, Micros, Origin, Severity, Standing};
use rusqlite::{Connection, OptionalExtension, params};

use crate::config::Config;
use crate::error::Result;
use crate::notification::{Flood, Notification, Retraction, Subject, id_of, line_of, sha256_hex};
use crate::record::{RETRACTED, Recorded, from_json, hour_of, severity_id, standing_id, to_json};
use crate::route::{Labels, Router};

/// What a notification tells, as part of its id: the first word on an incident, or that it was none.
const PAGE: Option<&str> = None;
const RETRACTION: Option<&str> = Some("retracted");

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
    /// Incidents that may have become retracted, or may not be any more.
    unsure: BTreeSet<String>,
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
    episode: i64,
    quiet: Option<String>,
    is_retracted: bool,
}

/// Why a finding asks for no page.
fn quiet_of(finding: &Finding) -> Option<&'static str> {
    match (finding.learning, finding.historical) {
        (true, _) => Some("learning"),
        (false, true) => Some("historical"),
        (false, false) => None,
    }
}

impl<'a> Incidents<'a> {
    pub fn new(db: &'a Connection, policy: &'a Policy, now: Micros, recorded: &'a mut Recorded) -> Self {
        Incidents { db, policy, now, recorded, floods: BTreeMap::new(), unsure: BTreeSet::new() }
    }

    /// The incident of this finding, which it opens, prolongs or makes of several. A finding that is not `new` is
    /// counted already.
    pub fn join(&mut self, finding: &Finding, new: bool) -> Result<String> {
        let mut touched = self.touched(finding)?.into_iter();
        let Some(mut incident) = touched.next() else {
            return self.open(finding, new);
        };
        incident.first = incident.first.min(finding.time.first());
        incident.last = incident.last.max(finding.time.last());
        incident.findings += i64::from(new);
        for younger in touched {
            self.merge(&younger, &incident.id)?;
            incident.first = incident.first.min(younger.first);
            incident.last = incident.last.max(younger.last);
            incident.findings += younger.findings;
            incident.quiet = incident.quiet.and_then(|why| younger.quiet.and(Some(why)));
            incident.is_retracted |= younger.is_retracted;
        }
        if incident.is_retracted {
            self.reconsider(&incident.id);
        }
        if incident.quiet.is_some() && quiet_of(finding).is_none() {
            incident.quiet = None;
            self.page(&incident.id, incident.episode, finding)?;
        }
        self.db
            .prepare_cached(
                "UPDATE incidents SET first = ?2, last = ?3, findings = ?4, quiet = ?5, updated = ?6 WHERE id = ?1",
            )?
            .execute(params![
                incident.id,
                incident.first,
                incident.last,
                incident.findings,
                incident.quiet,
                self.now
            ])?;
        Ok(incident.id)
    }

    /// Looks, once everything is recorded, whether this incident is retracted.
    pub fn reconsider(&mut self, incident: &str) {
        self.unsure.insert(incident.to_owned());
    }

    /// The incidents within `suppress` of the finding, oldest first. One that holds a finding which is not confirmed
    /// reaches as far as the window does: what takes that finding's place is over the same rows.
    fn touched(&self, finding: &Finding) -> Result<Vec<Touched>> {
        let (first, last) = (finding.time.first(), finding.time.last());
        let near = finding.suppress_us;
        let far = match finding.time {
            FindingTime::Event(_) => near,
            FindingTime::Run { window_us, .. } => near.max(window_us),
        };
        let mut query = self.db.prepare_cached(
            "SELECT id, first, last, findings, episode, quiet, retracted IS NOT NULL FROM incidents
             WHERE rule = ?1 AND origin = ?2 AND entity = ?3 AND last >= ?4 AND first <= ?5
               AND merged_into IS NULL AND closed IS NULL
               AND ((last >= ?6 AND first <= ?7)
                    OR EXISTS (SELECT 1 FROM findings f WHERE f.incident = incidents.id AND f.standing IN (?8, ?9)))
             ORDER BY seq",
        )?;
        let rows = query.query_map(
            params![
                finding.rule,
                finding.origin.name(),
                to_json("entity", &finding.entity)?,
                first.saturating_sub(far),
                last.saturating_add(far),
                first.saturating_sub(near),
                last.saturating_add(near),
                standing_id(Standing::Provisional),
                standing_id(Standing::Retracted)
            ],
            |row| {
                Ok(Touched {
                    id: row.get(0)?,
                    first: row.get(1)?,
                    last: row.get(2)?,
                    findings: row.get(3)?,
                    episode: row.get(4)?,
                    quiet: row.get(5)?,
                    is_retracted: row.get(6)?,
                })
            },
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

    /// A finding that was known before it opens an incident had been retracted, and its first incident is closed.
    fn open(&mut self, finding: &Finding, new: bool) -> Result<String> {
        let entity = to_json("entity", &finding.entity)?;
        let origin = finding.origin.name();
        let id = match new {
            true => id_of(&[origin, &finding.rule, &entity, &finding.id]),
            false => id_of(&[origin, &finding.rule, &entity, &finding.id, "again"]),
        };
        let episode: i64 = self
            .db
            .prepare_cached(
                "SELECT coalesce(max(episode), 0) + 1 FROM incidents WHERE rule = ?1 AND origin = ?2 AND entity = ?3",
            )?
            .query_row(params![finding.rule, origin, entity], |row| row.get(0))?;
        self.db
            .prepare_cached(
                "INSERT INTO incidents
                 (id, rule, origin, entity, episode, title, summary, severity, first, last, findings, opened, updated,
                  quiet)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11, ?12)",
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
                self.now,
                quiet_of(finding)
            ])?;
        self.recorded.incidents += 1;
        if quiet_of(finding).is_none() {
            self.page(&id, episode, finding)?;
        }
        Ok(id)
    }

    /// With the first finding that may page, whoever is to be paged in the end.
    fn page(&mut self, incident: &str, episode: i64, finding: &Finding) -> Result<()> {
        if finding.late {
            self.db.prepare_cached("UPDATE incidents SET late = 1 WHERE id = ?1")?.execute([incident])?;
        }
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
        self.put(PAGE, &notification, receivers.into_iter())
    }

    /// Which incidents are retracted now, and which of those are closed. After the frontier was advanced.
    pub fn settle(&mut self) -> Result<()> {
        for incident in std::mem::take(&mut self.unsure) {
            self.db
                .prepare_cached(
                    "UPDATE incidents SET retracted =
                         CASE WHEN EXISTS (SELECT 1 FROM findings WHERE incident = ?1 AND standing < ?2) THEN NULL
                              ELSE coalesce(retracted, ?3) END
                     WHERE id = ?1 AND merged_into IS NULL",
                )?
                .execute(params![incident, RETRACTED, self.now])?;
        }
        for (incident, retracted) in self.done_with()? {
            self.db
                .prepare_cached("UPDATE incidents SET closed = ?2 WHERE id = ?1")?
                .execute(params![incident, self.now])?;
            self.stand_down(&incident, retracted)?;
        }
        Ok(())
    }

    /// Retracted incidents, with the time, for which nothing can come any more: a row below the last boundary is in no
    /// window from a window's length later on. Single events and imports have no windows that are still open.
    fn done_with(&self) -> Result<Vec<(String, Micros)>> {
        let mut query = self.db.prepare_cached(
            "SELECT id, retracted FROM (
                 SELECT i.id, i.seq, i.retracted, i.origin, b.boundary,
                        (SELECT max(f.last + json_extract(f.finding, '$.time.run.window_us'))
                           FROM findings f WHERE f.incident = i.id) AS final
                   FROM incidents i LEFT JOIN frontier_boundaries b ON b.rule = i.rule
                  WHERE i.retracted IS NOT NULL AND i.closed IS NULL AND i.merged_into IS NULL)
             WHERE final IS NULL OR origin <> ?1 OR boundary >= final
             ORDER BY seq",
        )?;
        let rows = query.query_map([Origin::Live.name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Tells everyone who was paged for this incident, or for one that became part of it, behind the page itself.
    fn stand_down(&mut self, incident: &str, retracted: Micros) -> Result<()> {
        let mut query = self.db.prepare_cached(
            "WITH RECURSIVE part (id) AS (
                 VALUES (?1) UNION SELECT i.id FROM incidents i JOIN part ON i.merged_into = part.id)
             SELECT o.receiver, o.payload FROM outbox o JOIN part ON o.incident = part.id
             WHERE o.state <> 'dead' ORDER BY o.seq",
        )?;
        let pages: Vec<(String, String)> =
            query.query_map([incident], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        for (receiver, payload) in pages {
            let mut notification: Notification = from_json("notification", &payload)?;
            let Subject::Finding { finding, .. } = &notification.subject else { continue };
            notification.subject = Subject::Retracted(Box::new(Retraction {
                finding: finding.id.clone(),
                rule: finding.rule.clone(),
                title: finding.title.clone(),
                severity: finding.severity,
                summary: line_of(finding),
                entity: finding.entity.clone(),
                retracted,
            }));
            self.put(RETRACTION, &notification, std::iter::once(receiver.as_str()))?;
        }
        Ok(())
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
            self.put(PAGE, &notification, overflow.receivers.iter().map(String::as_str))?;
        }
        Ok(())
    }

    /// The id of an outbox row is a function of what it tells, of which incident and to whom, and unique.
    fn put<'r>(
        &mut self,
        what: Option<&str>,
        notification: &Notification,
        receivers: impl Iterator<Item = &'r str>,
    ) -> Result<()> {
        let payload = to_json("notification", notification)?;
        let mut insert = self.db.prepare_cached(
            "INSERT INTO outbox (id, receiver, incident, created, payload) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING RETURNING seq",
        )?;
        for receiver in receivers {
            let parts: Vec<&str> = [notification.incident.as_str(), receiver].into_iter().chain(what).collect();
            let id = format!("page_{}", id_of(&parts));
            let row: Option<i64> = insert
                .query_row(params![id, receiver, notification.incident, self.now, payload], |row| row.get(0))
                .optional()?;
            self.recorded.pages += u64::from(row.is_some());
        }
        Ok(())
    }
}
