//! One rule that remembers: what it has seen, and the events that wait until their judgement is final.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Finding, FindingTime, Micros, Origin, RowHash, Standing};

use super::begin::Begin;
use super::finding::{Draft, Events as Known, drafts, with_events};
use super::judge::{Events, Recall, Remembering, is_learning};
use super::mark::{Mark, heap};
use super::retained::Retained;
use super::seen::{Answer, Key, LATE_US, Seen};
use super::sieve::{Failed, Sieved};
use super::tables::recall_versions;
use super::versions::Versions;
use super::{RULE_BYTES_MAX, at_or_after, too_much};
use crate::evidence::event_of;
use crate::ident;
use crate::rule::Rule;

/// Events judged for good in one call: a rule that has to catch up leaves room for the others and for new rows.
/// Few in tests, so that they see calls that leave some.
const FINAL_PER_CALL: usize = if cfg!(test) { 3 } else { 5_000 };

/// An event whose judgement is not final.
#[derive(Debug)]
struct Waiting {
    mark: Mark,
    row: Box<[u8]>,
    key: Option<Key>,
    /// What was said of it so far.
    fired: Option<Box<Finding>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        let found =
            self.fired.as_ref().map_or(0, |f| f.evidence.events.iter().map(|e| e.raw.len()).sum::<usize>() + 2_048);
        size_of::<(Place, Waiting)>() * 3 / 2 + heap(self.mark.uid.len()) + heap(self.row.len()) + found
    }
}

/// Boundary, table and row: what is final first comes first.
type Place = (Micros, Arc<str>, RowHash);

/// All that the rules of an engine share.
pub struct Shared<'a> {
    pub bundle: &'a str,
    pub states: &'a BTreeMap<String, Versions>,
    /// By table.
    pub begins: &'a BTreeMap<String, Begin>,
}

#[derive(Debug)]
pub struct Watch {
    pub rule: Arc<Rule>,
    pub body: Arc<Remembering>,
    seen: Option<Seen>,
    /// Judgements up to this boundary have been made for good.
    pub settled: Micros,
    waiting: BTreeMap<Place, Waiting>,
    waiting_bytes: usize,
    /// Provisional findings of before the start whose rows have not come yet, by time.
    told: BTreeMap<Micros, Vec<Finding>>,
    /// By table, since when it has looked at rows that have expired.
    began: BTreeMap<String, Micros>,
    /// What is stored has been remembered.
    pub loaded: bool,
    /// Why it has stopped.
    pub stopped: Option<String>,
}

/// What a call made of a rule.
#[derive(Default)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub null_entities: u64,
    pub null_keys: u64,
    /// Findings that were not told before.
    pub new: u64,
    pub failed: Option<String>,
}

impl Outcome {
    pub fn fail(&mut self, reason: String) {
        self.failed.get_or_insert(reason);
    }

    pub fn fail_rows(&mut self, failed: Failed) {
        if let Some((rows, reason)) = failed {
            self.fail(format!("{rows} rows could not be evaluated: {reason}"));
        }
    }
}

impl Watch {
    pub fn new(rule: Arc<Rule>, body: Arc<Remembering>, settled: Micros) -> Watch {
        let mut watch = Watch {
            rule,
            body,
            seen: None,
            settled,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            told: BTreeMap::new(),
            began: BTreeMap::new(),
            loaded: false,
            stopped: None,
        };
        watch.seen = watch.nothing_seen(settled);
        watch
    }

    fn nothing_seen(&self, settled: Micros) -> Option<Seen> {
        let interval = self.body.first_seen.as_ref()?.interval_us;
        Some(Seen::new(interval, settled, Seen::floor_at(interval, settled)))
    }

    pub fn bytes(&self) -> usize {
        self.waiting_bytes + self.seen.as_ref().map_or(0, Seen::bytes)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Provisional findings that were kept before the start.
    pub fn tell(&mut self, finding: Finding) {
        if let FindingTime::Event(time) = finding.time {
            self.told.entry(time).or_default().push(finding);
        }
    }

    pub fn stop(&mut self, reason: String) {
        self.seen = self.nothing_seen(self.settled);
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.stopped = Some(reason);
    }

    /// Beyond its budget a rule stops: to forget some of what it needs would make it say what is not true.
    fn over_budget(&self) -> bool {
        self.bytes() > RULE_BYTES_MAX
    }

    fn stop_if_over_budget(&mut self) -> bool {
        if self.over_budget() {
            self.stop(too_much(RULE_BYTES_MAX));
        }
        self.stopped.is_some()
    }

    /// Takes in rows of a batch of `table`, and says what they mean as far as anyone can tell.
    pub fn on_rows(&mut self, batches: &[(&str, &RecordBatch)], shared: &Shared<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut taken: Vec<(usize, Sieved, Vec<Option<Key>>)> = Vec::new();
        let body = self.body.clone();
        for (at, (table, batch)) in batches.iter().enumerate() {
            let mut all = Vec::new();
            let failed = body.sieve.live(table, batch, Origin::Live, &mut |sieved| all.push(sieved));
            outcome.fail_rows(failed);
            for sieved in all {
                match self.take(&sieved, &mut outcome) {
                    Ok(keys) => taken.push((at, sieved, keys)),
                    Err(error) => outcome.fail(error.strip_backtrace()),
                }
            }
        }
        if self.stop_if_over_budget() {
            outcome.failed = self.stopped.clone();
        } else if self.loaded {
            for (at, sieved, keys) in &taken {
                if let Err(error) = self.judge_early(batches[*at].1, sieved, keys, shared, &mut outcome) {
                    outcome.fail(error.strip_backtrace());
                }
            }
        }
        outcome
    }

    /// Remembers rows, and lets those wait for their judgement that can still fire. Returns the keys of these. That an
    /// earlier row is visible is a fact: an event that is not new now will not be so later.
    fn take(&mut self, sieved: &Sieved, outcome: &mut Outcome) -> Result<Vec<Option<Key>>> {
        let mut keys = self.body.keys(sieved)?;
        let mut waiting: Vec<(u32, Option<Finding>)> = Vec::new();
        for (row, (mark, key)) in sieved.marks.iter().zip(&mut keys).enumerate() {
            let mut can_fire = true;
            if let Some(seen) = &mut self.seen {
                let Some(some) = *key else {
                    outcome.null_keys += 1;
                    continue;
                };
                seen.add(some, mark);
                can_fire = seen.answer(some, mark) != Answer::Seen;
            }
            let told = self.told_of(&sieved.table, mark);
            if mark.boundary() > self.settled && (can_fire || told.is_some()) {
                waiting.push((row as u32, told));
            } else {
                *key = None;
            }
        }
        if !waiting.is_empty() {
            let at = UInt32Array::from_iter_values(waiting.iter().map(|(row, _)| *row));
            let events = take_record_batch(&self.body.events_of(sieved)?, &at)?;
            let encoded = self.body.events.encode(events.columns())?;
            for (at, (row, told)) in waiting.into_iter().enumerate() {
                let row = row as usize;
                self.wait(&sieved.table, &sieved.marks[row], encoded.row(at), keys[row], told);
            }
        }
        Ok(keys)
    }

    fn wait(&mut self, table: &Arc<str>, mark: &Mark, row: &[u8], key: Option<Key>, told: Option<Finding>) {
        let place = (mark.boundary(), table.clone(), mark.hash);
        if let Some(have) = self.waiting.get_mut(&place) {
            have.fired = have.fired.take().or(told.map(Box::new));
            return;
        }
        let waiting = Waiting { mark: mark.clone(), row: row.into(), key, fired: told.map(Box::new) };
        self.waiting_bytes += waiting.bytes();
        self.waiting.insert(place, waiting);
    }

    /// What was said of a row before the start: its id is of the row.
    fn told_of(&mut self, table: &str, mark: &Mark) -> Option<Finding> {
        let told = self.told.get_mut(&mark.time)?;
        let rule = &self.rule.id;
        let at = told.iter().position(|f| f.id == ident::of_row(rule, &f.entity, table, &mark.hash))?;
        let finding = told.swap_remove(at);
        if told.is_empty() {
            self.told.remove(&mark.time);
        }
        Some(finding)
    }

    /// What fires by what is known so far is said at once, as provisional.
    fn judge_early(
        &mut self,
        batch: &RecordBatch,
        sieved: &Sieved,
        keys: &[Option<Key>],
        shared: &Shared<'_>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let events =
            Events { rows: self.body.events_of(sieved)?, marks: sieved.marks.iter().collect(), keys: keys.to_vec() };
        let recall = Recall { seen: self.seen.as_ref(), states: shared.states };
        let row_of = |row: u32| (sieved.table.to_string(), sieved.marks[row as usize].clone());
        let (rule, mut found) = (&self.rule, Vec::new());
        let failed = self.body.judge(&events, &recall, &mut |fired| {
            found.extend(drafts(rule, shared.bundle, Origin::Live, &fired, &row_of)?.0);
            Ok(())
        });
        outcome.fail_rows(failed);
        for Draft { mut finding, from, rows } in found {
            let mark = &rows[0].1;
            let Some(waiting) = self.waiting.get_mut(&(mark.boundary(), sieved.table.clone(), mark.hash)) else {
                continue;
            };
            if waiting.fired.is_some() {
                continue;
            }
            finding.evidence.events = vec![event_of(batch, sieved.from[from as usize] as usize)?];
            finding.standing = Standing::Provisional;
            finding.learning =
                is_learning(begun(&self.began, shared, &sieved.table, mark), mark.time, self.body.learning_us);
            self.waiting_bytes -= waiting.bytes();
            waiting.fired = Some(Box::new(finding.clone()));
            self.waiting_bytes += waiting.bytes();
            outcome.new += 1;
            outcome.findings.push(finding);
        }
        Ok(())
    }

    /// Remembers what is stored: for `first_seen` as far back as it looks, and the events that are not final.
    pub async fn load(&mut self, stored: &SessionContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let body = self.body.clone();
        let settled = self.settled;
        let floor = match &body.first_seen {
            Some(first_seen) => Seen::floor_at(first_seen.interval_us, settled),
            None => settled,
        };
        let recent = at_or_after("time", floor);
        let late = format!("{} AND NOT ({recent})", at_or_after("source_watermark", settled));
        let conditions = if floor == Micros::MIN { vec![recent] } else { vec![recent, late] };
        for condition in conditions {
            let mut error = None;
            let mut take = |sieved: Sieved| {
                if !self.over_budget()
                    && let Err(e) = self.take(&sieved, &mut Outcome::default())
                {
                    error.get_or_insert(e);
                }
            };
            let failed = body.sieve.stored(stored, Origin::Live, &condition, &mut take).await?;
            outcome.fail_rows(failed);
            if let Some(error) = error {
                return Err(error);
            }
        }
        // After the rows: what expires meanwhile is in one or both.
        if let (Some(seen), Some(first_seen)) = (&mut self.seen, &body.first_seen)
            && let Some(retained) = Retained::of(stored)
        {
            self.began = retained.seen(&self.rule.id, first_seen, &mut |key, span| seen.add_span(key, span))?;
        }
        self.loaded = true;
        if self.stop_if_over_budget() {
            outcome.failed = self.stopped.clone();
        }
        Ok(outcome)
    }

    /// Judges for good what all watermarks up to `to` make final. True if there is more.
    pub async fn settle(
        &mut self,
        to: Micros,
        stored: &SessionContext,
        shared: &Shared<'_>,
        outcome: &mut Outcome,
    ) -> Result<bool> {
        let due: Vec<Place> =
            self.waiting.keys().take_while(|place| place.0 <= to).take(FINAL_PER_CALL).cloned().collect();
        let findings = self.judge_final(&due, stored, shared, outcome).await?;
        outcome.findings.extend(findings);
        for place in &due {
            if let Some(waiting) = self.waiting.remove(place) {
                self.waiting_bytes -= waiting.bytes();
            }
        }
        let next = self.waiting.keys().next().map_or(Micros::MAX, |place| place.0);
        // All of one boundary are judged before it is settled.
        let settled = to.min(next.saturating_sub(1));
        if settled > self.settled {
            self.settled = settled;
            if let Some(seen) = &mut self.seen {
                seen.advance(settled);
            }
        }
        outcome.findings.extend(self.forgotten());
        Ok(next <= to)
    }

    /// What was told before the start and is of no row that came again: the rule is another one now.
    fn forgotten(&mut self) -> Vec<Finding> {
        let old = self.settled.saturating_sub(LATE_US);
        let recent = self.told.split_off(&old);
        let forgotten = std::mem::replace(&mut self.told, recent).into_values().flatten();
        forgotten.map(|f| Finding { standing: Standing::Retracted, ..f }).collect()
    }

    /// The stream has ended: everything is judged for good. Nothing is settled, in case it goes on after all.
    pub async fn finish(&mut self, stored: &SessionContext, shared: &Shared<'_>, outcome: &mut Outcome) -> Result<()> {
        let due: Vec<Place> = self.waiting.keys().cloned().collect();
        for due in due.chunks(FINAL_PER_CALL) {
            let findings = self.judge_final(due, stored, shared, outcome).await?;
            outcome.findings.extend(findings);
            for place in due {
                if let Some(waiting) = self.waiting.remove(place) {
                    self.waiting_bytes -= waiting.bytes();
                }
            }
        }
        Ok(())
    }

    async fn judge_final(
        &self,
        due: &[Place],
        stored: &SessionContext,
        shared: &Shared<'_>,
        outcome: &mut Outcome,
    ) -> Result<Vec<Finding>> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let waiting: Vec<&Waiting> = due.iter().map(|place| &self.waiting[place]).collect();
        let recall = Recall { seen: self.seen.as_ref(), states: shared.states };
        let row_of = |row: u32| (due[row as usize].1.to_string(), waiting[row as usize].mark.clone());
        let (mut all, late) = self.judged(&waiting, &recall, shared.bundle, &row_of, outcome)?;
        if !late.is_empty() {
            let waiting: Vec<&Waiting> = late.iter().map(|row| waiting[*row as usize]).collect();
            let (seen, states) = self.recall_stored(&waiting, stored).await?;
            let recall = Recall { seen: seen.as_ref(), states: &states };
            let row_of = |row: u32| row_of(late[row as usize]);
            let (mut more, _) = self.judged(&waiting, &recall, shared.bundle, &row_of, outcome)?;
            more.iter_mut().for_each(|draft| draft.from = late[draft.from as usize]);
            all.retain(|draft| !late.contains(&draft.from));
            all.extend(more);
        }
        let mut known = Known::new();
        for (place, waiting) in due.iter().zip(&waiting) {
            if let Some(event) = waiting.fired.as_ref().and_then(|f| f.evidence.events.first()) {
                known.insert((place.1.to_string(), place.2), event.clone());
            }
        }
        let drafts = with_events(stored, all, known).await?;
        let findings = self.verdicts(&waiting, drafts, shared);
        let told = waiting.iter().filter_map(|w| w.fired.as_ref()).map(|f| f.id.as_str()).collect::<BTreeSet<_>>();
        outcome.new += findings.iter().filter(|f| !told.contains(f.id.as_str())).count() as u64;
        Ok(findings)
    }

    /// What fires is confirmed; what was said before and does not hold is taken back.
    fn verdicts(&self, waiting: &[&Waiting], drafts: Vec<Draft>, shared: &Shared<'_>) -> Vec<Finding> {
        let mut found: BTreeMap<u32, Finding> = BTreeMap::new();
        for draft in drafts {
            let mut finding = draft.finding;
            let (table, mark) = &draft.rows[0];
            let begun = begun(&self.began, shared, table, mark);
            finding.learning = is_learning(begun, mark.time, self.body.learning_us);
            found.insert(draft.from, finding);
        }
        let mut findings = Vec::new();
        for (row, waiting) in waiting.iter().enumerate() {
            let last = found.remove(&(row as u32));
            if let Some(fired) = &waiting.fired
                && last.as_ref().is_none_or(|l| l.id != fired.id)
            {
                findings.push(Finding { standing: Standing::Retracted, ..fired.as_ref().clone() });
            }
            findings.extend(last);
        }
        findings
    }

    fn events<'a>(&self, waiting: &[&'a Waiting]) -> Result<Events<'a>> {
        let rows: Vec<&[u8]> = waiting.iter().map(|w| &*w.row).collect();
        Ok(Events {
            rows: self.body.events.batch(&rows)?,
            marks: waiting.iter().map(|w| &w.mark).collect(),
            keys: waiting.iter().map(|w| w.key).collect(),
        })
    }

    /// What fires, and the events for which memory does not reach far enough.
    fn judged(
        &self,
        waiting: &[&Waiting],
        recall: &Recall<'_>,
        bundle: &str,
        row_of: &dyn Fn(u32) -> (String, Mark),
        outcome: &mut Outcome,
    ) -> Result<(Vec<Draft>, Vec<u32>)> {
        let (mut found, mut unknown, mut nulls) = (Vec::new(), Vec::new(), 0);
        let failed = self.body.judge(&self.events(waiting)?, recall, &mut |fired| {
            let (drafts, null_entities) = drafts(&self.rule, bundle, Origin::Live, &fired, row_of)?;
            found.extend(drafts);
            unknown.extend(fired.unknown);
            nulls += null_entities;
            Ok(())
        });
        outcome.fail_rows(failed);
        outcome.null_entities += nulls;
        Ok((found, unknown))
    }

    /// What events need that are so late that memory does not reach back to them, from the store.
    async fn recall_stored(
        &self,
        waiting: &[&Waiting],
        stored: &SessionContext,
    ) -> Result<(Option<Seen>, BTreeMap<String, Versions>)> {
        let first = waiting.iter().map(|w| w.mark.time).min().unwrap_or(Micros::MIN);
        let last = waiting.iter().map(|w| w.mark.time).max().unwrap_or(Micros::MAX);
        let until = format!("NOT ({})", at_or_after("time", last.saturating_add(1)));
        let seen = load_seen(&self.rule.id, &self.body, stored, Origin::Live, first, &until).await?;
        let mut states = BTreeMap::new();
        for state in self.body.states() {
            states.insert(state.name.clone(), recall_versions(state, stored, Origin::Live, &until).await?);
        }
        Ok((seen, states))
    }
}

/// Since when a rule knows the rows of a table, as a row sees it.
fn begun(expired: &BTreeMap<String, Micros>, shared: &Shared<'_>, table: &str, mark: &Mark) -> Option<Micros> {
    let stored = shared.begins.get(table).and_then(|begin| begin.before(mark.boundary()));
    stored.into_iter().chain(expired.get(table).copied()).min()
}

/// What `first_seen` needs to judge rows from `first` on: stored rows that meet `until`, and what remains of expired ones.
pub async fn load_seen(
    rule: &str,
    body: &Remembering,
    stored: &SessionContext,
    origin: Origin,
    first: Micros,
    until: &str,
) -> Result<Option<Seen>> {
    let Some(first_seen) = &body.first_seen else { return Ok(None) };
    let mut seen = Seen::new(first_seen.interval_us, Micros::MIN, Micros::MIN);
    let from = at_or_after("time", first.saturating_sub(first_seen.interval_us));
    let mut error = None;
    let mut take = |sieved: Sieved| match body.keys(&sieved) {
        Ok(_) if seen.bytes() > RULE_BYTES_MAX => {}
        Ok(keys) => {
            for (key, mark) in keys.into_iter().zip(&sieved.marks) {
                key.into_iter().for_each(|key| seen.add(key, mark));
            }
        }
        Err(e) => drop(error.get_or_insert(e)),
    };
    body.sieve.stored(stored, origin, &format!("{from} AND {until}"), &mut take).await?;
    if let Some(retained) = Retained::of(stored).filter(|_| origin == Origin::Live) {
        retained.seen(rule, first_seen, &mut |key, span| seen.add_span(key, span))?;
    }
    match error {
        Some(error) => Err(error),
        None if seen.bytes() > RULE_BYTES_MAX => Err(DataFusionError::Execution(too_much(RULE_BYTES_MAX))),
        None => Ok(Some(seen)),
    }
}
