//! Conditions taken apart: trees of AND, OR, NOT and IS over atoms. An atom looks at one column, and is therefore
//! computed once per distinct value. What looks at several columns at once is left open in a tree; as a condition of
//! its own it is computed per row when several rules ask for it.

use std::collections::HashMap;

use arrow::array::Array;
use arrow::datatypes::Field;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{InListExpr, LikeExpr, NotExpr};

use super::codes::{number, text};
use super::expr::{Expr, Local, arms, binary, column, columns, is_plain, is_truth, literal, literal_text};
use super::fault::{Fault, injected};
use super::need::Constant;
use super::outcome::{ANY, FALSE, NULL, Outcomes, TRUE};

/// One of the conditions that a rule's rows must all satisfy.
#[derive(Debug)]
pub struct Condition {
    pub kind: Kind,
    /// Columns that are not stored are read.
    pub computed: bool,
    /// Rules that have it.
    pub uses: u32,
}

#[derive(Debug)]
pub enum Kind {
    Atom(usize),
    Tree(Node),
    Rows(Local),
    /// May come to anything: the rule itself must look.
    Open,
}

#[derive(Debug)]
pub enum Node {
    Atom(usize),
    Constant(Outcomes),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Is { inner: Box<Node>, what: Outcomes, negated: bool },
}

#[derive(Debug)]
pub struct Atom {
    pub column: usize,
    pub local: Local,
    /// What most atoms ask, answered without a kernel.
    pub test: Option<Test>,
}

/// A question to one value; NULL is the answer to NULL.
#[derive(Debug)]
pub struct Test {
    kind: TestKind,
    negated: bool,
}

#[derive(Debug)]
enum TestKind {
    /// Sorted.
    Among(Vec<Constant>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
}

/// All conditions of a table, each once however many rules have it.
#[derive(Default)]
pub struct Conditions {
    pub all: Vec<Condition>,
    pub atoms: Vec<Atom>,
    by_expr: HashMap<Expr, usize>,
    atom_by_expr: HashMap<Expr, usize>,
}

/// A table's columns as far as they matter here.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    pub fields: &'a [Field],
    pub computed: usize,
}

impl Conditions {
    pub fn add(&mut self, expr: &Expr, table: Table) -> Result<usize> {
        if let Some(known) = self.by_expr.get(expr) {
            self.all[*known].uses += 1;
            return Ok(*known);
        }
        let computed = columns(expr).iter().any(|c| *c >= table.computed);
        let kind = self.kind(expr, table)?;
        self.all.push(Condition { kind, computed, uses: 1 });
        self.by_expr.insert(expr.clone(), self.all.len() - 1);
        Ok(self.all.len() - 1)
    }

    fn kind(&mut self, expr: &Expr, table: Table) -> Result<Kind> {
        if !is_plain(expr) {
            return Ok(Kind::Open);
        }
        Ok(match self.node(expr, table)? {
            Node::Atom(atom) => Kind::Atom(atom),
            Node::Constant(ANY) if !columns(expr).is_empty() => {
                Kind::Rows(Local::of(std::slice::from_ref(expr), table.fields)?)
            }
            Node::Constant(ANY) => Kind::Open,
            node => Kind::Tree(node),
        })
    }

    fn node(&mut self, expr: &Expr, table: Table) -> Result<Node> {
        if let [column] = columns(expr)[..] {
            return self.atom(expr, column, table);
        }
        if let Some((inner, what, negated)) = is_truth(expr) {
            let what = match what {
                Some(true) => TRUE,
                Some(false) => FALSE,
                None => NULL,
            };
            return Ok(Node::Is { inner: Box::new(self.node(inner, table)?), what, negated });
        }
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            let inner = self.node(not.arg(), table)?;
            return Ok(if injected(Fault::LoseNot) { inner } else { Node::Not(Box::new(inner)) });
        }
        match binary(expr) {
            Some((_, op @ (Operator::And | Operator::Or), _)) => {
                let parts = arms(expr, op).iter().map(|arm| self.node(arm, table)).collect::<Result<_>>()?;
                Ok(if op == Operator::And { Node::All(parts) } else { Node::Any(parts) })
            }
            _ => Ok(Node::Constant(ANY)),
        }
    }

    fn atom(&mut self, expr: &Expr, column: usize, table: Table) -> Result<Node> {
        if let Some(known) = self.atom_by_expr.get(expr) {
            return Ok(Node::Atom(*known));
        }
        let local = Local::of(std::slice::from_ref(expr), table.fields)?;
        self.atoms.push(Atom { column, local, test: test(expr) });
        self.atom_by_expr.insert(expr.clone(), self.atoms.len() - 1);
        Ok(Node::Atom(self.atoms.len() - 1))
    }
}

fn test(expr: &Expr) -> Option<Test> {
    if let Some((left, op, right)) = binary(expr) {
        return match op {
            Operator::Or => {
                // The optimizer writes short lists as chains of `=`.
                let mut among = Vec::new();
                for arm in arms(expr, Operator::Or) {
                    match test(&arm)? {
                        Test { kind: TestKind::Among(values), negated: false } => among.extend(values),
                        _ => return None,
                    }
                }
                Some(Test::among(among, false))
            }
            Operator::Eq | Operator::NotEq => {
                let value = match (column(left), column(right)) {
                    (Some(_), None) => constant(right)?,
                    (None, Some(_)) => constant(left)?,
                    _ => return None,
                };
                Some(Test::among(vec![value], op == Operator::NotEq))
            }
            _ => None,
        };
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        column(list.expr())?;
        // With NULL in the list, what is not in it is not known to differ: the kernel knows.
        let values = match injected(Fault::NotInNull) {
            true => list.list().iter().filter_map(constant).collect(),
            false => list.list().iter().map(constant).collect::<Option<_>>()?,
        };
        return Some(Test::among(values, list.negated()));
    }
    let like = expr.downcast_ref::<LikeExpr>().filter(|like| !like.case_insensitive())?;
    column(like.expr())?;
    let pattern = literal_text(like.pattern())?;
    let plain = |literal: &str| !literal.is_empty() && !literal.contains(['%', '_', '\\']);
    let kind = match (pattern.strip_suffix('%'), pattern.strip_prefix('%')) {
        (Some(start), None) if plain(start) => TestKind::StartsWith(start.into()),
        (None, Some(end)) if plain(end) => TestKind::EndsWith(end.into()),
        _ => return None,
    };
    let kind = match kind {
        TestKind::StartsWith(literal) if injected(Fault::PrefixAtEnd) => TestKind::EndsWith(literal),
        kind => kind,
    };
    Some(Test { kind, negated: like.negated() && !injected(Fault::LoseNot) })
}

fn constant(expr: &Expr) -> Option<Constant> {
    let value = literal(expr)?;
    match value {
        datafusion::scalar::ScalarValue::Int64(number) => number.map(Constant::Number),
        value => value.try_as_str().flatten().map(|text| Constant::Text(text.into())),
    }
}

impl Test {
    fn among(mut values: Vec<Constant>, negated: bool) -> Test {
        values.sort();
        Test { kind: TestKind::Among(values), negated }
    }

    /// Of the value `code` of `values`; `None` when they are of a type that no test is for.
    pub fn ask(&self, values: &dyn Array, code: usize) -> Option<Outcomes> {
        if values.is_null(code) {
            return Some(if injected(Fault::NullMatches) { TRUE } else { NULL });
        }
        let holds = match &self.kind {
            TestKind::Among(list) => match text(values, code) {
                Some(text) => list.binary_search_by(|c| c.cmp_text(text)).is_ok(),
                None => list.binary_search(&Constant::Number(number(values, code)?)).is_ok(),
            },
            TestKind::StartsWith(start) => text(values, code)?.starts_with(&**start),
            TestKind::EndsWith(end) => text(values, code)?.ends_with(&**end),
        };
        Some(if holds != self.negated { TRUE } else { FALSE })
    }
}

impl Constant {
    fn cmp_text(&self, text: &str) -> std::cmp::Ordering {
        match self {
            Constant::Text(own) => (**own).cmp(text),
            Constant::Number(_) => std::cmp::Ordering::Greater,
        }
    }
}
