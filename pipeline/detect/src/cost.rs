//! What each single-event rule costs. A rule that a batch does not touch costs nothing, not even counting; the time
//! is what is spent on the rule alone, without what all rules share (distinct values, paths into `raw`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time per minute that a rule may take: a twentieth of a core. A rule beyond it is evaluated all the same; it is
/// named, because a handful of such rules is what makes a pipeline fall behind.
pub const BUDGET: Duration = Duration::from_secs(3);

/// The minute is counted in so many parts.
const PARTS: usize = 6;
const PART: Duration = Duration::from_secs(10);

/// Metrics follow at this distance.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Counted since the engine was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCost {
    pub rule: String,
    /// Rows of the tables it reads.
    pub rows: u64,
    /// Rows on which its own expressions were evaluated.
    pub candidates: u64,
    pub findings: u64,
    pub nanos: u64,
    /// Took more than [`BUDGET`] in the last minute.
    pub over_budget: bool,
}

#[derive(Debug)]
pub struct Costs {
    rules: Vec<Ledger>,
    /// Rows seen by table: what all rules of a table have in common is counted once.
    rows: BTreeMap<String, u64>,
    shown: Option<Instant>,
    /// When the current part of the minute began, and which it is.
    part: Option<(Instant, usize)>,
}

#[derive(Debug, Default)]
struct Ledger {
    cost: RuleCost,
    tables: Vec<String>,
    /// What metrics know.
    shown: RuleCost,
    minute: [u64; PARTS],
    /// Nanoseconds that no part of the minute has yet.
    fresh: u64,
}

impl Costs {
    /// Rules with the tables they read.
    pub fn new(rules: Vec<(String, Vec<String>)>) -> Costs {
        let ledger = |(rule, tables): (String, Vec<String>)| Ledger {
            cost: RuleCost { rule, ..RuleCost::default() },
            tables,
            ..Ledger::default()
        };
        Costs { rules: rules.into_iter().map(ledger).collect(), rows: BTreeMap::new(), shown: None, part: None }
    }

    pub fn spend(&mut self, rule: usize, candidates: u64, findings: u64, nanos: u64) {
        let ledger = &mut self.rules[rule];
        ledger.cost.candidates += candidates;
        ledger.cost.findings += findings;
        ledger.cost.nanos += nanos;
        ledger.fresh += nanos;
    }

    /// Counts the rows of a batch, after what its rules spent. Now and then metrics are brought up to date.
    pub fn see(&mut self, table: &str, rows: u64, now: Instant) {
        match self.rows.get_mut(table) {
            Some(seen) => *seen += rows,
            None => drop(self.rows.insert(table.to_owned(), rows)),
        }
        if self.shown.is_none_or(|shown| now.duration_since(shown) >= SHOW_EVERY) {
            self.shown = Some(now);
            self.turn(now);
            self.judge();
            self.show();
        }
    }

    pub fn all(&self) -> Vec<RuleCost> {
        self.rules.iter().map(|ledger| RuleCost { rows: self.rows_of(ledger), ..ledger.cost.clone() }).collect()
    }

    fn rows_of(&self, ledger: &Ledger) -> u64 {
        ledger.tables.iter().filter_map(|table| self.rows.get(table)).sum()
    }

    /// Forgets what is older than a minute and counts what is new.
    fn turn(&mut self, now: Instant) {
        let (began, part) = *self.part.get_or_insert((now, 0));
        let gone = (now.duration_since(began).as_secs() / PART.as_secs()) as usize;
        let part_now = (part + gone) % PARTS;
        self.part = Some((began + PART * gone as u32, part_now));
        for ledger in &mut self.rules {
            (1..=gone.min(PARTS)).for_each(|n| ledger.minute[(part + n) % PARTS] = 0);
            ledger.minute[part_now] += std::mem::take(&mut ledger.fresh);
        }
    }

    fn judge(&mut self) {
        for ledger in &mut self.rules {
            let minute = Duration::from_nanos(ledger.minute.iter().sum());
            let over = minute > BUDGET;
            if over != ledger.cost.over_budget {
                ledger.cost.over_budget = over;
                let rule = &ledger.cost.rule;
                metrics::gauge!("stakeout_rule_over_budget", "rule" => rule.clone()).set(f64::from(u8::from(over)));
                match over {
                    true => tracing::warn!(rule, ?minute, budget = ?BUDGET, "rule takes more than its budget"),
                    false => tracing::info!(rule, "rule is within its budget again"),
                }
            }
        }
    }

    fn show(&mut self) {
        for n in 0..self.rules.len() {
            let rows = self.rows_of(&self.rules[n]);
            let Ledger { cost, shown, .. } = &mut self.rules[n];
            let show = |name: &'static str, now: u64, before: &mut u64| {
                if now > *before {
                    metrics::counter!(name, "rule" => cost.rule.clone()).increment(now - *before);
                    *before = now;
                }
            };
            show("stakeout_rule_rows_total", rows, &mut shown.rows);
            show("stakeout_rule_candidates_total", cost.candidates, &mut shown.candidates);
            show("stakeout_rule_nanoseconds_total", cost.nanos, &mut shown.nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_over_its_budget_is_named_until_a_minute_has_passed() {
        let start = Instant::now();
        let mut costs = Costs::new(vec![("slow".into(), vec!["t".into()]), ("idle".into(), vec!["other".into()])]);
        let mut check = |second: u64, nanos: u64, expected: bool| {
            costs.spend(0, 5, 1, nanos);
            costs.see("t", 10, start + Duration::from_secs(second));
            let all = costs.all();
            assert_eq!((all[0].over_budget, all[1].over_budget), (expected, false), "second {second}");
        };
        check(0, 2_000_000_000, false);
        check(20, 900_000_000, false);
        check(30, 900_000_000, true);
        check(59, 0, true);
        check(75, 0, false);
        check(300, 2_900_000_000, false);
        check(301, 200_000_000, true);
        check(500, 0, false);
        let all = costs.all();
        assert_eq!((all[0].rows, all[0].candidates, all[0].findings), (80, 40, 8));
        assert_eq!(all[1], RuleCost { rule: "idle".into(), ..RuleCost::default() });
    }
}
