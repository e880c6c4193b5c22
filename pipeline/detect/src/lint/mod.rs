//! Lints: what a rule may say and should not. A rule that loads is correct SQL over columns that exist; these look for
//! what it will quietly never find. An error means that a condition cannot be what its author meant, a warning that
//! the rule sees less than it seems to.
//!
//! They work on the syntax tree, whose literals still know their lines. Names are resolved through aliases, WITH and
//! derived tables down to the columns of `schemas/`; what cannot be resolved is let pass.

mod compare;
mod level;
mod nulls;
mod reach;
mod scope;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use event::TableSchema;

use crate::error::RuleProblem;
use crate::rule::{Rule, Window};
use crate::ruleset::RuleSet;
use scope::{Scope, Withs};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Error,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    pub grade: Grade,
    pub problem: RuleProblem,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.grade {
            Grade::Error => write!(f, "{}", self.problem),
            Grade::Warning => {
                let RuleProblem { message, .. } = &self.problem;
                let problem = RuleProblem { message: format!("warning: {message}"), ..self.problem.clone() };
                write!(f, "{problem}")
            }
        }
    }
}

/// Everything there is to say about the rules of a set, in their order, and what the set itself warns of.
pub fn lint(rules: &RuleSet) -> Vec<Lint> {
    let warn = |problem: &RuleProblem| Lint { grade: Grade::Warning, problem: problem.clone() };
    let mut lints: Vec<Lint> = rules.warnings.iter().map(warn).collect();
    lints.extend(rules.rules.iter().flat_map(|rule| lint_rule(rule, &rules.schemas)));
    lints
}

/// One rule, by line.
pub fn lint_rule(rule: &Rule, schemas: &[Arc<TableSchema>]) -> Vec<Lint> {
    let mut notes = Notes { path: &rule.path, lints: Vec::new() };
    header(rule, &mut notes);
    let said = Said { entity: &rule.entity, window: rule.window };
    let needed = walk(&rule.sql, said, schemas, &mut notes);
    level::declared(rule.needs_level.as_deref(), needed, &mut notes);
    notes.sorted()
}

/// What of a rule that cannot be planned a lint can tell better than the planner: with line and hint.
pub(crate) fn mistakes(path: &Path, sql: &str, schemas: &[Arc<TableSchema>]) -> Vec<RuleProblem> {
    let mut notes = Notes { path, lints: Vec::new() };
    walk(sql, Said { entity: &[], window: None }, schemas, &mut notes);
    let errors = notes.sorted().into_iter().filter(|lint| lint.grade == Grade::Error);
    errors.map(|lint| lint.problem).collect()
}

/// Looks at the whole statement; gives the highest audit level that something in it needs.
fn walk(sql: &str, said: Said, schemas: &[Arc<TableSchema>], notes: &mut Notes) -> Option<level::Needed> {
    // What does not parse has been reported by others.
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap_or_default();
    let (withs, scopes) = (Withs::default(), Vec::new());
    let mut walk = Walk { said, schemas, withs, open: Vec::new(), scopes, level: None, coalesced: 0, notes };
    for statement in &statements {
        let Statement::Query(query) = statement else { continue };
        let _: ControlFlow<()> = query.visit(&mut walk);
    }
    walk.level
}

fn header(rule: &Rule, notes: &mut Notes) {
    if rule.triage.as_deref().is_none_or(|text| text.trim().is_empty()) {
        notes.warn(1, "the rule has no `triage`".into(), "say what whoever is called should check, in order");
    }
    if let Some(window) = rule.window {
        reach::burst(window, notes);
    }
}

/// What the header says that matters to the statement.
#[derive(Clone, Copy)]
struct Said<'a> {
    entity: &'a [String],
    window: Option<Window>,
}

/// Where lints are written to.
struct Notes<'a> {
    path: &'a Path,
    lints: Vec<Lint>,
}

impl Notes<'_> {
    fn error(&mut self, line: u64, message: String, hint: impl Into<String>) {
        self.note(Grade::Error, line, message, hint.into());
    }

    fn warn(&mut self, line: u64, message: String, hint: impl Into<String>) {
        self.note(Grade::Warning, line, message, hint.into());
    }

    fn note(&mut self, grade: Grade, line: u64, message: String, hint: String) {
        let problem = RuleProblem { path: self.path.to_owned(), line, message, hint: Some(hint) };
        self.lints.push(Lint { grade, problem });
    }

    /// By line, errors first, each once.
    fn sorted(mut self) -> Vec<Lint> {
        self.lints.sort_by_key(|lint| (lint.problem.line, lint.grade));
        self.lints.dedup();
        self.lints
    }
}

/// Goes through the statement with the names that are known at each place.
struct Walk<'a, 'n, 'p> {
    said: Said<'a>,
    schemas: &'a [Arc<TableSchema>],
    withs: Withs<'a>,
    /// How many names of WITH were known before each query that is open.
    open: Vec<usize>,
    scopes: Vec<Scope<'a>>,
    level: Option<level::Needed>,
    /// How many `coalesce` the place is within.
    coalesced: usize,
    notes: &'n mut Notes<'p>,
}

impl Visitor for Walk<'_, '_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.open.push(self.withs.len());
        self.withs.add(query, self.schemas);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.withs.truncate(self.open.pop().unwrap_or(0));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let scope = Scope::of(select, &self.withs, self.schemas);
        nulls::check(select, &scope, self.said.entity, self.notes);
        if let Some(window) = self.said.window {
            reach::join(select, &scope, window, self.notes);
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        compare::check(expr, &self.scopes, self.notes);
        let within = self.coalesced > 0;
        self.coalesced += usize::from(level::alternatives(expr).is_some());
        if !within
            && let Some(needed) = level::of(expr, &self.scopes)
            && self.level.as_ref().is_none_or(|have| needed.level > have.level)
        {
            self.level = Some(needed);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.coalesced -= usize::from(level::alternatives(expr).is_some());
        ControlFlow::Continue(())
    }
}

/// Parentheses mean nothing here.
fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}
