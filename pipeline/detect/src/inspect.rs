//! Looking at a rule from outside: what it takes from which table, how its evidence is found, and what it says at one
//! boundary. For people; nothing here decides anything.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::unparser::expr_to_sql;
use event::{Micros, Origin};
use query::{QueryError, batch_table};

use crate::derive::EvidenceSource;
use crate::error::DetectError;
use crate::evidence;
use crate::history::History;
use crate::oracle::{self, Entity, Held, Look};
use crate::plan::{WINDOW_COLUMNS, empty_tables, named_relations};
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use crate::runs::Run;

/// What of a table or view can matter to a rule: everything else never enters its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sieve {
    pub relation: String,
    /// Those that the rule uses, but for what windows are cut by.
    pub columns: Vec<String>,
    /// What its rows must satisfy, as the optimizer pushed it down; each must hold.
    pub conditions: Vec<String>,
}

/// One sieve for each time the rule names a table, in the order of the plan.
pub async fn sieves(rules: &RuleSet, rule: &Rule) -> Result<Vec<Sieve>, QueryError> {
    let tables = empty_tables(&rules.base, &rules.schemas)?;
    for state in &rules.states {
        let empty = batch_table(state.schema.clone(), Vec::new());
        tables.register_table(state.name.as_str(), empty).map_err(QueryError::run)?;
    }
    let flat = query::fork(&rules.base);
    for name in named_relations(&tables, &rule.sql).map_err(QueryError::run)? {
        let view = tables.table_provider(name.as_str()).await.map_err(QueryError::run)?;
        flat.register_table(name.as_str(), batch_table(view.schema(), Vec::new())).map_err(QueryError::run)?;
    }
    let plan = query::plan_rule(&flat, &rule.sql).await?;
    let plan = flat.state().optimize(&plan).map_err(QueryError::run)?;
    let mut found: Vec<Sieve> = Vec::new();
    collect(&plan, &mut found).map_err(QueryError::run)?;
    found.dedup();
    Ok(found)
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Sieve>) -> datafusion::error::Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) = node
            && let Some((sieve, _)) = of_scan(node)?
        {
            found.push(sieve);
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// What a name above a projection stands for below it.
type Names = HashMap<String, Expr>;

/// Of filters over a scan, through aliases and the projections in which the optimizer computes once what is used twice.
fn of_scan(plan: &LogicalPlan) -> datafusion::error::Result<Option<(Sieve, Names)>> {
    Ok(match plan {
        LogicalPlan::SubqueryAlias(alias) => of_scan(&alias.input)?,
        LogicalPlan::Filter(filter) => {
            let Some((mut sieve, names)) = of_scan(&filter.input)? else { return Ok(None) };
            split(&written_out(&filter.predicate, &names)?, &mut sieve.conditions);
            Some((sieve, names))
        }
        LogicalPlan::Projection(projection) => {
            let Some((sieve, below)) = of_scan(&projection.input)? else { return Ok(None) };
            let mut names = Names::new();
            for expr in &projection.expr {
                let (_, name) = expr.qualified_name();
                names.insert(name, written_out(&expr.clone().unalias(), &below)?);
            }
            Some((sieve, names))
        }
        LogicalPlan::TableScan(scan) => {
            let fields = scan.projected_schema.fields().iter().map(|f| f.name().clone());
            let mut conditions = Vec::new();
            scan.filters.iter().for_each(|filter| split(filter, &mut conditions));
            let sieve = Sieve {
                relation: scan.table_name.table().to_owned(),
                columns: fields.filter(|name| !WINDOW_COLUMNS.contains(&name.as_str())).collect(),
                conditions,
            };
            Some((sieve, Names::new()))
        }
        _ => None,
    })
}

fn written_out(expr: &Expr, names: &Names) -> datafusion::error::Result<Expr> {
    let rewritten = expr.clone().transform_up(|expr| {
        Ok(match &expr {
            Expr::Column(column) => match names.get(&column.name) {
                Some(meant) if *meant != expr => Transformed::yes(meant.clone()),
                _ => Transformed::no(expr),
            },
            _ => Transformed::no(expr),
        })
    })?;
    Ok(rewritten.data)
}

/// A condition as SQL, one entry per part of its AND.
fn split(condition: &Expr, into: &mut Vec<String>) {
    for part in datafusion::logical_expr::utils::split_conjunction(condition) {
        let part = unnormalize_col(part.clone());
        into.push(match expr_to_sql(&part) {
            Ok(ast::Expr::Nested(inner)) => inner.to_string(),
            Ok(sql) => sql.to_string(),
            Err(_) => part.to_string(),
        });
    }
}

/// How the events behind a finding are found, with `<…>` for what is the finding's own.
pub fn evidence_query(rule: &Rule) -> String {
    let Body::Windowed(windowed) = &rule.body else {
        return format!("the row itself, of {}", rule.tables.join(" or "));
    };
    match &windowed.evidence {
        EvidenceSource::Listed => "what the rule lists as `evidence`".to_owned(),
        EvidenceSource::Derived(derived) => {
            let entity: Vec<String> =
                derived.entity.iter().zip(&rule.entity).map(|(by, name)| format!("{by} = <{name}>")).collect();
            let whose = entity.join(" AND ");
            format!(
                "SELECT raw FROM {} WHERE {}{whose} AND time >= <first - window> AND time < <last>",
                derived.from,
                derived.filter_and()
            )
        }
    }
}

/// What a windowed rule says of one entity at one boundary.
#[derive(Clone, Debug)]
pub struct Moment {
    pub boundary: Micros,
    /// The row of its SELECT, if the entity holds there.
    pub held: Option<Held>,
    /// The rows of the entity that this boundary looks at. `None` where only the rule itself could list them.
    pub query: Option<String>,
}

/// Evaluates a windowed rule at `boundary` as its meaning has it; `None` for single-event rules.
pub async fn moment(
    rules: &RuleSet,
    rule: &Rule,
    entity: &Entity,
    boundary: Micros,
    origin: Origin,
    history: &dyn History,
) -> Result<Option<Moment>, DetectError> {
    let Body::Windowed(windowed) = &rule.body else { return Ok(None) };
    let (window, source) = (windowed.window, &windowed.evidence);
    let stored = rules.stored(history)?;
    let relations = providers(&stored, rule).await?;
    let relations = &|name: &str| relations[name].clone();
    let joined = oracle::joined(rule, window, boundary, origin, &stored).await?;
    let look = Look { base: &rules.base, rule, window, boundary, origin, relations, joined: &joined };
    let answer = look.evaluate().await?;
    let held = answer.held.into_iter().find(|held| held.entity == *entity);
    let run = held.clone().map(|held| Run::new(held, boundary)).unwrap_or_else(|| Run {
        entity: entity.clone(),
        first: boundary,
        last: boundary,
        values: serde_json::Map::new(),
        evidence: Vec::new(),
    });
    let is_told = held.is_some() || matches!(source, EvidenceSource::Derived(_));
    let query = is_told.then(|| evidence::run_query(rule, window, source, &run, origin, None));
    Ok(Some(Moment { boundary, held, query }))
}

async fn providers(
    stored: &SessionContext,
    rule: &Rule,
) -> Result<HashMap<String, Arc<dyn TableProvider>>, DetectError> {
    let mut providers: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
    for relation in &rule.relations {
        providers.insert(relation.name.clone(), stored.table_provider(relation.name.as_str()).await?);
    }
    Ok(providers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, Store, row, rule_text};

    const S: Micros = 1_000_000;

    #[tokio::test]
    async fn sieves_show_what_was_pushed_down() {
        let check = async |header: &str, sql: &str, expected: &[(&str, &str, &[&str])]| {
            let rules = fixtures::rules(&[("d/rule.sql", &rule_text("cluster", header, sql))]).await;
            let sieves = sieves(&rules, &rules.rules[0]).await.unwrap();
            let got: Vec<(String, String, Vec<String>)> =
                sieves.into_iter().map(|s| (s.relation, s.columns.join(" "), s.conditions)).collect();
            let got: Vec<(&str, &str, Vec<&str>)> =
                got.iter().map(|(r, c, w)| (r.as_str(), c.as_str(), w.iter().map(String::as_str).collect())).collect();
            let expected: Vec<_> = expected.iter().map(|(r, c, w)| (*r, *c, w.to_vec())).collect();
            assert_eq!(got, expected, "{sql}");
        };
        check(
            "",
            "SELECT cluster FROM kubernetes_calls WHERE verb = 'get' AND response_code > 200",
            &[("kubernetes_calls", "cluster verb response_code", &["verb = 'get'", "response_code > 200"])],
        )
        .await;
        // What is computed once for two conditions is written out.
        check(
            "",
            "SELECT cluster FROM cloudtrail WHERE lower(event_name) LIKE 'a%' AND lower(event_name) LIKE '%b'",
            &[("cloudtrail", "cluster event_name", &["lower(event_name) LIKE 'a%'", "lower(event_name) LIKE '%b'"])],
        )
        .await;
        check(
            "window: 10m",
            "SELECT a.cluster, array_agg(a.event_uid) AS evidence FROM kubernetes a\n\
             JOIN cloudtrail b ON a.actor_user_name = b.actor_user_name\n\
             WHERE a.verb = 'get' AND b.event_name = 'X' GROUP BY a.cluster",
            &[
                ("kubernetes", "event_uid cluster actor_user_name verb", &["verb = 'get'"]),
                ("cloudtrail", "actor_user_name event_name", &["event_name = 'X'"]),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_moment_tells_what_held_and_over_which_rows() {
        let sql =
            "SELECT cluster, count(*) AS n FROM kubernetes WHERE verb = 'get' GROUP BY cluster HAVING count(*) > 1";
        let rules = fixtures::rules(&[("d/rule.sql", &rule_text("cluster", "window: 10s\nevery: 1s", sql))]).await;
        let at = |second: i64| row("kubernetes", second * S, &format!("u{second}"), &[("verb", "get".into())]);
        let store = Store::of(&[at(100), at(105)]);
        let entity = vec![("cluster".to_owned(), "prod".to_owned())];
        let check = async |boundary: i64, expected: Option<i64>, rows: usize| {
            let rule = &rules.rules[0];
            let moment = moment(&rules, rule, &entity, boundary * S, Origin::Live, &store).await.unwrap().unwrap();
            let got = moment.held.map(|held| held.values["n"].as_i64().unwrap());
            assert_eq!(got, expected, "at {boundary}");
            let ctx = query::fork(&rules.base);
            query::register_tables(&ctx, &rules.schemas, &|name| store.table(name)).unwrap();
            let evidence = ctx.sql(&moment.query.unwrap()).await.unwrap().collect().await.unwrap();
            assert_eq!(evidence.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows, "at {boundary}");
        };
        check(105, None, 1).await;
        check(106, Some(2), 2).await;
        check(110, Some(2), 2).await;
        check(111, None, 1).await;
        check(130, None, 0).await;
    }
}
