//! What one windowed rule says, and when: its runs, those that were announced ahead of time, and the catch-ups to come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::{Micros, Origin};
use query::QueryError;

use super::{Ahead, Changes, Slots};
use crate::fault::{self, Fault};
use crate::oracle::{Entity, Held};
use crate::rule::Rule;
use crate::runs::Run;

/// What a rule says, in the order in which it says it.
#[derive(Clone, Debug)]
pub enum Told {
    /// Holds ahead of the final boundary.
    Provisional(Run),
    /// Was provisional at this boundary, and no longer is anything.
    Retracted { entity: Entity, first: Micros },
    /// Began, goes on, or ended: final as far as it goes.
    Confirmed(Run),
    /// Found by catching up on rows that were late; the boundary up to which rows were admitted for it.
    Late { run: Run, known: Micros },
}

/// What a rule costs and holds. What several rules share is spread evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub rows: u64,
    pub kept: u64,
    pub refused: u64,
    pub failed: u64,
    pub null_entities: u64,
    pub findings: u64,
    pub state_bytes: u64,
    pub busy: Duration,
}

pub struct Teller {
    pub(super) rule: Arc<Rule>,
    pub(super) slots: Slots,
    pub(super) origin: Origin,
    open: BTreeMap<Entity, Open>,
    /// Provisional: the boundary at which each was announced.
    early: BTreeMap<Entity, i64>,
    /// Catch-ups to come: at which boundary, over which missed ones.
    pub(super) late: BTreeMap<i64, (i64, i64)>,
    pub(super) told: Vec<Told>,
    failed: Option<QueryError>,
    /// How often the next catch-up failed, and what was final when it last did.
    pub(super) late_failures: (u32, i64),
    pub(super) usage: Usage,
}

struct Open {
    run: Run,
    /// Its end when it was last told.
    told: Micros,
}

impl Teller {
    pub(super) fn new(rule: Arc<Rule>, origin: Origin) -> Teller {
        Teller {
            slots: Slots::of(rule.windowed().window),
            rule,
            origin,
            open: BTreeMap::new(),
            early: BTreeMap::new(),
            late: BTreeMap::new(),
            told: Vec::new(),
            failed: None,
            late_failures: (0, i64::MIN),
            usage: Usage::default(),
        }
    }

    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// What it said since this was last asked.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The last boundary, `last` or before it, behind which nothing is left to be told.
    pub(super) fn settled(&self, last: i64) -> i64 {
        self.late.first_key_value().map_or(last, |(at, _)| last.min(at - 1))
    }

    /// Why something of it could not be evaluated since this was last asked. The state went on.
    pub fn take_failure(&mut self) -> Option<QueryError> {
        self.failed.take()
    }

    pub(super) fn fail(&mut self, error: QueryError) {
        self.failed.get_or_insert(error);
    }

    /// What a store said was provisional when the process ended.
    pub fn expect(&mut self, entity: Entity, first: Micros) {
        self.early.insert(entity, self.slots.floor(first));
    }

    /// Rows that count as known from a boundary on were late for some before it.
    pub(super) fn note_late(&mut self, known: i64, (from, to): (i64, i64)) {
        let missed = self.late.entry(known).or_insert((from, to));
        *missed = (missed.0.min(from), missed.1.max(to));
    }

    /// What would hold ahead of the final boundary.
    pub(super) fn announce(&mut self, mut ahead: Vec<Ahead>) {
        ahead.sort_by(|a, b| (a.slot, &a.held.entity).cmp(&(b.slot, &b.held.entity)));
        for Ahead { slot, held } in ahead {
            if self.open.contains_key(&held.entity) || self.early.contains_key(&held.entity) {
                continue;
            }
            self.early.insert(held.entity.clone(), slot);
            self.told.push(Told::Provisional(Run::new(held, self.slots.boundary(slot))));
        }
    }

    /// A boundary is final.
    pub(super) fn apply(&mut self, slot: i64, changes: Changes) {
        let boundary = self.slots.boundary(slot);
        self.usage.null_entities += changes.null_entities;
        for held in changes.went_on {
            if let Some(open) = self.open.get_mut(&held.entity) {
                open.run.evidence.extend(held.evidence);
                open.run.evidence.sort();
                open.run.evidence.dedup();
            }
        }
        for entity in changes.ended {
            if let Some(Open { mut run, .. }) = self.open.remove(&entity) {
                run.last = self.slots.boundary(slot - 1);
                self.told.push(Told::Confirmed(run));
            }
        }
        for held in changes.began {
            self.settle(&held, slot);
            let run = Run::new(held, boundary);
            self.told.push(Told::Confirmed(run.clone()));
            self.usage.findings += 1;
            self.open.insert(run.entity.clone(), Open { run, told: boundary });
        }
    }

    /// A run begins where it was announced, or it was announced wrongly. What was announced for later may still come, when
    /// this run has ended before.
    fn settle(&mut self, held: &Held, slot: i64) {
        let Some(announced) = self.early.get(&held.entity).copied().filter(|announced| *announced <= slot) else {
            return;
        };
        if announced == slot {
            self.early.remove(&held.entity);
        } else {
            self.retract(&held.entity);
        }
    }

    /// What was announced for a boundary that is final now, and did not come. Says of which entities.
    pub(super) fn retract_what_did_not_come(&mut self, last: i64) -> Vec<Entity> {
        let is_gone = |slot: &i64| *slot <= last && !fault::is(Fault::NotRetracted);
        let gone: Vec<Entity> = self.early.iter().filter(|(_, slot)| is_gone(slot)).map(|(e, _)| e.clone()).collect();
        gone.iter().for_each(|entity| self.retract(entity));
        gone
    }

    fn retract(&mut self, entity: &Entity) {
        if let Some(slot) = self.early.remove(entity) {
            self.told.push(Told::Retracted { entity: entity.clone(), first: self.slots.boundary(slot) });
        }
    }

    /// The stream has ended: nothing more comes.
    pub(super) fn retract_all(&mut self) {
        let open: Vec<Entity> = self.early.keys().cloned().collect();
        open.iter().for_each(|entity| self.retract(entity));
    }

    /// A run that goes on is told again each window, so that its incident does not look quiet.
    pub(super) fn prolong(&mut self, last: i64) {
        let last = self.slots.boundary(last);
        let window = self.rule.windowed().window.window_us;
        for open in self.open.values_mut() {
            open.run.last = last;
            if last.saturating_sub(open.told) >= window {
                open.told = last;
                self.told.push(Told::Confirmed(open.run.clone()));
            }
        }
    }

    /// A range of time has been replayed: what still holds, as it stands.
    pub(super) fn tell_open(&mut self) {
        self.told.extend(self.open.values().map(|open| Told::Confirmed(open.run.clone())));
    }

    /// A run that is open began at or before `begun`.
    pub(super) fn has_open_since(&self, begun: Micros) -> bool {
        self.open.values().any(|open| open.run.first <= begun)
    }

    /// What was said up to `last` was said by an earlier process.
    pub(super) fn all_was_told(&mut self, last: i64) {
        self.told.clear();
        self.late.retain(|at, _| *at > last);
        self.usage.findings = 0;
        self.open.values_mut().for_each(|open| open.told = open.run.last);
    }
}
