//! What a rule reads that a Kubernetes API server records only at a higher audit level: below it the rule is blind, and
//! whoever runs it should be told by its header.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, Value, visit_expressions,
};
use event::{AuditLevel, column};
use query::nearest;

use super::scope::{Scope, resolve};
use super::{Notes, bare};

/// Parts of a Kubernetes event that exist from a level on.
const BODIES: [(&str, AuditLevel); 2] =
    [("requestObject", AuditLevel::Request), ("responseObject", AuditLevel::RequestResponse)];

/// The highest level that something in the rule needs, and what that is.
#[derive(Clone)]
pub(super) struct Needed {
    pub level: AuditLevel,
    what: String,
    line: u64,
}

/// What the expression itself needs, not what is within it.
pub(super) fn of(expr: &Expr, scopes: &[Scope<'_>]) -> Option<Needed> {
    if let Some(args) = alternatives(expr) {
        return least(&args, scopes);
    }
    let line = expr.span().start.line;
    if let Some(known) = resolve(expr, scopes) {
        return Some(Needed { level: known.column.level?, what: known.column.name.clone(), line });
    }
    let body = body_of(expr, scopes)?;
    let (name, level) = BODIES.into_iter().find(|(name, _)| *name == body)?;
    Some(Needed { level, what: name.to_owned(), line })
}

/// The arguments of `coalesce`: with one of them the rule has what it needs. Whoever walks on must not look into them.
pub(super) fn alternatives(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if name.to_string().eq_ignore_ascii_case("coalesce") =>
        {
            Some(list.args.iter().filter_map(unnamed).collect())
        }
        _ => None,
    }
}

/// The least of what the alternatives need; nothing if one of them needs nothing.
fn least(alternatives: &[&Expr], scopes: &[Scope<'_>]) -> Option<Needed> {
    let mut least: Option<Needed> = None;
    for alternative in alternatives {
        let needed = most(alternative, scopes)?;
        if least.as_ref().is_none_or(|have| needed.level < have.level) {
            least = Some(needed);
        }
    }
    least
}

/// The most that anything within the expression needs.
fn most(expr: &Expr, scopes: &[Scope<'_>]) -> Option<Needed> {
    let mut found: Option<Needed> = None;
    let _: ControlFlow<()> = visit_expressions(expr, |part| {
        if let Some(needed) = of(part, scopes)
            && found.as_ref().is_none_or(|have| needed.level > have.level)
        {
            found = Some(needed);
        }
        ControlFlow::Continue(())
    });
    found
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
pub(super) fn declared(said: Option<&str>, needed: Option<Needed>, notes: &mut Notes) {
    let names = AuditLevel::ALL.map(AuditLevel::name);
    let declared = said.map(|name| (name, AuditLevel::of_name(name)));
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
