//! Counted distinct values: of each, the runs of boundaries at which any of its rows is seen.

use ahash::RandomState;
use hashbrown::hash_map::{Entry, HashMap};

use super::groups::Group;
use crate::fault::{self, Fault};

/// Values that are no longer seen by any boundary are swept out when so many more have come.
const SWEEP_MIN: usize = 4_096;

/// First and last boundary.
pub type Run = (i32, i32);

pub struct Distinct {
    /// Two independent hashes: 128 keyed bits stand for group, lane and value.
    hashers: (RandomState, RandomState),
    /// The latest run of each.
    values: HashMap<u128, Run, RandomState>,
    /// Earlier runs of a value that has several.
    earlier: HashMap<u128, Vec<Run>, RandomState>,
    sweep_at: usize,
}

/// What a run did to those of its value.
pub enum Joined {
    Nothing,
    New,
    /// One that ended behind `from` ends behind `to`.
    Longer {
        from: i32,
        to: i32,
    },
    /// Those it met are one.
    Among {
        met: Vec<Run>,
        joined: Run,
    },
}

impl Distinct {
    pub fn new() -> Distinct {
        Distinct {
            hashers: (RandomState::new(), RandomState::new()),
            values: HashMap::with_hasher(RandomState::new()),
            earlier: HashMap::with_hasher(RandomState::new()),
            sweep_at: SWEEP_MIN,
        }
    }

    fn id(&self, (group, lane): (Group, usize), value: &[u8]) -> u128 {
        let group = if fault::is(Fault::ValueOfAnyGroup) { 0 } else { group };
        let of = |hasher: &RandomState| hasher.hash_one((group, lane as u32, value));
        (u128::from(of(&self.hashers.0)) << 64) | u128::from(of(&self.hashers.1))
    }

    /// A value in a lane of a group is seen by a run of boundaries. `now` is the final one.
    pub fn add(&mut self, place: (Group, usize), value: &[u8], run: Run, now: i32) -> Joined {
        let id = self.id(place, value);
        let mut have = match self.values.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(run);
                return Joined::New;
            }
            Entry::Occupied(have) => have,
        };
        let (first, last) = *have.get();
        if first <= run.0 && run.1 <= last {
            return Joined::Nothing;
        }
        let several = self.earlier.contains_key(&id);
        if last <= now && !several {
            // Long gone: no boundary ahead sees it.
            have.insert(run);
            return Joined::New;
        }
        if !several && first <= run.0 && run.0 <= last + 1 {
            if fault::is(Fault::DistinctNotProlonged) {
                return Joined::Nothing;
            }
            have.insert((first, run.1));
            return Joined::Longer { from: last, to: run.1 };
        }
        self.add_among(id, run, now)
    }

    /// The general case: all runs of a value, those that meet the new one joined with it.
    fn add_among(&mut self, id: u128, run: Run, now: i32) -> Joined {
        let mut runs = self.earlier.remove(&id).unwrap_or_default();
        runs.extend(self.values.remove(&id));
        runs.retain(|(_, last)| *last > now);
        let meets = |a: &Run| a.0 <= run.1 + 1 && run.0 <= a.1 + 1;
        let (met, mut apart): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(meets);
        let joined = met.iter().fold(run, |j, m| (j.0.min(m.0), j.1.max(m.1)));
        apart.push(joined);
        apart.sort_unstable();
        let latest = apart.pop().expect("at least the new run");
        self.values.insert(id, latest);
        if !apart.is_empty() {
            self.earlier.insert(id, apart);
        }
        Joined::Among { met, joined }
    }

    /// Forgets what no boundary behind `now` sees, if there may be much of it.
    pub fn sweep(&mut self, now: i32) {
        if self.values.len() < self.sweep_at {
            return;
        }
        self.values.retain(|_, (_, last)| *last > now);
        let values = &self.values;
        self.earlier.retain(|id, runs| {
            runs.retain(|(_, last)| *last > now);
            !runs.is_empty() && values.contains_key(id)
        });
        self.sweep_at = (self.values.len() * 2).max(SWEEP_MIN);
        if self.values.capacity() > 4 * self.sweep_at {
            self.values.shrink_to(self.sweep_at);
        }
    }

    pub fn bytes(&self) -> usize {
        self.values.capacity() * (size_of::<(u128, Run)>() + 1) + self.earlier.len() * 64
    }
}
