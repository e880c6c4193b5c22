//! HAVING over lanes: comparisons of counts with constants are decided without building a batch. What is not such a
//! comparison is left to DataFusion; then this is a condition that every holding group fulfils.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::fault::{self, Fault};

#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Always,
    Compare { lane: usize, op: Compare, to: i64 },
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

impl Compare {
    fn of(op: Operator) -> Option<Compare> {
        Some(match op {
            Operator::Lt => Compare::Less,
            Operator::LtEq => Compare::LessOrEqual,
            Operator::Eq => Compare::Equal,
            Operator::NotEq => Compare::NotEqual,
            Operator::GtEq => Compare::GreaterOrEqual,
            Operator::Gt => Compare::Greater,
            _ => return None,
        })
    }

    fn holds(self, a: i64, b: i64) -> bool {
        match self {
            Compare::Less => a < b,
            Compare::LessOrEqual => a <= b,
            Compare::Equal => a == b,
            Compare::NotEqual => a != b,
            Compare::GreaterOrEqual => a > b || (a == b && !fault::is(Fault::AtLeastIsMore)),
            Compare::Greater => a > b,
        }
    }
}

/// What was understood of a predicate.
pub struct Understood {
    pub condition: Condition,
    /// All of it: the condition is the predicate.
    pub exact: bool,
}

impl Understood {
    fn nothing() -> Understood {
        Understood { condition: Condition::Always, exact: false }
    }
}

/// `lane_of` names the lane that is exactly a column of the aggregation, never NULL.
pub fn understand(predicate: &Expr, lane_of: &dyn Fn(&str) -> Option<usize>) -> Understood {
    match predicate {
        Expr::Alias(alias) => understand(&alias.expr, lane_of),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (a, b) = (understand(left, lane_of), understand(right, lane_of));
            let condition = match (a.condition, b.condition) {
                (Condition::Always, other) | (other, Condition::Always) => other,
                (a, b) => Condition::And(Box::new(a), Box::new(b)),
            };
            Understood { condition, exact: a.exact && b.exact }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (a, b) = (understand(left, lane_of), understand(right, lane_of));
            match (a.condition, b.condition) {
                (Condition::Always, _) | (_, Condition::Always) => Understood::nothing(),
                (x, y) => Understood { condition: Condition::Or(Box::new(x), Box::new(y)), exact: a.exact && b.exact },
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let compared = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => (column, value, *op),
                (Expr::Literal(value, _), Expr::Column(column)) => match op.swap() {
                    Some(op) => (column, value, op),
                    None => return Understood::nothing(),
                },
                _ => return Understood::nothing(),
            };
            match (lane_of(&compared.0.name), compared.1, Compare::of(compared.2)) {
                (Some(lane), ScalarValue::Int64(Some(to)), Some(op)) => {
                    Understood { condition: Condition::Compare { lane, op, to: *to }, exact: true }
                }
                _ => Understood::nothing(),
            }
        }
        _ => Understood::nothing(),
    }
}

impl Condition {
    /// How many rows a group has at least where this holds: no lane that is compared counts a row twice.
    pub fn rows_min(&self) -> i64 {
        match self {
            Condition::Compare { op: Compare::Greater, to, .. } => to.saturating_add(1),
            Condition::Compare { op: Compare::GreaterOrEqual | Compare::Equal, to, .. } => *to,
            Condition::Compare { .. } | Condition::Always => 0,
            Condition::And(a, b) => a.rows_min().max(b.rows_min()),
            Condition::Or(a, b) => a.rows_min().min(b.rows_min()),
        }
    }

    pub fn holds(&self, lanes: &[i64]) -> bool {
        match self {
            Condition::Always => true,
            Condition::Compare { lane, op, to } => op.holds(lanes[*lane], *to),
            Condition::And(a, b) => a.holds(lanes) && b.holds(lanes),
            Condition::Or(a, b) => a.holds(lanes) || b.holds(lanes),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn comparisons_of_lanes_are_understood() {
        let lane_of = |name: &str| ["n", "m"].iter().position(|n| *n == name);
        let check = |predicate: Expr, lanes: [i64; 2], expected: (bool, bool)| {
            let understood = understand(&predicate, &lane_of);
            assert_eq!((understood.condition.holds(&lanes), understood.exact), expected, "{predicate} over {lanes:?}");
        };
        check(col("n").gt(lit(2i64)), [3, 0], (true, true));
        check(col("n").gt(lit(2i64)), [2, 0], (false, true));
        check(lit(2i64).lt(col("n")), [3, 0], (true, true));
        check(lit(2i64).lt(col("n")), [2, 0], (false, true));
        check(col("n").gt(lit(2i64)).and(col("m").lt_eq(lit(1i64))), [3, 2], (false, true));
        check(col("n").gt(lit(2i64)).or(col("m").lt_eq(lit(1i64))), [0, 1], (true, true));
        // Something else beside: necessary, not sufficient.
        check(col("n").gt(lit(2i64)).and(col("x").eq(lit("a"))), [2, 0], (false, false));
        check(col("n").gt(lit(2i64)).and(col("x").eq(lit("a"))), [3, 0], (true, false));
        check(col("n").gt(lit(2i64)).or(col("x").eq(lit("a"))), [0, 0], (true, false));
        check(!col("n").gt(lit(2i64)), [3, 0], (true, false));
        check(col("n").gt(lit(2.5)), [0, 0], (true, false));
    }

    #[test]
    fn how_many_rows_it_takes_is_what_holds_at_no_fewer() {
        let lane_of = |name: &str| ["n", "m"].iter().position(|n| *n == name);
        let check = |predicate: Expr, expected: i64| {
            let condition = understand(&predicate, &lane_of).condition;
            assert_eq!(condition.rows_min(), expected, "{predicate}");
            let of_fewer = (0..expected).flat_map(|rows| (0..=rows).map(move |m| [rows, m]));
            assert!(of_fewer.into_iter().all(|lanes| !condition.holds(&lanes)), "{predicate}");
        };
        check(col("n").gt(lit(2i64)), 3);
        check(lit(2i64).lt_eq(col("n")), 2);
        check(col("m").eq(lit(4i64)), 4);
        check(col("n").lt(lit(9i64)), 0);
        check(col("n").gt(lit(2i64)).and(col("m").gt(lit(4i64))), 5);
        check(col("n").gt(lit(2i64)).and(col("m").lt(lit(1i64))), 3);
        check(col("n").gt(lit(2i64)).or(col("m").gt(lit(4i64))), 3);
        check(col("n").gt(lit(2i64)).or(col("m").lt(lit(1i64))), 0);
        check(col("n").gt(lit(2i64)).and(col("x").eq(lit("a"))), 3);
        check(col("n").gt(lit(i64::MAX)).and(col("n").lt(lit(0i64))).or(col("m").gt(lit(1i64))), 2);
    }
}
