//! Lookups: small tables of text that say what is normal where the rules run (own accounts, trusted networks, who
//! may do what). One file each, `lookups/<name>.csv` or `.json`; all of it is in memory. A lookup decides by its
//! content alone: a row whose `expires` has passed holds until the file is changed, and `check` reports it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::TableProvider;

use crate::{Problem, SOURCE_TABLES, batch_table, nearest};
use event::{Micros, tables};
use index::{Addresses, Exact, Patterns, Prefixes};

mod index;
mod parse;

pub use parse::date_end;

/// Columns about a row, not of it: who answers for it, why, and until when.
pub const BOOKKEEPING: [&str; 3] = ["owner", "reason", "expires"];

/// Bytes of one file, and of all of them: they are held in memory, as rows and as indexes.
const FILE_BYTES_MAX: usize = 16 << 20;
const TOTAL_BYTES_MAX: usize = 64 << 20;

const ROWS_MAX: usize = 100_000;
const COLUMNS_MAX: usize = 32;
/// Bytes of one value; the longest ARN has 2,048.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// One mistake in a lookup file. Lines count from 1; 0 is the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupProblem {
    pub path: PathBuf,
    pub line: u64,
    pub message: String,
    pub hint: Option<String>,
}

/// A row that should have gone: it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    pub path: PathBuf,
    pub line: u64,
    pub date: String,
}

/// All lookups, by name.
#[derive(Debug, Default)]
pub struct Lookups(BTreeMap<String, Lookup>);

impl Lookups {
    /// Reads the files of a folder; one that is not there has none. All mistakes at once.
    pub fn load(dir: &Path) -> Result<Lookups, Vec<LookupProblem>> {
        let mut problems = Vec::new();
        let files = parse::read(dir, &mut problems);
        Self::parse_after(problems, &files)
    }

    /// Lookups given as (path, text).
    pub fn parse(files: &[(PathBuf, String)]) -> Result<Lookups, Vec<LookupProblem>> {
        Self::parse_after(Vec::new(), files)
    }

    fn parse_after(
        mut problems: Vec<LookupProblem>,
        files: &[(PathBuf, String)],
    ) -> Result<Lookups, Vec<LookupProblem>> {
        let mut lookups: BTreeMap<String, Lookup> = BTreeMap::new();
        let mut bytes = 0;
        for (path, text) in files {
            let mut problem = |message: String, hint: Option<&str>| {
                let hint = hint.map(str::to_owned);
                problems.push(LookupProblem { path: path.clone(), line: 0, message, hint });
            };
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            bytes += text.len();
            if bytes > TOTAL_BYTES_MAX {
                problem(format!("the lookups have more than {} MB together", TOTAL_BYTES_MAX >> 20), None);
                break;
            }
            if !parse::is_name(&name) {
                let message = format!("`{name}` cannot be the name of a lookup");
                problem(message, Some("use small letters, digits and `_`, and begin with a letter"));
                continue;
            }
            if is_taken(&name) {
                problem(format!("`{name}` is a table of events"), Some("name the lookup otherwise"));
                continue;
            }
            if let Some(other) = lookups.get(&name) {
                problem(format!("lookup `{name}` is there twice: also in {}", other.path.display()), None);
                continue;
            }
            if let Some(rows) = parse::rows(path, text, &mut problems) {
                lookups.insert(name.clone(), Lookup::new(name, path.clone(), text.clone(), rows));
            }
        }
        match problems.is_empty() {
            true => Ok(Lookups(lookups)),
            false => Err(problems),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Name and text of each file: what decides.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.values().map(|lookup| (lookup.name.as_str(), lookup.text.as_str()))
    }

    /// Each lookup as a table.
    pub fn tables(&self) -> impl Iterator<Item = (&str, Arc<dyn TableProvider>)> {
        self.0.values().map(|lookup| (lookup.name.as_str(), lookup.table.clone()))
    }

    /// The rows whose `expires` lies before `now`.
    pub fn expired(&self, now: Micros) -> Vec<Expired> {
        self.0.values().flat_map(|lookup| lookup.expired(now)).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Lookup, Problem> {
        self.0.get(name).ok_or_else(|| {
            let problem = Problem::new(format!("unknown lookup `{name}`"));
            match nearest(name, self.names()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None if self.0.is_empty() => problem.hint(format!("there are none: write lookups/{name}.csv")),
                None => problem.hint(format!("there are {}", self.names().collect::<Vec<_>>().join(", "))),
            }
        })
    }
}

fn is_taken(name: &str) -> bool {
    SOURCE_TABLES.contains(&name)
        || [tables::UNPARSED, tables::EVENTS, tables::KUBERNETES_CALLS, "information_schema"].contains(&name)
}

/// One lookup. Its key is made of the columns but for [`BOOKKEEPING`], in the file's order.
#[derive(Debug)]
pub(crate) struct Lookup {
    name: String,
    path: PathBuf,
    text: String,
    columns: Vec<String>,
    /// Of the key, by place.
    keys: Vec<usize>,
    rows: Vec<parse::Row>,
    table: Arc<dyn TableProvider>,
    /// By the number of values that a rule compares; made when a rule first does.
    exact: Vec<OnceLock<Exact>>,
    patterns: Vec<OnceLock<Patterns>>,
    prefixes: OnceLock<Prefixes>,
    addresses: OnceLock<Result<Addresses, Problem>>,
}

impl Lookup {
    fn new(name: String, path: PathBuf, text: String, rows: parse::Rows) -> Lookup {
        let parse::Rows { columns, rows } = rows;
        let keys: Vec<usize> =
            (0..columns.len()).filter(|place| !BOOKKEEPING.contains(&columns[*place].as_str())).collect();
        let table = table(&columns, &rows);
        let count = keys.len() + 1;
        Lookup {
            name,
            path,
            text,
            columns,
            rows,
            table,
            exact: (0..count).map(|_| OnceLock::new()).collect(),
            patterns: (0..count).map(|_| OnceLock::new()).collect(),
            prefixes: OnceLock::new(),
            addresses: OnceLock::new(),
            keys,
        }
    }

    /// Whether so many values can be compared.
    pub fn takes(&self, values: usize) -> Result<(), Problem> {
        if values <= self.keys.len() {
            return Ok(());
        }
        let names: Vec<&str> = self.keys.iter().map(|place| self.columns[*place].as_str()).collect();
        let message = format!("lookup `{}` has {} key columns, not {values}", self.name, names.len());
        Err(Problem::new(message).hint(format!("they are {}", names.join(", "))))
    }

    pub fn column(&self, name: &str) -> Result<usize, Problem> {
        self.columns.iter().position(|c| c == name).ok_or_else(|| {
            let problem = Problem::new(format!("lookup `{}` has no column `{name}`", self.name));
            match nearest(name, self.columns.iter().map(String::as_str)) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("it has {}", self.columns.join(", "))),
            }
        })
    }

    /// The first row whose key begins with these values.
    pub fn exact(&self, values: &[&str]) -> Option<usize> {
        let index = self.exact.get(values.len())?;
        index.get_or_init(|| Exact::new(self.key_rows(values.len()))).get(values)
    }

    /// Some row has values of this key's patterns.
    pub fn like(&self, values: &[&str]) -> bool {
        let Some(index) = self.patterns.get(values.len()) else { return false };
        index.get_or_init(|| Patterns::new(self.key_rows(values.len()))).matches(values)
    }

    /// The first value begins with a row's, the others are equal.
    pub fn prefix(&self, values: &[&str]) -> bool {
        let rows = self.prefixes.get_or_init(|| Prefixes::new(self.key_rows(1))).of(values[0]);
        rows.into_iter().any(|row| self.rest_equals(row, values))
    }

    /// The first value is an address in a row's block, the others are equal.
    pub fn cidr(&self, values: &[&str]) -> Result<bool, Problem> {
        let rows = self.addresses()?.of(values[0]);
        Ok(rows.into_iter().any(|row| self.rest_equals(row, values)))
    }

    /// Blocks, or the first row that has none.
    pub fn addresses(&self) -> Result<&Addresses, Problem> {
        let index = || {
            Addresses::new(self.key_rows(1)).map_err(|row| {
                let line = self.rows[row].line;
                let value = self.cell(row, self.keys[0]).unwrap_or_default();
                Problem::new(format!("lookup `{}`, line {line}: `{value}` is not an address block", self.name))
                    .hint(format!("column `{}` holds blocks like 10.0.0.0/8", self.columns[self.keys[0]]))
            })
        };
        self.addresses.get_or_init(index).as_ref().map_err(Problem::clone)
    }

    pub fn cell(&self, row: usize, column: usize) -> Option<&str> {
        self.rows[row].cells[column].as_deref()
    }

    /// The values of a column, without those that are missing, each once.
    pub fn values(&self, column: Option<usize>) -> Vec<String> {
        let column = column.unwrap_or(self.keys[0]);
        let mut seen = std::collections::HashSet::new();
        let all = (0..self.rows.len()).filter_map(|row| self.cell(row, column));
        all.filter(|value| seen.insert(*value)).map(str::to_owned).collect()
    }

    /// The first `count` key cells of each row.
    fn key_rows(&self, count: usize) -> impl Iterator<Item = Vec<Option<&str>>> {
        (0..self.rows.len()).map(move |row| self.keys[..count].iter().map(|place| self.cell(row, *place)).collect())
    }

    fn rest_equals(&self, row: usize, values: &[&str]) -> bool {
        let mut rest = values.iter().zip(&self.keys).skip(1);
        rest.all(|(value, place)| self.cell(row, *place) == Some(value))
    }

    fn expired(&self, now: Micros) -> Vec<Expired> {
        let Some(column) = self.columns.iter().position(|c| c == "expires") else { return Vec::new() };
        let mut expired = Vec::new();
        for row in &self.rows {
            if let Some(date) = &row.cells[column]
                && date_end(date).is_some_and(|end| end <= now)
            {
                expired.push(Expired { path: self.path.clone(), line: row.line, date: date.clone() });
            }
        }
        expired
    }
}

fn table(columns: &[String], rows: &[parse::Row]) -> Arc<dyn TableProvider> {
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, DataType::Utf8View, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let column = |place: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.cells[place].as_deref()).collect::<StringViewArray>())
    };
    let arrays = (0..columns.len()).map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options).expect("all cells are text");
    batch_table(schema, vec![batch])
}

#[cfg(test)]
mod tests;
