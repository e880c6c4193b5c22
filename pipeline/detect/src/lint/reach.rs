//! What a window is sure to hold: two rows that a join wants, and a burst.
//!
//! Boundaries lie `every` apart, so that rows up to `window - every` apart are in one window wherever they fall; those
//! further apart only by luck.

use datafusion::sql::sqlparser::ast::{BinaryOperator, DateTimeField, Expr, Interval, Select, Spanned, Value};
use event::column;

use super::nulls::{conditions, conjuncts};
use super::scope::Scope;
use super::{Notes, bare};
use crate::rule::Window;
use crate::span::format_span;

/// A window of which most falls between two looks is a mistake rather than a choice.
pub(super) fn burst(window: Window, notes: &mut Notes) {
    let Window { window_us, every_us } = window;
    if every_us * 2 > window_us {
        let sure = match window_us - every_us {
            0 => "no burst is sure to be in one window".to_owned(),
            us => format!("only a burst shorter than {} is sure to be in one window", format_span(us)),
        };
        let (window, every) = (format_span(window_us), format_span(every_us));
        let message = format!("with a window of {window} every {every}, {sure}");
        notes.warn(1, message, format!("look more often: `every: {}`", format_span(shorter(window_us))));
    }
}

/// A tenth of the window, or what comes next to it and divides it.
fn shorter(window_us: i64) -> i64 {
    (10..=60).find(|n| window_us % (n * 1_000_000) == 0).map_or(window_us / 10, |n| window_us / n)
}

/// `t(after) - t(before) <= span`.
#[derive(Debug)]
struct Bound {
    after: String,
    before: String,
    span_us: i64,
    line: u64,
}

/// Rows that are joined by time must fit into the window together, wherever the boundaries fall.
pub(super) fn join(select: &Select, scope: &Scope<'_>, window: Window, notes: &mut Notes) {
    let mut bounds = Vec::new();
    for condition in conditions(select) {
        conjuncts(condition).into_iter().for_each(|c| bounds_of(c, scope, &mut bounds));
    }
    let Some((span_us, line)) = widest(&bounds) else { return };
    let Window { window_us, every_us } = window;
    if span_us + every_us <= window_us {
        return;
    }
    let sure = format_span_or_zero(window_us - every_us);
    let message = format!(
        "rows up to {} apart are joined, but a window of {} every {} is only sure to hold both up to {sure} apart",
        format_span(span_us),
        format_span(window_us),
        format_span(every_us)
    );
    // The next multiple of the slide.
    let enough = (span_us + every_us + every_us - 1) / every_us * every_us;
    notes.warn(line, message, format!("`window: {}`", format_span(enough)));
}

fn format_span_or_zero(us: i64) -> String {
    if us == 0 { "0s".to_owned() } else { format_span(us) }
}

/// The largest distance that two rows of a result can have, among those that are bounded, by the shortest way
/// through the bounds.
fn widest(bounds: &[Bound]) -> Option<(i64, u64)> {
    let mut names: Vec<&str> = bounds.iter().flat_map(|b| [b.after.as_str(), b.before.as_str()]).collect();
    names.sort_unstable();
    names.dedup();
    let at = |name: &str| names.iter().position(|n| *n == name).expect("collected from the same bounds");
    let count = names.len();
    let mut distance: Vec<Vec<Option<i64>>> = vec![vec![None; count]; count];
    for bound in bounds {
        let cell = &mut distance[at(&bound.after)][at(&bound.before)];
        *cell = Some(cell.map_or(bound.span_us, |have| have.min(bound.span_us)));
    }
    for via in 0..count {
        for from in 0..count {
            for to in 0..count {
                if let (Some(a), Some(b)) = (distance[from][via], distance[via][to]) {
                    let sum = a.saturating_add(b);
                    distance[from][to] = Some(distance[from][to].map_or(sum, |have| have.min(sum)));
                }
            }
        }
    }
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to);
    let span_us = pairs.filter_map(|(from, to)| distance[from][to]).max().filter(|us| *us > 0)?;
    let line = bounds.iter().max_by_key(|b| b.span_us).map_or(0, |b| b.line);
    Some((span_us, line))
}

fn bounds_of(condition: &Expr, scope: &Scope<'_>, bounds: &mut Vec<Bound>) {
    let line = condition.span().start.line;
    let mut at_most = |less: &Expr, more: &Expr| bounds.extend(at_most(less, more, scope, line));
    match condition {
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::Lt | BinaryOperator::LtEq => at_most(left, right),
            BinaryOperator::Gt | BinaryOperator::GtEq => at_most(right, left),
            BinaryOperator::Eq => {
                at_most(left, right);
                at_most(right, left);
            }
            _ => {}
        },
        Expr::Between { expr, negated: false, low, high } => {
            at_most(low, expr);
            at_most(expr, high);
        }
        _ => {}
    }
}

/// `less <= more` as a bound on two relations' times.
fn at_most(less: &Expr, more: &Expr, scope: &Scope<'_>, line: u64) -> Option<Bound> {
    let (less, more) = (term(less, scope)?, term(more, scope)?);
    // t(p1) - t(m1) + c1 <= t(p2) - t(m2) + c2: what is added on the left must meet what is added on the right.
    let after: Vec<String> = less.plus.into_iter().chain(more.minus).collect();
    let before: Vec<String> = less.minus.into_iter().chain(more.plus).collect();
    match (after.as_slice(), before.as_slice()) {
        ([after], [before]) if after != before => {
            Some(Bound { after: after.clone(), before: before.clone(), span_us: more.offset_us - less.offset_us, line })
        }
        _ => None,
    }
}

/// Times of relations, added and taken away, and a constant.
#[derive(Default)]
struct Term {
    plus: Vec<String>,
    minus: Vec<String>,
    offset_us: i64,
}

fn term(expr: &Expr, scope: &Scope<'_>) -> Option<Term> {
    match bare(expr) {
        Expr::Interval(interval) => Some(Term { offset_us: interval_us(interval)?, ..Term::default() }),
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Plus | BinaryOperator::Minus), right } => {
            let (mut sum, other) = (term(left, scope)?, term(right, scope)?);
            let is_plus = *op == BinaryOperator::Plus;
            sum.plus.extend(if is_plus { other.plus.clone() } else { other.minus.clone() });
            sum.minus.extend(if is_plus { other.minus } else { other.plus });
            sum.offset_us += if is_plus { other.offset_us } else { -other.offset_us };
            Some(sum)
        }
        other => {
            let known = scope.column(other).filter(|known| known.column.name == column::TIME)?;
            Some(Term { plus: vec![known.relation], ..Term::default() })
        }
    }
}

/// `INTERVAL '1 hour 30 minutes'` or `INTERVAL '5' MINUTE`.
fn interval_us(interval: &Interval) -> Option<i64> {
    let Expr::Value(value) = bare(&interval.value) else { return None };
    let text = match &value.value {
        Value::SingleQuotedString(text) | Value::Number(text, _) => text.as_str(),
        _ => return None,
    };
    if let Some(field) = &interval.leading_field {
        let unit = match field {
            DateTimeField::Second | DateTimeField::Seconds => "second",
            DateTimeField::Minute | DateTimeField::Minutes => "minute",
            DateTimeField::Hour | DateTimeField::Hours => "hour",
            DateTimeField::Day | DateTimeField::Days => "day",
            _ => return None,
        };
        return amount(text.trim(), unit);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || words.len() % 2 == 1 {
        return None;
    }
    words.chunks(2).map(|pair| amount(pair[0], pair[1])).sum()
}

fn amount(number: &str, unit: &str) -> Option<i64> {
    let number: f64 = number.parse().ok()?;
    let unit_us = match unit.to_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 1_000.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e6,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e6,
        "h" | "hour" | "hours" => 3_600e6,
        "d" | "day" | "days" => 86_400e6,
        "w" | "week" | "weeks" => 604_800e6,
        _ => return None,
    };
    Some((number * unit_us) as i64)
}
