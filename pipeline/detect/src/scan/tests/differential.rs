//! Every random rule, over every random batch, must give by the scan what its own program gives by itself. With a
//! mistake made on purpose the same comparison must fail: it would not be worth much otherwise.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, RecordBatch, StringViewBuilder};
use arrow::datatypes::TimestampMicrosecondType;
use event::{Finding, FindingTime, column, tables};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fixtures::{self, Row, row, rule_text};
use crate::load::Bench;
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use crate::scan::fault::{self, Fault};
use crate::scan::{Question, Rows, Scan};
use crate::single::{self, Verdict};
use crate::singles::Singles;

const RULES: usize = 250;
const BATCHES: usize = 20;

const TEXTS: [&str; 20] = [
    "get",
    "list",
    "create",
    "delete",
    "ge",
    "GET",
    "",
    "g_t",
    "gat",
    "a%b",
    "to get",
    "1",
    "2",
    "x1",
    "10.1.2.3",
    "8.8.8.8",
    "system:serviceaccount:ci:builder",
    "system:serviceaccount:ci:builder2",
    "system:anonymous",
    "curl https://example.org/get | sh",
];
const PATTERNS: [&str; 16] = [
    "get%", "%get", "%get%", "g_t", "g\\_t", "%", "", "_", "%e%t%", "system:%", "%:ci:%", "get", "%b", "a\\%b", "ge_%",
    "%r%2",
];
const TEXT_COLUMNS: [&str; 4] = ["verb", "objectref_resource", "actor_user_name", "request_uri"];
const JSON_TEXTS: [&str; 5] =
    ["raw->>'a'", "raw->'b'->>'c'", "raw->'b'->'d'->>0", "json_get_str(raw, 'a')", "(raw->'b')->>'get'"];

struct Grammar(StdRng);

impl Grammar {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.0).expect("there is a choice")
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn text(&mut self) -> String {
        format!("'{}'", self.pick(&TEXTS))
    }

    fn texts(&mut self) -> String {
        let count = self.0.random_range(1..7);
        let mut texts: Vec<String> = (0..count).map(|_| self.text()).collect();
        if self.one_in(6) {
            texts.push("NULL".to_owned());
        }
        texts.join(", ")
    }

    fn text_column(&mut self) -> String {
        if self.one_in(6) { self.pick(&JSON_TEXTS) } else { self.pick(&TEXT_COLUMNS) }.to_owned()
    }

    fn condition(&mut self, depth: u32) -> String {
        let inner = depth.saturating_sub(1);
        match self.0.random_range(0..if depth == 0 { 6 } else { 16 }) {
            0..6 => self.leaf(),
            6..9 => format!("({} AND {})", self.condition(inner), self.condition(inner)),
            9..12 => format!("({} OR {})", self.condition(inner), self.condition(inner)),
            12 => format!("NOT ({})", self.condition(inner)),
            13 => {
                let what = self.pick(&["TRUE", "FALSE", "UNKNOWN", "NOT TRUE", "NOT FALSE", "NOT UNKNOWN"]);
                format!("({}) IS {what}", self.condition(inner))
            }
            14 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(inner),
                self.condition(inner),
                self.condition(inner)
            ),
            _ => format!("coalesce({}, {})", self.condition(inner), self.pick(&["true", "false"])),
        }
    }

    fn leaf(&mut self) -> String {
        match self.0.random_range(0..14) {
            0..8 => self.text_leaf(),
            8..10 => self.number_leaf(),
            10 => self.list_leaf(),
            11 => self.pick(&["redacted", "NOT redacted", "redacted IS NULL", "redacted = false"]).to_owned(),
            12 => self
                .pick(&[
                    "json_contains(raw, 'a')",
                    "json_get_int(raw, 'n') = 2",
                    "json_length(raw, 'b') > 1",
                    "json_get_bool(raw, 'b', 'e')",
                    "json_get_float(raw, 'n') < 2.5",
                    "raw->'b' IS NULL",
                    "raw LIKE '%get%'",
                ])
                .to_owned(),
            _ => format!("event_uid = 'u{}'", self.0.random_range(0..30)),
        }
    }

    fn text_leaf(&mut self) -> String {
        let (column, text) = (self.text_column(), self.text());
        match self.0.random_range(0..22) {
            0..4 => format!("{column} = {text}"),
            4 => format!("{column} <> {text}"),
            5..7 => format!("{column} IN ({})", self.texts()),
            7 => format!("{column} NOT IN ({})", self.texts()),
            8..11 => format!("{column} LIKE '{}'", self.pick(&PATTERNS)),
            11 => format!("{column} NOT LIKE '{}'", self.pick(&PATTERNS)),
            12 => format!("{column} ILIKE '{}'", self.pick(&PATTERNS)),
            13 => format!("{column} IS {}NULL", self.pick(&["", "NOT "])),
            14 => format!("{column} IS {}DISTINCT FROM {text}", self.pick(&["", "NOT "])),
            15 => format!("{column} {} {}", self.pick(&["=", "<>", "<"]), self.pick(&TEXT_COLUMNS)),
            16 => format!("lower({column}) = {text}"),
            17 => format!("{}({column}, {text})", self.pick(&["starts_with", "ends_with", "contains"])),
            18 => format!("{column} {} '{}'", self.pick(&["~", "!~", "~*"]), self.pick(&["^g.t$", "[0-9]", "ci|sh"])),
            19 => format!("cidr_match({column}, '10.0.0.0/8')"),
            20 => format!("coalesce({column}, {text}) > {}", self.text()),
            // Fails for most texts.
            _ => format!("CAST({column} AS INT) {} 1", self.pick(&["=", ">", "<>"])),
        }
    }

    fn number_leaf(&mut self) -> String {
        let number = self.pick(&["0", "1", "2", "200", "403", "404"]);
        let op = self.pick(&["=", "=", "<>", "<", ">="]);
        match self.0.random_range(0..7) {
            0..3 => format!("response_code {op} {number}"),
            3 => format!("response_code {}IN (0, 200, 403, 404, 500)", self.pick(&["", "NOT "])),
            4 => format!("response_code * 2 - 1 {op} {number}"),
            5 => format!("response_code IS {}NULL", self.pick(&["", "NOT "])),
            // Fails for zero.
            _ => format!("100 / response_code {op} {number}"),
        }
    }

    fn list_leaf(&mut self) -> String {
        match self.0.random_range(0..4) {
            0 => format!("array_has(actor_user_groups, {})", self.text()),
            1 => format!("{} = ANY(actor_user_groups)", self.text()),
            2 => format!("array_has_any(actor_user_groups, make_array({}, {}))", self.text(), self.text()),
            _ => format!("NOT array_has(actor_user_groups, {})", self.text()),
        }
    }

    fn sql(&mut self) -> String {
        let table = self.pick(&["kubernetes", "kubernetes", "kubernetes_calls"]);
        let columns = self.pick(&[
            "actor_user_name",
            "actor_user_name, verb, raw->>'a' AS a",
            "coalesce(actor_user_name, verb) AS actor_user_name, response_code + 1 AS next",
            "*",
            "actor_user_name, raw->'b'->>'c' AS c, 10 / response_code AS part",
        ]);
        let conditions: Vec<String> = (0..self.0.random_range(1..4)).map(|_| self.condition(2)).collect();
        match self.one_in(12) {
            true => format!("SELECT {columns} FROM {table}"),
            false => format!("SELECT {columns} FROM {table} WHERE {}", conditions.join(" AND ")),
        }
    }

    fn json(&mut self) -> String {
        let texts = ["\"get\"", "\"g\\u0065t\"", "\"a%b\"", "2", "2.5", "\"2\"", "null", "true", "{}", "[\"get\",1]"];
        let mut value = || self.pick(&texts).to_owned();
        let (a, n, c, d, e) = (value(), value(), value(), value(), value());
        match self.0.random_range(0..8) {
            0 => format!("{{\"a\":{a},\"n\":{n}"),
            1 => format!("{{\"a\":{a},\"a\":{n},\"b\":[{c}]}}"),
            2 => "not json".to_owned(),
            3 => format!("{{\"b\":{{\"c\":{c},\"d\":[{d},{e}],\"e\":{e}}},\"b\":{{\"c\":{a}}},\"n\":{n},\"a\":{a}}}"),
            _ => format!("{{\"a\":{a},\"n\":{n},\"b\":{{\"get\":{d},\"c\":{c},\"d\":[{d}],\"e\":{e}}}}}"),
        }
    }

    fn rows(&mut self) -> Vec<Row> {
        let count = if self.one_in(10) { 1_500 } else { self.0.random_range(1..60) };
        (0..count).map(|n| self.row(n)).collect()
    }

    fn row(&mut self, n: usize) -> Row {
        let uid = if self.one_in(3) { n.to_string() } else { (n % 30).to_string() };
        let mut row = row(tables::KUBERNETES, n as i64 * 1_000_000, &format!("u{uid}"), &[]);
        for column in TEXT_COLUMNS {
            if !self.one_in(4) {
                row.cells.insert(column.into(), self.pick(&TEXTS).into());
            }
        }
        if !self.one_in(4) {
            row.cells.insert("response_code".into(), [0, 1, 2, 200, 403, 404][self.0.random_range(0..6)].into());
        }
        row.cells.insert("redacted".into(), self.one_in(2).into());
        let stage = self.pick(&["ResponseStarted", "ResponseComplete", "Panic"]);
        row.cells.insert("stage".into(), stage.into());
        row.cells.insert(column::RAW.into(), self.json().into());
        row
    }

    fn batch(&mut self) -> RecordBatch {
        let rows = self.rows();
        let batch = fixtures::batch(tables::KUBERNETES, &rows);
        let groups = batch.schema().index_of("actor_user_groups").expect("a column of the fixtures");
        let mut columns = batch.columns().to_vec();
        columns[groups] = self.lists(rows.len());
        let batch = RecordBatch::try_new(batch.schema(), columns).expect("lists fit");
        // A batch that is a part of another one has offsets that do not begin at zero.
        let from = if self.one_in(3) { self.0.random_range(0..rows.len()) } else { 0 };
        batch.slice(from, rows.len() - from)
    }

    fn lists(&mut self, rows: usize) -> ArrayRef {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for _ in 0..rows {
            for _ in 0..self.0.random_range(0..4) {
                match self.one_in(5) {
                    true => lists.values().append_null(),
                    false => lists.values().append_value(self.pick(&TEXTS)),
                }
            }
            lists.append(!self.one_in(5));
        }
        Arc::new(lists.finish())
    }
}

async fn random_rules(grammar: &mut Grammar) -> RuleSet {
    let schemas = fixtures::schemas();
    let bench = Bench::new(&schemas, std::sync::Arc::default(), Default::default()).expect("the fixtures are tables");
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    let mut refused = 0;
    while rules.len() < RULES {
        let text = rule_text("actor_user_name", "", &grammar.sql());
        let mut problems = Vec::new();
        match bench.load(format!("r/r{:04}.sql", rules.len()).as_ref(), &text, &mut problems).await {
            Some(rule) => rules.push(Arc::new(rule)),
            // A condition that contradicts itself, mostly.
            None => refused += 1,
        }
    }
    assert!(refused < RULES, "the grammar makes rules that load: {refused} did not");
    RuleSet {
        rules,
        bundle: String::new(),
        context: String::new(),
        schemas,
        states: Vec::new(),
        tuned_until: None,
        warnings: Vec::new(),
        base: bench.base,
    }
}

pub(super) fn seed() -> u64 {
    let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now);
    println!("SEED={seed}");
    seed
}

/// By itself, as the program says.
fn plain(rule: &Rule, batch: &RecordBatch) -> Verdict {
    let Body::Single(program) = &rule.body else { panic!("the rules are single-event rules") };
    single::evaluate(rule, program, "", tables::KUBERNETES, batch)
}

/// Whether the rule's program cannot be computed for the row of the finding. Rows have times of their own.
fn fails(rule: &Rule, batch: &RecordBatch, finding: &Finding) -> bool {
    let times = batch.column_by_name(column::TIME).expect("a column of all tables");
    let times = times.as_primitive::<TimestampMicrosecondType>().values();
    let row = times.iter().position(|time| FindingTime::Event(*time) == finding.time).expect("it comes from a row");
    plain(rule, &batch.slice(row, 1)).failed.is_some()
}

#[derive(Debug, Default)]
struct Seen {
    findings: usize,
    failed: u64,
    spared: u64,
}

/// Says which rule differs, and how.
fn compare(rules: &RuleSet, singles: &mut Singles, batch: &RecordBatch, seen: &mut Seen) -> Result<(), String> {
    let mut verdicts = singles.evaluate("", tables::KUBERNETES, batch).into_iter().peekable();
    for rule in &rules.rules {
        let got = verdicts.next_if(|(of, _)| of.id == rule.id).map_or_else(Verdict::default, |(_, verdict)| verdict);
        let expected = plain(rule, batch);
        let (failed, of) = (got.failed.as_ref().map_or(0, |f| f.0), expected.failed.as_ref().map_or(0, |f| f.0));
        let spared = of.saturating_sub(failed);
        let mut wanted = expected.findings.iter().peekable();
        let more: Vec<&Finding> = got.findings.iter().filter(|f| wanted.next_if_eq(f).is_none()).collect();
        let nulls = got.null_entities.checked_sub(expected.null_entities);
        // A row may be found for which the program itself fails, over a value that does not matter.
        let allowed = more.iter().all(|f| fails(rule, batch, f))
            && nulls.is_some_and(|nulls| nulls + more.len() as u64 <= spared);
        if wanted.next().is_some() || !allowed {
            let uids =
                |v: &Verdict| v.findings.iter().map(|f| f.evidence.events[0].event_uid.clone()).collect::<Vec<_>>();
            return Err(format!(
                "{}\nexpected {:?} and {} null, got {:?} and {} null",
                rule.sql,
                uids(&expected),
                expected.null_entities,
                uids(&got),
                got.null_entities
            ));
        }
        if failed > of {
            return Err(format!("{}\n{failed} rows failed where {of} fail by themselves", rule.sql));
        }
        seen.findings += got.findings.len();
        seen.failed += failed;
        seen.spared += spared;
    }
    match verdicts.next() {
        Some((rule, _)) => Err(format!("{} answered out of order", rule.id)),
        None => Ok(()),
    }
}

#[tokio::test]
async fn the_scan_gives_what_every_program_gives_by_itself() {
    let seed = seed();
    let mut grammar = Grammar(StdRng::seed_from_u64(seed));
    let rules = random_rules(&mut grammar).await;
    let mut singles = Singles::new(&rules);
    assert_eq!(singles.aside(), 0, "the scan knows every kind of expression there is here");
    let mut seen = Seen::default();
    for _ in 0..BATCHES {
        let batch = grammar.batch();
        compare(&rules, &mut singles, &batch, &mut seen)
            .unwrap_or_else(|difference| panic!("SEED={seed} {difference}"));
    }
    println!("{} cases, {seen:?}", RULES * BATCHES);
    assert!(seen.findings > 1_000 && seen.failed > 0, "the rules do something: {seen:?}");
}

#[tokio::test]
async fn mistakes_made_on_purpose_are_found() {
    let mut grammar = Grammar(StdRng::seed_from_u64(7));
    let rules = random_rules(&mut grammar).await;
    let batches: Vec<RecordBatch> = (0..BATCHES).map(|_| grammar.batch()).collect();
    for fault in Fault::ALL {
        let found = fault::with(fault, || {
            let mut singles = Singles::new(&rules);
            batches.iter().find_map(|batch| compare(&rules, &mut singles, batch, &mut Seen::default()).err())
        });
        println!("{fault:?}: {}", found.clone().unwrap_or_default());
        assert!(found.is_some(), "{fault:?} goes unnoticed");
    }
}

/// Filters without an output, as windowed rules have them.
#[tokio::test]
async fn a_question_without_output_gives_the_rows_that_pass() {
    let seed = seed();
    let mut grammar = Grammar(StdRng::seed_from_u64(seed));
    let rules = random_rules(&mut grammar).await;
    let programs = rules.rules.iter().map(|rule| match &rule.body {
        Body::Single(program) => program.clone(),
        _ => panic!("the rules are single-event rules"),
    });
    let programs: Vec<_> = programs.collect();
    let question = |(key, program): (usize, &Arc<crate::program::Program>)| {
        let (table, direct) = program.parts().next().expect("it reads a table");
        let keeps = direct.expect("there is the short way").keeps.clone();
        Question { key: key as u32, table: table.to_owned(), keeps, output: None }
    };
    let questions: Vec<Question> = programs.iter().enumerate().map(question).collect();
    let scan = Scan::new(&questions, &rules.schemas);
    for _ in 0..BATCHES / 2 {
        let batch = grammar.batch();
        let mut answers = scan.run(tables::KUBERNETES, &batch).into_iter().peekable();
        for (key, program) in programs.iter().enumerate() {
            let answer = answers.next_if(|a| a.key as usize == key);
            let Ok(selected) = program.run(tables::KUBERNETES, &batch) else { continue };
            let expected = selected.map(|s| s.from).unwrap_or_default();
            match answer.map(|a| a.rows) {
                None => assert_eq!(expected, Vec::<u32>::new(), "SEED={seed} {}", rules.rules[key].sql),
                Some(Rows::Passed(rows, _)) => assert_eq!(rows, expected, "SEED={seed} {}", rules.rules[key].sql),
                // Over fewer rows, AND and OR may go about it in another way and meet a value that fails.
                Some(Rows::Failed(rows, _)) => assert!(expected.iter().all(|row| rows.contains(row)), "SEED={seed}"),
            }
        }
    }
}
