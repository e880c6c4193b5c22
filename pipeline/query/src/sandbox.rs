//! What a statement may be. Two fences: what the text is (one query, no settings) and what its plan does
//! (nothing but reading); rules have a third: the same rows must always give the same answer.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

use crate::error::{from_planning, nearest};
use crate::session::table_names;
use crate::{Problem, Purpose, QueryError, functions};

/// Nesting of expressions and queries that the parser follows; deeper text is refused before it costs stack.
const NESTING_MAX: usize = 64;

/// Bytes of one statement. A rule is a page; a list of a thousand hashes still fits.
const SQL_BYTES_MAX: usize = 256 << 10;

/// Plans a rule's SELECT: deterministic, no session settings, no catalog queries.
pub async fn plan_rule(ctx: &SessionContext, sql: &str) -> Result<LogicalPlan, QueryError> {
    let plan = plan(ctx, sql, Purpose::Rule).await?;
    refuse_unsteady(&plan, sql)?;
    Ok(plan)
}

pub(crate) async fn plan(ctx: &SessionContext, sql: &str, purpose: Purpose) -> Result<LogicalPlan, QueryError> {
    let statement = parse(sql)?;
    check_statement(&statement, purpose)?;
    let state = ctx.state();
    let tables = state.resolve_table_references(&statement).map_err(|e| from_planning(e, sql))?;
    let known = table_names(ctx);
    for table in tables {
        let name = table.table();
        if table.schema().is_none() && state.table_functions().contains_key(name) {
            if purpose == Purpose::Rule {
                return Err(Problem::new(format!("table function `{name}` is refused in a rule")).at(sql, name).into());
            }
            continue;
        }
        let catalog = table.schema().is_some_and(|s| s == "information_schema") && purpose == Purpose::Hunt;
        if !catalog && (table.schema().is_some() || !known.iter().any(|k| k == name)) {
            return Err(unknown_table(&table.to_string(), &known, sql).into());
        }
    }
    let plan = state.statement_to_plan(statement).await.map_err(|e| from_planning(e, sql))?;
    read_only().verify_plan(&plan).map_err(|e| from_planning(e, sql))?;
    match functions::check_constants(&plan).map_err(|e| from_planning(e, sql))? {
        Some(problem) => Err(problem.at_quoted(sql).into()),
        None => Ok(plan),
    }
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn parse(sql: &str) -> Result<Statement, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(Problem::new(format!("the statement is longer than {SQL_BYTES_MAX} bytes")).into());
    }
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&PostgreSqlDialect {})
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| from_planning(e, sql))?;
    let count = statements.len();
    match statements.into_iter().next() {
        Some(statement) if count == 1 => Ok(statement),
        Some(_) => Err(Problem::new(format!("{count} statements where one is expected")).into()),
        None => Err(Problem::new("there is no statement").hint("write one SELECT").into()),
    }
}

fn check_statement(statement: &Statement, purpose: Purpose) -> Result<(), QueryError> {
    let refuse = |what: &str| Err(Problem::new(format!("{what} is refused: SQL here can only read")).into());
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            SqlStatement::Query(_) => Ok(()),
            SqlStatement::Explain { .. } | SqlStatement::ExplainTable { .. } if purpose == Purpose::Hunt => Ok(()),
            SqlStatement::ShowTables { .. } | SqlStatement::ShowColumns { .. } if purpose == Purpose::Hunt => Ok(()),
            other => refuse(&first_words(&other.to_string())),
        },
        Statement::Explain(explain) if purpose == Purpose::Hunt => check_statement(&explain.statement, purpose),
        other => refuse(&first_words(&other.to_string())),
    }
}

fn first_words(sql: &str) -> String {
    format!("`{}`", sql.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn unknown_table(name: &str, known: &[String], sql: &str) -> Problem {
    let bare = name.rsplit('.').next().unwrap_or(name);
    if sql.to_lowercase().contains(&format!("{}(", bare.to_lowercase())) {
        let problem = Problem::new(format!("unknown table function `{name}`")).at(sql, bare);
        return problem.hint("only registered tables can be read");
    }
    let problem = Problem::new(format!("unknown table `{name}`")).at(sql, bare);
    match nearest(bare, known.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => {
            let mut known = known.to_vec();
            known.sort();
            problem.hint(format!("there are {}", known.join(", ")))
        }
    }
}

/// Refuses what would give other answers for the same rows, or depend on their order.
fn refuse_unsteady(plan: &LogicalPlan, sql: &str) -> Result<(), QueryError> {
    let mut problem: Option<Problem> = None;
    plan.apply_with_subqueries(|node| {
        problem = node_problem(node, sql)?;
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|e| from_planning(e, sql))?;
    problem.map_or(Ok(()), |p| Err(p.into()))
}

fn node_problem(node: &LogicalPlan, sql: &str) -> Result<Option<Problem>, DataFusionError> {
    match node {
        LogicalPlan::Limit(limit) if !is_sorted(&limit.input) => {
            return Ok(Some(
                Problem::new("LIMIT without ORDER BY is refused in a rule: which rows it keeps is not determined")
                    .at(sql, "limit"),
            ));
        }
        LogicalPlan::RecursiveQuery(_) => {
            return Ok(Some(Problem::new("a recursive query is refused in a rule: it need not end")));
        }
        LogicalPlan::Filter(filter) => {
            if let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref()
                && let Some(name) = approximate_in(&filter.predicate, &aggregate.aggr_expr)
            {
                return Ok(Some(
                    Problem::new(format!("`{name}` in HAVING is refused in a rule: it is approximate"))
                        .at(sql, &name)
                        .hint("use count(DISTINCT …) or another exact aggregate"),
                ));
            }
        }
        _ => {}
    }
    let mut problem = None;
    node.apply_expressions(|expr| {
        expr.apply(|e| {
            problem = volatile_problem(e, sql);
            Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(problem)
}

fn volatile_problem(expr: &Expr, sql: &str) -> Option<Problem> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func.signature().volatility == Volatility::Immutable {
        return None;
    }
    let name = call.func.name();
    Some(
        Problem::new(format!("`{name}()` is refused in a rule: the same rows must always give the same answer"))
            .at(sql, name)
            .hint("the window bounds time; compare columns with each other or with constants"),
    )
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(p) => is_sorted(&p.input),
        LogicalPlan::SubqueryAlias(a) => is_sorted(&a.input),
        _ => false,
    }
}

/// The approximate aggregate that the predicate over an aggregation uses, if it uses one.
fn approximate_in(predicate: &Expr, aggregates: &[Expr]) -> Option<String> {
    let used = predicate.column_refs();
    aggregates.iter().find_map(|aggregate| {
        let Expr::AggregateFunction(call) = aggregate else { return None };
        let name = call.func.name();
        let column = aggregate.schema_name().to_string();
        (name.starts_with("approx_") && used.iter().any(|c| c.name == column)).then(|| name.to_owned())
    })
}
