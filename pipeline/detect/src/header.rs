//! The YAML header in a rule's leading block comment: what it may say and what that means.

use std::path::Path;

use event::Severity;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::error::RuleProblem;
use crate::rule::Window;
use crate::span::{format_span, parse_span};

/// Quiet time after which a single-event finding opens a new incident, unless the rule says otherwise.
const SUPPRESS_DEFAULT_US: i64 = 3_600_000_000;

/// Boundaries per window when a rule does not say `every`.
const SLIDES_PER_WINDOW: i64 = 10;

/// A header that was understood, with the lines that later checks point at.
#[derive(Clone, Debug)]
pub struct Header {
    pub title: String,
    pub severity: Severity,
    pub attack: Vec<String>,
    pub window: Option<Window>,
    pub entity: Vec<String>,
    pub summary: String,
    pub triage: Option<String>,
    pub benign: Option<String>,
    pub suppress_us: i64,
    pub needs_level: Option<String>,
    /// History before which what is new is only learned; `None` is the default.
    pub learning_us: Option<i64>,
    pub references: Vec<String>,
    /// Asks not to fire before boundaries are final.
    pub emit_final: bool,
    pub entity_line: u64,
    pub summary_line: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: Spanned<String>,
    severity: Spanned<String>,
    #[serde(default)]
    attack: Vec<Spanned<String>>,
    window: Option<Spanned<String>>,
    every: Option<Spanned<String>>,
    entity: Spanned<Vec<Spanned<String>>>,
    summary: Spanned<String>,
    triage: Option<String>,
    benign: Option<String>,
    suppress: Option<Spanned<String>>,
    emit: Option<Spanned<String>>,
    needs_level: Option<String>,
    learning: Option<Spanned<String>>,
    #[serde(default)]
    references: Vec<String>,
}

/// Reads the header of a rule file. Problems are appended; `None` when there is no header to go on with.
pub fn parse(path: &Path, text: &str, problems: &mut Vec<RuleProblem>) -> Option<Header> {
    let mut problem = |line: u64, message: String, hint: Option<&str>| {
        problems.push(RuleProblem { path: path.to_owned(), line, message, hint: hint.map(str::to_owned) });
    };
    let Some(yaml) = yaml_of(text) else {
        problem(
            1,
            "the rule has no header".into(),
            Some("begin the file with a block comment: /* title: …, severity: …, entity: […], summary: … */"),
        );
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
    Some(understand(written, &mut problem))
}

/// The comment's text with as many line breaks in front as the file has, so that YAML's lines are the file's.
pub(crate) fn yaml_of(text: &str) -> Option<String> {
    let start = text.find("/*").filter(|start| text[..*start].trim().is_empty())?;
    let end = start + text[start..].find("*/")?;
    let above = text[..start].matches('\n').count();
    Some("\n".repeat(above) + &text[start + 2..end])
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default().trim_start_matches("error: ").trim()
}

fn understand(written: Written, problem: &mut dyn FnMut(u64, String, Option<&str>)) -> Header {
    let mut span = |key: &str, value: &Option<Spanned<String>>| -> Option<i64> {
        let value = value.as_ref()?;
        let us = parse_span(&value.value);
        if us.is_none() {
            let line = value.referenced.line();
            problem(line, format!("`{key}: {}` is not a span of time", value.value), Some("write 90s, 10m, 24h or 7d"));
        }
        us
    };
    let window_us = span("window", &written.window);
    let every_us = span("every", &written.every);
    let suppress_us = span("suppress", &written.suppress);
    let learning_us = match &written.learning {
        Some(none) if none.value.trim() == "0s" => Some(0),
        learning => span("learning", learning),
    };
    let window = window_of(&written, window_us, every_us, problem);
    for technique in &written.attack {
        if !is_technique(&technique.value) {
            let message = format!("`{}` is not an ATT&CK technique", technique.value);
            problem(technique.referenced.line(), message, Some("write T1552 or T1552.007"));
        }
    }
    if let Some(emit) = &written.emit
        && emit.value != "final"
    {
        problem(emit.referenced.line(), format!("`emit: {}` is not known", emit.value), Some("`final` is"));
    }
    for (key, value) in [("title", &written.title), ("summary", &written.summary)] {
        if value.value.trim().is_empty() {
            problem(value.referenced.line(), format!("`{key}` is empty"), None);
        }
    }
    if written.entity.value.is_empty() {
        let hint = "name the columns whose values tell one incident from another";
        problem(written.entity.referenced.line(), "`entity` is empty".into(), Some(hint));
    }
    Header {
        severity: severity_of(&written.severity, problem),
        title: written.title.value.trim().to_owned(),
        attack: written.attack.into_iter().map(|t| t.value).collect(),
        entity_line: written.entity.referenced.line(),
        entity: written.entity.value.into_iter().map(|e| e.value).collect(),
        summary_line: written.summary.referenced.line(),
        summary: written.summary.value.trim().to_owned(),
        triage: written.triage,
        benign: written.benign,
        suppress_us: suppress_us.or(window.map(|w| w.window_us)).unwrap_or(SUPPRESS_DEFAULT_US),
        window,
        needs_level: written.needs_level,
        learning_us,
        references: written.references,
        emit_final: written.emit.is_some(),
    }
}

fn window_of(
    written: &Written,
    window_us: Option<i64>,
    every_us: Option<i64>,
    problem: &mut dyn FnMut(u64, String, Option<&str>),
) -> Option<Window> {
    let line = |key: &Option<Spanned<String>>| key.as_ref().map_or(1, |k| k.referenced.line());
    if written.window.is_none() && written.every.is_some() {
        problem(
            line(&written.every),
            "`every` without `window`".into(),
            Some("a rule without a window needs no slide"),
        );
    }
    let window_us = window_us?;
    let every_us = every_us.unwrap_or(window_us / SLIDES_PER_WINDOW);
    if every_us == 0 || window_us % every_us != 0 {
        let message =
            format!("the window ({}) is not a multiple of every ({})", format_span(window_us), format_span(every_us));
        problem(line(&written.every), message, Some("every boundary looks back over whole slides"));
        return None;
    }
    Some(Window { window_us, every_us })
}

fn severity_of(written: &Spanned<String>, problem: &mut dyn FnMut(u64, String, Option<&str>)) -> Severity {
    const ALL: [Severity; 5] =
        [Severity::Informational, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    ALL.into_iter().find(|s| s.name() == written.value).unwrap_or_else(|| {
        let message = format!("`severity: {}` is not known", written.value);
        problem(written.referenced.line(), message, Some("one of informational, low, medium, high, critical"));
        Severity::Informational
    })
}

/// `T1552` or `T1552.007`.
fn is_technique(text: &str) -> bool {
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    let Some(number) = text.strip_prefix('T') else { return false };
    match number.split_once('.') {
        None => digits(number, 4),
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
    }
}
