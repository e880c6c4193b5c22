//! What a rule reads that a Kubernetes API server records only at a higher audit level: below it the rule is blind, and
//! whoever runs it should be told by its header.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, Value,
};
use event::{AuditLevel, column};
use query::nearest;

use super::scope::{Scope, resolve};
use super::{Notes, bare};

/// Parts of a Kubernetes event that exist from a level on.
const BODIES: [(&str, AuditLevel); 2] =
    [("requestObject", AuditLevel::Request), ("responseObject", AuditLevel::RequestResponse)];

/// The highest level that something in the rule needs, and what that is.
pub(super) struct Needed {
    pub level: AuditLevel,
    what: String,
    line: u64,
}

pub(super) fn of(expr: &Expr, scopes: &[Scope<'_>]) -> Option<Needed> {
    let line = expr.span().start.line;
    if let Some(known) = resolve(expr, scopes) {
        return Some(Needed { level: known.column.level?, what: known.column.name.clone(), line });
    }
    let body = body_of(expr, scopes)?;
    let (name, level) = BODIES.into_iter().find(|(name, _)| *name == body)?;
    Some(Needed { level, what: name.to_owned(), line })
}

/// The first step into `raw`, by an operator or a function.
fn body_of<'e>(expr: &'e Expr, scopes: &[Scope<'_>]) -> Option<&'e str> {
    use BinaryOperator::{Arrow, LongArrow};
    let is_raw = |expr: &Expr| resolve(expr, scopes).is_some_and(|known| known.column.name == column::RAW);
    match expr {
        Expr::BinaryOp { left, op: Arrow | LongArrow, right } if is_raw(left) => text(right),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if name.to_string().to_lowercase().starts_with("json_") =>
        {
            let args: Vec<&Expr> = list.args.iter().filter_map(unnamed).collect();
            match args.as_slice() {
                [raw, step, ..] if is_raw(raw) => text(step),
                _ => None,
            }
        }
        _ => None,
    }
}

fn unnamed(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// Compares what is needed with what the header says.
pub(super) fn declared(needed: Option<Needed>, notes: &mut Notes) {
    let names = AuditLevel::ALL.map(AuditLevel::name);
    let said = notes.rule.needs_level.clone();
    let declared = said.as_deref().map(|name| (name, AuditLevel::of_name(name)));
    if let Some((name, None)) = declared {
        let hint = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names.join(", ")),
        };
        notes.error(1, format!("`needs_level: {name}` is no audit level"), hint);
        return;
    }
    let Some(needed) = needed else { return };
    let declared = declared.and_then(|(_, level)| level);
    if declared.is_none_or(|declared| declared < needed.level) {
        let level = needed.level.name();
        let message =
            format!("`{}` is null below the audit level {level}, and the header does not say so", needed.what);
        notes.warn(needed.line, message, format!("add `needs_level: {level}`"));
    }
}
