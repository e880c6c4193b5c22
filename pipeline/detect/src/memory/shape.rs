//! The text of a rule that remembers, taken apart: the events with the conditions on them alone, `first_seen`, and
//! what is left, which is about the state tables.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinConstraint, JoinOperator, Query,
    Select, SetExpr, Statement, TableFactor, Visit, visit_expressions, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The function by which a rule asks whether something is new.
pub const FIRST_SEEN: &str = "first_seen";

/// Why a text is not what was expected, and what to do.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub reason: String,
    pub hint: Option<&'static str>,
}

fn refused<T>(reason: impl Into<String>, hint: &'static str) -> Result<T, Refused> {
    Err(Refused { reason: reason.into(), hint: Some(hint) })
}

/// A state table as far as names go.
pub struct Named<'a> {
    pub name: &'a str,
    pub columns: Vec<&'a str>,
}

#[derive(Debug, PartialEq)]
pub struct Shape {
    /// The table of the events, with its alias.
    pub from: String,
    /// Conditions of WHERE on the event alone.
    pub filter: Option<String>,
    /// The key expressions of `first_seen`, if it is called.
    pub keys: Option<Vec<String>>,
    /// The statement without those conditions and without `first_seen`.
    pub rest: String,
}

/// Whether `first_seen` stands in a statement.
pub fn asks_what_is_new(sql: &str) -> bool {
    Parser::parse_sql(&PostgreSqlDialect {}, sql).is_ok_and(|statements| has_first_seen(&statements))
}

/// Whether a rule uses memory at all.
pub fn remembers(sql: &str, states: &[Named<'_>]) -> bool {
    let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, sql) else { return false };
    let joins = visit_relations(&statements, |name| {
        let name = name.0.last().and_then(|part| part.as_ident()).map(normal);
        match states.iter().any(|s| Some(s.name) == name.as_deref()) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    has_first_seen(&statements) || joins.is_break()
}

/// The one SELECT of a row-local statement over one named table.
pub fn select_of(sql: &str) -> Result<Select, Refused> {
    let plain = "write one SELECT over a table or view";
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql)
        .map_err(|e| Refused { reason: format!("its text cannot be taken apart: {e}"), hint: None })?;
    let Some(Statement::Query(query)) = statements.pop() else { return refused("it is not a SELECT", plain) };
    let Query { with: None, body, .. } = *query else { return refused("it has WITH", plain) };
    let SetExpr::Select(select) = *body else { return refused("it has UNION or VALUES", plain) };
    match select.from.as_slice() {
        [one] if matches!(one.relation, TableFactor::Table { args: None, .. }) => Ok(*select),
        [_] => refused("it reads something else than a table or view", plain),
        _ => refused("it lists several tables in FROM", "write JOIN … ON"),
    }
}

pub fn take_apart(sql: &str, states: &[Named<'_>]) -> Result<Shape, Refused> {
    let mut select = select_of(sql)?;
    let (events, _) = name_of(&select.from[0].relation).expect("it was found to be a table");
    if states.iter().any(|s| s.name == events) {
        return refused(
            format!("it begins with the state table `{events}`"),
            "name the events first: FROM events JOIN …",
        );
    }
    let mut joined: Vec<(String, &Named<'_>)> = Vec::new();
    for join in &select.from[0].joins {
        let state = name_of(&join.relation)
            .and_then(|(name, alias)| states.iter().find(|s| s.name == name).map(|state| (alias, state)));
        let Some(state) = state else {
            return refused("it joins tables", "a rule without a window joins state tables only; give it a `window`");
        };
        use JoinOperator::{Inner, Join, Left, LeftOuter};
        match &join.join_operator {
            Join(JoinConstraint::On(_)) | Inner(JoinConstraint::On(_)) => {}
            Left(JoinConstraint::On(_)) | LeftOuter(JoinConstraint::On(_)) => {}
            _ => return refused("it joins a state table in another way", "write JOIN … ON or LEFT JOIN … ON"),
        }
        joined.push(state);
    }
    let (mut own, mut keys, mut rest) = (Vec::new(), None, Vec::new());
    for condition in select.selection.take().map(conjuncts).unwrap_or_default() {
        match first_seen_keys(&condition)? {
            Some(_) if keys.is_some() => return refused("it calls first_seen twice", "one call takes several columns"),
            Some(called) => keys = Some(called),
            None if has_first_seen(&condition) => return misplaced(),
            None if mentions(&condition, &joined) => rest.push(condition),
            None => own.push(condition),
        }
    }
    for key in keys.iter().flatten() {
        if mentions(key, &joined) {
            return refused(
                format!("first_seen has `{key}`, which is not of the event"),
                "its columns are the event's own: joins come after it",
            );
        }
    }
    select.selection = rest.into_iter().reduce(and);
    if has_first_seen(&select) {
        return misplaced();
    }
    Ok(Shape {
        from: select.from[0].relation.to_string(),
        filter: own.into_iter().reduce(and).map(|e| e.to_string()),
        keys: keys.map(|keys| keys.iter().map(ToString::to_string).collect()),
        rest: select.to_string(),
    })
}

/// The name of a table, and the name it goes by.
fn name_of(factor: &TableFactor) -> Option<(String, String)> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
    let name = name.0.last().and_then(|part| part.as_ident()).map(normal)?;
    let alias = alias.as_ref().map_or(name.clone(), |a| normal(&a.name));
    Some((name, alias))
}

/// SQL folds names that are not quoted.
fn normal(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}

/// The conditions that AND joins, in order. Each keeps its brackets.
fn conjuncts(condition: Expr) -> Vec<Expr> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = conjuncts(*left);
            all.extend(conjuncts(*right));
            all
        }
        Expr::Nested(inner) => match *inner {
            both @ Expr::BinaryOp { op: BinaryOperator::And, .. } => conjuncts(both),
            Expr::Nested(_) => conjuncts(*inner),
            other if is_first_seen(&other) => vec![other],
            other => vec![Expr::Nested(Box::new(other))],
        },
        other => vec![other],
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn is_first_seen(e: &Expr) -> bool {
    matches!(e, Expr::Function(call) if call.name.to_string().to_lowercase() == FIRST_SEEN)
}

/// The columns of a call, without the interval, which is read from the plan.
fn first_seen_keys(condition: &Expr) -> Result<Option<Vec<Expr>>, Refused> {
    let wrong = "write first_seen(INTERVAL '30 days', column, …)";
    let Expr::Function(call) = condition else { return Ok(None) };
    if !is_first_seen(condition) {
        return Ok(None);
    }
    let FunctionArguments::List(list) = &call.args else { return refused("first_seen has no arguments", wrong) };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    match list.args.iter().map(plain).collect::<Option<Vec<Expr>>>() {
        Some(args) if args.len() >= 2 => Ok(Some(args[1..].to_vec())),
        _ => refused("first_seen names no column", wrong),
    }
}

/// Whether an expression is about a state table. Names without a table are the event's unless only a state table
/// has them: had both, the statement would not have been planned.
fn mentions(expr: &Expr, joined: &[(String, &Named<'_>)]) -> bool {
    let is_state = |e: &Expr| match e {
        Expr::CompoundIdentifier(names) if names.len() > 1 => {
            joined.iter().any(|(alias, _)| *alias == normal(&names[names.len() - 2]))
        }
        Expr::Identifier(name) => joined.iter().any(|(_, state)| state.columns.contains(&normal(name).as_str())),
        _ => false,
    };
    visit_expressions(expr, |e| if is_state(e) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }).is_break()
}

fn has_first_seen(part: &impl Visit) -> bool {
    let find = |e: &Expr| if is_first_seen(e) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    visit_expressions(part, find).is_break()
}

fn misplaced<T>() -> Result<T, Refused> {
    refused("first_seen is no condition of its own", "write WHERE … AND first_seen(INTERVAL '30 days', column, …)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<Named<'static>> {
        vec![Named { name: "pods", columns: vec!["pod", "owner", "valid_from"] }]
    }

    fn check(sql: &str, from: &str, filter: Option<&str>, keys: Option<&[&str]>, rest: &str) {
        let shape = take_apart(sql, &pods()).unwrap_or_else(|r| panic!("{sql}: {r:?}"));
        assert_eq!(shape.from, from);
        assert_eq!(shape.filter.as_deref(), filter, "{sql}");
        assert_eq!(shape.keys, keys.map(|k| k.iter().map(ToString::to_string).collect()), "{sql}");
        assert_eq!(shape.rest, rest);
    }

    #[test]
    fn conditions_go_where_they_belong() {
        check(
            "SELECT a FROM t WHERE x = 1 AND (y = 2 AND first_seen(INTERVAL '1 day', a, lower(b))) AND (c OR d)",
            "t",
            Some("x = 1 AND y = 2 AND (c OR d)"),
            Some(&["a", "lower(b)"]),
            "SELECT a FROM t",
        );
        check(
            "SELECT e.a, s.owner FROM t e LEFT JOIN pods s ON s.pod = e.a WHERE e.x = 1 AND s.owner IS NULL AND y",
            "t e",
            Some("e.x = 1 AND y"),
            None,
            "SELECT e.a, s.owner FROM t e LEFT JOIN pods s ON s.pod = e.a WHERE s.owner IS NULL",
        );
        check(
            "SELECT a FROM t JOIN pods ON pod = a WHERE owner = b AND \"Owner\" = 1",
            "t",
            Some("\"Owner\" = 1"),
            None,
            "SELECT a FROM t JOIN pods ON pod = a WHERE owner = b",
        );
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let check = |sql: &str, part: &str| {
            let refused = take_apart(sql, &pods()).expect_err(sql);
            assert!(refused.reason.contains(part), "{sql}: {refused:?}");
        };
        check("SELECT a FROM t WHERE x OR first_seen(INTERVAL '1 day', a)", "no condition of its own");
        check("SELECT first_seen(INTERVAL '1 day', a) FROM t", "no condition of its own");
        check("SELECT a FROM t WHERE first_seen(INTERVAL '1 day')", "no column");
        check("SELECT a FROM t WHERE first_seen(INTERVAL '1 d', a) AND first_seen(INTERVAL '1 d', b)", "twice");
        check("SELECT a FROM t JOIN u ON t.a = u.a", "joins tables");
        check("SELECT a FROM pods JOIN t ON pod = a", "begins with the state table `pods`");
        check("SELECT a FROM t, pods WHERE pod = a", "several tables");
        check("SELECT a FROM t RIGHT JOIN pods ON pod = a", "in another way");
        check("SELECT a FROM t JOIN pods USING (pod)", "in another way");
        check("SELECT a FROM t JOIN pods ON pod = a WHERE first_seen(INTERVAL '1 d', owner)", "not of the event");
        check("WITH x AS (SELECT 1) SELECT a FROM x JOIN pods ON pod = a", "WITH");
        check("SELECT a FROM (SELECT * FROM t) WHERE first_seen(INTERVAL '1 d', a)", "something else");
    }

    #[test]
    fn only_rules_that_remember_are_taken_apart() {
        let check = |sql: &str, expected: bool| assert_eq!(remembers(sql, &pods()), expected, "{sql}");
        check("SELECT a FROM t WHERE b = 1", false);
        check("SELECT a FROM t WHERE NOT FIRST_SEEN(INTERVAL '1 d', a)", true);
        check("SELECT a FROM t JOIN Pods ON pod = a", true);
        check("SELECT a FROM t WHERE a IN (SELECT pod FROM pods)", true);
    }
}
