//! All schema files together: the tables with their columns, and per source the plan that fills them.

use std::path::Path as FsPath;
use std::sync::Arc;

use event::{Column, ColumnType, Source, TableSchema, column, tables};

use crate::declare::{self, Declared, DeclaredColumn, Role};
use crate::mistake::{Mistake, SchemaError, suggest};
use crate::path::Path;
use crate::pod_feature::PodFeature;
use crate::transform::{INPUTS_MAX, Inputs, Transform};

const BUILTIN: [(&str, &str); 5] = [
    ("events.yaml", include_str!("../../../schemas/events.yaml")),
    ("kubernetes.yaml", include_str!("../../../schemas/kubernetes.yaml")),
    ("cloudtrail.yaml", include_str!("../../../schemas/cloudtrail.yaml")),
    ("falco.yaml", include_str!("../../../schemas/falco.yaml")),
    ("unparsed.yaml", include_str!("../../../schemas/unparsed.yaml")),
];

/// What code knows of the meta columns; `events.yaml` must say the same.
const META: [(&str, ColumnType); 15] = [
    (column::TIME, ColumnType::Timestamp),
    (column::INGEST_TIME, ColumnType::Timestamp),
    (column::EVENT_UID, ColumnType::String),
    (column::SOURCE, ColumnType::String),
    (column::CLUSTER, ColumnType::String),
    (column::ORIGIN, ColumnType::String),
    (column::TOPIC, ColumnType::String),
    (column::PARTITION, ColumnType::Int64),
    (column::OFFSET, ColumnType::Int64),
    (column::MESSAGE_INDEX, ColumnType::Int64),
    (column::FILE_SHA256, ColumnType::String),
    (column::SOURCE_WATERMARK, ColumnType::Timestamp),
    (column::ROW_HASH, ColumnType::Hash),
    (column::REDACTED, ColumnType::Bool),
    (column::RAW, ColumnType::String),
];
const META_NULLABLE: [&str; 2] = [column::CLUSTER, column::FILE_SHA256];
/// What code fills in `unparsed`, after the meta columns.
const UNPARSED: [(&str, ColumnType); 2] = [("reason", ColumnType::String), ("bytes", ColumnType::Binary)];

/// The tables and how they are filled. Immutable; cheap to share.
#[derive(Debug)]
pub struct Schemas {
    /// In the order of [`tables::STORED`], then `events`.
    tables: Vec<Arc<TableSchema>>,
    plans: Vec<Plan>,
    hash: String,
}

/// How one source's elements become rows.
#[derive(Debug)]
pub(crate) struct Plan {
    pub source: Source,
    pub table: Arc<TableSchema>,
    /// For messages: `Kubernetes audit event`.
    pub event_name: String,
    /// Of each list one path must hold text.
    pub require: Vec<Vec<Path>>,
    pub time: Vec<Path>,
    pub uid: Vec<Path>,
    /// One per column after the meta columns, in the table's order.
    pub fills: Vec<Fill>,
}

/// How one column is filled; without paths and default it stays null.
#[derive(Debug)]
pub(crate) struct Fill {
    pub kind: ColumnType,
    pub paths: Vec<Path>,
    pub transform: Option<Transform>,
    /// Filled from the pod spec of a request's body instead.
    pub pod: Option<PodFeature>,
    pub default: Option<String>,
    pub when: Option<Path>,
}

impl Schemas {
    /// The schemas this binary was built with.
    pub fn builtin() -> Schemas {
        Schemas::parse(&BUILTIN).expect("the embedded schemas are parsed by the tests")
    }

    /// Reads a folder that holds the same five files as the built-in ones. A file that cannot be read is a mistake
    /// like any other.
    pub fn load(dir: &FsPath) -> Result<Schemas, SchemaError> {
        let mut texts = Vec::new();
        let mut mistakes = Vec::new();
        for (file, _) in BUILTIN {
            let path = dir.join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) => texts.push((path.display().to_string(), text)),
                Err(error) => {
                    mistakes.push(mistake(&path.display().to_string(), 0, format!("cannot be read: {error}")))
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(SchemaError { mistakes });
        }
        let files: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        Schemas::parse(&files)
    }

    /// From (file name, text), told apart by the last part of the name.
    pub fn parse(files: &[(&str, &str)]) -> Result<Schemas, SchemaError> {
        let mut mistakes = Vec::new();
        let mut read = |stem: &str, role: Role| -> (String, Option<Declared>) {
            let name = format!("{stem}.yaml");
            let found = files.iter().find(|(file, _)| FsPath::new(file).file_name() == Some(name.as_ref()));
            let Some((file, text)) = found else {
                mistakes.push(mistake(&name, 0, "file is missing".into()));
                return (name, None);
            };
            let declared = declare::read(file, text, role, &mut mistakes);
            if let Some(other) = declared.as_ref().filter(|d| !d.table.is_empty() && d.table != stem) {
                mistakes.push(mistake(file, 1, format!("table `{}` should be `{stem}`, as its file", other.table)));
            }
            (file.to_string(), declared)
        };
        let events = read(tables::EVENTS, Role::Events);
        let sources = Source::ALL.map(|source| (source, read(source.name(), Role::Source)));
        let unparsed = read(tables::UNPARSED, Role::Unparsed);
        let built = build(events, sources, unparsed, &mut mistakes);
        match built {
            Some((tables, plans)) if mistakes.is_empty() => Ok(Schemas { tables, plans, hash: hash(files) }),
            _ => Err(SchemaError { mistakes }),
        }
    }

    /// A stored table, or `events`.
    pub fn table(&self, name: &str) -> Option<&Arc<TableSchema>> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// The stored tables, in the order of [`tables::STORED`].
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables[..tables::STORED.len()]
    }

    /// Hex BLAKE3 of the files: part of what decides about findings.
    pub fn hash(&self) -> String {
        self.hash.clone()
    }

    pub(crate) fn plans(&self) -> &[Plan] {
        &self.plans
    }
}

type Read = (String, Option<Declared>);

/// Checks what concerns several files and puts the tables together.
fn build(
    (events_file, events): Read,
    sources: [(Source, Read); 3],
    (unparsed_file, unparsed): Read,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Vec<Arc<TableSchema>>, Vec<Plan>)> {
    let events = events?;
    check_fixed(&events_file, "meta", &events.meta, &META, mistakes);
    let meta: Vec<Column> =
        events.meta.iter().filter_map(|c| shared_column(c, META_NULLABLE.contains(&&*c.name))).collect();
    let common: Vec<Column> = events.common.iter().filter_map(|c| shared_column(c, true)).collect();

    let plans: Vec<Plan> = sources
        .into_iter()
        .filter_map(|(source, (file, declared))| Some(plan(source, &file, declared?, &meta, &common, mistakes)))
        .collect();

    let unparsed = unparsed?;
    check_fixed(&unparsed_file, "columns", &unparsed.columns, &UNPARSED, mistakes);
    let mut columns = meta.clone();
    columns.extend(unparsed.columns.iter().filter_map(own_column));
    let mut tables: Vec<_> = plans.iter().map(|p| p.table.clone()).collect();
    tables.push(Arc::new(TableSchema::new(unparsed.table, unparsed.doc, columns)));
    let shared = meta.into_iter().chain(common).collect();
    tables.push(Arc::new(TableSchema::new(events.table, events.doc, shared)));
    Some((tables, plans))
}

fn plan(
    source: Source,
    file: &str,
    declared: Declared,
    meta: &[Column],
    common: &[Column],
    mistakes: &mut Vec<Mistake>,
) -> Plan {
    for column in &declared.common {
        if !common.iter().any(|c| c.name == column.name) {
            let mut unknown = mistake(file, column.line, format!("unknown common column `{}`", column.name));
            unknown.hint = Some(suggest(&column.name, common.iter().map(|c| c.name.as_str())));
            mistakes.push(unknown);
        }
    }
    for column in &declared.columns {
        if meta.iter().chain(common).any(|c| c.name == column.name) {
            let mut twice = mistake(file, column.line, format!("duplicate column `{}`", column.name));
            twice.hint = Some("events.yaml declares it; fill it under `common`, or choose another name".into());
            mistakes.push(twice);
        }
        if matches!(column.kind, Some(ColumnType::Binary | ColumnType::Hash)) {
            mistakes.push(mistake(file, column.line, format!("column `{}`: no path can fill this type", column.name)));
        }
        if column.kind.is_some_and(|kind| kind != ColumnType::String) && !column.values.is_empty() {
            mistakes.push(mistake(file, column.line, format!("column `{}`: `values` are of text", column.name)));
        }
        if column.pod.is_some() && source != Source::Kubernetes {
            mistakes.push(mistake(file, column.line, format!("column `{}`: only Kubernetes has pods", column.name)));
        }
    }
    let mut columns = meta.to_vec();
    let mut fills = Vec::new();
    for shared in common {
        let own = declared.common.iter().find(|c| c.name == shared.name);
        columns.push(Column {
            doc: own.and_then(|c| c.doc.clone()).unwrap_or_else(|| shared.doc.clone()),
            ocsf: own.and_then(|c| c.ocsf.clone()).or_else(|| shared.ocsf.clone()),
            values: own.map(|c| c.values.clone()).filter(|v| !v.is_empty()).unwrap_or_else(|| shared.values.clone()),
            level: own.and_then(|c| c.level),
            ..shared.clone()
        });
        fills.push(own.map_or_else(|| Fill::null(shared.kind), |own| fill(file, own, shared.kind, mistakes)));
    }
    for own in &declared.columns {
        if let Some(column) = own_column(own) {
            fills.push(fill(file, own, column.kind, mistakes));
            columns.push(column);
        }
    }
    Plan {
        source,
        table: Arc::new(TableSchema::new(declared.table, declared.doc, columns)),
        event_name: declared.event_name,
        require: declared.require,
        time: declared.time,
        uid: declared.uid,
        fills,
    }
}

impl Fill {
    fn null(kind: ColumnType) -> Fill {
        Fill { kind, paths: Vec::new(), transform: None, pod: None, default: None, when: None }
    }
}

fn fill(file: &str, declared: &DeclaredColumn, kind: ColumnType, mistakes: &mut Vec<Mistake>) -> Fill {
    let mut note = |message: String| {
        mistakes.push(mistake(file, declared.line, format!("column `{}`: {message}", declared.name)));
    };
    if let Some(transform) = declared.transform {
        let (name, gives) = (transform.name(), transform.kind());
        if gives != kind {
            note(format!("transform `{name}` gives {}, not {}", gives.name(), kind.name()));
        }
        match transform.inputs() {
            Inputs::Each(paths) if paths != declared.paths.len() => {
                note(format!("transform `{name}` takes {paths} paths, not {}", declared.paths.len()));
            }
            Inputs::Present if declared.paths.len() > INPUTS_MAX => {
                note(format!("transform `{name}` takes at most {INPUTS_MAX} paths, not {}", declared.paths.len()));
            }
            _ => {}
        }
    }
    if declared.default.is_some() && kind != ColumnType::String {
        note(format!("a default gives text, not {}", kind.name()));
    }
    if let Some(feature) = declared.pod.filter(|feature| feature.kind() != kind) {
        note(format!("pods have `{}` as {}, not {}", feature.name(), feature.kind().name(), kind.name()));
    }
    Fill {
        kind,
        paths: declared.paths.clone(),
        transform: declared.transform,
        pod: declared.pod,
        default: declared.default.clone(),
        when: declared.when.clone(),
    }
}

/// Columns that code fills must be the ones code knows, in its order.
fn check_fixed(
    file: &str,
    section: &str,
    declared: &[DeclaredColumn],
    fixed: &[(&str, ColumnType)],
    mistakes: &mut Vec<Mistake>,
) {
    for (i, (name, kind)) in fixed.iter().enumerate() {
        match declared.get(i) {
            Some(column) if column.name != *name => {
                let message = format!("column {} of `{section}` is `{}`, should be `{name}`", i + 1, column.name);
                mistakes.push(mistake(file, column.line, message));
                return;
            }
            Some(column) if column.kind.is_some_and(|k| k != *kind) => {
                mistakes.push(mistake(file, column.line, format!("column `{name}` has type {}", kind.name())));
            }
            Some(_) => {}
            None => mistakes.push(mistake(file, 0, format!("column `{name}` is missing in `{section}`"))),
        }
    }
    for extra in declared.iter().skip(fixed.len()) {
        mistakes.push(mistake(file, extra.line, format!("nothing fills column `{}` of `{section}`", extra.name)));
    }
}

fn shared_column(declared: &DeclaredColumn, nullable: bool) -> Option<Column> {
    Some(Column { nullable, common: true, ..own_column(declared)? })
}

/// `None` when the declaration has no usable type, which has been reported.
fn own_column(declared: &DeclaredColumn) -> Option<Column> {
    Some(Column {
        name: declared.name.clone(),
        kind: declared.kind?,
        nullable: true,
        common: false,
        doc: declared.doc.clone().unwrap_or_default(),
        ocsf: declared.ocsf.clone(),
        values: declared.values.clone(),
        level: declared.level,
    })
}

fn mistake(file: &str, line: u64, message: String) -> Mistake {
    Mistake { file: file.to_owned(), line, message, hint: None }
}

/// Of names without folders and of contents, so that moving the folder changes nothing.
fn hash(files: &[(&str, &str)]) -> String {
    let mut named: Vec<_> = files.iter().map(|(file, text)| (FsPath::new(file).file_name(), text)).collect();
    named.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, text) in named {
        hasher.update(name.unwrap_or_default().as_encoded_bytes());
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
