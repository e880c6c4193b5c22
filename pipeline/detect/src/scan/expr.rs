//! Reading and rewriting physical expressions.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::scalar::ScalarValue;

use crate::pattern::Pattern;

pub type Expr = Arc<dyn PhysicalExpr>;

/// The columns that an expression reads, ascending.
pub fn columns(expr: &Expr) -> Vec<usize> {
    let mut columns = Vec::new();
    expr.apply(|e| {
        columns.extend(e.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("nothing in the walk fails");
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Whether the expression is made of kinds that depend on nothing but the values of their columns, so that it may be
/// moved to other rows and its columns be replaced. Lambdas, whose bodies count columns in their own way, are not.
pub fn is_plain(expr: &Expr) -> bool {
    let mut plain = true;
    expr.apply(|e| {
        plain &= is_known(e) && !e.is_volatile_node();
        Ok(if plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })
    .expect("nothing in the walk fails");
    plain
}

fn is_known(expr: &Expr) -> bool {
    expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<BinaryExpr>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<LikeExpr>()
        || expr.is::<CastExpr>()
        || expr.is::<TryCastExpr>()
        || expr.is::<CaseExpr>()
        || expr.is::<NegativeExpr>()
        || expr.is::<ScalarFunctionExpr>()
        || expr.is::<Pattern>()
}

/// The expression with each column replaced.
pub fn replace(expr: &Expr, by: &dyn Fn(usize) -> Expr) -> Result<Expr> {
    expr.clone()
        .transform_up(|e| {
            Ok(match e.downcast_ref::<Column>() {
                Some(column) => Transformed::yes(by(column.index())),
                None => Transformed::no(e),
            })
        })
        .data()
}

/// The arms of a chain of one operator. Without recursion: a chain may be thousands long.
pub fn arms(expr: &Expr, operator: Operator) -> Vec<Expr> {
    let mut arms = Vec::new();
    let mut rest = vec![expr.clone()];
    while let Some(expr) = rest.pop() {
        match binary(&expr) {
            Some((left, op, right)) if op == operator => rest.extend([right.clone(), left.clone()]),
            _ => arms.push(expr),
        }
    }
    arms
}

pub fn binary(expr: &Expr) -> Option<(&Expr, Operator, &Expr)> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    Some((binary.left(), *binary.op(), binary.right()))
}

pub fn column(expr: &Expr) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

pub fn literal(expr: &Expr) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

/// A constant text.
pub fn literal_text(expr: &Expr) -> Option<&str> {
    literal(expr)?.try_as_str().flatten()
}

/// `x IS [NOT] TRUE | FALSE | UNKNOWN` as (x, what, negated).
pub fn is_truth(expr: &Expr) -> Option<(&Expr, Option<bool>, bool)> {
    let (left, op, right) = binary(expr)?;
    let negated = match op {
        Operator::IsNotDistinctFrom => false,
        Operator::IsDistinctFrom => true,
        _ => return None,
    };
    match literal(right)? {
        ScalarValue::Boolean(what) => Some((left, *what, negated)),
        _ => None,
    }
}

/// Expressions over some columns of a table, as expressions over a batch of just these.
#[derive(Debug)]
pub struct Local {
    /// The columns, in the batch's order.
    pub inputs: Vec<usize>,
    pub schema: SchemaRef,
    pub exprs: Vec<Expr>,
}

impl Local {
    pub fn of(exprs: &[Expr], fields: &[Field]) -> Result<Local> {
        let mut inputs: Vec<usize> = exprs.iter().flat_map(columns).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let place = |column: usize| -> Expr {
            let index = inputs.binary_search(&column).expect("inputs are the columns of the expressions");
            Arc::new(Column::new(fields[column].name(), index))
        };
        let exprs = exprs.iter().map(|e| replace(e, &place)).collect::<Result<_>>()?;
        let schema = Schema::new(inputs.iter().map(|c| fields[*c].clone()).collect::<Vec<_>>());
        Ok(Local { inputs, schema: Arc::new(schema), exprs })
    }
}
