//! Lookup files to rows, or to everything that is wrong with them.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate};
use event::Micros;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{BOOKKEEPING, COLUMNS_MAX, FILE_BYTES_MAX, LookupProblem, ROWS_MAX, VALUE_BYTES_MAX};
use crate::functions::address::Cidr;
use crate::nearest;

#[derive(Debug)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Row {
    /// Where the row is in its file, from 1.
    pub line: u64,
    /// By column; `None` where there is no value.
    pub cells: Vec<Option<String>>,
}

/// The column of a JSON array of single values.
const VALUE_COLUMN: &str = "value";

/// Paths and texts of the lookup files in `dir`, sorted.
pub fn read(dir: &Path, problems: &mut Vec<LookupProblem>) -> Vec<(PathBuf, String)> {
    let mut problem = |path: &Path, message: String, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        problems.push(LookupProblem { path: path.to_owned(), line: 0, message, hint });
    };
    if !dir.exists() {
        return Vec::new();
    }
    let entries = match std::fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
        Ok(entries) => entries,
        Err(error) => {
            problem(dir, format!("cannot list the folder: {error}"), None);
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with(".md") {
            continue;
        }
        if !is_lookup_file(&path) {
            problem(&path, "is not a lookup".into(), Some("lookups are .csv or .json"));
            continue;
        }
        let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
        if bytes > FILE_BYTES_MAX as u64 {
            problem(&path, format!("the file has {bytes} bytes, more than {FILE_BYTES_MAX}"), None);
            continue;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) => problem(&path, format!("cannot read the file: {error}"), None),
        }
    }
    files
}

pub fn is_lookup_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "csv" || e == "json")
}

/// The rows of a file; `None` when it cannot be used.
pub fn rows(path: &Path, text: &str, problems: &mut Vec<LookupProblem>) -> Option<Rows> {
    let before = problems.len();
    let mut problem = |line: u64, message: String, hint: Option<String>| {
        problems.push(LookupProblem { path: path.to_owned(), line, message, hint });
    };
    if text.len() > FILE_BYTES_MAX {
        problem(0, format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len()), None);
        return None;
    }
    // Spreadsheets put a byte order mark in front.
    let text = text.trim_start_matches('\u{feff}');
    let rows = match path.extension().is_some_and(|e| e == "json") {
        true => json(text, &mut problem),
        false => csv(text, &mut problem),
    }?;
    check_columns(&rows.columns, &mut problem);
    if rows.rows.len() > ROWS_MAX {
        problem(0, format!("the lookup has {} rows, more than {ROWS_MAX}", rows.rows.len()), None);
    }
    for row in rows.rows.iter().take(ROWS_MAX) {
        check_row(&rows.columns, row, &mut problem);
    }
    (problems.len() == before).then_some(rows)
}

type Report<'a> = &'a mut dyn FnMut(u64, String, Option<String>);

fn csv(text: &str, problem: Report) -> Option<Rows> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                problem(line, format!("not CSV: {error}"), None);
                return None;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let Some(columns) = &columns else {
            columns = Some(record.iter().map(str::to_owned).collect());
            continue;
        };
        if record.len() != columns.len() {
            let message = format!("the row has {} values, the first line names {}", record.len(), columns.len());
            problem(line, message, Some("quote a value with a comma in it: \"a,b\"".into()));
            continue;
        }
        let cell = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        rows.push(Row { line, cells: record.iter().map(cell).collect() });
    }
    match columns {
        Some(columns) => Some(Rows { columns, rows }),
        None => {
            problem(1, "the lookup is empty".into(), Some("the first line names the columns".into()));
            None
        }
    }
}

fn json(text: &str, problem: Report) -> Option<Rows> {
    let items: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(items) => items,
        Err(error) => {
            let hint = "write an array of values, or of objects with one value per column";
            problem(error.line() as u64, format!("not a JSON array: {error}"), Some(hint.into()));
            return None;
        }
    };
    let mut columns: Vec<String> = Vec::new();
    let mut written: Vec<(u64, Vec<(String, Value)>)> = Vec::new();
    let mut lines = Lines::of(text);
    for item in items {
        let line = lines.of_part(item.get());
        let fields = match item.get().starts_with('{') {
            true => serde_json::from_str::<Fields>(item.get()).map(|f| f.0),
            false => serde_json::from_str(item.get()).map(|value| vec![(VALUE_COLUMN.to_owned(), value)]),
        };
        let Ok(fields) = fields else {
            problem(line, "the row cannot be read".into(), None);
            continue;
        };
        for (name, _) in &fields {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        if columns.len() > COLUMNS_MAX {
            problem(line, format!("more than {COLUMNS_MAX} columns"), None);
            return None;
        }
        written.push((line, fields));
    }
    if columns.is_empty() {
        columns.push(VALUE_COLUMN.to_owned());
    }
    let mut rows = Vec::with_capacity(written.len());
    for (line, fields) in written {
        let mut cells = vec![None; columns.len()];
        for (name, value) in fields {
            let place = columns.iter().position(|c| *c == name).expect("collected above");
            cells[place] = match value {
                Value::Null => None,
                Value::String(text) => Some(text).filter(|t| !t.is_empty()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(value) => Some(value.to_string()),
                _ => {
                    let hint = Some("a lookup holds single values: write one row each".to_owned());
                    problem(line, format!("`{name}` is a list or an object"), hint);
                    None
                }
            };
        }
        rows.push(Row { line, cells });
    }
    Some(Rows { columns, rows })
}

/// Lines of parts of a text that come in order.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        Lines { text, at: 0, line: 1 }
    }

    fn of_part(&mut self, part: &str) -> u64 {
        let at = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).min(self.text.len());
        let passed = self.text.as_bytes().get(self.at..at).unwrap_or_default();
        self.line += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.at = self.at.max(at);
        self.line
    }
}

/// The fields of an object in the order written, which is the order of a key's columns.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn check_columns(columns: &[String], problem: Report) {
    let mut seen = HashSet::new();
    for name in columns {
        if !is_name(name) {
            let hint = "use small letters, digits and `_`: rules name the columns";
            problem(1, format!("`{name}` cannot be the name of a column"), Some(hint.into()));
        }
        if !seen.insert(name) {
            problem(1, format!("column `{name}` is there twice"), None);
        }
    }
    if columns.iter().all(|c| BOOKKEEPING.contains(&c.as_str())) {
        problem(1, "the lookup has no key: all its columns are about the row".into(), None);
    }
    if columns.len() > COLUMNS_MAX {
        problem(1, format!("the lookup has {} columns, more than {COLUMNS_MAX}", columns.len()), None);
    }
    // `expire` or `owners` would silently become part of the key.
    for name in columns.iter().filter(|c| !BOOKKEEPING.contains(&c.as_str())) {
        if let Some(near) = nearest(name, BOOKKEEPING) {
            problem(1, format!("column `{name}`"), Some(format!("did you mean `{near}`?")));
        }
    }
}

fn check_row(columns: &[String], row: &Row, problem: Report) {
    let Some(key) = columns.iter().position(|c| !BOOKKEEPING.contains(&c.as_str())) else { return };
    if row.cells.get(key).is_none_or(Option::is_none) {
        problem(row.line, format!("the row has no `{}`", columns[key]), None);
    }
    for (column, cell) in columns.iter().zip(&row.cells) {
        let Some(cell) = cell else { continue };
        if cell.len() > VALUE_BYTES_MAX {
            problem(row.line, format!("`{column}` has more than {VALUE_BYTES_MAX} bytes"), None);
        }
        if column == "expires" && date_end(cell).is_none() {
            problem(row.line, format!("`{cell}` is not a date"), Some("write it like 2026-12-31".into()));
        }
        if column == "cidr" && Cidr::parse(cell).is_none() {
            problem(row.line, format!("`{cell}` is not an address block"), Some("write it like 10.0.0.0/8".into()));
        }
    }
}

/// Small letters, digits and `_`, so that SQL needs no quotes.
pub fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    text.len() <= 63 && text.bytes().all(legal) && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
}

/// The end of a day (UTC) such as `2026-12-31`, in microseconds: the first instant after it.
pub fn date_end(date: &str) -> Option<Micros> {
    let day = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    // Two ways to write a day would be two ways to misread one.
    let next = day.checked_add_days(Days::new(1)).filter(|_| day.to_string() == date)?;
    Some(next.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros())
}
