//! Tables as `schemas/` describes them: columns with type, meaning and OCSF path. Parsing lives in normalize;
//! everyone else only reads these.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Table names that code refers to.
pub mod tables {
    /// Common columns of every source (a view over the source tables).
    pub const EVENTS: &str = "events";
    pub const KUBERNETES: &str = "kubernetes";
    pub const CLOUDTRAIL: &str = "cloudtrail";
    pub const FALCO: &str = "falco";
    /// One row per Kubernetes request (a view over `kubernetes`).
    pub const KUBERNETES_CALLS: &str = "kubernetes_calls";
    /// Elements that could not be read, with the reason.
    pub const UNPARSED: &str = "unparsed";
    /// The tables that are stored; the others are views over them.
    pub const STORED: [&str; 4] = [KUBERNETES, CLOUDTRAIL, FALCO, UNPARSED];
}

/// Columns that every stored table begins with and that code, not `schemas/` paths, fills in. In this order.
pub mod column {
    /// Event time, microseconds UTC, never null. Unparsed rows carry their ingest time.
    pub const TIME: &str = "time";
    pub const INGEST_TIME: &str = "ingest_time";
    /// The vendor's id, or the row hash in hex where the vendor gives none. Never null.
    pub const EVENT_UID: &str = "event_uid";
    pub const SOURCE: &str = "source";
    pub const CLUSTER: &str = "cluster";
    /// `live` or `import`.
    pub const ORIGIN: &str = "origin";
    pub const TOPIC: &str = "topic";
    pub const PARTITION: &str = "partition";
    pub const OFFSET: &str = "offset";
    /// Index within the message.
    pub const MESSAGE_INDEX: &str = "message_index";
    pub const FILE_SHA256: &str = "file_sha256";
    /// The source's watermark when the row was admitted (`i64::MIN` in an import).
    pub const SOURCE_WATERMARK: &str = "source_watermark";
    /// SHA-256 of the original bytes, first 16 bytes.
    pub const ROW_HASH: &str = "row_hash";
    /// Something inside `raw` was redacted; `row_hash` is of the original.
    pub const REDACTED: &str = "redacted";
    /// The element's bytes as text (lossy only in `unparsed`, which keeps the bytes too).
    pub const RAW: &str = "raw";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text (arrow `Utf8View`).
    String,
    Int64,
    Bool,
    /// Microseconds UTC.
    Timestamp,
    /// List of text; a scalar is a list of one.
    StringList,
    /// Raw bytes.
    Binary,
    /// 16 bytes.
    Hash,
}

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::String => DataType::Utf8View,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::StringList => DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))),
            ColumnType::Binary => DataType::Binary,
            ColumnType::Hash => DataType::FixedSizeBinary(16),
        }
    }

    /// As written in `schemas/`.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::String => "string",
            ColumnType::Int64 => "int64",
            ColumnType::Bool => "bool",
            ColumnType::Timestamp => "timestamp",
            ColumnType::StringList => "list<string>",
            ColumnType::Binary => "binary",
            ColumnType::Hash => "hash",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
    /// Part of `events`, the table that spans the sources.
    pub common: bool,
    pub doc: String,
    /// Path in the Open Cybersecurity Schema Framework, where there is one.
    pub ocsf: Option<String>,
    /// All values that occur, where they are few and known; empty otherwise.
    pub values: Vec<String>,
    /// The audit level below which the column is always null.
    pub level: Option<AuditLevel>,
}

/// How much of a request a Kubernetes API server records; each level has all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditLevel {
    Metadata,
    Request,
    RequestResponse,
}

impl AuditLevel {
    pub const ALL: [AuditLevel; 3] = [AuditLevel::Metadata, AuditLevel::Request, AuditLevel::RequestResponse];

    pub fn name(self) -> &'static str {
        match self {
            AuditLevel::Metadata => "Metadata",
            AuditLevel::Request => "Request",
            AuditLevel::RequestResponse => "RequestResponse",
        }
    }

    pub fn of_name(name: &str) -> Option<AuditLevel> {
        AuditLevel::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// A stored table. `arrow()` has the columns in the same order.
#[derive(Clone, Debug)]
pub struct TableSchema {
    pub name: String,
    pub doc: String,
    pub columns: Vec<Column>,
    arrow: SchemaRef,
}

impl TableSchema {
    pub fn new(name: String, doc: String, columns: Vec<Column>) -> Self {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new(&c.name, c.kind.arrow(), c.nullable)).collect();
        TableSchema { name, doc, columns, arrow: Arc::new(Schema::new(fields)) }
    }

    pub fn arrow(&self) -> SchemaRef {
        self.arrow.clone()
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// Columns that a table gained (or whose type changed) after rows were stored, from the rows' own bytes. Implemented by
/// normalize, asked by the store when it reads or compacts segments of an older schema.
pub trait Recompute: Send + Sync {
    /// The columns `names` of `table` for rows with these `raw` values: one array per name, in order, each of the type
    /// that the table's schema of today gives it. A row that can no longer be read (redacted, say) has nulls, or the
    /// column's default. Never asked for the meta columns, which every segment has.
    fn recompute(&self, table: &TableSchema, names: &[&str], raw: &StringViewArray) -> Vec<ArrayRef>;
}
