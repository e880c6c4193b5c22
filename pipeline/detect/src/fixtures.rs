//! Small tables for the tests of this crate: the stored tables with a few columns, rows as (column, value).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryBuilder, Int64Array, ListArray, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use event::{Admitted, Batch, Column, ColumnType, Micros, TableSchema, tables};
use query::{META_COLUMNS, batch_table};

use crate::{History, Retained, RuleErrors, RuleSet};

const COMMON: [&str; 6] =
    ["actor_user_name", "src_endpoint_ip", "api_operation", "resource_name", "status", "cloud_account_uid"];

pub fn schemas() -> Vec<Arc<TableSchema>> {
    let kubernetes: &[(&str, ColumnType)] = &[
        ("stage", ColumnType::String),
        ("verb", ColumnType::String),
        ("request_uri", ColumnType::String),
        ("objectref_resource", ColumnType::String),
        ("objectref_subresource", ColumnType::String),
        ("objectref_namespace", ColumnType::String),
        ("objectref_name", ColumnType::String),
        ("response_code", ColumnType::Int64),
        ("pod_privileged", ColumnType::Bool),
        ("actor_user_groups", ColumnType::StringList),
    ];
    let cloudtrail: &[(&str, ColumnType)] = &[
        ("event_name", ColumnType::String),
        ("event_source", ColumnType::String),
        ("error_code", ColumnType::String),
        ("user_identity_arn", ColumnType::String),
        ("read_only", ColumnType::Bool),
    ];
    let falco: &[(&str, ColumnType)] = &[
        ("rule", ColumnType::String),
        ("priority", ColumnType::String),
        ("hostname", ColumnType::String),
        ("k8s_ns_name", ColumnType::String),
        ("k8s_pod_name", ColumnType::String),
        ("container_id", ColumnType::String),
        ("container_image_repository", ColumnType::String),
        ("proc_name", ColumnType::String),
        ("proc_cmdline", ColumnType::String),
        ("fd_name", ColumnType::String),
    ];
    vec![
        schema(tables::KUBERNETES, kubernetes),
        schema(tables::CLOUDTRAIL, cloudtrail),
        schema(tables::FALCO, falco),
        schema(tables::UNPARSED, &[("reason", ColumnType::String)]),
    ]
}

fn schema(name: &str, own: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    let column = |name: &str, kind, nullable, common| Column {
        name: name.into(),
        kind,
        nullable,
        common,
        doc: String::new(),
        ocsf: None,
        values: Vec::new(),
        level: None,
    };
    let mut columns: Vec<Column> =
        META_COLUMNS.iter().map(|n| column(n, meta_type(n), ["cluster", "file_sha256"].contains(n), true)).collect();
    if name != tables::UNPARSED {
        columns.extend(COMMON.iter().map(|n| column(n, ColumnType::String, true, true)));
    }
    columns.extend(own.iter().map(|(n, kind)| column(n, *kind, true, false)));
    Arc::new(TableSchema::new(name.into(), String::new(), columns))
}

/// The tables as `schemas/` has them, every column.
pub fn shipped_schemas() -> Vec<Arc<TableSchema>> {
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas"));
    let read = |name: &str| -> serde_json::Value {
        let path = dir.join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let events = read("events");
    let of = |file: &serde_json::Value, part: &str, common: bool| -> Vec<Column> {
        let columns = file[part].as_object().into_iter().flatten();
        let column = |(name, column): (&String, &serde_json::Value)| Column {
            name: name.clone(),
            kind: match column["type"].as_str().expect("a column has a type") {
                "string" => ColumnType::String,
                "int64" => ColumnType::Int64,
                "bool" => ColumnType::Bool,
                "timestamp" => ColumnType::Timestamp,
                "hash" => ColumnType::Hash,
                "list<string>" => ColumnType::StringList,
                "binary" => ColumnType::Binary,
                other => panic!("{name} is {other}"),
            },
            nullable: !META_COLUMNS.contains(&name.as_str()) || ["cluster", "file_sha256"].contains(&name.as_str()),
            common,
            doc: String::new(),
            level: None,
            values: Vec::new(),
            ocsf: None,
        };
        columns.map(column).collect()
    };
    let table = |name: &str| {
        let mut columns = of(&events, "meta", true);
        columns.sort_by_key(|c| META_COLUMNS.iter().position(|m| *m == c.name));
        if name != tables::UNPARSED {
            columns.extend(of(&events, "common", true));
        }
        columns.extend(of(&read(name), "columns", false));
        Arc::new(TableSchema::new(name.into(), String::new(), columns))
    };
    tables::STORED.map(table).into()
}

fn meta_type(name: &str) -> ColumnType {
    match name {
        "time" | "ingest_time" | "source_watermark" => ColumnType::Timestamp,
        "partition" | "offset" | "message_index" => ColumnType::Int64,
        "row_hash" => ColumnType::Hash,
        "redacted" => ColumnType::Bool,
        _ => ColumnType::String,
    }
}

/// A value of a cell; columns not named are NULL, or a default where NULL is not allowed.
#[derive(Clone, Debug)]
pub enum Cell {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    pub table: &'static str,
    pub cells: HashMap<String, Cell>,
}

/// A live row whose watermark lies one second before it. `uid` names it; offsets are the caller's if they matter.
pub fn row(table: &'static str, time: Micros, uid: &str, cells: &[(&str, Cell)]) -> Row {
    let mut all: HashMap<String, Cell> = HashMap::new();
    let mut set = |name: &str, cell: Cell| drop(all.insert(name.into(), cell));
    set("time", time.into());
    set("ingest_time", time.into());
    set("event_uid", uid.into());
    set("source", table.into());
    set("cluster", "prod".into());
    set("origin", "live".into());
    set("topic", format!("{table}-audit").into());
    set("partition", 0.into());
    set("offset", 0.into());
    set("message_index", 0.into());
    set("source_watermark", (time - 1_000_000).into());
    set("redacted", false.into());
    set("raw", format!("{{\"uid\":\"{uid}\"}}").into());
    for (name, cell) in cells {
        set(name, cell.clone());
    }
    Row { table, cells: all }
}

pub fn batch(table: &str, rows: &[Row]) -> RecordBatch {
    batch_of(&schemas(), table, rows)
}

fn batch_of(schemas: &[Arc<TableSchema>], table: &str, rows: &[Row]) -> RecordBatch {
    let schema = schemas.iter().find(|s| s.name == table).expect("a table of the fixtures");
    let columns = schema.columns.iter().map(|c| column(c, rows)).collect();
    RecordBatch::try_new(schema.arrow(), columns).expect("cells fit their columns")
}

fn column(column: &Column, rows: &[Row]) -> ArrayRef {
    let cells = || rows.iter().map(|r| r.cells.get(&column.name));
    let texts = || cells().map(|c| if let Some(Cell::Text(t)) = c { Some(t.clone()) } else { None });
    let numbers = || cells().map(|c| if let Some(Cell::Number(n)) = c { Some(*n) } else { None });
    match column.kind {
        ColumnType::String => Arc::new(texts().collect::<StringViewArray>()),
        ColumnType::Int64 => Arc::new(numbers().collect::<Int64Array>()),
        ColumnType::Timestamp => Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ColumnType::Bool => Arc::new(
            cells().map(|c| if let Some(Cell::Bool(b)) = c { Some(*b) } else { None }).collect::<BooleanArray>(),
        ),
        ColumnType::Hash => {
            let mut hashes = FixedSizeBinaryBuilder::new(16);
            for row in rows {
                // The hash is of the event's bytes, which know nothing of the watermark.
                let cells = row.cells.iter().filter(|(name, _)| *name != "source_watermark");
                let all = format!("{:?}", cells.collect::<std::collections::BTreeMap<_, _>>().values());
                hashes.append_value(&blake3::hash(all.as_bytes()).as_bytes()[..16]).expect("16 bytes");
            }
            Arc::new(hashes.finish())
        }
        ColumnType::StringList => Arc::new(
            new_null_array(&column.kind.arrow(), rows.len())
                .as_any()
                .downcast_ref::<ListArray>()
                .expect("a list")
                .clone(),
        ),
        ColumnType::Binary => new_null_array(&column.kind.arrow(), rows.len()),
    }
}

/// Rows as admission would hand them over, one batch per table.
pub fn admitted(rows: &[Row]) -> Admitted {
    admitted_as(&schemas(), rows)
}

/// The same, with the columns of other schemas.
pub fn admitted_as(schemas: &[Arc<TableSchema>], rows: &[Row]) -> Admitted {
    let mut admitted = Admitted::default();
    for table in tables::STORED {
        let of_table: Vec<Row> = rows.iter().filter(|r| r.table == table).cloned().collect();
        if !of_table.is_empty() {
            admitted.batches.push(Batch { table: table.into(), rows: batch_of(schemas, table, &of_table) });
        }
    }
    admitted
}

/// Stored rows in memory.
pub struct Store {
    schemas: Vec<Arc<TableSchema>>,
    batches: HashMap<String, Vec<RecordBatch>>,
    /// What remains of rows that were stored.
    pub retained: Option<Arc<Retained>>,
}

impl Default for Store {
    fn default() -> Store {
        Store { schemas: schemas(), batches: HashMap::new(), retained: None }
    }
}

impl Store {
    pub fn of(rows: &[Row]) -> Store {
        let mut store = Store::default();
        store.add(rows);
        store
    }

    /// With the tables of other schemas.
    pub fn of_as(schemas: &[Arc<TableSchema>], rows: &[Row]) -> Store {
        let mut store = Store { schemas: schemas.to_vec(), ..Store::default() };
        store.add(rows);
        store
    }

    pub fn batches(&self, table: &str) -> Vec<RecordBatch> {
        self.batches.get(table).cloned().unwrap_or_default()
    }

    /// The same with more rows.
    pub fn with(&self, rows: &[Row]) -> Store {
        let Store { schemas, batches, retained } = self;
        let mut more = Store { schemas: schemas.clone(), batches: batches.clone(), retained: retained.clone() };
        more.add(rows);
        more
    }

    pub fn add(&mut self, rows: &[Row]) {
        for batch in admitted_as(&self.schemas, rows).batches {
            self.batches.entry(batch.table.to_string()).or_default().push(batch.rows);
        }
    }
}

impl History for Store {
    fn table(&self, name: &str) -> Arc<dyn TableProvider> {
        let schema: SchemaRef = self.schemas.iter().find(|s| s.name == name).expect("a stored table").arrow();
        batch_table(schema, self.batches.get(name).cloned().unwrap_or_default())
    }

    fn retained(&self) -> Option<Arc<Retained>> {
        self.retained.clone()
    }
}

/// A rule file: entity, further header lines, and the SELECT.
pub fn rule_text(entity: &str, header: &str, sql: &str) -> String {
    format!("/*\ntitle: A rule\nseverity: high\nentity: [{entity}]\nsummary: something happened\n{header}\n*/\n{sql}\n")
}

pub async fn parse(files: &[(&str, &str)]) -> Result<RuleSet, RuleErrors> {
    let files: Vec<(PathBuf, String)> = files.iter().map(|(p, t)| (PathBuf::from(p), t.to_string())).collect();
    RuleSet::parse(&files, &schemas(), "fixtures").await
}

pub async fn rules(files: &[(&str, &str)]) -> RuleSet {
    parse(files).await.unwrap_or_else(|errors| panic!("{errors}"))
}
