//! What windowed rules told, as findings with their events.

use std::collections::BTreeSet;

use datafusion::execution::context::SessionContext;
use event::{Evidence, Finding, FindingTime, Micros, Origin, Standing};
use query::{QueryError, batch_table};

use super::{Engine, Output, count_findings};
use crate::evidence::{self, Wanted};
use crate::ident;
use crate::rule::{Rule, Windowed};
use crate::runs::Run;
use crate::value;
use crate::windows::{Live, Told};

/// Provisional findings of one call that get their events at once; the others get them when they are confirmed.
const EARLY_EVIDENCE_MAX: usize = 20;

impl Engine {
    /// What the rules of a state said since they were last asked, and whether they work.
    pub(super) async fn tell_all(
        &mut self,
        state: &mut Live,
        stored: &SessionContext,
        origin: Origin,
        output: &mut Output,
    ) {
        for teller in state.tellers() {
            let rule = teller.rule().clone();
            let (early, told) = teller.take_told().into_iter().partition(|told| matches!(told, Told::Provisional(_)));
            self.tell(stored, &rule, origin, told, output).await;
            self.tell_early(&rule, early, output).await;
            match teller.take_failure() {
                Some(error) => self.failed(&rule, &error.to_string()),
                None => self.recovered(&rule),
            }
        }
    }

    /// Likewise where nothing can have become final.
    pub(super) async fn tell_what_is_early(&mut self, state: &mut Live, output: &mut Output) {
        for teller in state.tellers() {
            let rule = teller.rule().clone();
            if let Some(error) = teller.take_failure() {
                self.failed(&rule, &error.to_string());
            }
            self.tell_early(&rule, teller.take_told(), output).await;
        }
    }

    /// Findings ahead of time. Their rows are not stored yet: the events are those at hand.
    pub(super) async fn tell_early(&mut self, rule: &Rule, told: Vec<Told>, output: &mut Output) {
        if told.is_empty() {
            return;
        }
        let recent = match self.recent_rows() {
            Ok(recent) => recent,
            Err(error) => return self.failed(rule, &error.to_string()),
        };
        let runs: Vec<Run> =
            told.into_iter().filter_map(|t| if let Told::Provisional(run) = t { Some(run) } else { None }).collect();
        let few = runs.len().min(EARLY_EVIDENCE_MAX).min(self.evidence_max);
        let wanted: Vec<Wanted<'_>> = runs[..few].iter().map(|run| Wanted { run, known: None }).collect();
        let mut evidence = self.evidence(&recent, rule, Origin::Live, &wanted).await.into_iter();
        for run in runs {
            let finding = self.finding(rule, Origin::Live, run, None, evidence.next());
            let finding = Finding { standing: Standing::Provisional, ..finding };
            self.provisional.insert(finding.id.clone(), finding.clone());
            count_findings(rule, 1);
            output.findings.push(finding);
        }
    }

    /// Turns what a rule told into findings.
    pub(super) async fn tell(
        &mut self,
        stored: &SessionContext,
        rule: &Rule,
        origin: Origin,
        told: Vec<Told>,
        output: &mut Output,
    ) {
        let told = last_words(told);
        let run_of = |told: &'_ Told| match told {
            Told::Confirmed(run) => Some((run.clone(), None)),
            Told::Late { run, known } => Some((run.clone(), Some(*known))),
            _ => None,
        };
        let runs: Vec<(Run, Option<Micros>)> = told.iter().filter_map(run_of).take(self.evidence_max).collect();
        let wanted: Vec<Wanted<'_>> = runs.iter().map(|(run, known)| Wanted { run, known: *known }).collect();
        let mut evidence = self.evidence(stored, rule, origin, &wanted).await.into_iter();
        for told in told {
            let finding = match told {
                Told::Confirmed(run) => {
                    let finding = self.finding(rule, origin, run, None, evidence.next());
                    if self.provisional.remove(&finding.id).is_none() && finding.time.first() == finding.time.last() {
                        count_findings(rule, 1);
                    }
                    finding
                }
                Told::Late { run, known } => {
                    count_findings(rule, 1);
                    Finding { late: true, ..self.finding(rule, origin, run, Some(known), evidence.next()) }
                }
                Told::Retracted { entity, first } => {
                    let id = ident::of_run(&rule.id, &entity, origin, first);
                    let Some(finding) = self.provisional.remove(&id) else { continue };
                    Finding { standing: Standing::Retracted, ..finding }
                }
                Told::Provisional(_) => continue,
            };
            output.findings.push(finding);
        }
    }

    /// Nothing where the events could not be read: a finding without them is better than none; the query is with it.
    async fn evidence(
        &self,
        rows: &SessionContext,
        rule: &Rule,
        origin: Origin,
        wanted: &[Wanted<'_>],
    ) -> Vec<Evidence> {
        evidence::of_runs(rows, rule, origin, wanted).await.unwrap_or_else(|error| {
            metrics::counter!("stakeout_evidence_errors_total", "rule" => rule.id.clone()).increment(1);
            tracing::error!(rule = %rule.id, error = %error.strip_backtrace(), "evidence could not be read");
            Vec::new()
        })
    }

    fn finding(
        &self,
        rule: &Rule,
        origin: Origin,
        run: Run,
        known: Option<Micros>,
        evidence: Option<Evidence>,
    ) -> Finding {
        let Windowed { window, evidence: source, .. } = rule.windowed();
        let mut evidence = evidence.unwrap_or_else(|| Evidence {
            query: evidence::run_query(rule, *window, source, &run, origin, known),
            ..Evidence::default()
        });
        if !run.evidence.is_empty() {
            evidence.count = run.evidence.len() as u64;
        }
        let id = match known {
            None => ident::of_run(&rule.id, &run.entity, origin, run.first),
            Some(_) => ident::of_late_run(&rule.id, &run.entity, origin, run.first),
        };
        Finding {
            id,
            rule: rule.id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            attack: rule.attack.clone(),
            time: FindingTime::Run {
                first: run.first,
                last: run.last,
                window_us: window.window_us,
                every_us: window.every_us,
            },
            origin,
            tables: rule.tables.clone(),
            summary: value::fill(&rule.summary, &run.values),
            triage: rule.triage.clone(),
            entity: run.entity,
            values: run.values,
            evidence,
            suppress_us: rule.suppress_us,
            rule_version: rule.version.clone(),
            bundle: self.rules.bundle.clone(),
            standing: Standing::Confirmed,
            late: false,
            learning: false,
            historical: false,
        }
    }

    /// Tables over what was admitted and may not be stored yet.
    fn recent_rows(&self) -> Result<SessionContext, QueryError> {
        let ctx = query::fork(&self.rules.base);
        let schemas = &self.rules.schemas;
        let rows = |name: &str| {
            let batches = self.recent.iter().flat_map(|r| &r.batches).filter(|b| &*b.table == name);
            let schema = schemas.iter().find(|s| s.name == name).expect("asked for the schemas given").arrow();
            batch_table(schema, batches.map(|b| b.rows.clone()).collect())
        };
        query::register_tables(&ctx, schemas, &rows)?;
        Ok(ctx)
    }
}

/// A run that began and ended within one call is told once, as it ended.
fn last_words(told: Vec<Told>) -> Vec<Told> {
    let mut seen = BTreeSet::new();
    let mut last: Vec<Told> = Vec::with_capacity(told.len());
    for told in told.into_iter().rev() {
        let again = match &told {
            Told::Confirmed(run) => !seen.insert((run.entity.clone(), run.first)),
            _ => false,
        };
        if !again {
            last.push(told);
        }
    }
    last.reverse();
    last
}
