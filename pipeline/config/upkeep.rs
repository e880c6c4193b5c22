//! The `store` section: what is kept how long, and whether small segments are merged.

use std::time::Duration;

use event::tables;
use store::{Clock, Compaction, Limits, Retention};

use super::tree::{Node, Reader, Value};

/// What the keeper does. By default it merges and deletes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upkeep {
    pub compaction: Compaction,
    pub retention: Retention,
    /// What rules remember of events that expire outlives them.
    pub remember: bool,
    /// Between two rounds of the keeper.
    pub every: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        let (compaction, retention) = Default::default();
        Upkeep { compaction, retention, remember: true, every: Duration::from_secs(30) }
    }
}

/// Windows and catch-up look back; less is taken for a mistyped unit.
const AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

pub fn read(reader: &mut Reader, node: &Node) -> Upkeep {
    let map = reader.map(node, "store", &["retention", "compaction"]);
    let mut upkeep = Upkeep::default();
    if let Some(node) = map.get("compaction") {
        upkeep.compaction = read_compaction(reader, node, &mut upkeep.every);
    }
    if let Some(node) = map.get("retention") {
        upkeep.retention = read_retention(reader, node, &mut upkeep.remember);
    }
    upkeep
}

fn read_compaction(reader: &mut Reader, node: &Node, every: &mut Duration) -> Compaction {
    let defaults = Compaction::default();
    match &node.value {
        Value::Bool(on) => return Compaction { on: *on, ..defaults },
        Value::Text(text) if text == "off" || text == "on" => return Compaction { on: text == "on", ..defaults },
        _ => {}
    }
    let map = reader.map(node, "store.compaction", &["bytes", "segments", "span", "every"]);
    *every = map.duration(reader, "every").unwrap_or(*every);
    let segments = map.text(reader, "segments").and_then(|text| {
        let number = text.parse::<usize>().ok().filter(|n| (2..=64).contains(n));
        if number.is_none() {
            let what = format!("store.compaction: `segments` is not a number from 2 to 64: `{text}`");
            reader.mistake(map.line, what, "so many neighbours are merged at the least; 8 is the default");
        }
        number
    });
    Compaction {
        on: true,
        bytes_max: map.bytes(reader, "bytes").unwrap_or(defaults.bytes_max),
        inputs_min: segments.unwrap_or(defaults.inputs_min),
        span_max: map.duration(reader, "span").unwrap_or(defaults.span_max),
        cold_after: defaults.cold_after,
    }
}

fn read_retention(reader: &mut Reader, node: &Node, remember: &mut bool) -> Retention {
    let map = reader.map(node, "store.retention", &["age", "by", "bytes", "remember", "tables"]);
    *remember = map.bool(reader, "remember").unwrap_or(true);
    let mut retention = Retention { all: limits(reader, node, "store.retention", true), ..Retention::default() };
    if let Some(by) = map.text(reader, "by") {
        match by.as_str() {
            "ingest" => retention.by = Clock::Ingest,
            "event" => retention.by = Clock::Event,
            _ => reader.mistake(
                map.line,
                format!("store.retention: `by` is neither `ingest` nor `event`: `{by}`"),
                "age counts from when an event came in (the default), or from its own time",
            ),
        }
    }
    let Some(tables) = map.get("tables") else { return retention };
    let known = reader.map(tables, "store.retention.tables", &tables::STORED);
    for (name, node) in known.entries() {
        let limits = limits(reader, node, &format!("store.retention.tables.{name}"), false);
        retention.tables.insert(name.to_owned(), limits);
    }
    retention
}

fn limits(reader: &mut Reader, node: &Node, what: &str, with_tables: bool) -> Limits {
    let map = match with_tables {
        true => reader.open_map(node, what),
        false => reader.map(node, what, &["age", "bytes"]),
    };
    let age = map.duration(reader, "age");
    if age.is_some_and(|age| age < AGE_MIN) {
        let what = format!("{what}: `age` is less than a day");
        reader.mistake(map.line, what, "rules look back for hours: keep at least 1d");
    }
    Limits { age, bytes: map.bytes(reader, "bytes") }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    use super::*;

    #[test]
    fn nothing_is_deleted_unless_configured() {
        let upkeep = Config::parse("c.yaml", "data_dir: x\n").expect("is right").upkeep;
        assert!(upkeep.retention.is_off() && upkeep.compaction.on);
    }

    #[test]
    fn limits_for_all_and_by_table() {
        let text = "store:\n  retention: {age: 400d, bytes: 500GiB, tables: {falco: {age: 90d}}}\n  compaction: {bytes: 256MiB, segments: 4}\n";
        let upkeep = Config::parse("c.yaml", text).expect("is right").upkeep;
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(upkeep.retention.all, Limits { age: days(400), bytes: Some(500 << 30) });
        assert_eq!(upkeep.retention.tables["falco"], Limits { age: days(90), bytes: None });
        assert_eq!((upkeep.compaction.bytes_max, upkeep.compaction.inputs_min), (256 << 20, 4));
        let event = Config::parse(
            "c.yaml",
            "store: {retention: {age: 30d, by: event, remember: false}, compaction: {every: 1s}}\n",
        );
        let event = event.expect("is right").upkeep;
        assert_eq!((event.retention.by, event.every, event.remember), (Clock::Event, Duration::from_secs(1), false));
        assert!(upkeep.remember);
        let off = Config::parse("c.yaml", "store: {compaction: off}\n").expect("is right").upkeep;
        assert!(!off.compaction.on);
    }

    #[test]
    fn mistakes_are_named() {
        let text = "store:\n  retention:\n    age: 90s\n    remember: yes please\n    tables:\n      falcon: {age: 90d}\n  compaction:\n    segments: 1\n  retain: 1d\n";
        let mistakes = Config::parse("c.yaml", text).expect_err("has mistakes");
        let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let all = shown.join("\n");
        for expected in [
            "`age` is less than a day",
            "store.retention: `remember` is neither true nor false",
            "unknown key `falcon`\nhint: did you mean `falco`?",
            "`segments` is not a number from 2 to 64: `1`",
            "store: unknown key `retain`",
        ] {
            assert!(all.contains(expected), "{expected}\n{all}");
        }
    }
}
