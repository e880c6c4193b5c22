//! All single-event rules of a set over one batch: one scan picks the rules that the batch touches and their rows.
//! The verdicts are those of [`single::evaluate`], rule by rule, but that a row may be spared an expression that
//! would have failed for it (see [`crate::scan`]).

use std::sync::Arc;
use std::time::Instant;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use crate::cost::{Costs, RuleCost};
use crate::program::{Program, Selected};
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use crate::scan::{Answer, Question, Rows, Scan};
use crate::single::{self, Verdict};

pub struct Singles {
    /// The keys of the scan are positions here.
    rules: Vec<(Arc<Rule>, Arc<Program>)>,
    scan: Scan,
    /// Rules and tables that the scan does not know; these are evaluated one by one.
    aside: Vec<(usize, String)>,
    costs: Costs,
}

impl Singles {
    pub fn new(set: &RuleSet) -> Singles {
        let single = |rule: &Arc<Rule>| match &rule.body {
            Body::Single(program) => Some((rule.clone(), program.clone())),
            _ => None,
        };
        let rules: Vec<_> = set.rules.iter().filter_map(single).collect();
        let mut questions = Vec::new();
        let mut aside = Vec::new();
        for (key, (_, program)) in rules.iter().enumerate() {
            for (table, direct) in program.parts() {
                match direct.cloned() {
                    Some(direct) => questions.push(Question {
                        key: key as u32,
                        table: table.to_owned(),
                        keeps: direct.keeps,
                        output: Some(direct.output),
                    }),
                    None => aside.push((key, table.to_owned())),
                }
            }
        }
        let scan = Scan::new(&questions, &set.schemas);
        aside.extend(scan.refused.iter().map(|(key, table)| (*key as usize, table.clone())));
        let tables = |program: &Program| program.parts().map(|(table, _)| table.to_owned()).collect();
        let costs = Costs::new(rules.iter().map(|(rule, program)| (rule.id.clone(), tables(program))).collect());
        Singles { rules, scan, aside, costs }
    }

    /// The verdicts of the rules that `batch`, rows of `table`, touches, in the order of the set. The others found
    /// nothing and failed for nothing.
    pub fn evaluate(&mut self, bundle: &str, table: &str, batch: &RecordBatch) -> Vec<(Arc<Rule>, Verdict)> {
        let mut verdicts = Vec::new();
        for answer in self.scan.run(table, batch) {
            let key = answer.key as usize;
            let (candidates, nanos) = (answer.candidates, answer.nanos);
            let started = Instant::now();
            let verdict = self.verdict(answer, bundle, table, batch);
            let nanos = nanos + started.elapsed().as_nanos() as u64;
            self.costs.spend(key, candidates, verdict.findings.len() as u64, nanos);
            verdicts.push((key, verdict));
        }
        for (key, _) in self.aside.iter().filter(|(_, of)| of == table) {
            let (rule, program) = &self.rules[*key];
            let started = Instant::now();
            let verdict = single::evaluate(rule, program, bundle, table, batch);
            let nanos = started.elapsed().as_nanos() as u64;
            self.costs.spend(*key, batch.num_rows() as u64, verdict.findings.len() as u64, nanos);
            verdicts.push((*key, verdict));
        }
        self.costs.see(table, batch.num_rows() as u64, Instant::now());
        verdicts.sort_by_key(|(key, _)| *key);
        verdicts.into_iter().map(|(key, verdict)| (self.rules[key].0.clone(), verdict)).collect()
    }

    fn verdict(&self, answer: Answer, bundle: &str, table: &str, batch: &RecordBatch) -> Verdict {
        let (rule, program) = &self.rules[answer.key as usize];
        let candidates = match answer.rows {
            Rows::Passed(from, Some(rows)) => {
                let selected = Selected { rows, from: from.clone() };
                match single::judge(rule, bundle, table, batch, selected) {
                    Ok(verdict) => return verdict,
                    Err(_) => from,
                }
            }
            Rows::Passed(..) => return Verdict::default(),
            Rows::Failed(candidates, _) => candidates,
        };
        // Which rows are at fault is found among those that could pass.
        match take_record_batch(batch, &UInt32Array::from(candidates)) {
            Ok(rows) => single::evaluate(rule, program, bundle, table, &rows),
            Err(_) => single::evaluate(rule, program, bundle, table, batch),
        }
    }

    /// Rows that all rules together return, without what is made of them. `None` if there is a rule that the scan does
    /// not know, or that fails.
    pub fn count(&self, table: &str, batch: &RecordBatch) -> Option<usize> {
        let rows = |answer: &Answer| match &answer.rows {
            Rows::Passed(rows, _) => Some(rows.len()),
            Rows::Failed(..) => None,
        };
        let known = !self.aside.iter().any(|(_, of)| of == table);
        known.then(|| self.scan.run(table, batch).iter().map(rows).sum())?
    }

    /// Pairs of rule and table that the scan does not know.
    #[cfg(test)]
    pub fn aside(&self) -> usize {
        self.aside.len()
    }

    pub fn costs(&self) -> Vec<RuleCost> {
        self.costs.all()
    }
}
