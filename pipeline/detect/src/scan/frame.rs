//! One batch under way: which values its columns have, and what is known of the conditions so far.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{filter, filter_record_batch, take};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result};
use foldhash::fast::RandomState;

use super::codes::{Codes, NONE};
use super::condition::{Kind, Node};
use super::expr::{Expr, Local};
use super::fault::{Fault, injected};
use super::outcome::{self, ANY, FALSE, NULL, Outcomes, TRUE, UNKNOWN};
use super::{Plan, Rows, TableScan};
use crate::program::{compute, truth};

pub struct Frame<'a> {
    scan: &'a TableScan,
    pub batch: &'a RecordBatch,
    pub state: &'a RandomState,
    /// By column, as far as they were asked for.
    pub codes: Vec<Option<Codes>>,
    /// Outcomes of atoms by code, as far as they were asked for; empty before.
    by_code: Vec<Vec<Outcomes>>,
    /// Outcomes of conditions by row, likewise; only of those that several rules have.
    by_row: Vec<Vec<Outcomes>>,
}

impl<'a> Frame<'a> {
    pub fn new(scan: &'a TableScan, batch: &'a RecordBatch, state: &'a RandomState) -> Frame<'a> {
        Frame {
            scan,
            batch,
            state,
            codes: scan.fields.iter().map(|_| None).collect(),
            by_code: vec![Vec::new(); scan.conditions.atoms.len()],
            by_row: vec![Vec::new(); scan.conditions.all.len()],
        }
    }

    pub fn count(&self) -> usize {
        self.batch.num_rows()
    }

    pub fn all_rows(&self) -> Vec<u32> {
        (0..self.count() as u32).collect()
    }

    /// Finds the codes of a stored column.
    pub fn find_codes(&mut self, column: usize) -> Result<()> {
        if self.codes[column].is_none() {
            self.codes[column] = Some(Codes::of(self.batch.column(column), self.state)?);
        }
        Ok(())
    }

    /// Computes columns from `raw` for some rows.
    pub fn compute(&mut self, columns: &[usize], rows: &[u32]) -> Result<()> {
        let Some(json) = self.scan.json.as_ref().filter(|_| !columns.is_empty()) else { return Ok(()) };
        let raw = self.batch.column(json.raw).as_string_view();
        for (column, values) in columns.iter().zip(json.compute(raw, rows, columns)?) {
            let codes = Codes::of(&values, self.state)?;
            let all = rows.len() == self.count();
            self.codes[*column] = Some(if all { codes } else { codes.spread(rows, self.count()) });
        }
        Ok(())
    }

    /// Drops rows for which a condition cannot be true. Leaves `certain` if the rows left satisfy them all.
    pub fn refine(&mut self, conditions: &[usize], rows: &mut Vec<u32>, certain: &mut bool) {
        for condition in conditions {
            if rows.is_empty() {
                return;
            }
            let outcomes = self.outcomes(*condition, rows);
            let mut outcomes = outcomes.into_iter();
            rows.retain(|_| {
                let outcome = outcomes.next().expect("an outcome for each row");
                let kept = outcome::may_be_true(outcome);
                *certain &= !kept || outcome == TRUE || injected(Fault::CertainTooEarly);
                kept
            });
        }
    }

    fn outcomes(&mut self, condition: usize, rows: &[u32]) -> Vec<Outcomes> {
        let scan = self.scan;
        let shared = scan.conditions.all[condition].uses > 1;
        match &scan.conditions.all[condition].kind {
            Kind::Atom(atom) => self.atom(*atom, rows),
            Kind::Tree(node) if shared => self.by_row(condition, rows, |frame, rows| frame.node(node, rows)),
            Kind::Tree(node) => self.node(node, rows),
            Kind::Rows(local) if shared => {
                self.by_row(condition, rows, |frame, rows| frame.kernel(local, &local.exprs[0], rows))
            }
            // Computing it here would only do the rule's own work before it.
            Kind::Rows(_) | Kind::Open => vec![ANY; rows.len()],
        }
    }

    fn by_row(
        &mut self,
        condition: usize,
        rows: &[u32],
        find: impl FnOnce(&mut Self, &[u32]) -> Vec<Outcomes>,
    ) -> Vec<Outcomes> {
        let mut known = std::mem::take(&mut self.by_row[condition]);
        known.resize(self.count(), UNKNOWN);
        let missing: Vec<u32> = rows.iter().copied().filter(|row| known[*row as usize] == UNKNOWN).collect();
        if !missing.is_empty() {
            for (row, outcome) in missing.iter().zip(find(self, &missing)) {
                known[*row as usize] = outcome;
            }
        }
        let outcomes = rows.iter().map(|row| known[*row as usize]).collect();
        self.by_row[condition] = known;
        outcomes
    }

    fn node(&mut self, node: &Node, rows: &[u32]) -> Vec<Outcomes> {
        match node {
            Node::Constant(outcome) => vec![*outcome; rows.len()],
            Node::Atom(atom) => self.atom(*atom, rows),
            Node::Not(inner) => self.node(inner, rows).into_iter().map(outcome::not).collect(),
            Node::Is { inner, what, negated } => {
                self.node(inner, rows).into_iter().map(|o| outcome::is(o, *what, *negated)).collect()
            }
            Node::All(parts) => self.join(parts, rows, outcome::and),
            Node::Any(parts) if injected(Fault::NullDecides) => {
                self.join(parts, rows, |a, b| if (a | b) & NULL > 0 { NULL } else { outcome::or(a, b) })
            }
            Node::Any(parts) => self.join(parts, rows, outcome::or),
        }
    }

    fn join(&mut self, parts: &[Node], rows: &[u32], join: impl Fn(Outcomes, Outcomes) -> Outcomes) -> Vec<Outcomes> {
        let (first, rest) = parts.split_first().expect("a chain has parts");
        let mut outcomes = self.node(first, rows);
        for part in rest {
            let of_part = self.node(part, rows);
            outcomes.iter_mut().zip(of_part).for_each(|(o, p)| *o = join(*o, p));
        }
        outcomes
    }

    fn atom(&mut self, atom: usize, rows: &[u32]) -> Vec<Outcomes> {
        let of = &self.scan.conditions.atoms[atom];
        if of.column < self.scan.stored && self.find_codes(of.column).is_err() {
            return vec![ANY; rows.len()];
        }
        let mut known = std::mem::take(&mut self.by_code[atom]);
        let codes = self.codes[of.column].as_ref().expect("computed columns come before conditions on them");
        known.resize(codes.len(), UNKNOWN);
        let mut missing = Vec::new();
        for row in rows {
            let code = codes.of_row[*row as usize];
            debug_assert_ne!(code, NONE, "a column was not computed for a row that needs it");
            let outcome = &mut known[code as usize];
            if *outcome == UNKNOWN {
                *outcome = ANY;
                missing.push(code);
            }
        }
        match &of.test {
            Some(test) => {
                for code in missing {
                    known[code as usize] = test.ask(&codes.values, code as usize).unwrap_or(ANY);
                }
            }
            None if !missing.is_empty() => {
                let values = chosen(&codes.values, &missing);
                let outcomes = values.and_then(|v| evaluate(&of.local, &of.local.exprs[0], vec![v], missing.len()));
                for (code, outcome) in missing.iter().zip(or_any(outcomes, missing.len())) {
                    known[*code as usize] = outcome;
                }
            }
            None => {}
        }
        let outcomes = rows.iter().map(|row| known[codes.of_row[*row as usize] as usize]).collect();
        self.by_code[atom] = known;
        outcomes
    }

    fn kernel(&mut self, local: &Local, expr: &Expr, rows: &[u32]) -> Vec<Outcomes> {
        let columns = self.columns(&local.inputs, rows);
        let outcomes = columns.and_then(|columns| evaluate(local, expr, columns, rows.len()));
        or_any(outcomes, rows.len())
    }

    /// The rows that pass the rule's own filter, and its output. With `certain`, all are known to pass.
    pub fn finish(&self, plan: &Plan, rows: Vec<u32>, certain: bool) -> Rows {
        if rows.is_empty() {
            return Rows::Passed(rows, None);
        }
        match self.try_finish(plan, &rows, certain) {
            Ok((passed, output)) => Rows::Passed(passed.unwrap_or(rows), output),
            Err(error) => Rows::Failed(rows, error),
        }
    }

    fn try_finish(&self, plan: &Plan, rows: &[u32], certain: bool) -> Result<(Option<Vec<u32>>, Option<RecordBatch>)> {
        let passed = if certain { None } else { Some(self.filter(&plan.keeps, rows)?) };
        let rows = passed.as_deref().unwrap_or(rows);
        let Some((local, schema)) = plan.output.as_ref().filter(|_| !rows.is_empty()) else {
            return Ok((passed, None));
        };
        let input = local_batch(local, self.columns(&local.inputs, rows)?, rows.len())?;
        let output = compute(&local.exprs, schema, &input)?;
        Ok((passed, Some(output)))
    }

    fn filter(&self, keeps: &Local, rows: &[u32]) -> Result<Vec<u32>> {
        let mut batch = local_batch(keeps, self.columns(&keeps.inputs, rows)?, rows.len())?;
        let mut passed = UInt32Array::from(rows.to_vec());
        for keep in &keeps.exprs {
            let keep = truth(keep.as_ref(), &batch)?;
            batch = filter_record_batch(&batch, &keep)?;
            passed = filter(&passed, &keep)?.as_primitive::<UInt32Type>().clone();
        }
        Ok(passed.values().to_vec())
    }

    /// Columns, stored and computed, of some rows.
    fn columns(&self, columns: &[usize], rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let places = UInt32Array::from(rows.to_vec());
        let column = |column: &usize| match &self.codes[*column] {
            Some(codes) if *column >= self.scan.stored => {
                let codes_of_rows = rows.iter().map(|row| codes.of_row[*row as usize]);
                Ok(take(&codes.values, &UInt32Array::from_iter_values(codes_of_rows), None)?)
            }
            None if *column >= self.scan.stored => {
                Err(DataFusionError::Internal("a column of raw was not computed".to_owned()))
            }
            _ if rows.len() == self.count() => Ok(self.batch.column(*column).clone()),
            _ => Ok(take(self.batch.column(*column), &places, None)?),
        };
        columns.iter().map(column).collect()
    }
}

/// The values of some codes, all different.
fn chosen(values: &ArrayRef, codes: &[u32]) -> Result<ArrayRef> {
    match codes.len() == values.len() {
        // All of them, in whatever order: it is ascending when they were met in rows' order.
        true if codes.is_sorted() => Ok(values.clone()),
        _ => Ok(take(values, &UInt32Array::from(codes.to_vec()), None)?),
    }
}

fn local_batch(local: &Local, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(local.schema.clone(), columns, &options)?)
}

fn evaluate(local: &Local, expr: &Expr, columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<Outcomes>> {
    let answer = expr.evaluate(&local_batch(local, columns, rows)?)?.into_array(rows)?;
    let answer = answer
        .as_boolean_opt()
        .ok_or_else(|| DataFusionError::Execution("the condition is not true or false".to_owned()))?;
    let outcome = |row: usize| match (answer.is_null(row), answer.value(row)) {
        (true, _) => NULL,
        (false, true) => TRUE,
        (false, false) => FALSE,
    };
    Ok((0..rows).map(outcome).collect())
}

/// What failed may come to anything; the rules that ask for it will see.
fn or_any(outcomes: Result<Vec<Outcomes>>, rows: usize) -> Vec<Outcomes> {
    let instead = if injected(Fault::FailedIsFalse) { FALSE } else { ANY };
    outcomes.unwrap_or_else(|_| vec![instead; rows])
}
