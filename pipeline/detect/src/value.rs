//! Values of result rows as text and JSON, and SQL literals.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use event::{Micros, format_micros};
use serde_json::{Map, Value};

use crate::ident::hex;

/// The text of a column's values, as `CAST(… AS VARCHAR)` gives it.
pub fn texts(column: &dyn Array) -> Result<Vec<Option<String>>, ArrowError> {
    let text = cast(column, &DataType::Utf8)?;
    Ok(text.as_string::<i32>().iter().map(|t| t.map(str::to_owned)).collect())
}

/// One row by column name; NULL is null.
pub fn row(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = batch.schema();
    schema.fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), json(c.as_ref(), row))).collect()
}

pub fn json(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            match array.as_primitive::<TimestampMicrosecondType>().value(row) {
                // Infinity has no date.
                Micros::MIN | Micros::MAX => Value::Null,
                time => format_micros(time).into(),
            }
        }
        DataType::FixedSizeBinary(_) => hex(array.as_fixed_size_binary().value(row)).into(),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|i| json(items.as_ref(), i)).collect::<Vec<_>>().into()
        }
        _ => array_value_to_string(array, row).map_or(Value::Null, Value::from),
    }
}

/// A value in a sentence: text without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `'it''s'`.
pub fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An instant of exactly the type of our time columns: comparing with another unit would cast the column, and
/// the infinities do not survive that.
pub fn sql_time(micros: Micros) -> String {
    format!("arrow_cast('{}', 'Timestamp(Microsecond, Some(\"UTC\"))')", format_micros(micros))
}

/// Replaces `{column}` by the row's values.
pub fn fill(template: &str, values: &Map<String, Value>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, name, after)) = next_placeholder(rest) {
        filled.push_str(before);
        match values.get(name) {
            Some(value) => filled.push_str(&plain(value)),
            None => filled.push_str(&format!("{{{name}}}")),
        }
        rest = after;
    }
    filled + rest
}

/// The names between braces.
pub fn placeholders(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, name, after)) = next_placeholder(rest) {
        names.push(name);
        rest = after;
    }
    names
}

fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_filled_from_the_row() {
        let values: Map<String, Value> =
            serde_json::from_str(r#"{"who":"alice","n":21,"where":null}"#).expect("valid JSON");
        let check = |template: &str, expected: &str| assert_eq!(fill(template, &values), expected);
        check("{who} read {n} in {where}", "alice read 21 in -");
        check("no names", "no names");
        check("{who", "{who");
        check("{other}", "{other}");
        assert_eq!(placeholders("{a} and {b}"), ["a", "b"]);
    }
}
