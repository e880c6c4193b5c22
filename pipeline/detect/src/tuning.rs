//! `detections/tuning.yaml`: exceptions from rules that one place lives with, each with a reason, someone who answers for
//! it, and a day on which it ends. What an exception takes out is no finding anywhere: live, replayed or in a backtest.
//!
//! Which exceptions are in force is decided when rules are loaded and is part of the bundle's hash, so that a bundle has
//! one meaning. A running process loads its rules again when one ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use event::Micros;
use query::{Problem, QueryError, date_end, nearest};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::error::RuleProblem;
use crate::header::first_line;
use crate::plan;

/// More is a rule that should be rewritten.
const EXCEPTIONS_PER_RULE_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    rule: Spanned<String>,
    when: Spanned<String>,
    reason: Spanned<String>,
    author: Spanned<String>,
    expires: Spanned<String>,
}

/// One entry that is in force, before its rule is known.
#[derive(Clone, Debug)]
pub struct Entry {
    pub rule: String,
    pub when: String,
    pub reason: String,
    pub author: String,
    pub expires: String,
    pub line: u64,
    when_line: u64,
}

/// The file.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    /// Entries that no longer apply.
    pub expired: Vec<RuleProblem>,
    /// When the first of those in force ends.
    pub until: Option<Micros>,
}

impl Tuning {
    /// Reads the file as of `now`. All mistakes at once.
    pub fn parse(path: &Path, text: &str, now: Micros, problems: &mut Vec<RuleProblem>) -> Tuning {
        let mut tuning = Tuning { path: path.to_owned(), ..Tuning::default() };
        let problem = |line: u64, message: String, hint: Option<&str>| RuleProblem {
            path: path.to_owned(),
            line,
            message,
            hint: hint.map(str::to_owned),
        };
        let written: Option<Vec<Spanned<Written>>> = match serde_saphyr::from_str(text) {
            Ok(written) => written,
            Err(error) => {
                let error = error.without_snippet();
                let line = error.location().map_or(1, |l| l.line());
                let hint = "a list of entries with rule, when, reason, author and expires";
                problems.push(problem(line, first_line(&error.to_string()).to_owned(), Some(hint)));
                return tuning;
            }
        };
        for entry in written.unwrap_or_default() {
            let line = entry.referenced.line();
            let Written { rule, when, reason, author, expires } = entry.value;
            for (name, value) in [("reason", &reason), ("author", &author), ("when", &when)] {
                if value.value.trim().is_empty() {
                    problems.push(problem(value.referenced.line(), format!("`{name}` is empty"), None));
                }
            }
            let Some(end) = date_end(&expires.value) else {
                let message = format!("`expires: {}` is not a day", expires.value);
                problems.push(problem(
                    expires.referenced.line(),
                    message,
                    Some("write 2027-03-31; it holds through that day, UTC"),
                ));
                continue;
            };
            if end <= now {
                let message =
                    format!("the exception from `{}` ended on {} and no longer applies", rule.value, expires.value);
                tuning.expired.push(problem(line, message, Some("take it out, or give it a new date")));
                continue;
            }
            tuning.until = Some(tuning.until.map_or(end, |until| until.min(end)));
            tuning.entries.push(Entry {
                rule: rule.value,
                when_line: when.referenced.line(),
                when: when.value,
                reason: reason.value,
                author: author.value,
                expires: expires.value,
                line,
            });
        }
        tuning
    }

    pub fn of<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.rule == rule)
    }

    /// Entries for rules that are not there.
    pub fn strangers(&self, rules: &[&str], problems: &mut Vec<RuleProblem>) {
        for entry in self.entries.iter().filter(|entry| !rules.contains(&entry.rule.as_str())) {
            problems.push(RuleProblem {
                path: self.path.clone(),
                line: entry.line,
                message: format!("there is no rule `{}`", entry.rule),
                hint: nearest(&entry.rule, rules.iter().copied()).map(|near| format!("did you mean `{near}`?")),
            });
        }
    }

    /// The exceptions of one rule, over the columns that its SELECT returns.
    pub fn compile(
        &self,
        ctx: &SessionContext,
        rule: &str,
        plan: &LogicalPlan,
        problems: &mut Vec<RuleProblem>,
    ) -> Vec<Arc<Exception>> {
        let mut exceptions = Vec::new();
        for entry in self.of(rule) {
            let mistake = |problem: Problem| RuleProblem {
                path: self.path.clone(),
                line: entry.when_line,
                message: problem.message,
                hint: problem.hint,
            };
            match Exception::compile(ctx, entry, plan) {
                Ok(exception) => exceptions.push(Arc::new(exception)),
                Err(QueryError::Sql(problem)) => problems.push(mistake(problem)),
                Err(error) => problems.push(mistake(Problem::new(error.to_string()))),
            }
        }
        if exceptions.len() > EXCEPTIONS_PER_RULE_MAX {
            problems.push(RuleProblem {
                path: self.path.clone(),
                line: 0,
                message: format!("rule `{rule}` has more than {EXCEPTIONS_PER_RULE_MAX} exceptions"),
                hint: Some("put what they have in common into a lookup, or into the rule".to_owned()),
            });
        }
        exceptions
    }
}

/// One condition under which a row of a rule's SELECT is no finding.
#[derive(Debug)]
pub struct Exception {
    pub entry: Entry,
    /// The columns of the SELECT that it looks at.
    pub columns: Vec<String>,
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Exception {
    fn compile(ctx: &SessionContext, entry: &Entry, plan: &LogicalPlan) -> std::result::Result<Exception, QueryError> {
        // What a SELECT returns for a batch may have NULLs that its plan rules out.
        let fields = plan.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let unqualified = DFSchema::try_from(schema.clone()).map_err(QueryError::run)?;
        let expr = ctx.parse_sql_expr(&entry.when, &unqualified).map_err(|error| explained(entry, &schema, error))?;
        if expr.exists(|e| Ok(plan::has_subquery(e))).unwrap_or(true) {
            return Err(Problem::new("`when` has a subquery").hint("ask a lookup through its function").into());
        }
        let columns = expr.column_refs().into_iter().map(|column| column.name.clone()).collect();
        let predicate = plan::physical(&ctx.state(), &expr, &unqualified).map_err(|e| explained(entry, &schema, e))?;
        match expr.get_type(&unqualified).or_else(|_| predicate.data_type(&schema)).map_err(QueryError::run)? {
            DataType::Boolean => Ok(Exception { entry: entry.clone(), columns, predicate, schema }),
            other => Err(Problem::new(format!("`when: {}` is {other}, not true or false", entry.when)).into()),
        }
    }

    /// Which rows it takes out.
    fn takes(&self, rows: &RecordBatch) -> Result<Vec<bool>> {
        let column = |field: &Arc<arrow::datatypes::Field>| -> Result<arrow::array::ArrayRef> {
            let column = rows
                .column_by_name(field.name())
                .ok_or_else(|| DataFusionError::Internal(format!("column `{}` is not returned", field.name())))?;
            match column.data_type() == field.data_type() {
                true => Ok(column.clone()),
                false => Ok(cast(column, field.data_type())?),
            }
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let taken = self.predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
        let taken = taken.as_boolean();
        Ok((0..taken.len()).map(|row| taken.is_valid(row) && taken.value(row)).collect())
    }
}

fn explained(entry: &Entry, schema: &SchemaRef, error: DataFusionError) -> QueryError {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let text = error.strip_backtrace();
    let unknown = text.split("No field named ").nth(1).and_then(|rest| rest.split(['.', ' ', '\n']).next());
    match unknown.map(|name| name.trim_matches('"')) {
        Some(name) => {
            let problem = Problem::new(format!("`{name}` in `when` is not a column of the rule's SELECT"));
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the SELECT returns {}", names.join(", ")),
            };
            problem.hint(hint).into()
        }
        None => Problem::new(format!("`when: {}`: {}", entry.when, first_line(&text))).into(),
    }
}

/// Which of the rows that a rule's SELECT returned its exceptions take out; empty if it has none. An exception that cannot
/// be computed takes nothing out: better a finding too many.
pub fn taken(rule: &str, exceptions: &[Arc<Exception>], rows: &RecordBatch) -> Vec<bool> {
    if exceptions.is_empty() || rows.num_rows() == 0 {
        return Vec::new();
    }
    let mut all = vec![false; rows.num_rows()];
    for exception in exceptions {
        match exception.takes(rows) {
            Ok(taken) => all.iter_mut().zip(taken).for_each(|(all, one)| *all |= one),
            Err(error) => {
                let (line, reason) = (exception.entry.line, error.strip_backtrace());
                tracing::warn!(
                    rule,
                    line,
                    reason,
                    "an exception of tuning.yaml could not be computed: nothing is taken out"
                );
                metrics::counter!("stakeout_rule_exception_failures_total", "rule" => rule.to_owned()).increment(1);
            }
        }
    }
    let count = all.iter().filter(|taken| **taken).count() as u64;
    metrics::counter!("stakeout_rule_excepted_rows_total", "rule" => rule.to_owned()).increment(count);
    all
}
