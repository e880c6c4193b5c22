//! Many questions to one batch at once. A question is a filter over a table's rows, with or without a projection of
//! those that pass; single-event rules are such questions, and so are the filters of windowed rules.
//!
//! A batch is read once for all of them:
//!
//! 1. The distinct values of each column that matters are found (`codes`).
//! 2. They are looked up in an index of what each question needs (`need`, `index`). A question that the batch does
//!    not touch costs nothing; one that it touches starts from the rows of its rarest need.
//! 3. The question's conditions are taken apart (`condition`). What looks at one column is computed once per distinct
//!    value, and once for all questions that have it; rows for which the whole cannot come to true are dropped.
//! 4. Paths into `raw` are followed once per row, for the rows that some question still needs (`json`).
//! 5. Where the conditions leave doubt, the question's own filter decides; then its projection is computed.
//!
//! Sound by construction: until step 5 a condition is a set of possible outcomes (`outcome`), and what was not
//! computed, not understood or failed may come to anything. A value on which an expression fails thus fails the
//! questions that ask for it in step 5, and no others. Because rows are dropped before that, an expression may be
//! spared a value that would fail it when every row is computed: a question can fail for fewer rows than its plain
//! evaluation, and never answers with fewer.

mod codes;
mod condition;
mod expr;
mod fault;
mod frame;
mod index;
mod json;
mod need;
mod outcome;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use event::{TableSchema, column};
use foldhash::fast::RandomState;

use crate::program::{compute, truth};
use condition::{Conditions, Kind, Table};
use expr::Local;
use frame::Frame;
use index::Index;
use json::Json;
use need::{Columns, Rank};

pub use expr::{Expr, is_plain, replace};

/// Names a question; the caller's.
pub type RuleKey = u32;

/// Terms that a rule is looked up by. More cost lookups and rule out little.
const TERMS_MAX: usize = 6;

/// Rows of one table that satisfy all of `keeps`, expressions over the table's full schema of kinds that [`is_plain`]
/// knows. With `output`, what it makes of them.
pub struct Question {
    pub key: RuleKey,
    pub table: String,
    pub keeps: Vec<Expr>,
    pub output: Option<Projection>,
}

#[derive(Clone, Debug)]
pub struct Projection {
    pub exprs: Vec<Expr>,
    pub schema: SchemaRef,
}

/// What a batch that touches a question gave.
#[derive(Debug)]
pub struct Answer {
    pub key: RuleKey,
    pub rows: Rows,
    /// Rows that the shared conditions left to the question itself.
    pub candidates: u64,
    /// Spent on this question alone.
    pub nanos: u64,
}

#[derive(Debug)]
pub enum Rows {
    /// The positions of the rows that pass, ascending, and the projection of these.
    Passed(Vec<u32>, Option<RecordBatch>),
    /// One of the question's own expressions failed. No other row of the batch can pass.
    #[allow(dead_code, reason = "the reason is for callers that have no other way to find it")]
    Failed(Vec<u32>, DataFusionError),
}

/// Questions by table. Built once, run for every batch.
#[derive(Default)]
pub struct Scan {
    tables: Vec<TableScan>,
    /// Questions that could not be taken in: whoever asked must evaluate them in another way.
    pub refused: Vec<(RuleKey, String)>,
    state: RandomState,
}

pub(crate) struct TableScan {
    name: String,
    /// The stored columns, then those that are computed from `raw`.
    fields: Vec<Field>,
    stored: usize,
    json: Option<Json>,
    conditions: Conditions,
    index: Index,
    rules: Vec<Plan>,
    /// Computed columns that rules are looked up by, hence computed for every row.
    eager: Vec<usize>,
}

struct Plan {
    key: RuleKey,
    /// Is looked up; else it starts from every row.
    indexed: bool,
    /// Conditions over stored columns, cheap ones first.
    early: Vec<usize>,
    /// Conditions that need computed columns too.
    late: Vec<usize>,
    /// Computed columns that it needs at all.
    computed: Vec<usize>,
    keeps: Local,
    output: Option<(Local, SchemaRef)>,
}

impl Scan {
    pub fn new(questions: &[Question], schemas: &[Arc<TableSchema>]) -> Scan {
        let mut scan = Scan::default();
        for schema in schemas {
            let of_table: Vec<&Question> = questions.iter().filter(|q| q.table == schema.name).collect();
            if of_table.is_empty() {
                continue;
            }
            let mut refused = Vec::new();
            match TableScan::new(schema, &of_table, &scan.state, &mut refused) {
                Ok(table) => scan.tables.push(table),
                Err(_) => refused = of_table.iter().map(|q| q.key).collect(),
            }
            scan.refused.extend(refused.into_iter().map(|key| (key, schema.name.clone())));
        }
        scan
    }

    /// The answers of the questions that `batch`, rows of `table` with its full schema, touches, in the order in
    /// which the questions were given. The others have no rows here.
    pub fn run(&self, table: &str, batch: &RecordBatch) -> Vec<Answer> {
        match self.tables.iter().find(|t| t.name == table) {
            Some(scan) if batch.num_rows() > 0 => scan.run(batch, &self.state),
            _ => Vec::new(),
        }
    }
}

impl TableScan {
    fn new(
        schema: &TableSchema,
        questions: &[&Question],
        state: &RandomState,
        refused: &mut Vec<RuleKey>,
    ) -> Result<TableScan> {
        let arrow = schema.arrow();
        let mut fields: Vec<Field> = arrow.fields().iter().map(|f| f.as_ref().clone()).collect();
        let stored = fields.len();
        let raw = arrow.index_of(column::RAW).ok().filter(|raw| fields[*raw].data_type() == &DataType::Utf8View);
        let mut json = raw.map(|raw| Json::new(raw, stored));
        let mut rewritten = Vec::with_capacity(questions.len());
        for question in questions {
            match rewrite(question, &mut json) {
                Ok(question) => rewritten.push(question),
                Err(_) => refused.push(question.key),
            }
        }
        fields.extend(json.iter().flat_map(Json::fields).cloned());
        let mut scan = TableScan {
            name: schema.name.clone(),
            fields,
            stored,
            json,
            conditions: Conditions::default(),
            index: Index::default(),
            rules: Vec::new(),
            eager: Vec::new(),
        };
        for question in rewritten {
            if scan.add(&question).is_err() {
                refused.push(question.key);
            }
        }
        scan.index.finish(state)?;
        scan.eager = scan.index.columns().filter(|c| *c >= stored).collect();
        Ok(scan)
    }

    fn add(&mut self, question: &Question) -> Result<()> {
        let parts: Vec<Expr> = question.keeps.iter().flat_map(|k| expr::arms(k, Operator::And)).collect();
        let keeps = Local::of(&question.keeps, &self.fields)?;
        let output = match &question.output {
            Some(output) => Some((Local::of(&output.exprs, &self.fields)?, output.schema.clone())),
            None => None,
        };
        try_on_nothing(&keeps, output.as_ref())?;
        let table = Table { fields: &self.fields, computed: self.stored };
        let mut conditions = Vec::with_capacity(parts.len());
        for part in &parts {
            conditions.push(self.conditions.add(part, table)?);
        }
        conditions.sort_by_key(|c| self.effort(*c));
        conditions.dedup();
        let (late, early) = conditions.into_iter().partition(|c| self.conditions.all[*c].computed);
        let inputs = keeps.inputs.iter().chain(output.iter().flat_map(|(local, _)| &local.inputs));
        let mut computed: Vec<usize> = inputs.copied().filter(|c| *c >= self.stored).collect();
        computed.sort_unstable();
        computed.dedup();
        let terms = self.terms(&parts);
        let indexed = !terms.is_empty();
        self.index.add(terms);
        self.rules.push(Plan { key: question.key, indexed, early, late, computed, keeps, output });
        Ok(())
    }

    /// What the rule is looked up by: everything that is cheap to ask, else the one need that is cheapest.
    fn terms(&self, parts: &[Expr]) -> Vec<Vec<need::Key>> {
        let columns = Columns { fields: &self.fields, computed: self.stored };
        let mut needs: Vec<Vec<need::Key>> = parts.iter().filter_map(|part| need::need(part, &columns)).collect();
        needs.sort_by_key(|keys| (columns.rank(keys), keys.len()));
        let cheap = needs.iter().take_while(|keys| columns.rank(keys) <= Rank::Element).count();
        needs.truncate(cheap.clamp(1, TERMS_MAX));
        needs
    }

    fn effort(&self, condition: usize) -> (u8, usize) {
        let effort = match &self.conditions.all[condition].kind {
            Kind::Atom(atom) if self.conditions.atoms[*atom].test.is_some() => 0,
            Kind::Atom(_) => 1,
            Kind::Tree(_) => 2,
            Kind::Rows(_) => 3,
            Kind::Open => 4,
        };
        (effort, condition)
    }

    fn run(&self, batch: &RecordBatch, state: &RandomState) -> Vec<Answer> {
        let mut frame = Frame::new(self, batch, state);
        match self.pick(&mut frame) {
            Ok(picked) => self.answer(&mut frame, picked),
            // Nothing of the sort is known to happen; if it does, every rule looks for itself.
            Err(error) => {
                let failed = || Rows::Failed(frame.all_rows(), DataFusionError::Execution(error.to_string()));
                let answer =
                    |p: &Plan| Answer { key: p.key, rows: failed(), candidates: frame.count() as u64, nanos: 0 };
                self.rules.iter().map(answer).collect()
            }
        }
    }

    /// Rules and the rows they start from, in order.
    fn pick(&self, frame: &mut Frame) -> Result<Vec<(usize, Vec<u32>)>> {
        frame.compute(&self.eager, &frame.all_rows())?;
        for column in self.index.columns() {
            frame.find_codes(column)?;
        }
        let mut picked = Vec::new();
        let mut touched = self.index.touched(frame.batch, &frame.codes, frame.state)?.into_iter().peekable();
        for (rule, plan) in self.rules.iter().enumerate() {
            if !plan.indexed {
                picked.push((rule, frame.all_rows()));
            } else if let Some(touched) = touched.next_if(|t| t.rule as usize == rule) {
                picked.push((rule, touched.rows));
            }
        }
        Ok(picked)
    }

    fn answer(&self, frame: &mut Frame, picked: Vec<(usize, Vec<u32>)>) -> Vec<Answer> {
        let mut left = Vec::with_capacity(picked.len());
        let mut now = Instant::now();
        for (rule, mut rows) in picked {
            let mut certain = true;
            frame.refine(&self.rules[rule].early, &mut rows, &mut certain);
            left.push((rule, rows, certain, lap(&mut now)));
        }
        let lost = self.compute_for(frame, &left).err();
        now = Instant::now();
        let answer = |(rule, mut rows, mut certain, nanos): (usize, Vec<u32>, bool, u64)| {
            let plan = &self.rules[rule];
            let (candidates, rows) = match &lost {
                Some(error) if !plan.computed.is_empty() && !rows.is_empty() => {
                    (rows.len(), Rows::Failed(rows, DataFusionError::Execution(error.to_string())))
                }
                _ => {
                    frame.refine(&plan.late, &mut rows, &mut certain);
                    (rows.len(), frame.finish(plan, rows, certain))
                }
            };
            Answer { key: plan.key, rows, candidates: candidates as u64, nanos: nanos + lap(&mut now) }
        };
        left.into_iter().map(answer).collect()
    }

    /// Computes the columns that rules with rows left need, for those rows.
    fn compute_for(&self, frame: &mut Frame, left: &[(usize, Vec<u32>, bool, u64)]) -> Result<()> {
        let needy =
            || left.iter().filter(|(rule, rows, ..)| !rows.is_empty() && !self.rules[*rule].computed.is_empty());
        let mut columns: Vec<usize> = needy().flat_map(|(rule, ..)| self.rules[*rule].computed.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        columns.retain(|c| frame.codes[*c].is_none());
        if columns.is_empty() {
            return Ok(());
        }
        let mut wanted = vec![false; frame.count()];
        needy().flat_map(|(_, rows, ..)| rows).for_each(|row| wanted[*row as usize] = true);
        let rows: Vec<u32> = (0..).zip(wanted).filter(|(_, wanted)| *wanted).map(|(row, _)| row).collect();
        frame.compute(&columns, &rows)
    }
}

/// The question with its paths into `raw` replaced by computed columns.
fn rewrite(question: &Question, json: &mut Option<Json>) -> Result<Question> {
    let mut all = |exprs: &[Expr]| -> Result<Vec<Expr>> {
        exprs.iter().map(|e| json.as_mut().map_or_else(|| Ok(e.clone()), |json| json.rewrite(e))).collect()
    };
    let output = match &question.output {
        Some(output) => Some(Projection { exprs: all(&output.exprs)?, schema: output.schema.clone() }),
        None => None,
    };
    Ok(Question { key: question.key, table: question.table.clone(), keeps: all(&question.keeps)?, output })
}

/// Shows that the expressions fit the columns and the output its schema.
fn try_on_nothing(keeps: &Local, output: Option<&(Local, SchemaRef)>) -> Result<()> {
    let nothing = RecordBatch::new_empty(keeps.schema.clone());
    for keep in &keeps.exprs {
        truth(keep.as_ref(), &nothing)?;
    }
    if let Some((local, schema)) = output {
        compute(&local.exprs, schema, &RecordBatch::new_empty(local.schema.clone()))?;
    }
    Ok(())
}

/// Nanoseconds since `now`, which moves on.
fn lap(now: &mut Instant) -> u64 {
    let then = std::mem::replace(now, Instant::now());
    now.duration_since(then).as_nanos() as u64
}
