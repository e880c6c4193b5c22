//! YAML as a tree that knows its lines, read so that every mistake of a file is reported at once instead of the
//! first one only.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// 0: the file as a whole.
    pub line: u64,
    pub what: String,
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what)?,
            line => write!(f, "{}:{line}: {}", self.file, self.what)?,
        }
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// A node with the line it starts on.
#[derive(Clone, Debug)]
pub struct Node {
    pub line: u64,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys as text, in file order.
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

impl Node {
    pub fn parse(file: &str, text: &str) -> Result<Node, Mistake> {
        serde_saphyr::from_str(text).map_err(|error| {
            // A snippet would print the line, and the line may hold what someone took for a secret's place.
            let error = error.without_snippet();
            Mistake {
                file: file.to_owned(),
                line: error.location().map_or(0, |l| l.line()),
                what: error.to_string().lines().next().unwrap_or_default().to_owned(),
                hint: "the file must be valid YAML".to_owned(),
            }
        })
    }

    /// The same as plain JSON, for parts that are read by their own types.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => (*i).into(),
            Value::Float(f) => (*f).into(),
            Value::Text(t) => t.clone().into(),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(k, v)| (k.value.clone(), v.to_json())).collect())
            }
        }
    }
}

/// Collects the mistakes of one file.
pub struct Reader {
    pub file: String,
    pub mistakes: Vec<Mistake>,
}

impl Reader {
    pub fn new(file: &str) -> Reader {
        Reader { file: file.to_owned(), mistakes: Vec::new() }
    }

    pub fn mistake(&mut self, line: u64, what: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake { file: self.file.clone(), line, what: what.into(), hint: hint.into() });
    }

    /// Opens a mapping; keys outside `known` are mistakes, with the nearest known one as the hint.
    pub fn map<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Map<'a> {
        let map = self.open_map(node, what);
        for (key, _) in map.entries {
            if !known.contains(&key.value.as_str()) {
                let hint = match nearest(&key.value, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known keys: {}", known.join(", ")),
                };
                self.mistake(key.referenced.line(), format!("{what}: unknown key `{}`", key.value), hint);
            }
        }
        map
    }

    /// Opens a mapping whose keys are free.
    pub fn open_map<'a>(&mut self, node: &'a Node, what: &str) -> Map<'a> {
        let entries: &[(Spanned<String>, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.mistake(node.line, format!("{what} is not a mapping"), "write `key: value` lines under it");
                &[]
            }
        };
        Map { line: node.line, what: what.to_owned(), entries }
    }

    pub fn list<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.value {
            Value::List(list) => list,
            Value::Null => &[],
            _ => {
                self.mistake(node.line, format!("{what} is not a list"), "start each entry with `- `");
                &[]
            }
        }
    }
}

/// An opened mapping. Its getters report a wrong type to the reader and then read as absent.
pub struct Map<'a> {
    pub line: u64,
    what: String,
    entries: &'a [(Spanned<String>, Node)],
}

impl<'a> Map<'a> {
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.value == key).map(|(_, node)| node)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.entries.iter().map(|(key, node)| (key.value.as_str(), node))
    }

    pub fn text(&self, reader: &mut Reader, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match text(node) {
            Some(text) => Some(text),
            None => {
                reader.mistake(node.line, format!("{}: `{key}` is not text", self.what), "write a plain value");
                None
            }
        }
    }

    pub fn bool(&self, reader: &mut Reader, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                reader.mistake(
                    node.line,
                    format!("{}: `{key}` is neither true nor false", self.what),
                    "write `true` or `false`",
                );
                None
            }
        }
    }

    pub fn required_text(&self, reader: &mut Reader, key: &str) -> Option<String> {
        if self.get(key).is_none() {
            reader.mistake(self.line, format!("{}: `{key}` is missing", self.what), format!("add `{key}: …`"));
        }
        self.text(reader, key)
    }

    pub fn duration(&self, reader: &mut Reader, key: &str) -> Option<Duration> {
        let (node, text) = (self.get(key)?, self.text(reader, key)?);
        let parsed = parse_duration(&text);
        if parsed.is_none() {
            let what = format!("{}: `{key}` is not a duration: `{text}`", self.what);
            reader.mistake(node.line, what, "a number with a unit: 500ms, 30s, 10m, 24h, 7d");
        }
        parsed
    }

    pub fn bytes(&self, reader: &mut Reader, key: &str) -> Option<u64> {
        let (node, text) = (self.get(key)?, self.text(reader, key)?);
        let parsed = parse_bytes(&text);
        if parsed.is_none() {
            let what = format!("{}: `{key}` is not a size: `{text}`", self.what);
            reader.mistake(node.line, what, "a number with a unit: 64MiB, 512KiB, 1GiB");
        }
        parsed
    }
}

fn text(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(i) => Some(i.to_string()),
        Value::Float(f) => Some(f.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A number with a unit of ms, s, m, h or d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

/// A number with a unit of B, KiB, MiB, GiB or their decimal kin.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The known name that was probably meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|k| (strsim::jaro_winkler(name, k), *k));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("-1s"), None);
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1 GB"), Some(1_000_000_000));
        assert_eq!(parse_bytes("1 parsec"), None);
    }
}
