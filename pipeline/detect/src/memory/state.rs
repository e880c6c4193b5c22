//! A state table: what is remembered longer than a window. `detections/state/<name>.sql` is a header and one row-local
//! SELECT over one stored table or view; every row it returns is a new version for its key.
//!
//! Rules see the columns of the SELECT and
//!
//! * `valid_from`, the time of the version's row, and `valid_to`, that of the next version of its key, else infinity:
//!   a version holds for `valid_from <= t < valid_to`. Versions are ordered by (time, event_uid, row_hash); of several
//!   at one time the last holds, the others hold for no time;
//! * `event_uid` of the version's row;
//! * `prev_<column>` for every column that is not in the key: the values of the version before, NULL if there is none.
//!
//! A boolean column `deleted` is no column of the table: a row in which it is true ends its key. No version holds from
//! then on, and a later version has the last values before the end as its previous ones, for a week
//! ([`FORGET_US`]). A row with a NULL in its key is no version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use event::{ColumnType, Micros, Origin, TableSchema};
use query::{QueryError, nearest};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::mark::{HASH, Mark, TIME, UID};
use super::shape::{Named, Refused, remembers, select_of};
use super::sieve::{Sieve, Sieved};
use super::versions::{FORGET_US, Shown, Versions};
use crate::codec::Codec;
use crate::error::RuleProblem;
use crate::header::{first_line, yaml_of};
use crate::ident::Identity;
use crate::load::from_query;
use crate::plan::{not_row_local, scanned_tables};
use crate::program::NotCompiled;
use crate::value::sql_time;

const VALID_FROM: &str = "valid_from";
const VALID_TO: &str = "valid_to";
const EVENT_UID: &str = "event_uid";
const PREVIOUS: &str = "prev_";
const DELETED: &str = "deleted";

#[derive(Debug)]
pub struct StateTable {
    /// The file's stem.
    pub name: String,
    pub path: PathBuf,
    pub sql: String,
    pub title: String,
    pub doc: Option<String>,
    pub key: Vec<String>,
    /// BLAKE3 of the file, hex.
    pub version: String,
    /// BLAKE3 of its SELECT and key, hex: what is written around them does not matter.
    pub(crate) meaning: String,
    /// The stored table that its rows come from.
    pub table: String,
    /// As rules see it.
    pub schema: SchemaRef,
    pub(crate) sieve: Sieve,
    pub(crate) keys: Codec,
    pub(crate) values: Codec,
    /// Where in the SELECT the key columns are, in the key's order, and the others.
    key_at: Vec<usize>,
    values_at: Vec<usize>,
    deleted_at: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: Spanned<String>,
    key: Spanned<Vec<Spanned<String>>>,
    doc: Option<String>,
}

impl StateTable {
    pub(crate) fn named(&self) -> Named<'_> {
        Named { name: &self.name, columns: self.schema.fields().iter().map(|f| f.name().as_str()).collect() }
    }

    /// Reads one file. Mistakes are appended; a table is returned only when there are none. `tables` has the stored
    /// tables and views, without rows.
    pub(crate) async fn load(
        path: &Path,
        text: &str,
        base: &SessionContext,
        tables: &SessionContext,
        schemas: &[Arc<TableSchema>],
        problems: &mut Vec<RuleProblem>,
    ) -> Option<StateTable> {
        let before = problems.len();
        let written = header(path, text, problems);
        let plan = match query::plan_rule(tables, text).await {
            Ok(plan) => plan,
            Err(error) => {
                problems.push(from_query(path, error));
                return None;
            }
        };
        let mut problem = |line: u64, message: String, hint: Option<String>| {
            problems.push(RuleProblem { path: path.to_owned(), line, message, hint });
        };
        let whole = match whole(&plan, text) {
            Ok(table) => Some(table),
            Err(Refused { reason, hint }) => {
                let hint = hint.unwrap_or("write one SELECT … FROM table WHERE …");
                problem(0, format!("a state table looks at one row at a time, but {reason}"), Some(hint.into()));
                None
            }
        };
        if let Some(written) = &written {
            check_columns(written, plan.schema().inner(), &mut problem);
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        check_name(&name, schemas, &mut problem);
        let (written, (table, items)) = (written?, whole?);
        if problems.len() > before {
            return None;
        }
        let select = select_of(text).expect("it was taken apart just now");
        let parts = [items, select.from[0].relation.to_string()];
        let filter = select.selection.map(|f| f.to_string());
        let key = written.key.value.iter().map(|key| &key.value);
        let condition = filter.clone().unwrap_or_default();
        let meant = parts.iter().chain([&condition]).chain(key);
        let meant = meant.fold(Identity::new(), |id, part| id.part(part.as_bytes()));
        let sieve = match Sieve::compile(base, schemas, parts, filter, std::slice::from_ref(&table)).await {
            Ok(sieve) => sieve,
            Err(error) => {
                problems.push(not_compiled(path, error));
                return None;
            }
        };
        match StateTable::of(path, text, written, table, sieve, meant.version()) {
            Ok(state) => Some(state),
            Err(error) => {
                problems.push(from_query(path, QueryError::run(error)));
                None
            }
        }
    }

    fn of(
        path: &Path,
        text: &str,
        written: Written,
        table: String,
        sieve: Sieve,
        meaning: String,
    ) -> Result<StateTable> {
        let fields = sieve.schema.fields();
        let at = |name: &str| fields.iter().position(|f| f.name() == name);
        let key: Vec<String> = written.key.value.into_iter().map(|k| k.value).collect();
        let key_at: Vec<usize> = key.iter().filter_map(|k| at(k)).collect();
        let deleted_at = at(DELETED);
        let values_at: Vec<usize> =
            (0..fields.len()).filter(|at| !key_at.contains(at) && Some(*at) != deleted_at).collect();
        let some = |at: &[usize]| -> SchemaRef {
            Arc::new(Schema::new(
                at.iter().map(|at| fields[*at].as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
            ))
        };
        let (keys, values) = (some(&key_at), some(&values_at));
        Ok(StateTable {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_owned(),
            sql: text.to_owned(),
            title: written.title.value.trim().to_owned(),
            doc: written.doc,
            key,
            version: Identity::new().part(text.as_bytes()).version(),
            meaning,
            table,
            schema: schema_of(&keys, &values),
            keys: Codec::new(keys)?,
            values: Codec::new(values)?,
            sieve,
            key_at,
            values_at,
            deleted_at,
        })
    }

    /// Remembers rows of the SELECT, and shows those that are new. Returns how many had a NULL in their key.
    pub(crate) fn remember(&self, sieved: &Sieved, versions: &mut Versions, new: &mut dyn FnMut(&Mark)) -> Result<u64> {
        let columns = |at: &[usize]| at.iter().map(|at| sieved.rows.column(*at).clone()).collect::<Vec<ArrayRef>>();
        let keys = self.keys.encode(&columns(&self.key_at))?;
        let values = self.values.encode(&columns(&self.values_at))?;
        let deleted = self.deleted_at.map(|at| sieved.rows.column(at).as_boolean());
        let mut nulls = 0;
        for (row, mark) in sieved.marks.iter().enumerate() {
            let Some(key) = keys.whole(row) else {
                nulls += 1;
                continue;
            };
            let ended = deleted.is_some_and(|d| arrow::array::Array::is_valid(d, row) && d.value(row));
            if versions.add(key, mark.clone(), (!ended).then(|| values.row(row))) {
                new(mark);
            }
        }
        Ok(nulls)
    }

    /// The columns of the table for some of its versions; `None` is a row of NULLs.
    pub(crate) fn columns(&self, versions: &[Option<Shown<'_>>]) -> Result<Vec<ArrayRef>> {
        let bytes = |take: &dyn for<'s> Fn(&'s Shown<'_>) -> Option<&'s [u8]>| -> Vec<Option<&[u8]>> {
            versions.iter().map(|v| v.as_ref().and_then(take)).collect()
        };
        let keys = self.keys.decode(&bytes(&|v| Some(v.key)))?;
        let values = self.values.decode(&bytes(&|v| Some(v.values)))?;
        let previous = self.values.decode(&bytes(&|v| v.previous))?;
        let times = |take: &dyn Fn(&Shown<'_>) -> Micros| -> ArrayRef {
            let times = versions.iter().map(|v| v.as_ref().map(take));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_data_type(ColumnType::Timestamp.arrow()))
        };
        let uids: StringViewArray = versions.iter().map(|v| v.as_ref().map(|v| &*v.mark.uid)).collect();
        let mut columns = keys;
        columns.extend(values);
        columns.push(times(&|v| v.mark.time));
        columns.push(times(&|v| v.valid_to));
        columns.push(Arc::new(uids));
        columns.extend(previous);
        Ok(columns)
    }

    /// All versions visible before `boundary` that hold at some time from `since` on, from memory.
    pub(crate) fn table_of(&self, versions: &Versions, boundary: Micros, since: Micros) -> Result<RecordBatch> {
        let shown: Vec<Option<Shown<'_>>> = versions.before(boundary, since).map(Some).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), self.columns(&shown)?)?)
    }

    /// Rows of [`StateTable::view`], of exactly the table's types.
    pub(crate) fn conform(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().zip(rows.columns());
        let columns = fields.map(|(f, c)| Ok(cast(c, f.data_type())?)).collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// The table as SQL over the stored rows that meet `visible`: what everything else is tested against.
    pub fn view(&self, origin: Origin, visible: &str) -> String {
        let quoted = |names: &[usize], with: &dyn Fn(&str) -> String| -> String {
            names.iter().map(|at| with(self.sieve.schema.field(*at).name())).collect::<Vec<_>>().join(", ")
        };
        let keys = quoted(&self.key_at, &|n| format!("\"{n}\""));
        let whole = self.key.iter().map(|n| format!("\"{n}\" IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
        let one = format!("PARTITION BY {keys} ORDER BY \"{TIME}\", \"{UID}\", \"{HASH}\"");
        let listed = |with: &dyn Fn(&str) -> String| quoted(&self.values_at, with);
        let comma = |list: String| if list.is_empty() { list } else { format!(", {list}") };
        let values = comma(listed(&|n| format!("\"{n}\"")));
        let lags = comma(listed(&|n| format!("lag(\"{n}\") OVER ({one}) AS \"__{PREVIOUS}{n}\"")));
        let previous =
            comma(listed(&|n| format!("CASE WHEN \"__known\" THEN \"__{PREVIOUS}{n}\" END AS \"{PREVIOUS}{n}\"")));
        let deleted = if self.deleted_at.is_some() { "coalesce(\"deleted\", false)" } else { "false" };
        let until = format!("CAST(\"{TIME}\" AS BIGINT) - CAST(lag(\"__next\") OVER ({one}) AS BIGINT) <= {FORGET_US}");
        format!(
            "WITH rows AS ({rows}), \
             ends AS (SELECT *, lead(\"{TIME}\") OVER ({one}) AS \"__next\", {deleted} AS \"__gone\" FROM rows \
             WHERE {whole}), \
             live AS (SELECT *, coalesce({until}, false) AS \"__known\"{lags} FROM ends WHERE NOT \"__gone\") \
             SELECT {keys}{values}, \"{TIME}\" AS {VALID_FROM}, coalesce(\"__next\", {infinity}) AS {VALID_TO}, \
             \"{UID}\" AS {EVENT_UID}{previous} FROM live",
            rows = self.sieve.marked(origin, visible),
            infinity = infinity(),
        )
    }

    /// The condition under which a row is visible before a boundary.
    pub fn visible_before(boundary: Micros) -> String {
        format!("time < {0} AND source_watermark < {0}", sql_time(boundary))
    }
}

/// The last instant there is: no text says it.
fn infinity() -> String {
    format!("arrow_cast(CAST({} AS BIGINT), 'Timestamp(Microsecond, Some(\"UTC\"))')", Micros::MAX)
}

fn schema_of(keys: &SchemaRef, values: &SchemaRef) -> SchemaRef {
    let time = |name: &str| Field::new(name, ColumnType::Timestamp.arrow(), true);
    let mut fields: Vec<Field> = keys.fields().iter().chain(values.fields()).map(|f| f.as_ref().clone()).collect();
    fields.push(time(VALID_FROM));
    fields.push(time(VALID_TO));
    fields.push(Field::new(EVENT_UID, DataType::Utf8View, true));
    let previous = |f: &Arc<Field>| f.as_ref().clone().with_name(format!("{PREVIOUS}{}", f.name()));
    fields.extend(values.fields().iter().map(previous));
    Arc::new(Schema::new(fields))
}

fn header(path: &Path, text: &str, problems: &mut Vec<RuleProblem>) -> Option<Written> {
    let mut problem = |line: u64, message: String, hint: Option<&str>| {
        problems.push(RuleProblem { path: path.to_owned(), line, message, hint: hint.map(str::to_owned) });
    };
    let Some(yaml) = yaml_of(text) else {
        let hint = "begin the file with a block comment: /* title: …, key: […], doc: … */";
        problem(1, "the state table has no header".into(), Some(hint));
        return None;
    };
    let written: Written = match serde_saphyr::from_str(&yaml) {
        Ok(written) => written,
        Err(error) => {
            let error = error.without_snippet();
            let line = error.location().map_or(1, |l| l.line());
            problem(line, format!("header: {}", first_line(&error.to_string())), None);
            return None;
        }
    };
    if written.title.value.trim().is_empty() {
        problem(written.title.referenced.line(), "`title` is empty".into(), None);
    }
    if written.key.value.is_empty() {
        let hint = "name the columns that tell one thing from another";
        problem(written.key.referenced.line(), "`key` is empty".into(), Some(hint));
    }
    Some(written)
}

/// The stored table it reads and what it selects, if it is row-local over one.
fn whole(plan: &datafusion::logical_expr::LogicalPlan, text: &str) -> Result<(String, String), Refused> {
    let odd = |e: datafusion::error::DataFusionError| Refused { reason: e.strip_backtrace(), hint: None };
    if let Some(reason) = not_row_local(plan, true).map_err(odd)? {
        return Err(Refused { reason: reason.into(), hint: None });
    }
    if remembers(text, &[]) {
        return Err(Refused { reason: "it calls first_seen".into(), hint: Some("first_seen is for rules") });
    }
    let select = select_of(text)?;
    let mut tables: Vec<String> = scanned_tables(plan).map_err(odd)?.into_iter().collect();
    match (tables.pop(), tables.is_empty()) {
        (Some(table), true) => {
            let items: Vec<String> = select.projection.iter().map(ToString::to_string).collect();
            Ok((table, items.join(", ")))
        }
        _ => Err(Refused {
            reason: "it reads several stored tables".into(),
            hint: Some("write one state table for each, or name one table"),
        }),
    }
}

fn check_columns(written: &Written, schema: &SchemaRef, problem: &mut dyn FnMut(u64, String, Option<String>)) {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let mut keys = BTreeSet::new();
    for key in &written.key.value {
        let (line, name) = (key.referenced.line(), key.value.as_str());
        if !names.contains(&name) {
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the SELECT returns {}", names.join(", ")),
            };
            problem(line, format!("key column `{name}` is not a column of the SELECT"), Some(hint));
        } else if name == DELETED {
            problem(line, "`deleted` ends a key and cannot be part of it".into(), None);
        }
        if !keys.insert(name) {
            problem(line, format!("key column `{name}` is named twice"), None);
        }
    }
    for field in schema.fields() {
        let name = field.name().as_str();
        if [VALID_FROM, VALID_TO, EVENT_UID].contains(&name) || name.starts_with(PREVIOUS) || name.starts_with("__") {
            let hint = "valid_from, valid_to, event_uid and prev_… are added to every state table";
            problem(0, format!("column `{name}` has a name of the table's own"), Some(hint.into()));
        }
        if name == DELETED && field.data_type() != &DataType::Boolean {
            problem(0, format!("column `deleted` is {}", field.data_type()), Some("it is true or false".into()));
        }
        let shown = !matches!(field.data_type(), DataType::Union(..) | DataType::Struct(_) | DataType::Map(..));
        if !shown || !Codec::can_keep(field.data_type()) {
            let hint = "take one value as text: ->> instead of ->, or CAST(… AS VARCHAR)";
            problem(0, format!("column `{name}` cannot be kept"), Some(hint.into()));
        }
    }
}

fn check_name(name: &str, schemas: &[Arc<TableSchema>], problem: &mut dyn FnMut(u64, String, Option<String>)) {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        let hint = "lower-case letters, digits and `_`: it is a table's name in SQL";
        problem(0, format!("`{name}` is no name for a state table"), Some(hint.into()));
    }
    let views = [event::tables::EVENTS, event::tables::KUBERNETES_CALLS];
    if schemas.iter().any(|s| s.name == name) || views.contains(&name) {
        let message = format!("state table `{name}` has the name of a stored table or view");
        problem(0, message, Some("name the file after what it remembers".into()));
    }
}

fn not_compiled(path: &Path, error: NotCompiled) -> RuleProblem {
    let whole = |message: String| RuleProblem { path: path.to_owned(), line: 0, message, hint: None };
    match error {
        NotCompiled::NotRowLocal(reason) => whole(format!("a state table looks at one row at a time, but {reason}")),
        NotCompiled::NeverFires => {
            whole("the state table can never have a row: its conditions contradict each other".into())
        }
        NotCompiled::Error(error) => from_query(path, error),
    }
}
