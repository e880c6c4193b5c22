//! Evidence by derivation: from `SELECT … FROM t WHERE …` follows which rows contributed to a result row, namely
//! those of `t` that pass the WHERE and have the row's entity. Works on the syntax tree, so that the query kept
//! with a finding reads like the rule.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableFactor, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The column by which a rule lists its evidence itself.
pub const EVIDENCE_COLUMN: &str = "evidence";

#[derive(Clone, Debug)]
pub enum EvidenceSource {
    Derived(Derived),
    /// The rule selects [`EVIDENCE_COLUMN`]: the `event_uid`s of the rows.
    Listed,
}

/// The parts of a rule over one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Table with its alias, as written.
    pub from: String,
    pub filter: Option<String>,
    /// The expression behind each entity column, in order.
    pub entity: Vec<String>,
}

impl Derived {
    /// `(…) AND ` or nothing.
    pub fn filter_and(&self) -> String {
        self.filter.as_ref().map_or(String::new(), |f| format!("({f}) AND "))
    }
}

/// Takes a rule's SQL apart, or says why that is not possible. `is_row_wise` tells whether a function of that
/// name works on one row (is no aggregate and no window function).
pub fn derive(sql: &str, entity: &[String], is_row_wise: &dyn Fn(&str) -> bool) -> Result<Derived, String> {
    let select = simple_select(sql)?;
    let TableFactor::Table { args: None, .. } = &select.from[0].relation else {
        return Err("it reads something else than a table".into());
    };
    if let Some(filter) = &select.selection
        && !is_plain(filter, is_row_wise)
    {
        return Err("its WHERE has a subquery".into());
    }
    let mut expressions = Vec::with_capacity(entity.len());
    for column in entity {
        let expr = behind(column, &select)
            .ok_or_else(|| format!("there is no single expression behind the entity column `{column}`"))?;
        if !is_plain(&expr, is_row_wise) {
            return Err(format!("the entity column `{column}` is not computed from one row"));
        }
        expressions.push(expr.to_string());
    }
    Ok(Derived {
        from: select.from[0].relation.to_string(),
        filter: select.selection.as_ref().map(ToString::to_string),
        entity: expressions,
    })
}

fn simple_select(sql: &str) -> Result<Select, String> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|e| e.to_string())?;
    let Some(Statement::Query(query)) = statements.pop() else { return Err("it is not a SELECT".into()) };
    let Query { with: None, body, limit_clause: None, fetch: None, .. } = *query else {
        return Err("it has a WITH or a LIMIT".into());
    };
    let SetExpr::Select(select) = *body else { return Err("it is a UNION or VALUES".into()) };
    match select.from.as_slice() {
        [one] if one.joins.is_empty() && select.lateral_views.is_empty() => Ok(*select),
        _ => Err("it joins tables".into()),
    }
}

/// The expression that the SELECT gives this name to; with `*` or without the name a column of the table.
fn behind(column: &str, select: &Select) -> Option<Expr> {
    let mut wildcard = false;
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } if normal(alias) == column => return Some(expr.clone()),
            SelectItem::UnnamedExpr(expr) if last_name(expr).is_some_and(|name| name == column) => {
                return Some(expr.clone());
            }
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => wildcard = true,
            _ => {}
        }
    }
    wildcard.then(|| Expr::Identifier(Ident::with_quote('"', column)))
}

fn last_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(normal(name)),
        Expr::CompoundIdentifier(names) => names.last().map(normal),
        _ => None,
    }
}

/// SQL folds names that are not quoted.
fn normal(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}

fn is_plain(expr: &Expr, is_row_wise: &dyn Fn(&str) -> bool) -> bool {
    let found = visit_expressions(expr, |e| match e {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        Expr::Function(call) if call.over.is_some() => ControlFlow::Break(()),
        Expr::Function(call) if !is_row_wise(&call.name.to_string().to_lowercase()) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found == ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: Result<(&str, Option<&str>, &[&str]), &str>) {
        let entity: Vec<String> = vec!["who".into()];
        let derived = derive(sql, &entity, &|name| name != "max" && name != "count");
        match (derived, expected) {
            (Ok(derived), Ok((from, filter, entity))) => {
                assert_eq!(derived.from, from, "{sql}");
                assert_eq!(derived.filter.as_deref(), filter, "{sql}");
                assert_eq!(derived.entity, entity, "{sql}");
            }
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{sql}: {reason}"),
            (derived, _) => panic!("{sql}: {derived:?}"),
        }
    }

    #[test]
    fn one_table_gives_its_evidence() {
        check(
            "/* x */ SELECT lower(u) AS who, count(*) n FROM t WHERE a = 1 OR b GROUP BY 1 HAVING count(*) > 2",
            Ok(("t", Some("a = 1 OR b"), &["lower(u)"])),
        );
        check("SELECT k.who FROM t k", Ok(("t k", None, &["k.who"])));
        check("SELECT * FROM t", Ok(("t", None, &["\"who\""])));
    }

    #[test]
    fn what_cannot_be_derived_says_why() {
        check("SELECT who FROM t JOIN u ON t.a = u.a", Err("joins"));
        check("SELECT who FROM t, u", Err("joins"));
        check("WITH x AS (SELECT 1) SELECT who FROM x", Err("WITH"));
        check("SELECT who FROM (SELECT who FROM t)", Err("else than a table"));
        check("SELECT who FROM t WHERE a IN (SELECT a FROM u)", Err("subquery"));
        check("SELECT max(u) AS who FROM t", Err("not computed from one row"));
        check("SELECT lower(who) FROM t", Err("no single expression"));
        check("SELECT who FROM t UNION ALL SELECT who FROM u", Err("UNION"));
    }
}
