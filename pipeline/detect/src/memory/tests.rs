//! The two memories alone, without SQL, against plain loops: thousands of random streams with late rows, ties, commits
//! and crashes. What is judged when the watermark has passed must be what all rows that were stored in the end say.

use std::collections::BTreeMap;

use event::Micros;

use super::mark::Mark;
use super::seen::{Answer, Seen};
use super::versions::{FORGET_US, Versions};

const H: i64 = 3_600_000_000;
const INTERVAL: i64 = 6 * H;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

#[derive(Clone, Debug)]
struct Row {
    key: u8,
    mark: Mark,
    value: Option<u8>,
}

type Held = Option<(u8, Option<u8>)>;

/// First seen, and what the state table says.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    new: Option<bool>,
    held: Option<Held>,
}

struct Engine {
    seen: Seen,
    versions: Versions,
    settled: Micros,
    waiting: Vec<Row>,
}

impl Engine {
    fn start(settled: Micros, stored: &[Row]) -> Engine {
        let floor = Seen::floor_at(INTERVAL, settled);
        let (seen, versions) = (Seen::new(INTERVAL, settled, floor), Versions::new());
        let mut engine = Engine { seen, versions, settled, waiting: Vec::new() };
        stored.iter().for_each(|row| engine.take(row));
        engine
    }

    fn take(&mut self, row: &Row) {
        self.seen.add(row.key.into(), &row.mark);
        let value = row.value.map(|v| [v]);
        self.versions.add(&[row.key], row.mark.clone(), value.as_ref().map(|v| v.as_slice()));
        if row.mark.boundary() > self.settled {
            self.waiting.push(row.clone());
        }
    }

    /// What is final, with what is not known left open.
    fn commit(&mut self, to: Micros, judged: &mut BTreeMap<[u8; 16], Judged>) {
        let (due, waiting) = self.waiting.drain(..).partition(|r: &Row| r.mark.boundary() <= to);
        self.waiting = waiting;
        for Row { key, mark, .. } in &due {
            let new = match self.seen.answer((*key).into(), mark) {
                Answer::New => Some(true),
                Answer::Seen => Some(false),
                Answer::Unknown => None,
            };
            let shown = self.versions.at(&[*key], mark).map(|s| (s.values[0], s.previous.map(|p| p[0])));
            let held = self.versions.reaches(mark.time).then_some(shown);
            let again = judged.insert(mark.hash, Judged { new, held });
            assert!(again.is_none(), "judged twice");
        }
        let _: Vec<Row> = due;
        self.settled = self.settled.max(to);
        self.seen.advance(self.settled);
        self.versions.advance(to);
    }
}

fn naive(rows: &[Row], e: &Row) -> (bool, Held) {
    let sees = |s: &Row| s.key == e.key && s.mark.stamp < e.mark.time.max(e.mark.stamp) + 1;
    let before = |s: &Row| (s.mark.time, &s.mark.uid) < (e.mark.time, &e.mark.uid);
    let new = !rows.iter().any(|s| sees(s) && before(s) && s.mark.time >= e.mark.time - INTERVAL);
    let at_or_before = |s: &&Row| sees(s) && (s.mark.time, &s.mark.uid) <= (e.mark.time, &e.mark.uid);
    let mut versions: Vec<&Row> = rows.iter().filter(at_or_before).collect();
    versions.sort_by_key(|s| (s.mark.time, s.mark.uid.clone(), s.mark.hash));
    let now = versions.len() - 1;
    let held = versions[now].value.map(|value| {
        let live = (0..now).rev().find(|at| versions[*at].value.is_some());
        let live = live.filter(|at| versions[now].mark.time - versions[at + 1].mark.time <= FORGET_US);
        (value, live.and_then(|at| versions[at].value))
    });
    (new, held)
}

/// Returns how many answers there were, and how many memory left open.
fn case(seed: u64) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    let count = 2 + random.below(60);
    let (span, jitter) = (random.pick(&[3, 20, 100, 900]), random.pick(&[0, 4, 40, 200]));
    let (keys, lateness) = (random.pick(&[1, 3]), random.pick(&[0, 2 * H, 12 * H]));
    let mut rows: Vec<(i64, Row)> = (0..count)
        .map(|n| {
            let time = random.below(2 * span) as i64 * H / 2 + random.pick(&[0, 0, 0, 1]);
            let uid = format!("u{}", random.below(2 * count)).into();
            let mut hash = [0; 16];
            hash[..8].copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..8]);
            let value = (random.below(3) > 0).then(|| random.below(3) as u8);
            let key = random.below(keys) as u8;
            let arrival = time + random.below(jitter + 1) as i64 * H;
            (arrival, Row { key, mark: Mark { time, uid, stamp: Micros::MIN, hash }, value })
        })
        .collect();
    rows.sort_by_key(|(arrival, _)| *arrival);
    let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();

    let (mut watermark, mut committed, mut kept) = (Micros::MIN, Micros::MIN, Micros::MIN);
    let mut engine = Engine::start(kept, &[]);
    let mut judged = BTreeMap::new();
    let (mut next, mut stored) = (0, 0);
    let (commits, crashes) = (random.pick(&[1, 3, 10]), random.pick(&[5, 20, 1_000_000]));
    while stored < rows.len() {
        if next < rows.len() {
            rows[next].mark.stamp = watermark;
            watermark = watermark.max(rows[next].mark.time - lateness);
            engine.take(&rows[next]);
            next += 1;
        }
        if next == rows.len() || random.below(commits) == 0 {
            (stored, committed) = (next, watermark);
            // Between the store's commit and the frontier's a crash can come, too.
            if random.below(crashes) > 0 {
                engine.commit(committed, &mut judged);
                kept = committed;
            }
        }
        if random.below(crashes) == 0 {
            (next, watermark) = (stored, committed);
            engine = Engine::start(kept, &rows[..stored]);
        }
    }
    for hours in [1, 5, 30, 400, 3_000] {
        engine.commit(committed.max(0) + hours * H, &mut judged);
    }
    assert_eq!(judged.len(), rows.len(), "seed {seed}: every row is judged");
    let mut open = 0;
    for row in &rows {
        let Judged { new, held } = &judged[&row.mark.hash];
        let expected = naive(&rows, row);
        open += usize::from(new.is_none()) + usize::from(held.is_none());
        let got = (new.unwrap_or(expected.0), held.unwrap_or(expected.1));
        assert_eq!(got, expected, "seed {seed}: {row:?} among {rows:#?}");
    }
    (2 * rows.len(), open)
}

#[test]
fn what_is_remembered_is_what_was_stored() {
    let cases = std::env::var("MEMORY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let (mut answers, mut open) = (0, 0);
    for seed in 0..cases {
        let (more, left) = case(seed);
        answers += more;
        open += left;
    }
    println!("{cases} cases, {answers} answers, {open} left to the store");
    assert!(open > 0 && open * 5 < answers, "{open} of {answers} are left to the store");
}

/// What keys and rows cost: `cargo test -p detect cost_of_memory -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_memory() {
    const KEYS: u64 = 1_000_000;
    let mark = |n: u64, day: i64| {
        let time = day * 24 * H + n as i64;
        Mark {
            time,
            uid: format!("{n:08x}-0000-4000-8000-000000000000/ResponseComplete").into(),
            stamp: time,
            hash: [0; 16],
        }
    };
    let mut seen = Seen::new(30 * 24 * H, Micros::MIN, Micros::MIN);
    let started = std::time::Instant::now();
    let key = |n: u64| super::judge::hash(&n.to_le_bytes());
    (0..KEYS).for_each(|n| seen.add(key(n), &mark(n, 100)));
    let fresh = seen.bytes();
    seen.advance(101 * 24 * H);
    println!(
        "{KEYS} keys: {} bytes each while fresh, {} when settled, {} ns a row",
        fresh as u64 / KEYS,
        seen.bytes() as u64 / KEYS,
        started.elapsed().as_nanos() as u64 / KEYS
    );
    let started = std::time::Instant::now();
    let found = (0..KEYS).filter(|n| seen.answer(key(*n), &mark(*n, 102)) == Answer::Seen).count();
    println!("{found} answers, {} ns each", started.elapsed().as_nanos() as u64 / KEYS);
}
