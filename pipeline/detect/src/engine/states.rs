//! The states of windowed rules: begun, taken up at a start, kept over a reload, and made anew where they have a gap.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::execution::context::SessionContext;
use event::{Finding, Micros, Offsets, Origin};
use query::QueryError;

use super::{Engine, FAILURES_MAX, Output, admit};
use crate::error::DetectError;
use crate::memory::States;
use crate::rule::Rule;
use crate::ruleset::RuleSet;
use crate::windows::{self, Choices, Live};

impl Engine {
    /// States of windowed rules that are what they were `before` go on; those of the others are to be made anew.
    pub(super) fn keep_what_stands(&mut self, before: &RuleSet) {
        let Some(live) = &mut self.live else { return };
        let (rules, same_world) = (&self.rules, before.context == self.rules.context);
        let stands = |rule: &Rule| {
            let states = rule.windowed().states.iter().map(|s| s.version.clone());
            std::iter::once(rule.version.clone()).chain(states).collect::<Vec<_>>()
        };
        let stays = |before: &Rule| {
            let now = rules.get(&before.id).filter(|rule| rule.window.is_some());
            same_world && now.is_some_and(|rule| stands(rule) == stands(before))
        };
        let states = std::mem::take(live).into_values();
        let states = states.filter_map(|mut state| state.retain(stays).then_some(state));
        live.extend(states.map(|state| (state.first().id.clone(), state)));
        let kept: BTreeSet<&str> = live.values().flat_map(Live::rules).map(|rule| rule.id.as_str()).collect();
        let rebuilt = rules.rules.iter().filter(|r| r.window.is_some() && !kept.contains(r.id.as_str()));
        self.broken.extend(rebuilt.map(|r| (r.id.clone(), 0)));
    }

    /// It has a gap: what it says is worth nothing until it has been made anew.
    pub(super) fn is_broken(&self, state: &Live) -> bool {
        state.rules().any(|rule| self.broken.contains_key(&rule.id))
    }

    /// States without a past: nothing was admitted before.
    pub(super) async fn begin(&mut self) -> Result<(), DetectError> {
        let mut live = BTreeMap::new();
        let windowed = self.rules.rules.iter().filter(|r| r.window.is_some());
        for (rules, start) in windows::families(windowed.map(|rule| (rule, self.start_of(rule)))) {
            let mut state = Live::new(&self.rules.base, &rules, Origin::Live).await?;
            if start != Micros::MIN {
                state.begin(start);
            }
            live.insert(state.first().id.clone(), state);
        }
        self.live = Some(live);
        Ok(())
    }

    /// The last boundary of a windowed rule that was final.
    fn start_of(&self, rule: &Rule) -> Micros {
        self.frontier.boundaries.get(&rule.id).copied().unwrap_or(Micros::MIN)
    }

    /// States as if the process had never stopped: a function of the stored rows and the frontier.
    pub(super) async fn restore(&mut self, stored: &SessionContext, output: &mut Output) -> Result<(), DetectError> {
        let (remembering, windowed) =
            std::mem::take(&mut self.provisional).into_iter().partition(|(_, f)| self.remembers(&f.rule));
        self.provisional = windowed;
        let remembering: BTreeMap<String, Finding> = remembering;
        let report = self.memory.rebuild(remembering.into_values().collect(), stored, &self.committed.1).await;
        self.take(report, output);
        self.begin().await?;
        let Some(mut live) = self.live.take() else { return Ok(()) };
        let boundaries = &self.frontier.boundaries;
        let outcomes = {
            let states = States::of(&self.memory, stored);
            windows::restore(&mut live, boundaries, &self.rules.schemas, &states, &self.rules.base).await
        };
        for (id, outcome) in outcomes {
            let Some(state) = live.get_mut(&id) else { continue };
            if let Some(error) = outcome {
                for rule in state.rules() {
                    self.failed(rule, &error.to_string());
                    self.broken.insert(rule.id.clone(), 1);
                }
                continue;
            }
            self.remember_provisional(state);
            // A new rule may hold at once.
            state.watch_all(&self.memory);
            state.look_ahead(&self.memory).await;
            self.tell_what_is_early(state, output).await;
        }
        self.live = Some(live);
        self.retract_of_rules_that_are_gone(output);
        Ok(())
    }

    /// Rebuilds states that have a gap: stored rows up to the commit, then what was admitted after it.
    pub(super) async fn mend(&mut self, stored: &SessionContext, offsets: &Offsets) -> Result<(), DetectError> {
        let broken = std::mem::take(&mut self.broken);
        let failures = |rule: &Rule| broken.get(&rule.id).copied().unwrap_or_default();
        let windowed = broken.keys().filter_map(|id| self.rules.get(id)).filter(|rule| rule.window.is_some());
        for (rules, start) in windows::families(windowed.map(|rule| (rule, self.start_of(rule)))) {
            let failed = rules.iter().map(|rule| failures(rule)).max().unwrap_or_default();
            let mut state = Live::new(&self.rules.base, &rules, Origin::Live).await?;
            let mended = async {
                let states = States::of(&self.memory, stored);
                // Those that always fail would keep it from ever working again.
                let skips = failed >= FAILURES_MAX;
                state.rebuild(&states, &self.rules.base, start, Some(offsets), skips).await?;
                for recent in &self.recent {
                    let mut choices: Vec<Choices> = recent.batches.iter().map(|_| Choices::all()).collect();
                    admit(&mut state, &recent.batches, &mut choices)?;
                }
                Ok::<_, QueryError>(())
            };
            match mended.await {
                Ok(()) => {
                    self.remember_provisional(&mut state);
                    state.watch_all(&self.memory);
                    rules.iter().for_each(|rule| self.recovered(rule));
                }
                Err(error) => {
                    for rule in &rules {
                        self.failed(rule, &error.to_string());
                        self.broken.insert(rule.id.clone(), failed + 1);
                    }
                }
            }
            if let Some(live) = &mut self.live {
                // What is broken is so with all that it shares panes with.
                live.retain(|_, other| !other.rules().any(|rule| rules.iter().any(|r| r.id == rule.id)));
                live.insert(state.first().id.clone(), state);
            }
        }
        Ok(())
    }

    fn remember_provisional(&self, state: &mut Live) {
        for teller in state.tellers() {
            let id = teller.rule().id.clone();
            for finding in self.provisional.values().filter(|f| f.rule == id) {
                teller.expect(finding.entity.clone(), finding.time.first());
            }
        }
    }
}
