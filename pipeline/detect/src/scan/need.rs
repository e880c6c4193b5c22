//! Necessary conditions: what a row must have for a condition to be true, in a form that can be looked up. A
//! conjunction needs what any of its parts needs, a disjunction something of each of its arms. Whatever is not
//! understood needs nothing.

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{InListExpr, LikeExpr};
use datafusion::scalar::ScalarValue;

use super::expr::{Expr, arms, binary, column, is_truth, literal, literal_text};
use super::fault::{Fault, injected};

/// A row passes a key when its column has that value, an element that is it, or text in which the pattern occurs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Value(usize, Constant),
    Element(usize, Box<str>),
    Pattern(usize, Pattern),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Constant {
    Text(Box<str>),
    Number(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    pub literal: Box<str>,
    pub at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    Start,
    End,
    Anywhere,
}

/// How much is gained by asking for a key first; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Value,
    Element,
    Pattern,
    /// The column is computed first, for all rows.
    Computed,
    /// The texts are long, and all different.
    Raw,
}

/// What is known of a table's columns: those from `computed` on are not stored.
pub struct Columns<'a> {
    pub fields: &'a [Field],
    pub computed: usize,
}

impl Columns<'_> {
    fn is_text(&self, column: usize) -> bool {
        matches!(self.fields[column].data_type(), DataType::Utf8View | DataType::Utf8)
    }

    pub fn rank(&self, keys: &[Key]) -> Rank {
        let rank = |key: &Key| {
            let (column, rank) = match key {
                Key::Value(column, _) => (*column, Rank::Value),
                Key::Element(column, _) => (*column, Rank::Element),
                Key::Pattern(column, _) => (*column, Rank::Pattern),
            };
            match column {
                c if c >= self.computed => Rank::Computed,
                c if self.fields[c].name() == event::column::RAW => Rank::Raw,
                _ => rank,
            }
        };
        keys.iter().map(rank).max().unwrap_or(Rank::Value)
    }
}

/// Keys of which every row that satisfies `expr` passes at least one; `None` when there is no such list.
pub fn need(expr: &Expr, table: &Columns) -> Option<Vec<Key>> {
    if let Some((inner, Some(true), false)) = is_truth(expr) {
        return need(inner, table);
    }
    if let Some((_, op, _)) = binary(expr) {
        match op {
            Operator::And => {
                let needs = arms(expr, Operator::And).into_iter().filter_map(|arm| need(&arm, table));
                return needs.min_by_key(|keys| (table.rank(keys), keys.len()));
            }
            Operator::Or => {
                let mut arms = arms(expr, Operator::Or);
                if injected(Fault::DropArm) {
                    arms.truncate(1);
                }
                let needs = arms.iter().map(|arm| need(arm, table)).collect::<Option<Vec<_>>>()?;
                return Some(needs.concat());
            }
            Operator::Eq | Operator::IsNotDistinctFrom => return equal(expr, table),
            _ => return None,
        }
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        return listed(list, table);
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        if (like.negated() && !injected(Fault::LoseNot)) || like.case_insensitive() {
            return None;
        }
        let column = column(like.expr()).filter(|c| table.is_text(*c))?;
        return Some(vec![Key::Pattern(column, longest_piece(literal_text(like.pattern())?)?)]);
    }
    function(expr.downcast_ref::<ScalarFunctionExpr>()?, table)
}

fn equal(expr: &Expr, table: &Columns) -> Option<Vec<Key>> {
    let (left, _, right) = binary(expr)?;
    let (column, value) = match (column(left), column(right)) {
        (Some(column), None) => (column, literal(right)?),
        (None, Some(column)) => (column, literal(left)?),
        _ => return None,
    };
    Some(vec![Key::Value(column, constant(column, value, table)?)])
}

/// The constant as the column has it.
fn constant(column: usize, value: &ScalarValue, table: &Columns) -> Option<Constant> {
    match (table.fields[column].data_type(), value) {
        (DataType::Int64, ScalarValue::Int64(Some(number))) => Some(Constant::Number(*number)),
        (DataType::Utf8View | DataType::Utf8, value) => {
            value.try_as_str().flatten().map(|text| Constant::Text(text.into()))
        }
        _ => None,
    }
}

fn listed(list: &InListExpr, table: &Columns) -> Option<Vec<Key>> {
    if list.negated() && !injected(Fault::LoseNot) {
        return None;
    }
    let column = column(list.expr())?;
    // NULL in a list is equal to nothing.
    let values = list.list().iter().map(literal).collect::<Option<Vec<_>>>()?.into_iter().filter(|v| !v.is_null());
    values.map(|v| constant(column, v, table).map(|c| Key::Value(column, c))).collect()
}

fn function(call: &ScalarFunctionExpr, table: &Columns) -> Option<Vec<Key>> {
    let [subject, constant] = call.args() else { return None };
    let column = column(subject)?;
    let pattern = |at: At| {
        let literal: Box<str> = literal_text(constant).filter(|t| !t.is_empty())?.into();
        table.is_text(column).then(|| vec![Key::Pattern(column, Pattern { literal, at })])
    };
    match call.name() {
        "starts_with" => pattern(At::Start),
        "ends_with" => pattern(At::End),
        "contains" => pattern(At::Anywhere),
        "array_has" if is_text_list(&table.fields[column]) => {
            Some(vec![Key::Element(column, literal_text(constant)?.into())])
        }
        "array_has_any" if is_text_list(&table.fields[column]) => {
            let ScalarValue::List(list) = literal(constant)? else { return None };
            let values = list.value(0);
            let values = (0..values.len()).map(|i| super::codes::text(&values, i));
            Some(values.collect::<Option<Vec<_>>>()?.into_iter().map(|t| Key::Element(column, t.into())).collect())
        }
        _ => None,
    }
}

pub fn is_text_list(field: &Field) -> bool {
    matches!(field.data_type(), DataType::List(item) if item.data_type() == &DataType::Utf8View)
}

/// The longest run of characters that a LIKE pattern asks for literally. A backslash before `%` and `_` takes their
/// meaning; what else it does is not relied on.
pub fn longest_piece(pattern: &str) -> Option<Pattern> {
    let mut pieces: Vec<(String, bool, bool)> = Vec::new();
    let (mut piece, mut from_start) = (String::new(), true);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '_' if injected(Fault::LiteralUnderscore) => piece.push('_'),
            '%' | '_' => {
                pieces.push((std::mem::take(&mut piece), from_start, false));
                from_start = false;
            }
            '\\' => match chars.next() {
                Some(escaped @ ('%' | '_')) => piece.push(escaped),
                _ => {
                    pieces.push((std::mem::take(&mut piece), from_start, false));
                    from_start = false;
                }
            },
            other => piece.push(other),
        }
    }
    pieces.push((piece, from_start, true));
    let (literal, start, end) = pieces.into_iter().max_by_key(|(piece, ..)| piece.len())?;
    let at = match (start, end) {
        (true, _) if injected(Fault::PrefixAtEnd) => At::End,
        (true, _) => At::Start,
        (_, true) => At::End,
        _ => At::Anywhere,
    };
    (!literal.is_empty()).then(|| Pattern { literal: literal.into(), at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_ask_for_their_longest_piece() {
        let check = |pattern: &str, expected: Option<(&str, At)>| {
            let got = longest_piece(pattern);
            assert_eq!(got.as_ref().map(|p| (&*p.literal, p.at)), expected, "{pattern}");
        };
        check("curl%", Some(("curl", At::Start)));
        check("%curl", Some(("curl", At::End)));
        check("%curl%", Some(("curl", At::Anywhere)));
        check("%a%curl%", Some(("curl", At::Anywhere)));
        check("curl", Some(("curl", At::Start)));
        check("a_b", Some(("b", At::End)));
        check("a\\_b%", Some(("a_b", At::Start)));
        check("ab\\c%", Some(("ab", At::Start)));
        check("%", None);
        check("", None);
        check("___", None);
    }
}
