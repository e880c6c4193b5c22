//! Lookups: asked by functions, joined as tables, part of the bundle, and never cut by time.

use std::path::PathBuf;

use event::{Frontier, Origin, Watermarks};

use super::streams::{DAY, S};
use crate::fixtures::{Row, Store, admitted, row, rule_text, schemas};
use crate::{Engine, Folder, RuleErrors, RuleSet};

async fn load(lookups: &[(&str, &str)], rule: &str) -> Result<RuleSet, RuleErrors> {
    let lookups: Vec<(PathBuf, String)> =
        lookups.iter().map(|(name, text)| (PathBuf::from(format!("d/lookups/{name}")), text.to_string())).collect();
    let files = [(PathBuf::from("d/k/rule.sql"), rule.to_owned())];
    let folder = Folder { rules: files.to_vec(), lookups, ..Folder::default() };
    RuleSet::parse_folder(&folder, 0, &schemas(), "").await
}

fn get(at: i64, uid: &str, who: &str) -> Row {
    row("kubernetes", DAY + at, uid, &[("verb", "get".into()), ("actor_user_name", who.into())])
}

const STAFF: (&str, &str) = ("staff.csv", "name,team\nal,red\nbo,blue\n");

#[tokio::test]
async fn a_single_event_rule_asks_a_lookup() {
    let sql = "SELECT actor_user_name, lookup_value('staff', 'team', actor_user_name) AS team FROM kubernetes \
               WHERE in_lookup('staff', actor_user_name)";
    let set = load(&[STAFF], &rule_text("actor_user_name", "", sql)).await.unwrap_or_else(|e| panic!("{e}"));
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let rows = [get(S, "a", "al"), get(S, "b", "zoe")];
    let findings = engine.on_admitted(&admitted(&rows)).await.expect("evaluates").findings;
    assert_eq!(findings.iter().map(|f| f.values["team"].as_str()).collect::<Vec<_>>(), [Some("red")]);
}

#[tokio::test]
async fn a_windowed_rule_joins_a_lookup() {
    let sql = "SELECT s.team, count(*) AS n, array_agg(k.event_uid) AS evidence FROM kubernetes k \
               JOIN staff s ON s.name = k.actor_user_name GROUP BY s.team HAVING count(*) >= 2";
    let rule = rule_text("team", "window: 10s\nevery: 2s", sql);
    let set = load(&[STAFF], &rule).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(set.rules[0].tables, ["kubernetes"]);
    let rows = [get(S, "a", "al"), get(S, "b", "al"), get(S, "c", "bo"), get(S, "d", "zoe"), get(S, "e", "zoe")];
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let found = engine.finish_bounded(Origin::Live, None, &Store::of(&rows)).await.expect("answers").findings;
    assert_eq!(found.iter().map(|f| f.entity_text()).collect::<Vec<_>>(), ["team=red"]);
}

#[tokio::test]
async fn mistakes_are_told_and_the_bundle_knows_lookups() {
    let sql = "SELECT actor_user_name FROM kubernetes WHERE in_lookup('staf', actor_user_name)";
    let wrong = load(&[STAFF], &rule_text("actor_user_name", "", sql)).await.err().expect("refused").to_string();
    assert!(wrong.contains("staf") && wrong.contains("did you mean `staff`?"), "{wrong}");
    let sql = "SELECT actor_user_name FROM kubernetes WHERE in_lookup('staff', actor_user_name)";
    let rule = rule_text("actor_user_name", "", sql);
    let one = load(&[STAFF], &rule).await.expect("a good rule");
    let other = load(&[("staff.csv", "name,team\nal,red\n")], &rule).await.expect("a good rule");
    assert_ne!((&one.bundle, &one.context), (&other.bundle, &other.context));
}
