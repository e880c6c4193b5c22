//! Random streams, rules and ways to run them. Everything follows from one seed.

use std::collections::BTreeMap;

use event::{Micros, Source, Watermarks};

use crate::fixtures::{Row, row};

pub const S: i64 = 1_000_000;
pub const DAY: i64 = 20_000 * 86_400 * S;

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for n in (1..of.len()).rev() {
            of.swap(n, self.below(n as u64 + 1) as usize);
        }
    }
}

const LATENESS: i64 = 2 * S;

/// Rows before admission, in the order in which they arrive: their stamps are made by [`Gate`].
pub fn stream(random: &mut Random) -> Vec<Row> {
    let count = 4 + random.below(30);
    let (mut now, mut rows) = (0i64, Vec::new());
    for n in 0..count {
        now += match random.below(10) {
            0 => 0,
            1 => 20 * S,
            2 => S - now % S,
            _ => random.below(2_500_000) as i64,
        };
        let time = match random.below(12) {
            0 => now - random.below(15_000_000) as i64,
            1 => now - now % (2 * S),
            2 => now + random.below(6_000_000) as i64,
            _ => now,
        };
        rows.push(event(random, &format!("u{n:02}"), DAY + time.max(0)));
    }
    rows
}

fn event(random: &mut Random, uid: &str, time: Micros) -> Row {
    let mut row = match random.below(5) {
        0 | 1 => {
            let mut row = row("falco", time, uid, &[]);
            row.cells.insert("rule".into(), (*random.pick(&["r1", "r2"])).into());
            if !random.one_in(5) {
                row.cells.insert("k8s_pod_name".into(), (*random.pick(&["s1", "s2", "s3"])).into());
            }
            row
        }
        _ => {
            let mut row = row("kubernetes", time, uid, &[]);
            row.cells.insert(
                "stage".into(),
                (*random.pick(&["ResponseComplete", "ResponseComplete", "RequestReceived"])).into(),
            );
            row.cells.insert("verb".into(), (*random.pick(&["get", "get", "list", "create"])).into());
            if !random.one_in(6) {
                row.cells.insert("objectref_name".into(), (*random.pick(&["s1", "s2", "s3", "s4"])).into());
            }
            if !random.one_in(6) {
                row.cells.insert("response_code".into(), (*random.pick(&[200i64, 200, 403, 500])).into());
            }
            row
        }
    };
    if !random.one_in(8) {
        row.cells.insert("actor_user_name".into(), (*random.pick(&["al", "bo", "cy"])).into());
    }
    row.cells.insert("cluster".into(), (*random.pick(&["prod", "prod", "test"])).into());
    row
}

/// Admission: stamps rows with the watermark of their source before them.
#[derive(Clone, Default)]
pub struct Gate {
    pub marks: Watermarks,
    next: BTreeMap<Source, i64>,
}

impl Gate {
    pub fn admit(&mut self, row: &mut Row) {
        let source: Source = row.table.parse().expect("tables are named by sources");
        row.cells.insert("source_watermark".into(), self.marks.get(source).into());
        let offset = self.next.entry(source).or_default();
        row.cells.insert("offset".into(), (*offset).into());
        *offset += 1;
        let time = super::naive::number(row, "time");
        self.marks.advance(source, time - LATENESS);
    }

    pub fn next(&self) -> &BTreeMap<Source, i64> {
        &self.next
    }
}

pub const WINDOWS: [(i64, i64); 6] = [(10, 2), (4, 2), (6, 6), (12, 3), (10, 1), (3, 1)];

/// Header lines and SELECT of a random rule, and its entity.
pub fn rule(random: &mut Random) -> (String, String, String) {
    let (window, every) = *random.pick(&WINDOWS);
    let mut header = format!("window: {window}s\nevery: {every}s");
    if random.one_in(6) {
        header += "\nemit: final";
    }
    let (entity, sql) = match random.below(12) {
        0..=5 => aggregate(random),
        6 => plain(random),
        7 if random.one_in(2) => planes(random),
        7 => join(random),
        8 => absence(random),
        9 => over(random),
        10 => subquery(random),
        _ if random.one_in(2) => remembering(random),
        _ => with(random),
    };
    (entity, header, sql)
}

/// Header lines, entity and SELECT of a rule that takes the same of the same rows, and makes something else of it: other
/// thresholds, another entity, no early findings. `None` for what does not aggregate.
pub fn twin(random: &mut Random, (entity, header, sql): (&str, &str, &str)) -> Option<(String, String, String)> {
    let (groups, having) = sql.split_once(" GROUP BY ").filter(|_| !sql.contains("evidence"))?;
    let keys = having.split(" HAVING ").next().expect("at least one part").trim();
    let entity = if random.one_in(2) { entity } else { keys };
    let mut words: Vec<String> = having.split(' ').map(str::to_owned).collect();
    for n in 1..words.len() {
        let compared = matches!(words[n - 1].as_str(), ">" | ">=" | "<" | "<=" | "=");
        let end = words[n].find(|c: char| !c.is_ascii_digit()).unwrap_or(words[n].len());
        if compared && end == 1 {
            let other = random.below(4).to_string();
            words[n].replace_range(..1, &other);
            if random.one_in(4) {
                words[n - 1] = (*random.pick(&["<", ">=", "="])).to_owned();
            }
        }
    }
    let header = match random.one_in(4) && !header.contains("emit") {
        true => format!("{header}\nemit: final"),
        false => header.to_owned(),
    };
    Some((entity.to_owned(), header, format!("{groups} GROUP BY {}", words.join(" "))))
}

fn filter(random: &mut Random) -> String {
    let atoms = [
        "verb = 'get'",
        "verb IN ('get', 'list')",
        "verb <> 'list'",
        "objectref_name LIKE 's%'",
        "objectref_name IS NOT NULL",
        "coalesce(response_code, 0) < 400",
        "response_code = 403",
        "NOT (response_code = 403)",
        "actor_user_name <> 'cy'",
    ];
    match random.below(5) {
        0 => String::new(),
        1 => format!("WHERE {} OR {}", random.pick(&atoms), random.pick(&atoms)),
        2 => format!("WHERE {} AND {}", random.pick(&atoms), random.pick(&atoms)),
        _ => format!("WHERE {}", random.pick(&atoms)),
    }
}

fn aggregate(random: &mut Random) -> (String, String) {
    const KEYS: [&[&str]; 4] =
        [&["actor_user_name"], &["cluster", "actor_user_name"], &["actor_user_name", "verb"], &["objectref_name"]];
    let keys = KEYS[random.below(KEYS.len() as u64) as usize];
    let entity = match random.one_in(4) {
        true => keys[0].to_owned(),
        false => keys.join(", "),
    };
    let shown = [
        "count(*) AS n",
        "count(objectref_name) AS named",
        "count(DISTINCT objectref_name) AS names",
        "sum(response_code) AS codes",
        "avg(response_code) AS code",
        "min(time) AS began",
        "max(time) AS ended",
        "max(response_code) AS worst",
        "count(*) FILTER (WHERE response_code >= 400) AS failed",
        "count(DISTINCT objectref_name) FILTER (WHERE verb = 'get') AS got",
        "min(response_code) FILTER (WHERE verb <> 'get') AS least",
        "max(objectref_name) AS last_name",
        "min(verb) FILTER (WHERE response_code >= 400) AS failing",
        "bool_and(verb = 'get') AS all_got",
        "array_sort(array_agg(DISTINCT objectref_name)) AS all_names",
        "array_sort(array_agg(verb)) AS verbs",
        "array_agg(objectref_name ORDER BY time DESC, event_uid) AS in_order",
        "array_to_string(array_sort(array_agg(DISTINCT verb) FILTER (WHERE response_code >= 400)), ', ') AS bad",
        "first_value(verb ORDER BY time, event_uid) AS first_verb",
        "last_value(objectref_name ORDER BY time, event_uid) AS last_one",
    ];
    let having = [
        "count(*) >= 2",
        "count(*) >= 3",
        "count(DISTINCT objectref_name) >= 2",
        "count(DISTINCT objectref_name) > 2",
        "count(*) < 3",
        "count(*) = 1",
        "sum(response_code) > 500",
        "avg(response_code) < 300",
        "max(response_code) >= 403",
        "min(response_code) <= 200",
        "max(time) - min(time) > INTERVAL '3 seconds'",
        "count(*) FILTER (WHERE response_code >= 400) >= 1",
        "count(*) FILTER (WHERE response_code >= 400) = 0",
        "count(DISTINCT objectref_name) FILTER (WHERE verb = 'get') >= 2",
        "count(*) > 2 * count(DISTINCT objectref_name)",
        "sum(1) >= 2",
        "bool_or(response_code >= 400)",
        "max(objectref_name) >= 's3'",
        "min(verb) <> max(verb)",
        "cardinality(array_agg(DISTINCT objectref_name)) >= 2",
        "cardinality(array_agg(objectref_name)) > 2",
        "first_value(verb ORDER BY time, event_uid) = 'get'",
        "sum(CASE WHEN verb = 'get' THEN 1 ELSE 0 END) >= 2",
    ];
    let mut columns: Vec<&str> = keys.to_vec();
    for _ in 0..random.below(3) {
        let one = *random.pick(&shown);
        if !columns.contains(&one) {
            columns.push(one);
        }
    }
    let having = match random.below(5) {
        0 => format!("HAVING {} AND {}", random.pick(&having), random.pick(&having)),
        1 => format!("HAVING {} OR {}", random.pick(&having), random.pick(&having)),
        2 if random.one_in(3) => String::new(),
        _ => format!("HAVING {}", random.pick(&having)),
    };
    let from = *random.pick(&["kubernetes", "kubernetes_calls", "kubernetes k"]);
    let sql =
        format!("SELECT {} FROM {from} {} GROUP BY {} {having}", columns.join(", "), filter(random), keys.join(", "));
    (entity, sql)
}

fn plain(random: &mut Random) -> (String, String) {
    let filter = filter(random);
    match random.below(3) {
        0 => ("actor_user_name".into(), format!("SELECT actor_user_name, verb FROM kubernetes {filter}")),
        1 => (
            "actor_user_name, objectref_name".into(),
            format!("SELECT DISTINCT actor_user_name, objectref_name FROM kubernetes_calls {filter}"),
        ),
        _ => {
            let sql = "SELECT cluster, source, count(*) AS n FROM events GROUP BY cluster, source HAVING count(*) >= 2";
            ("cluster, source".into(), sql.into())
        }
    }
}

/// Two planes that meet on a name, as cross-source rules have it: each side is a union, and what joins is computed.
fn planes(random: &mut Random) -> (String, String) {
    let filter = random.pick(&["verb = 'get'", "verb <> 'list'", "objectref_name IS NOT NULL"]);
    let tail = random.pick(&[
        "",
        "LEFT JOIN falco f ON f.k8s_pod_name = l.what AND f.time < l.time",
        "JOIN falco f ON f.rule = a.what",
    ]);
    let sql = format!(
        "WITH l AS (SELECT 'k' AS plane, concat(cluster, '/', objectref_name) AS subject, objectref_name AS what, time, event_uid \
           FROM kubernetes WHERE {filter} \
           UNION ALL SELECT 'f', concat(cluster, '/', k8s_pod_name), rule, time, event_uid FROM falco WHERE rule = 'r1'), \
         a AS (SELECT 'f' AS plane, concat(cluster, '/', k8s_pod_name) AS subject, rule AS what, time, event_uid FROM falco \
           UNION ALL SELECT 'k', concat(cluster, '/', objectref_name), verb, time, event_uid FROM kubernetes WHERE verb = 'create') \
         SELECT l.subject, count(*) AS n, array_agg(DISTINCT a.event_uid) AS evidence FROM l \
         JOIN a ON a.subject = l.subject AND a.plane <> l.plane {tail} GROUP BY l.subject"
    );
    ("subject".into(), sql)
}

fn join(random: &mut Random) -> (String, String) {
    let span = random.below(6) + 1;
    let grouped = random.one_in(2);
    let on = format!(
        "k.cluster = f.cluster AND k.objectref_name = f.k8s_pod_name AND f.time >= k.time AND f.time < k.time + INTERVAL '{span} seconds'"
    );
    let filter = random.pick(&[
        "k.verb = 'get'",
        "f.rule = 'r1'",
        "k.verb = 'get' AND f.rule = 'r2'",
        "k.actor_user_name <> 'cy'",
    ]);
    let sql = match grouped {
        true => format!(
            "SELECT k.cluster, k.objectref_name, count(DISTINCT f.event_uid) AS n, array_agg(DISTINCT k.event_uid) AS evidence \
             FROM kubernetes k JOIN falco f ON {on} WHERE {filter} GROUP BY k.cluster, k.objectref_name HAVING count(*) >= {}",
            random.below(2) + 1
        ),
        false => format!(
            "SELECT k.cluster, k.objectref_name, f.rule, k.event_uid AS evidence FROM kubernetes k JOIN falco f ON {on} WHERE {filter}"
        ),
    };
    ("cluster, objectref_name".into(), sql)
}

fn absence(random: &mut Random) -> (String, String) {
    let span = random.below(4) + 1;
    let on = format!(
        "a.cluster = b.cluster AND a.k8s_pod_name = b.objectref_name AND b.time >= a.time - INTERVAL '{span} seconds' AND b.time <= a.time"
    );
    let sql = match random.below(3) {
        0 => format!(
            "SELECT a.cluster, a.k8s_pod_name, a.event_uid AS evidence FROM falco a LEFT JOIN kubernetes b ON {on} WHERE b.event_uid IS NULL"
        ),
        1 => format!(
            "SELECT a.cluster, a.k8s_pod_name, array_agg(DISTINCT a.event_uid) AS evidence FROM falco a \
             WHERE a.rule = 'r1' AND NOT EXISTS (SELECT 1 FROM kubernetes b WHERE {on}) GROUP BY a.cluster, a.k8s_pod_name"
        ),
        _ => "SELECT cluster, k8s_pod_name, event_uid AS evidence FROM falco WHERE k8s_pod_name NOT IN \
              (SELECT objectref_name FROM kubernetes WHERE objectref_name IS NOT NULL AND verb = 'get')"
            .into(),
    };
    ("cluster, k8s_pod_name".into(), sql)
}

fn over(random: &mut Random) -> (String, String) {
    let sql = match random.below(2) {
        0 => {
            "SELECT actor_user_name, event_uid AS evidence FROM (SELECT actor_user_name, event_uid, time, \
              lag(time) OVER (PARTITION BY actor_user_name ORDER BY time, event_uid) AS before FROM kubernetes WHERE verb = 'get') \
              WHERE time - before < INTERVAL '2 seconds'"
        }
        _ => {
            "SELECT actor_user_name, event_uid AS evidence FROM (SELECT actor_user_name, event_uid, \
              row_number() OVER (PARTITION BY actor_user_name ORDER BY time, event_uid) AS n FROM kubernetes) WHERE n = 3"
        }
    };
    ("actor_user_name".into(), sql.into())
}

fn subquery(random: &mut Random) -> (String, String) {
    let sql = match random.below(3) {
        0 => {
            "SELECT actor_user_name, event_uid AS evidence FROM kubernetes WHERE verb = 'get' AND objectref_name IN \
              (SELECT k8s_pod_name FROM falco WHERE rule = 'r1')"
        }
        1 => {
            "SELECT actor_user_name, count(*) AS n, array_agg(event_uid) AS evidence FROM kubernetes GROUP BY actor_user_name \
              HAVING count(*) > (SELECT count(*) FROM falco)"
        }
        _ => {
            "SELECT k.actor_user_name, k.event_uid AS evidence FROM kubernetes k WHERE EXISTS \
              (SELECT 1 FROM kubernetes o WHERE o.actor_user_name = k.actor_user_name AND o.verb = 'create' AND o.time < k.time)"
        }
    };
    ("actor_user_name".into(), sql.into())
}

/// State tables that rules can name.
pub const STATES: [(&str, &str); 2] = [
    (
        "state/runs.sql",
        "/*\ntitle: What runs where\nkey: [cluster, pod]\n*/\n\
         SELECT cluster, k8s_pod_name AS pod, rule AS how, actor_user_name = 'cy' AND rule = 'r2' AS deleted FROM falco\n",
    ),
    (
        "state/names.sql",
        "/*\ntitle: What was last done to each name\nkey: [name]\n*/\n\
         SELECT objectref_name AS name, verb AS done, cluster AS place FROM kubernetes WHERE verb <> 'list'\n",
    ),
];

/// Rows of a window by what held at their time.
fn remembering(random: &mut Random) -> (String, String) {
    let at = |state: &str| format!("k.time >= {state}.valid_from AND k.time < {state}.valid_to");
    let sql = match random.below(4) {
        0 => format!(
            "SELECT k.cluster, k.objectref_name, s.how, k.event_uid AS evidence FROM kubernetes k JOIN runs s \
             ON s.cluster = k.cluster AND s.pod = k.objectref_name AND {} WHERE s.how = 'r1'",
            at("s")
        ),
        1 => format!(
            "SELECT k.cluster, k.objectref_name, count(*) AS n, array_agg(k.event_uid) AS evidence FROM kubernetes k \
             LEFT JOIN runs s ON s.cluster = k.cluster AND s.pod = k.objectref_name AND {} \
             WHERE s.pod IS NULL OR s.prev_how <> s.how GROUP BY k.cluster, k.objectref_name HAVING count(*) >= {}",
            at("s"),
            random.below(2) + 1
        ),
        2 => format!(
            "SELECT k.cluster, k.objectref_name, count(DISTINCT f.event_uid) AS n, array_agg(k.event_uid) AS evidence \
             FROM kubernetes k JOIN falco f ON f.cluster = k.cluster AND f.k8s_pod_name = k.objectref_name \
             JOIN names s ON s.name = k.objectref_name AND {} WHERE s.done <> k.verb OR s.prev_done IS NULL \
             GROUP BY k.cluster, k.objectref_name",
            at("s")
        ),
        _ => "SELECT k.cluster, k.objectref_name, k.event_uid AS evidence FROM kubernetes k \
              WHERE k.verb = 'get' AND k.objectref_name NOT IN (SELECT pod FROM runs WHERE how = 'r2')"
            .into(),
    };
    ("cluster, objectref_name".into(), sql)
}

fn with(random: &mut Random) -> (String, String) {
    let sql = match random.below(3) {
        0 => {
            "WITH x AS (SELECT actor_user_name AS who, objectref_name AS what, event_uid FROM kubernetes WHERE verb = 'list' \
              UNION ALL SELECT k8s_pod_name, rule, event_uid FROM falco) SELECT who, count(DISTINCT what) AS n, \
              array_agg(event_uid) AS evidence FROM x GROUP BY who HAVING count(DISTINCT what) >= 2"
        }
        1 => {
            "WITH top AS (SELECT actor_user_name, count(*) AS n FROM kubernetes GROUP BY actor_user_name) \
              SELECT t.actor_user_name AS who, t.n, k.event_uid AS evidence FROM top t JOIN kubernetes k \
              ON k.actor_user_name = t.actor_user_name WHERE t.n >= 3 AND k.verb = 'get'"
        }
        _ => {
            "SELECT actor_user_name AS who, event_uid AS evidence FROM kubernetes ORDER BY time DESC, event_uid LIMIT 3"
        }
    };
    ("who".into(), sql.into())
}
