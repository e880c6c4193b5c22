//! The route tree, with Alertmanager's meaning (`dispatch/route.go`): depth first, a node matches if all its matchers do,
//! children in order, the first that matches ends the search unless it says `continue`; with no matching child it is
//! the node itself. Pure.
//!
//! Two additions. A finding may read several sources: a matcher on `source` matches if it matches any of them. And an
//! informational finding reaches only routes that ask for it by a `=` or `=~` matcher on `severity`: nobody is woken
//! by a default.

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, Severity, Source, tables};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::matcher::Matcher;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Absent: the parent's.
    pub receiver: Option<String>,
    pub matchers: Vec<String>,
    #[serde(rename = "continue")]
    pub continues: bool,
    pub routes: Vec<RouteConfig>,
    // Alertmanager's keys that have no meaning here, so that `validate` can say what to do about them.
    group_by: Option<IgnoredAny>,
    group_wait: Option<IgnoredAny>,
    group_interval: Option<IgnoredAny>,
    repeat_interval: Option<IgnoredAny>,
    mute_time_intervals: Option<IgnoredAny>,
    active_time_intervals: Option<IgnoredAny>,
    #[serde(rename = "match")]
    match_equal: Option<IgnoredAny>,
    match_re: Option<IgnoredAny>,
}

impl RouteConfig {
    pub(crate) fn validate(&self, receivers: &BTreeSet<&str>, mistakes: &mut Vec<String>) {
        if self.receiver.is_none() {
            mistakes.push("the root route has no receiver\nhint: it is the default for all others".to_owned());
        }
        if !self.matchers.is_empty() || self.continues {
            mistakes.push(
                "the root route matches everything, so it has no `matchers` and no `continue`\n\
                 hint: move them to a route under `routes`"
                    .to_owned(),
            );
        }
        self.validate_node("route", receivers, mistakes);
    }

    fn validate_node(&self, path: &str, receivers: &BTreeSet<&str>, mistakes: &mut Vec<String>) {
        if let Some(name) = self.receiver.as_deref().filter(|r| !receivers.contains(r)) {
            let known = receivers.iter().copied().collect::<Vec<_>>().join(", ");
            mistakes.push(format!("{path}: unknown receiver `{name}`\nhint: the receivers are: {known}"));
        }
        mistakes.extend(self.matchers.iter().filter_map(|m| Matcher::parse(m).err()).map(|e| format!("{path}: {e}")));
        for (key, hint) in self.foreign_keys() {
            mistakes.push(format!("{path}: `{key}` is not supported\nhint: {hint}"));
        }
        for (index, child) in self.routes.iter().enumerate() {
            child.validate_node(&format!("{path}.routes[{index}]"), receivers, mistakes);
        }
    }

    fn foreign_keys(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        const GROUP: &str = "remove it: an incident is one rule and entity, and pages at once and once";
        const TIME: &str = "remove it: routes do not depend on the time of day";
        const MATCH: &str = "write it as `matchers: ['name=\"value\"']`";
        [
            (self.group_by.is_some(), "group_by", GROUP),
            (self.group_wait.is_some(), "group_wait", GROUP),
            (self.group_interval.is_some(), "group_interval", GROUP),
            (self.repeat_interval.is_some(), "repeat_interval", GROUP),
            (self.mute_time_intervals.is_some(), "mute_time_intervals", TIME),
            (self.active_time_intervals.is_some(), "active_time_intervals", TIME),
            (self.match_equal.is_some(), "match", MATCH),
            (self.match_re.is_some(), "match_re", MATCH),
        ]
        .into_iter()
        .filter_map(|(present, key, hint)| present.then_some((key, hint)))
    }
}

/// What routes match on: `severity`, `rule`, `origin`, `source` (any of several) and the entity's columns.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    pub values: BTreeMap<String, String>,
    pub sources: Vec<String>,
}

impl Labels {
    pub fn of(finding: &Finding) -> Labels {
        let mut values: BTreeMap<_, _> = finding.entity.iter().cloned().collect();
        values.insert("severity".to_owned(), finding.severity.name().to_owned());
        values.insert("rule".to_owned(), finding.rule.clone());
        values.insert("origin".to_owned(), finding.origin.name().to_owned());
        let sources: BTreeSet<String> = finding.tables.iter().flat_map(|t| sources_of(t)).collect();
        Labels { values, sources: sources.into_iter().collect() }
    }

    fn satisfy(&self, matcher: &Matcher) -> bool {
        match matcher.name.as_str() {
            "source" if !self.sources.is_empty() => self.sources.iter().any(|s| matcher.matches(s)),
            name => matcher.matches(self.values.get(name).map_or("", String::as_str)),
        }
    }
}

/// The sources behind a table or view.
fn sources_of(table: &str) -> Vec<String> {
    match table {
        tables::EVENTS => Source::ALL.iter().map(|s| s.name().to_owned()).collect(),
        tables::KUBERNETES_CALLS => vec![Source::Kubernetes.name().to_owned()],
        other => vec![other.to_owned()],
    }
}

/// The compiled tree.
#[derive(Clone, Debug)]
pub struct Router {
    root: Node,
}

#[derive(Clone, Debug)]
struct Node {
    receiver: String,
    matchers: Vec<Matcher>,
    continues: bool,
    /// This node or one above it asks for a severity.
    names_severity: bool,
    children: Vec<Node>,
}

impl Router {
    /// The mistakes of the tree, if any. Receiver names are checked by `Config::validate`.
    pub fn new(config: &RouteConfig) -> Result<Router, Vec<String>> {
        let mut mistakes = Vec::new();
        let root = Node::new(config, "", false, &mut mistakes);
        if mistakes.is_empty() { Ok(Router { root }) } else { Err(mistakes) }
    }

    /// The receivers for these labels, in the order of the tree, each once.
    pub fn receivers(&self, labels: &Labels) -> Vec<&str> {
        let mut found = Vec::new();
        self.root.find(labels, &mut found);
        let informational = labels.values.get("severity").map(String::as_str) == Some(Severity::Informational.name());
        let mut names = Vec::new();
        for node in found.into_iter().filter(|n| n.names_severity || !informational) {
            if !names.contains(&node.receiver.as_str()) {
                names.push(node.receiver.as_str());
            }
        }
        names
    }
}

impl Node {
    fn new(config: &RouteConfig, inherited: &str, named_above: bool, mistakes: &mut Vec<String>) -> Node {
        let mut matchers = Vec::new();
        for text in &config.matchers {
            match Matcher::parse(text) {
                Ok(matcher) => matchers.push(matcher),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let receiver = config.receiver.as_deref().unwrap_or(inherited).to_owned();
        let names_severity = named_above || matchers.iter().any(|m| m.name == "severity" && m.is_positive());
        let children = config.routes.iter().map(|r| Node::new(r, &receiver, names_severity, mistakes)).collect();
        Node { receiver, matchers, continues: config.continues, names_severity, children }
    }

    /// Appends the matching nodes; says whether this subtree matched.
    fn find<'a>(&'a self, labels: &Labels, found: &mut Vec<&'a Node>) -> bool {
        if !self.matchers.iter().all(|m| labels.satisfy(m)) {
            return false;
        }
        let mut by_child = false;
        for child in &self.children {
            let matched = child.find(labels, found);
            by_child |= matched;
            if matched && !child.continues {
                break;
            }
        }
        if !by_child {
            found.push(self);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = r#"
receiver: default
routes:
  - matchers: ['rule="noisy"']
    receiver: bin
  - matchers: ['severity="critical"']
    receiver: archive
    continue: true
  - matchers: ['cluster=~"prod-.*"']
    receiver: prod
    routes:
      - {matchers: ['severity=~"high|critical"'], receiver: prod-oncall}
      - {matchers: ['severity="informational"']}
  - {matchers: ['source="cloudtrail"'], receiver: cloud}
"#;

    #[test]
    fn routes_like_alertmanager() {
        let router = Router::new(&serde_saphyr::from_str(TREE).unwrap()).unwrap();
        let check = |labels: &[(&str, &str)], sources: &[&str], expected: &[&str]| {
            let values = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let labels = Labels { values, sources: sources.iter().map(|s| (*s).to_owned()).collect() };
            assert_eq!(router.receivers(&labels), expected, "{labels:?}");
        };
        check(&[("severity", "high")], &["kubernetes"], &["default"]);
        check(&[("severity", "critical"), ("rule", "noisy")], &[], &["bin"]);
        check(&[("severity", "critical")], &[], &["archive"]);
        check(&[("severity", "critical"), ("cluster", "prod-1")], &[], &["archive", "prod-oncall"]);
        check(&[("severity", "low"), ("cluster", "prod-1")], &[], &["prod"]);
        check(&[("severity", "low")], &["kubernetes", "cloudtrail"], &["cloud"]);
        // Nobody asked for informational findings, except on production clusters; the child inherits its receiver.
        check(&[("severity", "informational")], &["cloudtrail"], &[]);
        check(&[("severity", "informational"), ("cluster", "prod-2")], &[], &["prod"]);
    }
}
