//! Tests of rules: `<rule>.test.yaml` beside `<rule>.sql`. A file gives the raw vendor events of each case and
//! what the rule should find; the caller takes the events through normalize, admit and the engine, and
//! [`check`] compares. The format is described in `detections/README.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use event::{Finding, Micros, Source, Standing, format_micros};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::error::{RuleErrors, RuleProblem};
use crate::header::first_line;
use crate::span::parse_span;
use crate::value::plain;

/// When a case begins, unless it says otherwise: 2026-01-01T00:00:00Z. Any fixed day will do.
pub const START_DEFAULT: Micros = 1_767_225_600_000_000;

/// Events of one item; more is a benchmark, not a test.
const REPEAT_MAX: u32 = 10_000;

/// A test file that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct TestFile {
    /// The id of the rule under test.
    pub rule: String,
    pub path: PathBuf,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    pub line: u64,
    /// In the order they are to be fed.
    pub events: Vec<RawEvent>,
    pub expect: Expect,
}

/// One vendor event as a source would hand it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    pub source: Source,
    pub cluster: Option<String>,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// At least one finding, or none.
    Fires(bool),
    /// Exactly these findings, in any order.
    Findings(Vec<Wanted>),
}

impl Expect {
    pub fn fires(&self) -> bool {
        match self {
            Expect::Fires(fires) => *fires,
            Expect::Findings(wanted) => !wanted.is_empty(),
        }
    }
}

/// What a finding must say; columns not named here may say anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    pub entity: BTreeMap<String, Value>,
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// How many events contributed.
    pub events: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    cases: Vec<Spanned<WrittenCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    source: Option<String>,
    cluster: Option<String>,
    events: Vec<Spanned<WrittenEvent>>,
    expect: Option<Vec<Wanted>>,
    fires: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEvent {
    event: Option<Value>,
    json: Option<String>,
    source: Option<String>,
    cluster: Option<String>,
    repeat: Option<u32>,
    step: Option<String>,
    at: Option<String>,
}

impl TestFile {
    /// Reads `<rule>.test.yaml`; all mistakes at once.
    pub fn parse(path: &Path, text: &str) -> Result<TestFile, RuleErrors> {
        let mut problems = Vec::new();
        let mut problem = |line: u64, message: String, hint: Option<&str>| {
            let hint = hint.map(str::to_owned);
            problems.push(RuleProblem { path: path.to_owned(), line, message, hint });
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(rule) = name.strip_suffix(".test.yaml").map(str::to_owned) else {
            problem(0, "a test file is named <rule>.test.yaml".into(), None);
            return Err(RuleErrors(problems));
        };
        let written: WrittenFile = match serde_saphyr::from_str(text) {
            Ok(written) => written,
            Err(error) => {
                let error = error.without_snippet();
                let line = error.location().map_or(0, |l| l.line());
                problem(line, first_line(&error.to_string()).to_owned(), None);
                return Err(RuleErrors(problems));
            }
        };
        let cases: Vec<Case> = written.cases.into_iter().map(|c| case(c, &mut problem)).collect();
        for (fires, what) in [(true, "that fires"), (false, "that does not fire: a near miss")] {
            if !cases.iter().any(|c| c.expect.fires() == fires) {
                problem(0, format!("there is no case {what}"), Some("a rule's tests show both sides of its edge"));
            }
        }
        match problems.is_empty() {
            true => Ok(TestFile { rule, path: path.to_owned(), cases }),
            false => Err(RuleErrors(problems)),
        }
    }
}

fn case(written: Spanned<WrittenCase>, problem: &mut dyn FnMut(u64, String, Option<&str>)) -> Case {
    let line = written.referenced.line();
    let WrittenCase { name, source, cluster, events, expect, fires } = written.value;
    let expect = match (expect, fires) {
        (Some(findings), None) => Expect::Findings(findings),
        (None, Some(fires)) => Expect::Fires(fires),
        _ => {
            problem(line, format!("case `{name}` says not exactly one of `expect` and `fires`"), None);
            Expect::Fires(false)
        }
    };
    if events.is_empty() {
        problem(line, format!("case `{name}` has no events"), None);
    }
    let mut raw = Vec::new();
    for written in events {
        let line = written.referenced.line();
        let event = written.value;
        let source_name = event.source.clone().or_else(|| source.clone()).unwrap_or_default();
        let Ok(source) = Source::from_str(&source_name) else {
            let message = format!("case `{name}`: unknown source `{source_name}`");
            problem(line, message, Some("one of kubernetes, cloudtrail, falco"));
            continue;
        };
        let cluster = event.cluster.clone().or_else(|| cluster.clone());
        if source.needs_cluster() && cluster.is_none() {
            problem(line, format!("case `{name}`: events of {source} need a `cluster`"), None);
        }
        match expand(&event) {
            Ok(texts) => raw.extend(texts.into_iter().map(|text| RawEvent {
                source,
                cluster: cluster.clone(),
                bytes: text.into_bytes(),
            })),
            Err(message) => problem(line, format!("case `{name}`: {message}"), None),
        }
    }
    Case { name, line, events: raw, expect }
}

/// One item to its events, `{n}` and `{time}` filled in.
fn expand(written: &WrittenEvent) -> Result<Vec<String>, String> {
    let span = |text: &Option<String>, key: &str| match text {
        None => Ok(0),
        Some(text) if text == "0s" => Ok(0),
        Some(text) => parse_span(text).ok_or_else(|| format!("`{key}: {text}` is not a span of time")),
    };
    let (step, at) = (span(&written.step, "step")?, span(&written.at, "at")?);
    let repeat = written.repeat.unwrap_or(1);
    if repeat > REPEAT_MAX {
        return Err(format!("`repeat: {repeat}` is more than {REPEAT_MAX}"));
    }
    let mut texts = Vec::with_capacity(repeat as usize);
    for n in 0..repeat {
        let time = format_micros(START_DEFAULT + at + i64::from(n) * step);
        let fill = |text: &str| text.replace("{n}", &n.to_string()).replace("{time}", &time);
        texts.push(match (&written.event, &written.json) {
            (Some(event), None) => filled(event, &fill).to_string(),
            (None, Some(json)) => fill(json),
            _ => return Err("an item has exactly one of `event` and `json`".into()),
        });
    }
    Ok(texts)
}

fn filled(value: &Value, fill: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => fill(text).into(),
        Value::Array(items) => items.iter().map(|v| filled(v, fill)).collect::<Vec<_>>().into(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), filled(v, fill))).collect()),
        other => other.clone(),
    }
}

/// How findings differ from what a case expects, in lines to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff(pub Vec<String>);

impl Diff {
    pub fn with(mut self, hint: Option<String>) -> Diff {
        self.0.extend(hint);
        self
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Compares the findings of the rule under test with what the case expects. Several findings with one id are
/// one finding told again: the last counts, and one that was taken back is none.
pub fn check(case: &Case, findings: &[Finding]) -> Result<(), Diff> {
    let mut last: BTreeMap<&str, &Finding> = BTreeMap::new();
    for finding in findings {
        last.insert(&finding.id, finding);
    }
    let mut left: Vec<&Finding> = last.into_values().filter(|f| f.standing != Standing::Retracted).collect();
    let mut lines = Vec::new();
    match &case.expect {
        Expect::Fires(true) if left.is_empty() => lines.push("expected a finding, got none".to_owned()),
        Expect::Fires(true) => left.clear(),
        Expect::Fires(false) => {}
        Expect::Findings(wanted) => {
            for wanted in wanted {
                match left.iter().position(|f| mismatches(wanted, f).is_empty()) {
                    Some(at) => drop(left.remove(at)),
                    None => lines.extend(missing(wanted, &left)),
                }
            }
        }
    }
    lines.extend(left.iter().map(|f| format!("not expected: {} ({})", f.entity_text(), f.summary)));
    if lines.is_empty() { Ok(()) } else { Err(Diff(lines)) }
}

fn missing(wanted: &Wanted, findings: &[&Finding]) -> Vec<String> {
    let entity = wanted.entity.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join(" ");
    let mut lines = vec![format!("missing: {entity}")];
    // The finding that comes nearest shows what is different.
    if let Some(near) = findings.iter().min_by_key(|f| mismatches(wanted, f).len()) {
        lines.extend(mismatches(wanted, near).into_iter().map(|m| format!("  {m}")));
    }
    lines
}

fn mismatches(wanted: &Wanted, finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, expected) in &wanted.entity {
        let got = finding.entity.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        if got != Some(plain(expected).as_str()) {
            lines.push(format!("{name}: expected {}, got {}", plain(expected), got.unwrap_or("no such column")));
        }
    }
    for (name, expected) in &wanted.values {
        let got = finding.values.get(name);
        // YAML writes numbers and text as it likes; what is shown is what counts.
        if got.map(plain) != Some(plain(expected)) {
            lines.push(format!(
                "{name}: expected {}, got {}",
                plain(expected),
                got.map_or("no such column".into(), plain)
            ));
        }
    }
    if let Some(expected) = wanted.events
        && finding.evidence.count != expected
    {
        lines.push(format!("events: expected {expected}, got {}", finding.evidence.count));
    }
    lines
}
