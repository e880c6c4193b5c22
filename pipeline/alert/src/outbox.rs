//! The outbox as a delivery thread sees it: the next page that may be sent, and what became of it. Every step is a
//! transaction of its own; none spans a network call.

use event::Micros;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::error::Result;
use crate::pace;

/// A page further in the future than any wait we choose was scheduled by a clock that has since been set back.
const AHEAD_MAX: i64 = 2 * pace::RETRY_AFTER_MAX;

/// A pending page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub seq: i64,
    pub id: String,
    pub created: Micros,
    /// Finished ones.
    pub attempts: i64,
    pub payload: String,
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub name: &'static str,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub latency_us: i64,
}

/// What becomes of the page after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Delivered,
    Dead,
    Again(Micros),
}

/// The oldest page of this receiver that is due and not behind another one of its incident.
pub(crate) fn due(db: &Connection, receiver: &str, now: Micros) -> Result<Option<Due>> {
    Ok(db
        .prepare_cached(
            "SELECT seq, id, created, attempts, payload FROM outbox o
             WHERE receiver = ?1 AND state = 'pending' AND (next_attempt <= ?2 OR next_attempt > ?3)
               AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.receiver = o.receiver AND e.incident = o.incident
                               AND e.seq < o.seq AND e.state = 'pending')
             ORDER BY seq LIMIT 1",
        )?
        .query_row(params![receiver, now, now.saturating_add(AHEAD_MAX)], |row| {
            Ok(Due {
                seq: row.get(0)?,
                id: row.get(1)?,
                created: row.get(2)?,
                attempts: row.get(3)?,
                payload: row.get(4)?,
            })
        })
        .optional()?)
}

/// When the next of the waiting pages becomes due.
pub(crate) fn next_due(db: &Connection, receiver: &str, now: Micros) -> Result<Option<Micros>> {
    Ok(db
        .prepare_cached(
            "SELECT min(next_attempt) FROM outbox WHERE receiver = ?1 AND state = 'pending' AND next_attempt > ?2",
        )?
        .query_row(params![receiver, now], |row| row.get(0))?)
}

/// The last page of each incident that this receiver has taken since, and when: payload and time, oldest incident first.
pub(crate) fn taken_since(db: &Connection, receiver: &str, since: Micros) -> Result<Vec<(String, Micros)>> {
    let mut query = db.prepare_cached(
        "SELECT payload, finished, max(seq) AS last FROM outbox
         WHERE receiver = ?1 AND state = 'delivered' AND finished > ?2 GROUP BY incident ORDER BY last",
    )?;
    Ok(query
        .query_map(params![receiver, since], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?)
}

/// How many pages wait, and since when the oldest does.
pub(crate) fn depth(db: &Connection, receiver: &str) -> Result<(i64, Option<Micros>)> {
    Ok(db
        .prepare_cached("SELECT count(*), min(created) FROM outbox WHERE receiver = ?1 AND state = 'pending'")?
        .query_row([receiver], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Receivers that pages wait for, in order.
pub(crate) fn awaited(db: &Connection) -> Result<Vec<String>> {
    let mut query = db.prepare("SELECT DISTINCT receiver FROM outbox WHERE state = 'pending' ORDER BY receiver")?;
    Ok(query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Durable before the request leaves: after a crash the ledger shows that something may have been sent.
pub(crate) fn begin(db: &Connection, page: &Due, now: Micros) -> Result<i64> {
    db.prepare_cached("INSERT INTO attempts (outbox, time, outcome) VALUES (?1, ?2, 'started')")?
        .execute(params![page.seq, now])?;
    Ok(db.last_insert_rowid())
}

/// The attempt's outcome and what follows from it, together.
pub(crate) fn settle(
    db: &mut Connection,
    page: &Due,
    attempt: i64,
    outcome: &Outcome,
    next: Next,
    now: Micros,
) -> Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.prepare_cached("UPDATE attempts SET outcome = ?2, status = ?3, error = ?4, latency_us = ?5 WHERE seq = ?1")?
        .execute(params![attempt, outcome.name, outcome.status, outcome.error, outcome.latency_us])?;
    move_on(&tx, page, 1, outcome.error.as_deref(), next, now)?;
    Ok(tx.commit()?)
}

/// Gives a page up without an attempt.
pub(crate) fn bury(db: &mut Connection, page: &Due, why: &str, now: Micros) -> Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    move_on(&tx, page, 0, Some(why), Next::Dead, now)?;
    Ok(tx.commit()?)
}

fn move_on(
    tx: &Transaction,
    page: &Due,
    attempts: i64,
    error: Option<&str>,
    next: Next,
    now: Micros,
) -> rusqlite::Result<()> {
    let (state, next_attempt, finished) = match next {
        Next::Delivered => ("delivered", 0, Some(now)),
        Next::Dead => ("dead", 0, Some(now)),
        Next::Again(at) => ("pending", at, None),
    };
    tx.prepare_cached(
        "UPDATE outbox SET state = ?2, attempts = attempts + ?3, next_attempt = ?4, finished = ?5, last_error = ?6
         WHERE seq = ?1",
    )?
    .execute(params![page.seq, state, attempts, next_attempt, finished, error])?;
    Ok(())
}

/// The receiver is back: everything that waited may go, in order.
pub(crate) fn release(db: &Connection, receiver: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE outbox SET next_attempt = 0 WHERE receiver = ?1 AND state = 'pending' AND next_attempt > 0",
    )?
    .execute([receiver])?;
    Ok(())
}

/// After a crash: attempts that never ended have an unknown outcome. Their pages are still pending.
pub(crate) fn recover(db: &Connection, receiver: &str) -> Result<usize> {
    Ok(db
        .prepare_cached(
            "UPDATE attempts SET outcome = 'unknown', error = 'the process ended before the answer'
             WHERE outcome = 'started' AND outbox IN (SELECT seq FROM outbox WHERE receiver = ?1 AND state = 'pending')",
        )?
        .execute([receiver])?)
}
