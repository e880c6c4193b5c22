//! Which tables and views a rule takes to be silent about something: what it looks for there and does not find is its
//! reason. While such a relation has no row at all in the window, nothing follows from that, and the rule is withheld.
//!
//! Read from the plan: the side of an anti join that must not match, and the optional side of an outer join where a
//! condition asks for its NULLs or for a small count of it.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, JoinType, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

type Names = BTreeSet<String>;

/// The relations, ascending. One that the rule also reads to find something there is none of them: where it finds that,
/// the relation speaks.
pub fn absent(plan: &LogicalPlan, fixed: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut reading = Reading { fixed, absent: Names::new(), present: Names::new() };
    reading.columns(plan, true)?;
    Ok(reading.absent.difference(&reading.present).cloned().collect())
}

struct Reading<'a> {
    /// Lookups and state tables: they are never silent.
    fixed: &'a dyn Fn(&str) -> bool,
    absent: Names,
    present: Names,
}

impl Reading<'_> {
    /// By column of a plan, the relations of which it is NULL (or counts less) when they have no match. What the plan
    /// reads counts as present if `wanted`.
    fn columns(&mut self, plan: &LogicalPlan, wanted: bool) -> Result<Vec<Names>> {
        Ok(match plan {
            LogicalPlan::TableScan(scan) => {
                if wanted && !(self.fixed)(scan.table_name.table()) {
                    self.present.insert(scan.table_name.table().to_owned());
                }
                vec![Names::new(); scan.projected_schema.fields().len()]
            }
            LogicalPlan::Projection(projection) => {
                let input = self.columns(&projection.input, wanted)?;
                projection.expr.iter().map(|e| of(e, projection.input.schema(), &input)).collect()
            }
            LogicalPlan::Filter(filter) => {
                let input = self.columns(&filter.input, wanted)?;
                self.condition(&filter.predicate, filter.input.schema(), &input)?;
                input
            }
            LogicalPlan::Aggregate(aggregate) => {
                let input = self.columns(&aggregate.input, wanted)?;
                let all = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
                all.map(|e| of(e, aggregate.input.schema(), &input)).collect()
            }
            LogicalPlan::Join(join) => {
                let side = |left: bool| match (join.join_type, left) {
                    (JoinType::LeftAnti, false) | (JoinType::RightAnti, true) => Side::Absent,
                    (JoinType::Left | JoinType::LeftMark, false) | (JoinType::Right | JoinType::RightMark, true) => {
                        Side::Optional
                    }
                    (JoinType::Full, _) => Side::Optional,
                    _ => Side::Present,
                };
                let mut sides = Vec::new();
                for (left, input) in [(true, &join.left), (false, &join.right)] {
                    let side = side(left);
                    let mut columns = self.columns(input, wanted && side == Side::Present)?;
                    let read = self.read(input)?;
                    match side {
                        Side::Absent => self.absent.extend(read.iter().cloned()),
                        Side::Optional => columns.iter_mut().for_each(|c| c.extend(read.iter().cloned())),
                        Side::Present => {}
                    }
                    sides.push((columns, read));
                }
                let (right, left) = (sides.pop().expect("two sides"), sides.pop().expect("two sides"));
                match join.join_type {
                    JoinType::LeftSemi | JoinType::LeftAnti => left.0,
                    JoinType::RightSemi | JoinType::RightAnti => right.0,
                    JoinType::LeftMark => left.0.into_iter().chain([right.1]).collect(),
                    JoinType::RightMark => right.0.into_iter().chain([left.1]).collect(),
                    _ => left.0.into_iter().chain(right.0).collect(),
                }
            }
            LogicalPlan::Union(union) => {
                let mut columns = vec![Names::new(); plan.schema().fields().len()];
                for input in &union.inputs {
                    let of_input = self.columns(input, wanted)?;
                    columns.iter_mut().zip(of_input).for_each(|(column, also)| column.extend(also));
                }
                columns
            }
            other => {
                let mut columns = Vec::new();
                for input in other.inputs() {
                    columns.extend(self.columns(input, wanted)?);
                }
                columns.resize(other.schema().fields().len(), Names::new());
                columns
            }
        })
    }

    /// What a plan reads, lookups and state tables aside.
    fn read(&self, plan: &LogicalPlan) -> Result<Names> {
        let names = crate::plan::scanned_tables(plan)?;
        Ok(names.into_iter().filter(|name| !(self.fixed)(name)).collect())
    }

    fn condition(&mut self, predicate: &Expr, schema: &DFSchema, input: &[Names]) -> Result<()> {
        let mut found = Names::new();
        predicate.apply(|e| {
            match e {
                Expr::IsNull(inner) => found.extend(of(inner, schema, input)),
                Expr::Not(inner) if matches!(inner.as_ref(), Expr::Column(_)) => found.extend(of(inner, schema, input)),
                Expr::Exists(exists) if exists.negated => found.extend(self.read(&exists.subquery.subquery)?),
                Expr::InSubquery(within) if within.negated => found.extend(self.read(&within.subquery.subquery)?),
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), op, right.as_ref()) {
                    (counted, Operator::Lt | Operator::LtEq, Expr::Literal(..))
                    | (Expr::Literal(..), Operator::Gt | Operator::GtEq, counted) => {
                        found.extend(of(counted, schema, input));
                    }
                    (counted, Operator::Eq, Expr::Literal(value, _))
                    | (Expr::Literal(value, _), Operator::Eq, counted)
                        if is_zero(value) =>
                    {
                        found.extend(of(counted, schema, input));
                    }
                    _ => {}
                },
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        self.absent.extend(found);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Present,
    /// Rows without a match in it stay.
    Optional,
    /// Rows with a match in it go.
    Absent,
}

fn of(expr: &Expr, schema: &DFSchema, input: &[Names]) -> Names {
    let names = |column: &Column| schema.maybe_index_of_column(column).and_then(|at| input.get(at));
    expr.column_refs().into_iter().filter_map(names).flatten().cloned().collect()
}

fn is_zero(value: &ScalarValue) -> bool {
    matches!(ScalarValue::new_zero(&value.data_type()), Ok(zero) if zero == *value)
}
