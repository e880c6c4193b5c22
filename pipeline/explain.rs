//! `stakeout explain`: one rule on one screen, in words: what it looks at, when it fires, what it rests on and what it
//! has cost the process that runs it.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use detect::inspect::{self, Sieve};
use detect::{Entry, Rule, RuleSet, Window, format_span};
use event::Source;

use crate::cli;
use crate::config::Config;
use crate::rooms::{load_rules, load_schemas, runtime};
use crate::rules;

/// Widest line; conditions longer than it are wrapped.
const WIDTH: usize = 110;

/// Where values begin.
const INDENT: usize = 12;

/// Of one condition; a list of a hundred names is better read in the file.
const CONDITION_CHARS: usize = 400;

/// A process on this machine answers at once or is not there.
const METRICS_TIMEOUT: Duration = Duration::from_millis(500);

pub fn run(args: &cli::Explain, config: &Config) -> Result<()> {
    let schemas = load_schemas(config)?;
    let rules = load_rules(config, &schemas)?;
    let rule = rules::find(&rules, &args.rule)?;
    let sieves = runtime()?.block_on(inspect::sieves(&rules, rule))?;
    print!("{}", Page { rule, rules: &rules, sieves: &sieves, config }.text());
    Ok(())
}

struct Page<'a> {
    rule: &'a Rule,
    rules: &'a RuleSet,
    sieves: &'a [Sieve],
    config: &'a Config,
}

impl Page<'_> {
    fn text(&self) -> String {
        let rule = self.rule;
        let mut page = format!("{}: {} ({})\n", rule.id, rule.title, rule.severity);
        entry(&mut page, "file", &format!("{}, version {:.12}", rule.path.display(), rule.version));
        if !rule.attack.is_empty() {
            entry(&mut page, "attack", &rule.attack.join(", "));
        }
        match rule.window {
            Some(window) => self.windowed(&mut page, window),
            None => self.single(&mut page),
        }
        entry(&mut page, "says", &rule.summary);
        entry(
            &mut page,
            "incident",
            &format!("of one {}, until {} of quiet", self.entity(), format_span(rule.suppress_us)),
        );
        for sieve in self.sieves {
            self.sieve(&mut page, sieve);
        }
        for exception in &rule.exceptions {
            let Entry { when, reason, author, expires, line, .. } = &exception.entry;
            let says = format!("{when} ({reason}; {author}, until {expires}; tuning.yaml:{line})");
            entry(&mut page, "except", &says);
        }
        if let Some(level) = &rule.needs_level {
            entry(&mut page, "needs", &format!("Kubernetes audit level {level}"));
        }
        entry(&mut page, "evidence", &inspect::evidence_query(rule));
        if let Some(benign) = &rule.benign {
            entry(&mut page, "benign", benign.trim());
        }
        if let Some(triage) = &rule.triage {
            entry(&mut page, "triage", triage.trim());
        }
        entry(&mut page, "tests", &self.tests());
        entry(&mut page, "cost", &self.cost());
        page
    }

    fn entity(&self) -> String {
        self.rule.entity.join(", ")
    }

    fn single(&self, page: &mut String) {
        entry(page, "looks", "at one row at a time, as it is admitted");
        entry(page, "fires", "at once, also for rows that come late: each row that its SELECT returns is a finding");
    }

    fn windowed(&self, page: &mut String, window: Window) {
        let Window { window_us, every_us } = window;
        let looks = format!("every {} at the {} before", format_span(every_us), format_span(window_us));
        entry(page, "looks", &looks);
        let waits: Vec<String> = self.sources().into_iter().map(|source| self.wait(source)).collect();
        let is_final = format!("when {} passed it and its rows are stored", waits.join(" and "));
        let Some(how) = self.rule.explanation() else { return };
        let fires = match how.early {
            Ok(()) => format!(
                "when the event that completes it comes: more events can only add findings{}. Provisional until its boundary \
                 is final, {is_final}",
                if self.rule.states.is_empty() { "" } else { ", by what its state tables say by then" }
            ),
            Err(why) => format!("when a boundary is final, {is_final}; not before, because of this: {why}"),
        };
        entry(page, "fires", &fires);
        if !how.absent.is_empty() {
            let silent = format!("nothing is found while {} has no row at all in the window", how.absent.join(" or "));
            entry(page, "withheld", &format!("what is absent is only known of those that speak: {silent}"));
        }
        let finding = format!("a run of boundaries at which {} holds, without a gap", self.entity());
        entry(page, "finding", &finding);
        let kept = match how.panes {
            Ok(()) => format!(
                "as panes of {}{}: neither an event nor a boundary costs more as the window grows{}",
                format_span(every_us),
                self.shared(),
                if how.lists { ", but by what array_agg lists" } else { "" }
            ),
            Err(why) => format!("as the rows of its window, evaluated when they change: {why}"),
        };
        entry(page, "kept", &kept);
        let sure = match window_us - every_us {
            0 => "no burst is sure to be seen whole: it can fall across two windows".to_owned(),
            us => format!("a burst is sure to be seen whole if it is shorter than {}", format_span(us)),
        };
        entry(page, "sure", &sure);
    }

    fn shared(&self) -> String {
        match self.rules.sharing_panes_with(self.rule).as_slice() {
            [] => String::new(),
            others => {
                let ids: Vec<&str> = others.iter().map(|rule| rule.id.as_str()).collect();
                format!(", kept once for it and {} where they begin together", ids.join(", "))
            }
        }
    }

    /// Rows of `unparsed` come from any source.
    fn sources(&self) -> Vec<Source> {
        let named: Vec<Source> = self.rule.tables.iter().filter_map(|t| t.parse().ok()).collect();
        if named.len() < self.rule.tables.len() { Source::ALL.to_vec() } else { named }
    }

    fn wait(&self, source: Source) -> String {
        match self.config.lateness.get(&source) {
            Some(lateness) => format!("{source} (up to {} late)", format_span(lateness.as_micros() as i64)),
            None => source.to_string(),
        }
    }

    fn sieve(&self, page: &mut String, sieve: &Sieve) {
        let all = self.rules.schemas.iter().find(|s| s.name == sieve.relation).map(|s| s.columns.len());
        let of = all.map_or(String::new(), |all| format!(" of {all}"));
        entry(
            page,
            "reads",
            &format!("{}, {}{of} columns: {}", sieve.relation, sieve.columns.len(), sieve.columns.join(" ")),
        );
        let only = match sieve.conditions.is_empty() {
            true => "every row".to_owned(),
            false => sieve.conditions.iter().map(|c| shorten(c)).collect::<Vec<_>>().join("\nAND "),
        };
        entry(page, "  only", &only);
    }

    fn tests(&self) -> String {
        let fires: Vec<bool> = rules::cases(self.config, &self.rule.id);
        let misses = fires.iter().filter(|fires| !**fires).count();
        match fires.len() {
            0 => "none that can be read".to_owned(),
            cases => format!("{cases} cases, {} fire and {misses} do not", cases - misses),
        }
    }

    /// What the process at `listen` has counted for this rule.
    fn cost(&self) -> String {
        let unknown = format!("not known here; `stakeout backtest {}` measures it over what is stored", self.rule.id);
        let Some(text) = self.config.listen.and_then(metrics) else { return unknown };
        let counted = of_rule(&text, &self.rule.id);
        match counted.is_empty() {
            true => unknown,
            false => counted.join("\n"),
        }
    }
}

fn shorten(condition: &str) -> String {
    match condition.char_indices().nth(CONDITION_CHARS) {
        Some((at, _)) => format!("{} … (the file has all of it)", &condition[..at]),
        None => condition.to_owned(),
    }
}

/// A name and what is said of it, wrapped at words.
fn entry(page: &mut String, name: &str, text: &str) {
    let mut label = name;
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && INDENT + line.chars().count() + 1 + word.chars().count() > WIDTH {
                put(page, label, &line);
                (label, line) = ("", String::new());
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        put(page, label, &line);
        label = "";
    }
}

fn put(page: &mut String, label: &str, line: &str) {
    writeln!(page, "  {label:<width$}{line}", width = INDENT - 2).expect("a String takes everything");
}

/// `/metrics` of the running process, if there is one.
fn metrics(listen: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&listen, METRICS_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(METRICS_TIMEOUT)).ok()?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nhost: {listen}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The samples that carry the rule's label, `stakeout_rule_findings_total 3`.
fn of_rule(metrics: &str, rule: &str) -> Vec<String> {
    let label = format!("rule=\"{rule}\"");
    let sample = |line: &str| {
        let (name, rest) = line.split_once('{')?;
        let (labels, value) = rest.rsplit_once("} ")?;
        let others: Vec<&str> = labels.split(',').filter(|l| *l != label).collect();
        let is_of_rule = labels.split(',').any(|l| l == label);
        let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        (is_of_rule && !line.starts_with('#')).then(|| format!("{name}{others} {value}"))
    };
    metrics.lines().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_one_rule() {
        let text = "# TYPE a counter\nstakeout_rule_findings_total{rule=\"a\"} 3\n\
                    stakeout_rule_findings_total{rule=\"ab\"} 4\nx_seconds{quantile=\"0.5\",rule=\"a\"} 0.25\nup 1\n";
        assert_eq!(of_rule(text, "a"), ["stakeout_rule_findings_total 3", "x_seconds (quantile=\"0.5\") 0.25"]);
        assert_eq!(of_rule(text, "b"), [""; 0]);
    }

    #[test]
    fn entries_are_wrapped_at_words() {
        let mut page = String::new();
        entry(&mut page, "x", &format!("{} {}\nsecond", "a".repeat(90), "b".repeat(90)));
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("  x         aaa") && lines[1].starts_with("            bbb"), "{page}");
        assert_eq!(lines[2], "            second");
    }
}
