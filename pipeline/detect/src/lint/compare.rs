//! Comparisons that cannot be what their author meant: with a value that the column never has, with one of another
//! type, or in a case that `lower` and `upper` do not give.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};
use event::ColumnType;
use query::nearest;

use super::scope::{Known, Scope, resolve};
use super::{Notes, bare};

/// So many values fit into a hint.
const VALUES_TOLD: usize = 12;

/// A literal and the line it stands in.
struct Literal<'e> {
    text: &'e str,
    is_number: bool,
    line: u64,
}

pub(super) fn check(expr: &Expr, scopes: &[Scope<'_>], notes: &mut Notes) {
    for (subject, literal) in comparisons(expr) {
        if let Some(known) = resolve(subject, scopes) {
            check_type(&known, &literal, notes);
            check_value(&known, &literal, notes);
        } else if let Some((function, of)) = case_function(subject) {
            check_case(&function, of, &literal, notes);
        }
    }
}

/// What an expression compares for equality or order with a literal.
fn comparisons(expr: &Expr) -> Vec<(&Expr, Literal<'_>)> {
    let pair = |subject, value| Some((subject, literal(value)?));
    match expr {
        Expr::BinaryOp { left, op, right } if is_comparison(op) => {
            pair(left.as_ref(), right.as_ref()).or_else(|| pair(right, left)).into_iter().collect()
        }
        Expr::InList { expr, list, .. } => list.iter().filter_map(|value| pair(expr, value)).collect(),
        Expr::Case { operand: Some(operand), conditions, .. } => {
            conditions.iter().filter_map(|when| pair(operand, &when.condition)).collect()
        }
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            pair(left.as_ref(), right.as_ref()).or_else(|| pair(right, left)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn literal(expr: &Expr) -> Option<Literal<'_>> {
    let Expr::Value(value) = bare(expr) else { return None };
    let line = value.span.start.line;
    match &value.value {
        Value::SingleQuotedString(text) => Some(Literal { text, is_number: false, line }),
        Value::Number(text, _) => Some(Literal { text, is_number: true, line }),
        _ => None,
    }
}

fn check_type(known: &Known, literal: &Literal, notes: &mut Notes) {
    let (name, text) = (&known.column.name, literal.text);
    let clash = |what: &str| format!("`{name}` is {what}, and `{text}` is not");
    match known.column.kind {
        ColumnType::Int64 if !literal.is_number && text.trim().parse::<f64>().is_err() => {
            notes.error(literal.line, clash("a number"), "compare it with a number, or another column with the text");
        }
        ColumnType::Bool if !is_truth(literal) => {
            let hint = format!("write `{name}` or `NOT {name}`; `IS NOT TRUE` counts NULL in");
            notes.error(literal.line, clash("true or false"), hint);
        }
        ColumnType::String if literal.is_number => {
            let message = format!("`{name}` is text, and {text} is a number");
            notes.warn(literal.line, message, format!("write '{text}'; text is ordered letter by letter"));
        }
        _ => {}
    }
}

fn is_truth(literal: &Literal) -> bool {
    let text = literal.text.trim().to_lowercase();
    ["true", "false", "t", "f", "yes", "no", "y", "n", "on", "off", "1", "0"].contains(&text.as_str())
}

fn check_value(known: &Known, literal: &Literal, notes: &mut Notes) {
    let values = &known.values;
    if values.is_empty() || literal.is_number || values.contains(&literal.text) {
        return;
    }
    let by_case = values.iter().find(|value| value.eq_ignore_ascii_case(literal.text)).copied();
    let hint = match by_case.or_else(|| nearest(literal.text, values.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None if values.len() <= VALUES_TOLD => format!("it is one of {}", values.join(", ")),
        None => format!("it is one of {} and others", values[..VALUES_TOLD].join(", ")),
    };
    notes.error(literal.line, format!("`{}` is never `{}`", known.column.name, literal.text), hint);
}

/// `lower(x)` or `upper(x)`, with what it is of.
fn case_function(expr: &Expr) -> Option<(String, &Expr)> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = bare(expr) else { return None };
    let name = name.to_string().to_lowercase();
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] if name == "lower" || name == "upper" => Some((name, of)),
        _ => None,
    }
}

fn check_case(function: &str, of: &Expr, literal: &Literal, notes: &mut Notes) {
    let folded = match function {
        "lower" => literal.text.to_lowercase(),
        _ => literal.text.to_uppercase(),
    };
    if folded != literal.text {
        let message = format!("`{function}({of})` is never `{}`", literal.text);
        notes.error(literal.line, message, format!("did you mean `{folded}`?"));
    }
}
