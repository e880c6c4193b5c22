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
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use event::TableSchema;

use crate::error::RuleProblem;
use crate::rule::Rule;
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
    let mut notes = Notes { rule, lints: Vec::new() };
    header(rule, &mut notes);
    // It was planned from this text, so that it parses.
    if let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, &rule.sql) {
        let mut walk =
            Walk { schemas, withs: Withs::default(), open: Vec::new(), scopes: Vec::new(), level: None, notes };
        for statement in &statements {
            let Statement::Query(query) = statement else { continue };
            let _: ControlFlow<()> = query.visit(&mut walk);
        }
        level::declared(walk.level, &mut walk.notes);
        notes = walk.notes;
    }
    let mut lints = notes.lints;
    lints.sort_by_key(|lint| (lint.problem.line, lint.grade));
    lints.dedup();
    lints
}

fn header(rule: &Rule, notes: &mut Notes) {
    if rule.triage.as_deref().is_none_or(|text| text.trim().is_empty()) {
        notes.warn(1, "the rule has no `triage`".into(), "say what whoever is called should check, in order");
    }
    if let Some(window) = rule.window {
        reach::burst(window, notes);
    }
}

/// Where lints are written to.
struct Notes<'a> {
    rule: &'a Rule,
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
        let problem = RuleProblem { path: self.rule.path.clone(), line, message, hint: Some(hint) };
        self.lints.push(Lint { grade, problem });
    }
}

/// Goes through the statement with the names that are known at each place.
struct Walk<'a> {
    schemas: &'a [Arc<TableSchema>],
    withs: Withs<'a>,
    /// How many names of WITH were known before each query that is open.
    open: Vec<usize>,
    scopes: Vec<Scope<'a>>,
    level: Option<level::Needed>,
    notes: Notes<'a>,
}

impl Visitor for Walk<'_> {
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
        nulls::check(select, &scope, &mut self.notes);
        if let Some(window) = self.notes.rule.window {
            reach::join(select, &scope, window, &mut self.notes);
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        compare::check(expr, &self.scopes, &mut self.notes);
        if let Some(needed) = level::of(expr, &self.scopes)
            && self.level.as_ref().is_none_or(|have| needed.level > have.level)
        {
            self.level = Some(needed);
        }
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
