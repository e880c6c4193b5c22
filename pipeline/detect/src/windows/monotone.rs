//! May a rule fire before its boundary is final? Yes, if more events can only add findings. Decided from the plan: every
//! column either stays what it is, only grows, only shrinks, or varies as rows are added; every condition on columns that
//! move must be one that can only become true.

use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, JoinType, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

/// How a column's value in a row moves as events are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    Not,
    Up,
    Down,
    Anyhow,
}

/// `Ok` if findings over more rows are a superset, or the reason why not.
pub fn monotone(plan: &LogicalPlan, entity: &[String]) -> Result<(), String> {
    let columns = columns_of(plan)?;
    for name in entity {
        let at = plan.schema().fields().iter().position(|f| f.name() == name);
        if at.is_some_and(|at| columns[at] != Moves::Not) {
            return Err(format!("the entity column `{name}` changes as events come"));
        }
    }
    Ok(())
}

fn columns_of(plan: &LogicalPlan) -> Result<Vec<Moves>, String> {
    match plan {
        LogicalPlan::TableScan(scan) => Ok(vec![Moves::Not; scan.projected_schema.fields().len()]),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(vec![Moves::Not; plan.schema().fields().len()]),
        LogicalPlan::SubqueryAlias(alias) => columns_of(&alias.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => columns_of(&sort.input),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => Err("LIMIT: more events push others out".into()),
        LogicalPlan::Projection(projection) => {
            let input = columns_of(&projection.input)?;
            projection.expr.iter().map(|e| moves(e, projection.input.schema(), &input)).collect()
        }
        LogicalPlan::Filter(filter) => {
            let input = columns_of(&filter.input)?;
            rises(&filter.predicate, filter.input.schema(), &input)?;
            Ok(input)
        }
        LogicalPlan::Distinct(_) | LogicalPlan::Unnest(_) => {
            let input = columns_of(plan.inputs()[0])?;
            match input.iter().all(|m| *m == Moves::Not) {
                true => Ok(vec![Moves::Not; plan.schema().fields().len()]),
                false => Err("DISTINCT over values that change as events come".into()),
            }
        }
        LogicalPlan::Union(union) => {
            let mut columns = vec![Moves::Not; plan.schema().fields().len()];
            for input in &union.inputs {
                for (have, also) in columns.iter_mut().zip(columns_of(input)?) {
                    *have = if also == Moves::Not { *have } else { Moves::Anyhow };
                }
            }
            Ok(columns)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = columns_of(&aggregate.input)?;
            let schema = aggregate.input.schema();
            let mut columns = Vec::new();
            for expr in &aggregate.group_expr {
                match moves(expr, schema, &input)? {
                    Moves::Not => columns.push(Moves::Not),
                    _ => return Err("it groups by values that change as events come".into()),
                }
            }
            for expr in &aggregate.aggr_expr {
                columns.push(aggregate_moves(expr, schema, &input)?);
            }
            Ok(columns)
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (columns_of(&join.left)?, columns_of(&join.right)?);
            let columns = match join.join_type {
                JoinType::Inner => left.iter().chain(&right).copied().collect(),
                JoinType::LeftSemi => left.clone(),
                JoinType::RightSemi => right.clone(),
                JoinType::LeftAnti | JoinType::RightAnti => {
                    return Err("it looks for what is absent, which may still come".into());
                }
                JoinType::Left | JoinType::Right | JoinType::Full => {
                    return Err("an outer join: what is absent may still come".into());
                }
                _ => return Err("its join marks what is absent".into()),
            };
            let both: Vec<Moves> = left.iter().chain(&right).copied().collect();
            let schema = join.left.schema().join(join.right.schema()).map_err(|e| e.strip_backtrace())?;
            let conditions = join.on.iter().flat_map(|(a, b)| [a, b]).chain(join.filter.as_ref());
            for condition in conditions {
                if moves(condition, &schema, &both)? != Moves::Not {
                    return Err("it joins on values that change as events come".into());
                }
            }
            Ok(columns)
        }
        LogicalPlan::Window(_) => Err("a window function: more events change the values of others".into()),
        other => Err(format!("{} is not known to only gain rows", other.display())),
    }
}

fn moves(expr: &Expr, schema: &DFSchema, input: &[Moves]) -> Result<Moves, String> {
    if has_subquery(expr) {
        return Err("a subquery whose value changes as events come".into());
    }
    let of = |column: &datafusion::common::Column| {
        schema.maybe_index_of_column(column).and_then(|at| input.get(at)).copied().unwrap_or(Moves::Anyhow)
    };
    Ok(match expr {
        Expr::Column(column) => of(column),
        Expr::Alias(alias) => moves(&alias.expr, schema, input)?,
        Expr::Cast(cast) => moves(&cast.expr, schema, input)?,
        other if other.column_refs().iter().all(|c| of(c) == Moves::Not) => Moves::Not,
        _ => Moves::Anyhow,
    })
}

fn has_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)))
    })
    .unwrap_or(true)
}

fn aggregate_moves(expr: &Expr, schema: &DFSchema, input: &[Moves]) -> Result<Moves, String> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return Ok(Moves::Anyhow) };
    let mut parts = params.args.iter().chain(params.filter.as_deref());
    let steady = parts.try_fold(true, |all, e| Ok::<_, String>(all && moves(e, schema, input)? == Moves::Not))?;
    Ok(match func.name() {
        _ if !steady => Moves::Anyhow,
        "count" | "max" | "bool_or" => Moves::Up,
        "min" | "bool_and" => Moves::Down,
        "sum" if params.args.iter().all(is_never_negative) => Moves::Up,
        _ => Moves::Anyhow,
    })
}

/// Sums of such only grow.
fn is_never_negative(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => match value {
            ScalarValue::Int64(Some(n)) => *n >= 0,
            ScalarValue::Float64(Some(n)) => *n >= 0.0,
            ScalarValue::UInt64(_) | ScalarValue::UInt32(_) => true,
            other => other.is_null(),
        },
        Expr::Cast(cast) => is_never_negative(&cast.expr),
        Expr::Alias(alias) => is_never_negative(&alias.expr),
        Expr::Case(case) => {
            case.when_then_expr.iter().all(|(_, then)| is_never_negative(then))
                && case.else_expr.as_deref().is_none_or(is_never_negative)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Multiply, right }) => {
            is_never_negative(left) && is_never_negative(right)
        }
        Expr::ScalarFunction(call) => {
            ["character_length", "octet_length", "bit_length", "abs", "cardinality", "array_length"]
                .contains(&call.func.name())
        }
        _ => false,
    }
}

/// A condition that, once true, stays true.
fn rises(predicate: &Expr, schema: &DFSchema, input: &[Moves]) -> Result<(), String> {
    let reason = || Err(format!("`{predicate}` can be true and then false again"));
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            rises(left, schema, input)?;
            rises(right, schema, input)
        }
        Expr::Alias(alias) => rises(&alias.expr, schema, input),
        Expr::IsNotNull(inner) if moves(inner, schema, input)? != Moves::Anyhow => Ok(()),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let sides = (moves(left, schema, input)?, moves(right, schema, input)?);
            match (sides, op) {
                ((Moves::Not, Moves::Not), _) => Ok(()),
                ((Moves::Up, Moves::Not | Moves::Down), Operator::Gt | Operator::GtEq) => Ok(()),
                ((Moves::Not, Moves::Down), Operator::Gt | Operator::GtEq) => Ok(()),
                ((Moves::Down, Moves::Not | Moves::Up), Operator::Lt | Operator::LtEq) => Ok(()),
                ((Moves::Not, Moves::Up), Operator::Lt | Operator::LtEq) => Ok(()),
                _ => reason(),
            }
        }
        other => match moves(other, schema, input)? {
            Moves::Not => Ok(()),
            _ => reason(),
        },
    }
}
