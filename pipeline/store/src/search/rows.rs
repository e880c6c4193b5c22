//! The brute-force evaluator: a query over Arrow rows, `raw` parsed per row. It searches the unsealed tail and
//! verifies candidates of segments, and it is the oracle of the query language.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use event::{ColumnType, TableSchema, column};

use super::leaves::{Leaf, Leaves};
use super::query::{Expr, Test};
use super::words::path_key;

/// A query bound to a table: fields are columns or paths.
#[derive(Clone, Debug)]
pub enum Node {
    All,
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf { target: Target, test: Test },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Any leaf of `raw`.
    Any,
    /// Leaves of `raw` whose path has this key; see [`path_key`].
    Path(String),
    /// A typed column, by name.
    Column(String),
}

impl Node {
    /// A name that is a column of the table means the column, any other a path in `raw`.
    pub fn bind(expr: &Expr, table: &TableSchema) -> Node {
        let all = |list: &[Expr]| list.iter().map(|expr| Node::bind(expr, table)).collect();
        match expr {
            Expr::All => Node::All,
            Expr::And(list) => Node::And(all(list)),
            Expr::Or(list) => Node::Or(all(list)),
            Expr::Not(inner) => Node::Not(Box::new(Node::bind(inner, table))),
            Expr::Leaf { field: None, test } => Node::Leaf { target: Target::Any, test: test.clone() },
            Expr::Leaf { field: Some(field), test } => {
                let key = path_key(field);
                let target = match table.column(&key) {
                    // `raw` itself is searched leaf by leaf, under its paths.
                    Some(found) if found.name != column::RAW && found.kind != ColumnType::Binary => Target::Column(key),
                    _ => Target::Path(key),
                };
                Node::Leaf { target, test: test.clone() }
            }
        }
    }

    /// Which rows of the batch, which has the table's columns, match.
    pub fn matches(&self, batch: &RecordBatch) -> Vec<bool> {
        let raw = batch.column_by_name(column::RAW).map(|raw| raw.as_string_view());
        let mut leaves = Leaves::default();
        let row = |row| {
            let raw = raw.map_or("", |raw| raw.value(row));
            self.row(batch, row, &mut Lazy { raw, read: false, leaves: &mut leaves })
        };
        (0..batch.num_rows()).map(row).collect()
    }

    fn row(&self, batch: &RecordBatch, row: usize, lazy: &mut Lazy<'_>) -> bool {
        match self {
            Node::All => true,
            Node::And(all) => all.iter().all(|node| node.row(batch, row, lazy)),
            Node::Or(any) => any.iter().any(|node| node.row(batch, row, lazy)),
            Node::Not(inner) => !inner.row(batch, row, lazy),
            Node::Leaf { target: Target::Column(name), test } => {
                batch.column_by_name(name).is_some_and(|column| column_matches(column, row, test))
            }
            Node::Leaf { target, test } => raw_matches(lazy.leaves(), target, test),
        }
    }
}

/// `raw` of one row, parsed when first asked for.
struct Lazy<'a> {
    raw: &'a str,
    read: bool,
    leaves: &'a mut Leaves,
}

impl Lazy<'_> {
    fn leaves(&mut self) -> &Leaves {
        if !std::mem::replace(&mut self.read, true) {
            self.leaves.read(self.raw);
        }
        self.leaves
    }
}

/// Does some leaf of the target pass? A path exists also if something below it does.
pub fn raw_matches(leaves: &Leaves, target: &Target, test: &Test) -> bool {
    let exists = matches!(test, Test::Exists);
    leaves.iter().any(|(path, leaf)| target.covers(path, exists) && test.matches(&leaf))
}

impl Target {
    /// Is a leaf at `path` one of this target's?
    pub fn covers(&self, path: &str, below: bool) -> bool {
        match self {
            Target::Any => true,
            Target::Column(_) => false,
            Target::Path(key) => {
                let path = path_key(path);
                path == *key || (below && path.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('_')))
            }
        }
    }
}

/// Does the value in `row` (any element of a list) pass? Null does not.
pub fn column_matches(column: &ArrayRef, row: usize, test: &Test) -> bool {
    if column.is_null(row) {
        return false;
    }
    match column.data_type() {
        DataType::Utf8View => test.matches(&Leaf::Text(column.as_string_view().value(row))),
        DataType::Int64 => test.matches(&Leaf::Number(&column.as_primitive::<Int64Type>().value(row).to_string())),
        DataType::Boolean => test.matches(&Leaf::Bool(column.as_boolean().value(row))),
        DataType::Timestamp(..) => {
            test.matches(&Leaf::Time(column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            let hex: String = column.as_fixed_size_binary().value(row).iter().map(|b| format!("{b:02x}")).collect();
            test.matches(&Leaf::Text(&hex))
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>().value(row);
            (0..list.len()).any(|element| column_matches(&list, element, test))
        }
        _ => false,
    }
}
