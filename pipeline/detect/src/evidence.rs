//! The events a finding rests on: the query that returns them, how many there are, and the first of them.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Coordinates, Evidence, EvidenceEvent, Micros, Origin, column};
use futures::StreamExt;

use crate::derive::{Derived, EvidenceSource};
use crate::ident::hex;
use crate::oracle::Entity;
use crate::rule::{Rule, Window, Windowed};
use crate::runs::Run;
use crate::value::{self, sql_text, sql_time};

/// What every evidence query returns.
pub const COLUMNS: &str = "event_uid, time, topic, \"partition\", \"offset\", message_index, raw";

/// What tells rows apart and says which boundaries look at them.
const PLACE: &str = "event_uid, time, topic, \"partition\", \"offset\", message_index, source_watermark";

/// Entity columns are numbered.
const ENTITY: &str = "__entity_";

/// Listed uids in a query's text. A finding that lists more keeps its true count and the query for the first.
const LISTED_MAX: usize = 1_000;

/// The query for one row of a stored table.
pub fn row_query(table: &str, time: Micros, event_uid: &str, row_hash: &[u8]) -> String {
    format!(
        "SELECT {COLUMNS} FROM {table} WHERE time = {} AND event_uid = {} AND encode(row_hash, 'hex') = '{}'",
        sql_time(time),
        sql_text(event_uid),
        hex(row_hash)
    )
}

/// The query for a run: the rows that its boundaries looked at, narrowed to its entity. `known`: rows admitted up to
/// there count, for a run that late rows made.
pub fn run_query(
    rule: &Rule,
    window: Window,
    source: &EvidenceSource,
    run: &Run,
    origin: Origin,
    known: Option<Micros>,
) -> String {
    let bounds = format!(
        "time >= {} AND time < {} AND source_watermark < {} AND origin = '{}'",
        sql_time(run.first - window.window_us),
        sql_time(run.last),
        sql_time(known.unwrap_or(run.last)),
        origin.name()
    );
    match source {
        EvidenceSource::Derived(derived) => {
            let entity = entity_condition(derived, &run.entity);
            format!("SELECT {COLUMNS} FROM {} WHERE {}{entity} AND {bounds}", derived.from, derived.filter_and())
        }
        EvidenceSource::Listed => {
            let uids: Vec<String> = run.evidence.iter().take(LISTED_MAX).map(|uid| sql_text(uid)).collect();
            let uids = if uids.is_empty() { "NULL".to_owned() } else { uids.join(", ") };
            let per_table = |t: &String| format!("SELECT {COLUMNS} FROM {t} WHERE event_uid IN ({uids}) AND {bounds}");
            rule.tables.iter().map(per_table).collect::<Vec<_>>().join(" UNION ALL ")
        }
    }
}

fn entity_condition(derived: &Derived, entity: &Entity) -> String {
    let equal = |(expression, (_, value)): (&String, &(String, String))| format!("{expression} = {}", sql_text(value));
    derived.entity.iter().zip(entity).map(equal).collect::<Vec<_>>().join(" AND ")
}

/// A run whose events are wanted; `known` as for [`run_query`].
pub struct Wanted<'a> {
    pub run: &'a Run,
    pub known: Option<Micros>,
}

impl Wanted<'_> {
    fn until(&self) -> Micros {
        self.known.unwrap_or(self.run.last)
    }
}

/// The evidence of several runs of a rule: what [`run_query`] returns for each, by reading the rows once to count and choose and
/// once more for the chosen ones' events. One query per run would read all of it for each.
pub async fn of_runs(
    ctx: &SessionContext,
    rule: &Rule,
    origin: Origin,
    wanted: &[Wanted<'_>],
) -> Result<Vec<Evidence>> {
    let Windowed { window, evidence: source, .. } = rule.windowed();
    let query = |w: &Wanted<'_>| run_query(rule, *window, source, w.run, origin, w.known);
    let mut found: Vec<Evidence> = wanted.iter().map(|w| Evidence { query: query(w), ..Evidence::default() }).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let mut chosen: Vec<BTreeSet<Place>> = vec![BTreeSet::new(); wanted.len()];
    let finder = Finder::new(source, *window, wanted);
    for query in choice_queries(rule, *window, source, origin, wanted) {
        let mut rows = ctx.sql(&query).await?.execute_stream().await?;
        while let Some(rows) = rows.next().await {
            let rows = rows?;
            finder.look(&rows, &mut |n, row, time| {
                found[n].count += 1;
                choose(&mut chosen[n], || Place::at(&rows, row), time)
            })?;
        }
    }
    let all: BTreeSet<&Place> = chosen.iter().flatten().collect();
    let mut events = HashMap::new();
    if let (Some(first), Some(last)) = (all.first(), all.last()) {
        let uids: BTreeSet<String> = all.iter().map(|place| sql_text(&place.uid)).collect();
        let uids = uids.into_iter().collect::<Vec<_>>().join(", ");
        let (first, last) = (sql_time(first.time), sql_time(last.time));
        for table in &rule.tables {
            let query = format!(
                "SELECT {COLUMNS} FROM {table} WHERE time >= {first} AND time <= {last} AND origin = '{}' \
                 AND event_uid IN ({uids})",
                origin.name()
            );
            for batch in ctx.sql(&query).await?.collect().await? {
                for row in 0..batch.num_rows() {
                    let event = event_of(&batch, row)?;
                    events.insert(Place::of(&event), event);
                }
            }
        }
    }
    for (evidence, chosen) in found.iter_mut().zip(&chosen) {
        evidence.events = chosen.iter().filter_map(|place| events.get(place).cloned()).collect();
    }
    Ok(found)
}

/// Rows without their events, which are most of what there is to read.
fn choice_queries(
    rule: &Rule,
    window: Window,
    source: &EvidenceSource,
    origin: Origin,
    wanted: &[Wanted<'_>],
) -> Vec<String> {
    let least = wanted.iter().map(|w| w.run.first).min().unwrap_or(Micros::MAX);
    let bounds = format!(
        "time >= {} AND time < {} AND source_watermark < {} AND origin = '{}'",
        sql_time(least.saturating_sub(window.window_us)),
        sql_time(wanted.iter().map(|w| w.run.last).max().unwrap_or(Micros::MIN)),
        sql_time(wanted.iter().map(Wanted::until).max().unwrap_or(Micros::MIN)),
        origin.name()
    );
    let one_of = |texts: BTreeSet<&str>| match texts.is_empty() {
        true => "NULL".to_owned(),
        false => texts.into_iter().map(sql_text).collect::<Vec<_>>().join(", "),
    };
    match source {
        EvidenceSource::Derived(derived) => {
            let (mut columns, mut conditions) = (String::new(), String::new());
            for (n, expression) in derived.entity.iter().enumerate() {
                let texts = wanted.iter().filter_map(|w| w.run.entity.get(n)).map(|(_, text)| text.as_str());
                columns += &format!(", {expression} AS \"{ENTITY}{n}\"");
                conditions += &format!("{expression} IN ({}) AND ", one_of(texts.collect()));
            }
            let (from, filter) = (&derived.from, derived.filter_and());
            vec![format!("SELECT {PLACE}{columns} FROM {from} WHERE {filter}{conditions}{bounds}")]
        }
        EvidenceSource::Listed => {
            let uids = wanted.iter().flat_map(|w| w.run.evidence.iter().take(LISTED_MAX)).map(String::as_str);
            let uids = one_of(uids.collect());
            let of = |table: &String| format!("SELECT {PLACE} FROM {table} WHERE event_uid IN ({uids}) AND {bounds}");
            rule.tables.iter().map(of).collect()
        }
    }
}

/// The first [`Evidence::EVENTS_MAX`].
fn choose(chosen: &mut BTreeSet<Place>, place: impl FnOnce() -> Result<Place>, time: Micros) -> Result<()> {
    let full = chosen.len() >= Evidence::EVENTS_MAX;
    if full && chosen.last().is_some_and(|last| last.time < time) {
        return Ok(());
    }
    chosen.insert(place()?);
    if chosen.len() > Evidence::EVENTS_MAX {
        chosen.pop_last();
    }
    Ok(())
}

/// Which row it is; in the order of evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    time: Micros,
    uid: String,
    coordinates: Coordinates,
}

impl Place {
    fn of(event: &EvidenceEvent) -> Place {
        Place { time: event.time, uid: event.event_uid.clone(), coordinates: event.coordinates.clone() }
    }

    fn at(batch: &RecordBatch, row: usize) -> Result<Place> {
        let uid = text_of(batch, column::EVENT_UID, row)?.to_owned();
        Ok(Place { time: time_of(batch, row)?, uid, coordinates: coordinates(batch, row)? })
    }
}

/// Which runs a row belongs to.
struct Finder<'a> {
    window: Window,
    wanted: &'a [Wanted<'a>],
    /// By the entity, or by a listed uid.
    runs: HashMap<Vec<&'a str>, Vec<usize>>,
    entity: Option<usize>,
}

impl<'a> Finder<'a> {
    fn new(source: &EvidenceSource, window: Window, wanted: &'a [Wanted<'a>]) -> Finder<'a> {
        let mut runs: HashMap<Vec<&str>, Vec<usize>> = HashMap::new();
        let entity = match source {
            EvidenceSource::Derived(derived) => Some(derived.entity.len()),
            EvidenceSource::Listed => None,
        };
        for (n, w) in wanted.iter().enumerate() {
            match entity {
                Some(_) => {
                    let entity = w.run.entity.iter().map(|(_, text)| text.as_str()).collect();
                    runs.entry(entity).or_default().push(n);
                }
                None => w
                    .run
                    .evidence
                    .iter()
                    .take(LISTED_MAX)
                    .for_each(|uid| runs.entry(vec![uid.as_str()]).or_default().push(n)),
            }
        }
        Finder { window, wanted, runs, entity }
    }

    fn look(&self, rows: &RecordBatch, found: &mut dyn FnMut(usize, usize, Micros) -> Result<()>) -> Result<()> {
        let keys: Vec<Vec<Option<String>>> = match self.entity {
            Some(count) => {
                (0..count).map(|n| Ok(value::texts(find(rows, &format!("{ENTITY}{n}"))?)?)).collect::<Result<_>>()?
            }
            None => vec![value::texts(find(rows, column::EVENT_UID)?)?],
        };
        let stamps = find(rows, column::SOURCE_WATERMARK)?.as_primitive::<TimestampMicrosecondType>();
        for row in 0..rows.num_rows() {
            let key: Option<Vec<&str>> = keys.iter().map(|texts| texts[row].as_deref()).collect();
            let Some(runs) = key.and_then(|key| self.runs.get(&key)) else { continue };
            let (time, stamp) = (time_of(rows, row)?, stamps.value(row));
            for n in runs {
                let Wanted { run, .. } = &self.wanted[*n];
                if run.first - self.window.window_us <= time && time < run.last && stamp < self.wanted[*n].until() {
                    found(*n, row, time)?;
                }
            }
        }
        Ok(())
    }
}

/// One row that has the columns of an evidence query.
pub fn event_of(batch: &RecordBatch, row: usize) -> Result<EvidenceEvent> {
    Ok(EvidenceEvent {
        event_uid: text_of(batch, column::EVENT_UID, row)?.to_owned(),
        time: time_of(batch, row)?,
        coordinates: coordinates(batch, row)?,
        raw: text_of(batch, column::RAW, row)?.to_owned(),
    })
}

fn coordinates(batch: &RecordBatch, row: usize) -> Result<Coordinates> {
    let number = |name: &str| -> Result<i64> { Ok(find(batch, name)?.as_primitive::<Int64Type>().value(row)) };
    Ok(Coordinates {
        topic: text_of(batch, column::TOPIC, row)?.to_owned(),
        partition: number(column::PARTITION)? as i32,
        offset: number(column::OFFSET)?,
        index: number(column::MESSAGE_INDEX)? as i32,
    })
}

pub fn time_of(batch: &RecordBatch, row: usize) -> Result<Micros> {
    Ok(find(batch, column::TIME)?.as_primitive::<TimestampMicrosecondType>().value(row))
}

pub fn text_of<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Result<&'a str> {
    Ok(find(batch, name)?.as_string_view().value(row))
}

pub fn find<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    let column = batch.column_by_name(name).map(|c| c.as_ref());
    column.ok_or_else(|| DataFusionError::Execution(format!("the rows have no column `{name}`")))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::fixtures::{self, Cell, Store, row, rule_text};
    use crate::history::History;
    use crate::oracle::Held;

    const S: Micros = 1_000_000;

    const DERIVED: &str = "SELECT response_code, actor_user_name AS who, count(*) AS n FROM kubernetes k WHERE verb = 'get' \
                           GROUP BY response_code, actor_user_name HAVING count(*) > 1";
    const LISTED: &str = "SELECT response_code, actor_user_name AS who, array_agg(event_uid) AS evidence FROM kubernetes \
                          GROUP BY response_code, actor_user_name HAVING count(*) > 1";

    #[tokio::test]
    async fn runs_read_together_have_what_the_query_of_each_returns() {
        for (sql, seed) in (0..40).flat_map(|seed| [(DERIVED, seed), (LISTED, seed)]) {
            let mut random = StdRng::seed_from_u64(seed);
            let rules =
                fixtures::rules(&[("d/rule.sql", &rule_text("response_code, who", "window: 10s\nevery: 1s", sql))])
                    .await;
            let rule = &rules.rules[0];
            let rows: Vec<_> = (0..120)
                .map(|n| {
                    let verb = if random.random_bool(0.7) { "get" } else { "list" };
                    let who: Cell = ["al", "bo", "it's"][random.random_range(0..3)].into();
                    let late = random.random_range(0..20) * S;
                    let time = random.random_range(0..30) * S;
                    let cells = [
                        ("verb", verb.into()),
                        ("actor_user_name", who),
                        ("response_code", [200, 403][random.random_range(0..2)].into()),
                        ("offset", n.into()),
                        ("source_watermark", (time - 5 * S + late).into()),
                    ];
                    row("kubernetes", time, &format!("u{}", random.random_range(0..90)), &cells)
                })
                .collect();
            let runs: Vec<(Run, Option<Micros>)> = (0..random.random_range(0..6))
                .map(|_| {
                    let who = ["al", "bo", "it's", "nobody"][random.random_range(0..4)];
                    let code = ["200", "403"][random.random_range(0..2)];
                    let entity =
                        vec![("response_code".to_owned(), code.to_owned()), ("who".to_owned(), who.to_owned())];
                    let evidence = (0..random.random_range(0..30)).map(|n| format!("u{n}")).collect();
                    let held = Held { entity, values: Default::default(), evidence };
                    let first = random.random_range(0..40) * S;
                    let run = Run { last: first + random.random_range(0..5) * S, ..Run::new(held, first) };
                    (run, random.random_bool(0.3).then_some(50 * S))
                })
                .collect();
            let store = Store::of(&rows);
            let ctx = query::fork(&rules.base);
            query::register_tables(&ctx, &rules.schemas, &|name| store.table(name)).unwrap();
            let wanted: Vec<Wanted<'_>> = runs.iter().map(|(run, known)| Wanted { run, known: *known }).collect();
            let found = of_runs(&ctx, rule, Origin::Live, &wanted).await.unwrap();
            assert_eq!(found.len(), runs.len());
            for evidence in found {
                let mut expected = Vec::new();
                for batch in ctx.sql(&evidence.query).await.unwrap().collect().await.unwrap() {
                    expected.extend((0..batch.num_rows()).map(|row| event_of(&batch, row).unwrap()));
                }
                expected.sort_by_key(Place::of);
                assert_eq!(evidence.count, expected.len() as u64, "seed {seed}: {}", evidence.query);
                expected.truncate(Evidence::EVENTS_MAX);
                assert_eq!(evidence.events, expected, "seed {seed}: {}", evidence.query);
            }
        }
    }
}
