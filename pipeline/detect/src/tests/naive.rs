//! What windowed rules mean, evaluated word for word over everything that was stored in the end: every boundary, one
//! SELECT each, and once more for what late rows add.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use event::{Micros, Origin};

use crate::fixtures::{Cell, Row, Store, schemas};
use crate::oracle::{self, Entity, Held, Look};
use crate::rule::{Rule, Window};
use crate::{History, RuleSet, ident};

/// first, last, values, late: by id.
pub type Expected = BTreeMap<String, (Micros, Micros, String, bool)>;

/// Entities that hold, by boundary.
type Holding = BTreeMap<Micros, BTreeMap<Entity, Held>>;

pub async fn expected(set: &RuleSet, rule: &Rule, rows: &[Row]) -> Expected {
    let window = rule.window.expect("a windowed rule");
    let boundaries = boundaries(window, rows);
    let on_time = holding(set, rule, rows, rows, &boundaries).await;
    let mut expected = Expected::new();
    for (entity, first, last, held) in runs(&on_time, window) {
        let id = ident::of_run(&rule.id, &entity, Origin::Live, first);
        expected.insert(id, (first, last, text(&held), false));
    }
    for known in known_late(rule, window, rows) {
        // Rows that were known by then, as if they had come in time.
        let in_time = |row: &&Row| number(row, "source_watermark") < known;
        let as_if: Vec<Row> = rows.iter().filter(in_time).map(|row| stamped(row, Micros::MIN)).collect();
        let before: Vec<Micros> = boundaries.iter().copied().filter(|b| *b < known).collect();
        let mut added = holding(set, rule, &as_if, rows, &before).await;
        for (boundary, held) in &mut added {
            held.retain(|entity, _| !on_time.get(boundary).is_some_and(|h| h.contains_key(entity)));
        }
        for (entity, first, last, held) in runs(&added, window) {
            let id = ident::of_late_run(&rule.id, &entity, Origin::Live, first);
            let text = text(&held);
            let have = expected.entry(id).or_insert((first, last, text, true));
            have.1 = have.1.max(last);
        }
    }
    expected
}

pub fn text(held: &Held) -> String {
    serde_json::Value::from(held.values.clone()).to_string()
}

pub fn number(row: &Row, name: &str) -> i64 {
    match &row.cells[name] {
        Cell::Number(n) => *n,
        other => panic!("{name} is {other:?}"),
    }
}

fn stamped(row: &Row, stamp: Micros) -> Row {
    let mut row = row.clone();
    row.cells.insert("source_watermark".into(), stamp.into());
    row
}

/// All boundaries whose window holds a row, with one more on each side.
fn boundaries(window: Window, rows: &[Row]) -> Vec<Micros> {
    let mut all = BTreeSet::new();
    for time in rows.iter().map(|row| number(row, "time")) {
        let mut boundary = window.floor(time);
        while boundary <= window.last_reaching(time) + window.every_us {
            all.insert(boundary);
            boundary += window.every_us;
        }
    }
    all.into_iter().collect()
}

/// For each row that came too late for a boundary: the first boundary by which it was known.
fn known_late(rule: &Rule, window: Window, rows: &[Row]) -> BTreeSet<Micros> {
    let of_rule = rows.iter().filter(|row| rule.tables.iter().any(|t| t == row.table));
    let known = |row: &Row| {
        let (time, stamp) = (number(row, "time"), number(row, "source_watermark"));
        (stamp != Micros::MIN && window.floor(stamp) > window.floor(time))
            .then(|| window.floor(stamp) + window.every_us)
    };
    of_rule.filter_map(known).collect()
}

/// State tables are what was known of `known` rows.
async fn holding(set: &RuleSet, rule: &Rule, rows: &[Row], known: &[Row], boundaries: &[Micros]) -> Holding {
    let store = Store::of(rows);
    let ctx = query::fork(&set.base);
    query::register_tables(&ctx, &schemas(), &|name| store.table(name)).expect("tables register");
    let mut relations: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    for relation in &rule.relations {
        let provider = ctx.table_provider(relation.name.as_str()).await.expect("the rule named it");
        relations.insert(relation.name.clone(), provider);
    }
    let stored = query::fork(&set.base);
    let known = Store::of(known);
    query::register_tables(&stored, &schemas(), &|name| known.table(name)).expect("tables register");
    let window = rule.window.expect("a windowed rule");
    let mut holding = Holding::new();
    for boundary in boundaries {
        let relations = &|name: &str| relations[name].clone();
        let (boundary, origin) = (*boundary, Origin::Live);
        let joined = oracle::joined(rule, window, boundary, origin, &stored).await.expect("state tables answer");
        let look = Look { base: &set.base, rule, window, boundary, origin, relations, joined: &joined };
        let answer = look.evaluate().await;
        let held = answer.unwrap_or_else(|e| panic!("{}: {e}", rule.sql)).held;
        holding.insert(boundary, held.into_iter().map(|h| (h.entity.clone(), h)).collect());
    }
    holding
}

/// Maximal runs: entity, first, last, as it held first.
fn runs(holding: &Holding, window: Window) -> Vec<(Entity, Micros, Micros, Held)> {
    let mut open: BTreeMap<Entity, (Micros, Micros, Held)> = BTreeMap::new();
    let mut runs = Vec::new();
    for (boundary, held) in holding {
        let goes_on =
            |entity: &Entity, last: &Micros| held.contains_key(entity) && *last + window.every_us == *boundary;
        let ended: Vec<Entity> =
            open.iter().filter(|(e, (_, last, _))| !goes_on(e, last)).map(|(e, _)| e.clone()).collect();
        for entity in ended {
            let (first, last, held) = open.remove(&entity).expect("just listed");
            runs.push((entity, first, last, held));
        }
        for (entity, held) in held {
            open.entry(entity.clone()).or_insert((*boundary, *boundary, held.clone())).1 = *boundary;
        }
    }
    runs.extend(open.into_iter().map(|(entity, (first, last, held))| (entity, first, last, held)));
    runs
}
