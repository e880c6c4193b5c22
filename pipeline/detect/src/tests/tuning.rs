//! Exceptions of tuning.yaml: they take out what they name, no more, until their day has passed.

use std::path::PathBuf;

use event::{Frontier, Micros, Origin, Watermarks};

use super::streams::{DAY, S};
use crate::fixtures::{Row, Store, admitted, row, rule_text, schemas};
use crate::{Engine, Folder, RuleErrors, RuleSet};

/// 2026-06-01, long before the exceptions below end.
const NOW: Micros = 1_780_272_000 * S;

async fn load(tuning: &str, rule: &str) -> Result<RuleSet, RuleErrors> {
    let rules = vec![(PathBuf::from("d/kubernetes/reads.sql"), rule.to_owned())];
    let tuning = Some((PathBuf::from("d/tuning.yaml"), tuning.to_owned()));
    let folder = Folder { rules, tuning, ..Folder::default() };
    RuleSet::parse_folder(&folder, NOW, &schemas(), "").await
}

fn when(condition: &str) -> String {
    format!(
        "- rule: reads\n  when: \"{condition}\"\n  reason: the nightly backup\n  author: ann\n  expires: 2026-12-31\n"
    )
}

fn get(at: i64, uid: &str, who: &str) -> Row {
    row("kubernetes", DAY + at, uid, &[("verb", "get".into()), ("actor_user_name", who.into())])
}

const SINGLE: &str = "SELECT actor_user_name, verb FROM kubernetes WHERE verb = 'get'";
const COUNT: &str = "SELECT actor_user_name, count(*) AS n FROM kubernetes \
                     GROUP BY actor_user_name HAVING count(*) >= 2";
const NEW: &str = "SELECT actor_user_name FROM kubernetes WHERE first_seen(INTERVAL '1 day', actor_user_name)";

/// Who is found, with the exception.
async fn found(tuning: &str, header: &str, sql: &str, rows: &[Row]) -> Vec<String> {
    let set = load(tuning, &rule_text("actor_user_name", header, sql)).await.unwrap_or_else(|e| panic!("{e}"));
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let mut findings = engine.on_admitted(&admitted(rows)).await.expect("evaluates").findings;
    findings
        .extend(engine.finish_bounded(Origin::Live, None, &Store::of(rows)).await.expect("the store answers").findings);
    let mut who: Vec<String> = findings.iter().map(|f| f.entity_text()).collect();
    who.sort();
    who.dedup();
    who
}

#[tokio::test]
async fn an_exception_takes_out_what_it_names() {
    let rows =
        [get(S, "a", "al"), get(2 * S, "b", "al"), get(3 * S, "c", "bo"), get(3 * S, "d", "bo"), get(4 * S, "e", "bo")];
    for (header, sql) in [("", SINGLE), ("window: 10s\nevery: 2s", COUNT), ("learning: 1h", NEW)] {
        let both = ["actor_user_name=al", "actor_user_name=bo"];
        assert_eq!(found("", header, sql, &rows).await, both, "{sql}");
        assert_eq!(found(&when("actor_user_name = 'al'"), header, sql, &rows).await, both[1..], "{sql}");
        assert_eq!(found(&when("actor_user_name LIKE 'z%'"), header, sql, &rows).await, both, "{sql}");
        let each = when("actor_user_name = 'al'") + &when("actor_user_name = 'bo'");
        assert_eq!(found(&each, header, sql, &rows).await, [""; 0], "{sql}");
    }
}

#[tokio::test]
async fn an_exception_may_look_at_a_count() {
    let rows =
        [get(S, "a", "al"), get(2 * S, "b", "al"), get(3 * S, "c", "bo"), get(3 * S, "d", "bo"), get(4 * S, "e", "bo")];
    let header = "window: 10s\nevery: 2s";
    assert_eq!(found(&when("n < 3"), header, COUNT, &rows).await, ["actor_user_name=bo"]);
    let rule = rule_text("actor_user_name", header, COUNT);
    let of = async |tuning: &str| {
        let set = load(tuning, &rule).await.unwrap_or_else(|e| panic!("{e}"));
        set.rules[0].explanation().expect("it has a window")
    };
    assert_eq!(of(&when("actor_user_name = 'al'")).await.panes, Ok(()));
    assert!(of(&when("n < 3")).await.panes.expect_err("over the sieved window").contains("tuning.yaml looks at `n`"));
    assert!(of(&when("n < 3")).await.early.is_err());
}

#[tokio::test]
async fn an_exception_ends() {
    let rows = [get(S, "a", "al")];
    let ended = when("actor_user_name = 'al'").replace("2026-12-31", "2026-05-31");
    assert_eq!(found(&ended, "", SINGLE, &rows).await, ["actor_user_name=al"]);
    let rule = rule_text("actor_user_name", "", SINGLE);
    let set = load(&ended, &rule).await.expect("only a warning");
    let [warning] = set.warnings.as_slice() else { panic!("{:?}", set.warnings) };
    assert!(warning.message.contains("ended on 2026-05-31") && warning.line == 1, "{warning}");
    assert_eq!(set.tuned_until, None);
    // It holds through its last day.
    let last = load(&ended.replace("2026-05-31", "2026-06-01"), &rule).await.expect("a good file");
    assert_eq!((last.tuned_until, last.warnings.len()), (Some(NOW + 86_400 * S), 0));
    // What is in force decides what is found, so the bundle says it.
    let none = load("", &rule).await.expect("no file");
    assert_eq!(none.bundle, set.bundle);
    assert_ne!(none.bundle, last.bundle);
    assert_ne!(none.rules[0].version, last.rules[0].version);
}

#[tokio::test]
async fn tests_of_rules_do_not_know_exceptions() {
    let rule = rule_text("actor_user_name", "", SINGLE);
    let set = load(&when("true"), &rule).await.expect("a good file").untuned();
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    assert_eq!(engine.on_admitted(&admitted(&[get(S, "a", "al")])).await.expect("evaluates").findings.len(), 1);
}

#[tokio::test]
async fn a_condition_that_cannot_be_computed_takes_nothing_out() {
    let rows = [get(S, "a", "al"), get(2 * S, "b", "al")];
    assert_eq!(found(&when("CAST(verb AS BIGINT) = 1"), "", SINGLE, &rows).await, ["actor_user_name=al"]);
}

#[tokio::test]
async fn mistakes_are_told_with_line_and_hint() {
    let rule = rule_text("actor_user_name", "", SINGLE);
    let entry = when("actor_user_name = 'al'");
    for (tuning, line, wanted) in [
        (entry.replace("rule: reads", "rule: read"), 1, "there is no rule `read`\nhint: did you mean `reads`?"),
        (when("actor_user_nam = 'al'"), 2, "did you mean `actor_user_name`?"),
        (when("objectref_name = 'al'"), 2, "the SELECT returns actor_user_name, verb"),
        (when("actor_user_name"), 2, "not true or false"),
        (when("verb IN (SELECT verb FROM kubernetes)"), 2, "when"),
        (when("verb = = 'get'"), 2, "when"),
        (entry.replace("2026-12-31", "soon"), 5, "`expires: soon` is not a day"),
        (entry.replace("  author: ann\n", ""), 4, "author"),
        (entry.replace("the nightly backup", "''"), 3, "`reason` is empty"),
        ("rule: reads\n".into(), 1, "a list of entries"),
    ] {
        let error = load(&tuning, &rule).await.err().unwrap_or_else(|| panic!("taken: {tuning}")).to_string();
        assert!(error.contains(wanted) && error.contains(&format!("d/tuning.yaml:{line}")), "{tuning}\n{error}");
    }
}
