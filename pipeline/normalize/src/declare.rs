//! What one schema file declares, read from its YAML tree. Every mistake is noted with its line and reading goes on;
//! what concerns more than one file is `schema`'s business.

use event::{AuditLevel, ColumnType};

use crate::mistake::{Mistake, suggest};
use crate::path::Path;
use crate::pod_feature::PodFeature;
use crate::transform::Transform;
use crate::yaml::{Entry, Node, Value};

/// Which sections and keys a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `events.yaml`: the columns that all share.
    Events,
    /// A table that paths fill.
    Source,
    /// `unparsed.yaml`: a table that code fills.
    Unparsed,
}

#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub table: String,
    pub doc: String,
    pub event_name: String,
    pub require: Vec<Vec<Path>>,
    pub time: Vec<Path>,
    pub uid: Vec<Path>,
    pub meta: Vec<DeclaredColumn>,
    pub common: Vec<DeclaredColumn>,
    pub columns: Vec<DeclaredColumn>,
}

#[derive(Debug)]
pub(crate) struct DeclaredColumn {
    pub name: String,
    pub line: u64,
    pub kind: Option<ColumnType>,
    pub paths: Vec<Path>,
    pub transform: Option<Transform>,
    pub pod: Option<PodFeature>,
    pub default: Option<String>,
    pub when: Option<Path>,
    pub doc: Option<String>,
    pub ocsf: Option<String>,
    pub values: Vec<String>,
    pub level: Option<AuditLevel>,
}

const COLUMN_TYPES: [ColumnType; 7] = [
    ColumnType::String,
    ColumnType::Int64,
    ColumnType::Bool,
    ColumnType::Timestamp,
    ColumnType::StringList,
    ColumnType::Binary,
    ColumnType::Hash,
];

/// Reads one file; `None` when it is not YAML at all.
pub(crate) fn read(file: &str, text: &str, role: Role, mistakes: &mut Vec<Mistake>) -> Option<Declared> {
    let mut reader = Reader { file, mistakes };
    match Node::parse(text) {
        Ok(root) => Some(reader.file(&root, role)),
        Err((line, message)) => {
            reader.note(line, format!("not YAML: {message}"), None);
            None
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn file(&mut self, root: &Node, role: Role) -> Declared {
        let keys: &[&str] = match role {
            Role::Events => &["table", "doc", "meta", "common"],
            Role::Source => &["table", "doc", "event", "time", "uid", "common", "columns"],
            Role::Unparsed => &["table", "doc", "columns"],
        };
        let mut declared = Declared::default();
        let entries = self.mapping(root, "the file", keys);
        for key in keys.iter().filter(|k| !entries.iter().any(|e| e.key == **k)) {
            self.note(root.line, format!("`{key}` is missing"), None);
        }
        let common = if role == Role::Events { Section::SharedCommon } else { Section::SourceCommon };
        let columns = if role == Role::Source { Section::SourceColumns } else { Section::CodeColumns };
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "table" => declared.table = self.text(value).unwrap_or_default(),
                "doc" => declared.doc = self.text(value).unwrap_or_default(),
                "event" => (declared.event_name, declared.require) = self.event(value),
                "time" => declared.time = self.paths(value),
                "uid" => declared.uid = self.paths(value),
                "meta" => declared.meta = self.columns(value, Section::CodeColumns),
                "common" => declared.common = self.columns(value, common),
                _ => declared.columns = self.columns(value, columns),
            }
        }
        declared
    }

    fn event(&mut self, node: &Node) -> (String, Vec<Vec<Path>>) {
        let (mut name, mut require) = (String::new(), Vec::new());
        for Entry { key, value, .. } in self.mapping(node, "`event`", &["name", "require"]) {
            match (key.as_str(), &value.value) {
                ("name", _) => name = self.text(value).unwrap_or_default(),
                (_, Value::List(alternatives)) => require = alternatives.iter().map(|a| self.paths(a)).collect(),
                _ => self.note(value.line, "`require` should be a list of lists of paths".into(), None),
            }
        }
        if name.is_empty() || require.is_empty() {
            self.note(node.line, "`event` needs `name` and `require`".into(), None);
        }
        (name, require)
    }

    fn columns(&mut self, node: &Node, section: Section) -> Vec<DeclaredColumn> {
        let Value::Map(entries) = &node.value else {
            self.note(node.line, "columns should be a mapping from name to declaration".into(), None);
            return Vec::new();
        };
        let mut columns: Vec<DeclaredColumn> = Vec::new();
        for entry in entries {
            if let Some(first) = columns.iter().find(|c| c.name == entry.key) {
                let hint = format!("the first one is at line {}", first.line);
                self.note(entry.line, format!("duplicate column `{}`", entry.key), Some(hint));
                continue;
            }
            let named = entry.key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !named || entry.key.is_empty() {
                let hint = "lower-case letters, digits and underscores".to_owned();
                self.note(entry.line, format!("column name `{}` cannot be used", entry.key), Some(hint));
            }
            columns.push(self.column(entry, section));
        }
        columns
    }

    fn column(&mut self, entry: &Entry, section: Section) -> DeclaredColumn {
        let mut column = DeclaredColumn::new(&entry.key, entry.line);
        for Entry { key, value, .. } in self.mapping(&entry.value, &format!("`{}`", entry.key), section.keys()) {
            match key.as_str() {
                "type" => column.kind = self.kind(value),
                "path" => column.paths = self.paths(value),
                "transform" => column.transform = self.transform(value),
                "pod" => column.pod = self.pod(value),
                "default" => column.default = self.text(value),
                "when" => column.when = self.path(value),
                "doc" => column.doc = self.text(value),
                "values" => column.values = self.values(value),
                "level" => column.level = self.level(value),
                _ => column.ocsf = self.text(value),
            }
        }
        self.required(entry, section);
        column
    }

    /// Reports what a column of this section cannot do without.
    fn required(&mut self, entry: &Entry, section: Section) {
        let Value::Map(entries) = &entry.value.value else { return };
        let has = |key: &str| entries.iter().any(|e| e.key == key);
        let allowed = |key: &str| section.keys().contains(&key);
        let name = &entry.key;
        if allowed("type") && !has("type") {
            self.note(entry.line, format!("column `{name}` has no type"), Some(type_names()));
        }
        if section != Section::SourceCommon && !has("doc") {
            let hint = "say what it means, with an example, and when it is null".to_owned();
            self.note(entry.line, format!("column `{name}` has no doc"), Some(hint));
        }
        if allowed("path") && !has("path") && !has("default") && !has("pod") {
            self.note(entry.line, format!("column `{name}` has neither path nor default"), None);
        }
        if has("pod") && (has("path") || has("default")) {
            self.note(entry.line, format!("column `{name}` has `pod` and a path or default"), None);
        }
        if has("when") && !has("default") {
            self.note(entry.line, format!("column `{name}` has `when` but no default"), None);
        }
        if has("transform") && !has("path") {
            self.note(entry.line, format!("column `{name}` has a transform but no path"), None);
        }
    }

    fn kind(&mut self, node: &Node) -> Option<ColumnType> {
        let name = self.text(node)?;
        let kind = COLUMN_TYPES.into_iter().find(|t| t.name() == name);
        if kind.is_none() {
            let hint = suggest(&name, COLUMN_TYPES.map(ColumnType::name));
            self.note(node.line, format!("unknown type `{name}`"), Some(hint));
        }
        kind
    }

    fn transform(&mut self, node: &Node) -> Option<Transform> {
        let name = self.text(node)?;
        let transform = Transform::ALL.into_iter().find(|t| t.name() == name);
        if transform.is_none() {
            let hint = suggest(&name, Transform::ALL.map(Transform::name));
            self.note(node.line, format!("unknown transform `{name}`"), Some(hint));
        }
        transform
    }

    fn pod(&mut self, node: &Node) -> Option<PodFeature> {
        let name = self.text(node)?;
        let feature = PodFeature::ALL.iter().copied().find(|f| f.name() == name);
        if feature.is_none() {
            let hint = suggest(&name, PodFeature::ALL.iter().map(|f| f.name()));
            self.note(node.line, format!("unknown fact of pods `{name}`"), Some(hint));
        }
        feature
    }

    /// The values of a column whose values are known: text, each once.
    fn values(&mut self, node: &Node) -> Vec<String> {
        let Value::List(list) = &node.value else {
            self.note(node.line, "`values` should be a list of texts".into(), None);
            return Vec::new();
        };
        let mut values: Vec<String> = Vec::new();
        for value in list {
            match self.text(value) {
                Some(text) if values.contains(&text) => {
                    self.note(value.line, format!("`{text}` stands twice in `values`"), None);
                }
                text => values.extend(text),
            }
        }
        values
    }

    fn level(&mut self, node: &Node) -> Option<AuditLevel> {
        let name = self.text(node)?;
        let level = AuditLevel::of_name(&name);
        if level.is_none() {
            let hint = suggest(&name, AuditLevel::ALL.map(AuditLevel::name));
            self.note(node.line, format!("unknown audit level `{name}`"), Some(hint));
        }
        level
    }

    /// One path or a list of them.
    fn paths(&mut self, node: &Node) -> Vec<Path> {
        match &node.value {
            Value::List(list) if list.is_empty() => {
                self.note(node.line, "an empty list of paths".into(), None);
                Vec::new()
            }
            Value::List(list) => list.iter().filter_map(|n| self.path(n)).collect(),
            _ => self.path(node).into_iter().collect(),
        }
    }

    fn path(&mut self, node: &Node) -> Option<Path> {
        let text = self.text(node)?;
        Path::parse(&text)
            .map_err(|message| {
                let hint = "paths look like user.username, output_fields[\"k8s.ns.name\"] or resources[0].ARN";
                self.note(node.line, format!("bad path `{text}`: {message}"), Some(hint.into()));
            })
            .ok()
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(text) if !text.trim().is_empty() => Some(text.trim_end().to_owned()),
            _ => {
                self.note(node.line, "text expected".into(), None);
                None
            }
        }
    }

    /// The entries of a mapping that have a known key, each once.
    fn mapping<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Vec<&'n Entry> {
        let Value::Map(entries) = &node.value else {
            self.note(node.line, format!("{what} should be a mapping with {}", keys.join(", ")), None);
            return Vec::new();
        };
        let mut known: Vec<&Entry> = Vec::new();
        for entry in entries {
            if !keys.contains(&entry.key.as_str()) {
                let hint = suggest(&entry.key, keys.iter().copied());
                self.note(entry.line, format!("unknown key `{}` in {what}", entry.key), Some(hint));
            } else if known.iter().any(|e| e.key == entry.key) {
                self.note(entry.line, format!("`{}` stands twice in {what}", entry.key), None);
            } else {
                known.push(entry);
            }
        }
        known
    }

    fn note(&mut self, line: u64, message: String, hint: Option<String>) {
        self.mistakes.push(Mistake { file: self.file.to_owned(), line, message, hint });
    }
}

/// Where a column is declared decides what must be said of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    /// `meta`, and the columns of `unparsed`.
    CodeColumns,
    SharedCommon,
    SourceCommon,
    SourceColumns,
}

impl Section {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Section::CodeColumns | Section::SharedCommon => &["type", "doc", "ocsf", "values"],
            Section::SourceCommon => &["path", "transform", "default", "when", "doc", "ocsf", "values"],
            Section::SourceColumns => {
                &["type", "path", "transform", "pod", "default", "when", "doc", "ocsf", "values", "level"]
            }
        }
    }
}

impl DeclaredColumn {
    pub fn new(name: &str, line: u64) -> Self {
        DeclaredColumn {
            name: name.to_owned(),
            line,
            kind: None,
            paths: Vec::new(),
            transform: None,
            pod: None,
            default: None,
            when: None,
            doc: None,
            ocsf: None,
            values: Vec::new(),
            level: None,
        }
    }
}

fn type_names() -> String {
    format!("one of {}", COLUMN_TYPES.map(ColumnType::name).join(", "))
}
