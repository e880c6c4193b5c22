//! Values as bytes: group keys and counted values are compared, hashed and kept in one compact form, whatever their
//! types. NULL is a value of its own here, as in GROUP BY.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, StringViewArray, StringViewBuilder};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;

/// How values of one type become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Number,
}

fn form(kind: &DataType) -> Option<Form> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Form::Text),
        kind if kind.is_integer() && *kind != DataType::UInt64 => Some(Form::Number),
        DataType::Boolean | DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Some(Form::Number),
        _ => None,
    }
}

/// A tuple of columns.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyCodec {
    kinds: Vec<DataType>,
}

impl KeyCodec {
    /// Says which type has no such form, if one has none.
    pub fn new(kinds: Vec<DataType>) -> Result<KeyCodec, DataType> {
        match kinds.iter().find(|kind| form(kind).is_none()) {
            Some(kind) => Err(kind.clone()),
            None => Ok(KeyCodec { kinds }),
        }
    }

    /// The columns of a batch, ready to be read row by row.
    pub fn read(&self, columns: &[ArrayRef]) -> Result<Keys> {
        let read = |(kind, column): (&DataType, &ArrayRef)| Column::read(kind, column);
        Ok(Keys { columns: self.kinds.iter().zip(columns).map(read).collect::<Result<_>>()? })
    }

    /// Back to columns, one row per key.
    pub fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let mut builders: Vec<Builder> = self.kinds.iter().map(Builder::of).collect();
        for mut key in keys {
            for builder in &mut builders {
                key = builder.take(key);
            }
        }
        builders.into_iter().zip(&self.kinds).map(|(builder, kind)| Ok(cast(&builder.finish(), kind)?)).collect()
    }
}

pub struct Keys {
    columns: Vec<Column>,
}

impl Keys {
    /// Appends the bytes of one row's key. Keys of one codec are equal exactly if their bytes are.
    pub fn write(&self, row: usize, into: &mut Vec<u8>) {
        self.columns.iter().for_each(|column| column.write(row, into));
    }

    pub fn any_null(&self, row: usize) -> bool {
        self.columns.iter().any(|column| column.is_null(row))
    }
}

enum Column {
    Text(StringViewArray),
    Number(ArrayRef, ScalarBuffer<i64>),
}

const NULL: u8 = 0;
const VALUE: u8 = 1;

impl Column {
    fn read(kind: &DataType, column: &ArrayRef) -> Result<Column> {
        Ok(match form(kind).expect("checked when the codec was made") {
            Form::Text => Column::Text(cast(column, &DataType::Utf8View)?.as_string_view().clone()),
            Form::Number => {
                let numbers = cast(column, &DataType::Int64)?;
                let values = numbers.as_primitive::<Int64Type>().values().clone();
                Column::Number(numbers, values)
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Text(texts) => texts.is_null(row),
            Column::Number(numbers, _) => numbers.is_null(row),
        }
    }

    fn write(&self, row: usize, into: &mut Vec<u8>) {
        if self.is_null(row) {
            return into.push(NULL);
        }
        into.push(VALUE);
        match self {
            Column::Text(texts) => {
                let text = texts.value(row).as_bytes();
                into.extend_from_slice(&(text.len() as u32).to_le_bytes());
                into.extend_from_slice(text);
            }
            Column::Number(_, values) => into.extend_from_slice(&values[row].to_le_bytes()),
        }
    }
}

enum Builder {
    Text(StringViewBuilder),
    Number(Int64Builder),
}

impl Builder {
    fn of(kind: &DataType) -> Builder {
        match form(kind).expect("checked when the codec was made") {
            Form::Text => Builder::Text(StringViewBuilder::new()),
            Form::Number => Builder::Number(Int64Builder::new()),
        }
    }

    /// Takes one value from the front of a key and returns the rest.
    fn take<'a>(&mut self, key: &'a [u8]) -> &'a [u8] {
        let (tag, rest) = key.split_first().expect("a key has all its columns");
        match self {
            Builder::Text(texts) if *tag == NULL => texts.append_null(),
            Builder::Number(numbers) if *tag == NULL => numbers.append_null(),
            Builder::Text(texts) => {
                let (length, rest) = rest.split_at(4);
                let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
                let (text, rest) = rest.split_at(length);
                texts.append_value(std::str::from_utf8(text).expect("it was text"));
                return rest;
            }
            Builder::Number(numbers) => {
                let (number, rest) = rest.split_at(8);
                numbers.append_value(i64::from_le_bytes(number.try_into().expect("eight bytes")));
                return rest;
            }
        }
        rest
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Text(mut texts) => Arc::new(texts.finish()),
            Builder::Number(mut numbers) => Arc::new(numbers.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn keys_come_back_as_they_went() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some(""), Some("a longer text than a view holds")])),
            Arc::new(StringArray::from(vec![Some("b"), Some("c"), None, Some("")])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1), Some(-1), None, Some(i64::MAX)]).with_timezone("UTC"),
            ),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
        ];
        let codec = KeyCodec::new(columns.iter().map(|c| c.data_type().clone()).collect()).expect("all have a form");
        let keys = codec.read(&columns).expect("they are read");
        let bytes = |row| {
            let mut bytes = Vec::new();
            keys.write(row, &mut bytes);
            bytes
        };
        let all: Vec<Vec<u8>> = (0..4).map(bytes).collect();
        let back = codec.decode(all.iter().map(Vec::as_slice)).expect("they are decoded");
        assert_eq!(back, columns);
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let of = |a: &str, b: &str| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(StringViewArray::from(vec![a])), Arc::new(StringViewArray::from(vec![b]))];
            let codec = KeyCodec::new(vec![DataType::Utf8View; 2]).expect("text has a form");
            let mut bytes = Vec::new();
            codec.read(&columns).expect("they are read").write(0, &mut bytes);
            bytes
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("", "a"), of("a", ""));
    }

    #[test]
    fn what_has_no_form_is_named() {
        assert_eq!(KeyCodec::new(vec![DataType::Float64]).err(), Some(DataType::Float64));
    }
}
