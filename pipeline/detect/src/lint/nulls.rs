//! Conditions that are quietly unknown where a column is NULL: `x <> 'a'` and `NOT (x = 'a')` leave out the rows
//! without an x, which a rule's author seldom means.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, JoinConstraint, JoinOperator, Select, SelectItem, Spanned, UnaryOperator,
};

use super::scope::{Known, Scope, name_of, normal};
use super::{Notes, bare};

/// Relation and column.
type Name = (String, String);

pub(super) fn check(select: &Select, scope: &Scope<'_>, notes: &mut Notes) {
    let conditions = conditions(select);
    let mut guarded = entity(select, scope, notes);
    for condition in &conditions {
        guards(condition, scope, &mut guarded);
    }
    for condition in conditions {
        look(condition, scope, &guarded, notes);
    }
}

/// WHERE and ON; what is left out by HAVING is a group, which has no NULL of its own.
pub(super) fn conditions(select: &Select) -> Vec<&Expr> {
    let joins = select.from.iter().flat_map(|from| &from.joins);
    joins.filter_map(|join| on(&join.join_operator)).chain(&select.selection).collect()
}

fn on(join: &JoinOperator) -> Option<&Expr> {
    use JoinOperator::{
        Anti, CrossJoin, FullOuter, Inner, Join, Left, LeftAnti, LeftOuter, LeftSemi, Right, RightAnti, RightOuter,
        RightSemi, Semi,
    };
    match join {
        Join(c) | Inner(c) | Left(c) | LeftOuter(c) | Right(c) | RightOuter(c) | FullOuter(c) | CrossJoin(c)
        | Semi(c) | LeftSemi(c) | RightSemi(c) | Anti(c) | LeftAnti(c) | RightAnti(c) => match c {
            JoinConstraint::On(expr) => Some(expr),
            _ => None,
        },
        _ => None,
    }
}

/// Rows with a NULL in an entity column are no findings anyway.
fn entity(select: &Select, scope: &Scope<'_>, notes: &Notes) -> BTreeSet<Name> {
    let of = |item: &SelectItem| {
        let (expr, name) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr, normal(alias)),
            SelectItem::UnnamedExpr(expr) => (expr, name_of(expr)?),
            _ => return None,
        };
        notes.rule.entity.contains(&name).then(|| scope.column(expr).map(name_of_column)).flatten()
    };
    select.projection.iter().filter_map(of).collect()
}

fn name_of_column(known: Known<'_>) -> Name {
    (known.relation, known.column.name.clone())
}

/// Columns of which the author has thought: asked for NULL somewhere, or required to be something by every row.
fn guards(condition: &Expr, scope: &Scope<'_>, guarded: &mut BTreeSet<Name>) {
    let mut all = Vec::new();
    parts(condition, &mut all);
    for part in all {
        if let Expr::IsNull(of) | Expr::IsNotNull(of) = part {
            guarded.extend(scope.column(of).map(name_of_column));
        }
    }
    for required in conjuncts(condition) {
        let columns = match required {
            Expr::BinaryOp { left, op, right } if is_positive(op) => vec![left, right],
            Expr::InList { expr, negated: false, .. }
            | Expr::Between { expr, negated: false, .. }
            | Expr::Like { expr, negated: false, .. }
            | Expr::ILike { expr, negated: false, .. } => vec![expr],
            _ => Vec::new(),
        };
        guarded.extend(columns.into_iter().filter_map(|c| scope.column(c)).map(name_of_column));
    }
}

fn is_positive(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
    matches!(op, Eq | Lt | LtEq | Gt | GtEq)
}

/// What must all be true.
pub(super) fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match bare(expr) {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        other => vec![other],
    }
}

/// An expression and what it is made of by AND, OR, NOT and parentheses.
fn parts<'e>(expr: &'e Expr, into: &mut Vec<&'e Expr>) {
    let expr = bare(expr);
    into.push(expr);
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            parts(left, into);
            parts(right, into);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => parts(expr, into),
        _ => {}
    }
}

fn look(condition: &Expr, scope: &Scope<'_>, guarded: &BTreeSet<Name>, notes: &mut Notes) {
    let mut all = Vec::new();
    parts(condition, &mut all);
    for part in all {
        let (subject, what) = match part {
            Expr::BinaryOp { left, op: BinaryOperator::NotEq, right } => match scope.column(left) {
                Some(_) => (left, "<>"),
                None => (right, "<>"),
            },
            Expr::InList { expr, negated: true, .. } => (expr, "NOT IN"),
            Expr::Like { expr, negated: true, .. } => (expr, "NOT LIKE"),
            Expr::ILike { expr, negated: true, .. } => (expr, "NOT ILIKE"),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => match bare(expr) {
                Expr::BinaryOp { left, op, .. } if is_positive(op) => (left, "NOT"),
                Expr::InList { expr, .. } | Expr::Like { expr, .. } | Expr::ILike { expr, .. } => (expr, "NOT"),
                _ => continue,
            },
            _ => continue,
        };
        let Some(known) = scope.column(subject) else { continue };
        if !can_be_null(&known) || guarded.contains(&name_of_column(known.clone())) {
            continue;
        }
        let name = &known.column.name;
        let message = format!("`{what}` leaves out the rows in which `{name}` is NULL");
        let hint = format!("write `coalesce({name}, '')` or `{name} IS DISTINCT FROM …`; or say `{name} IS NOT NULL`");
        notes.warn(subject.span().start.line, message, hint);
    }
}

/// Every column of a source may be null but for those whose description promises otherwise.
fn can_be_null(known: &Known<'_>) -> bool {
    known.column.nullable && !known.column.doc.contains("Never null")
}
