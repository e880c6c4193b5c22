//! The stories that `generate` and `demo` plant, judged by the real pack, one at a time: every detection that is meant to
//! see an attack sees it, and a benign twin wakes nobody. Once as on a first day, when what is new is still being learned,
//! and as after a week.

use std::collections::BTreeSet;

use event::{Finding, Severity, Source, format_micros};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use synthetic::{Event, Planted, Played, Proof, SECOND, Spacing, attack};

use crate::play::{Arriving, Pack, play};

const START: i64 = 1_767_312_000 * SECOND;
/// CloudTrail's lateness, a bad day's.
const LATE: i64 = 720 * SECOND;
/// Events whose arrivals lie so near each other may change places.
const SHUFFLED: i64 = 5 * SECOND;
/// Each with other entities, another order and other crashes.
const SEEDS: u64 = 4;

/// What the process has seen before, and how fast the story goes.
#[derive(Clone, Copy, Debug)]
enum Day {
    First,
    FirstInBrief,
    Later,
}

const DAYS: [Day; 4] = [Day::Later, Day::First, Day::FirstInBrief, Day::Later];

#[test]
fn attacks_are_found_by_each_of_their_detections_and_twins_wake_nobody() {
    let pack = Pack::load();
    let only = std::env::var("STAKEOUT_STORY").ok();
    let (mut wrong, mut plays) = (Vec::new(), 0);
    for number in 0..attack::count() {
        for benign in [false, true] {
            let (mut others, mut allowed) = (BTreeSet::new(), BTreeSet::new());
            let mut truth = None;
            for seed in 0..SEEDS {
                let day = DAYS[(seed % 4) as usize];
                let spacing = if matches!(day, Day::FirstInBrief) { Spacing::Brief } else { Spacing::Real };
                let played = attack::play(seed, number, START, spacing, benign);
                if only.as_ref().is_some_and(|only| *only != played.truth.id) {
                    continue;
                }
                let mut random = StdRng::seed_from_u64(seed);
                let events = arriving(&played, day, &mut random);
                let found = play(&pack, &events, (events.len() / 10).max(8), &mut random);
                plays += 1;
                let verdict = judge(&played.truth, day, &found);
                wrong.extend(
                    verdict
                        .wrong
                        .into_iter()
                        .map(|why| format!("{} (seed {seed}, {day:?}): {why}", name(&played.truth))),
                );
                others.extend(verdict.others);
                allowed.extend(verdict.allowed);
                truth = Some(played.truth);
            }
            let Some(truth) = truth else { continue };
            let list = others.into_iter().collect::<Vec<_>>().join(", ");
            println!(
                "{}: {} detections{}{list}",
                name(&truth),
                truth.detections.len(),
                if list.is_empty() { "" } else { "; also " }
            );
            for rule in truth.allow.keys().filter(|rule| !allowed.contains(*rule)) {
                wrong.push(format!("{}: {rule} is allowed and never needs to be", name(&truth)));
            }
        }
    }
    assert!(plays > 0, "there is no story called {only:?}");
    assert!(wrong.is_empty(), "of {plays} plays:\n{}", wrong.join("\n"));
}

#[test]
fn the_truth_names_rules_of_the_pack_and_what_has_none() {
    let pack = Pack::load();
    let rules: BTreeSet<&str> = pack.knowledge.rules.rules.iter().map(|rule| rule.id.as_str()).collect();
    for number in 0..attack::count() {
        let truth = attack::play(1, number, START, Spacing::Brief, true).truth;
        for rule in truth.detections.iter().chain(&truth.while_learning).chain(truth.allow.keys()) {
            assert!(rules.contains(rule.as_str()), "{}: there is no rule {rule}", truth.id);
        }
        for rule in &truth.without_rule {
            assert!(
                !rules.contains(rule.as_str()),
                "{}: there is a rule {rule} now: say that it is meant to see this",
                truth.id
            );
        }
    }
}

fn name(truth: &Planted) -> String {
    format!("{} {}{}", truth.id, if truth.benign { "twin: " } else { "" }, truth.title)
}

fn arriving(played: &Played, day: Day, random: &mut StdRng) -> Vec<Arriving> {
    let past: &[Event] = if matches!(day, Day::Later) { &played.history } else { &[] };
    let mut events: Vec<Arriving> = past
        .iter()
        .chain(&played.events)
        .map(|event| {
            let late = if event.source == Source::CloudTrail { LATE } else { 0 };
            Arriving {
                arrival: event.time + late + random.random_range(0..SHUFFLED),
                source: event.source,
                cluster: event.cluster.map(str::to_owned),
                bytes: event.bytes.clone(),
            }
        })
        .collect();
    events.shuffle(random);
    events.sort_by_key(|e| e.arrival);
    events
}

#[derive(Default)]
struct Verdict {
    wrong: Vec<String>,
    /// Rules that also told of it.
    others: BTreeSet<String>,
    /// Of the truth's exceptions those that were needed.
    allowed: BTreeSet<String>,
}

fn judge(truth: &Planted, day: Day, found: &[Finding]) -> Verdict {
    let mut verdict = Verdict::default();
    let proof = proof(found);
    for finding in found {
        let meant = truth.detections.contains(&finding.rule) || truth.while_learning.contains(&finding.rule);
        if !meant || truth.benign {
            let learning = if finding.learning { ", learning" } else { "" };
            verdict.others.insert(format!("{} ({}{learning})", finding.rule, finding.severity));
        }
        if truth.benign {
            let tell = || {
                format!(
                    "{} {}: {} {}",
                    finding.rule,
                    finding.entity_text(),
                    finding.summary,
                    format_micros(finding.time.first())
                )
            };
            if truth.allow.contains_key(&finding.rule) {
                verdict.allowed.insert(finding.rule.clone());
            } else if truth.detections.contains(&finding.rule) {
                verdict.wrong.push(format!("must be silent, but {}", tell()));
            } else if finding.severity >= Severity::High && !finding.learning {
                verdict.wrong.push(format!("wakes somebody: {}", tell()));
            }
        }
    }
    if truth.benign {
        // What is new elsewhere is nothing new here.
        let new = truth.while_learning.iter().filter(|rule| matches!(day, Day::Later) && truth.seen_by(rule, &proof));
        verdict.wrong.extend(new.map(|rule| format!("{rule} has learned this")));
        return verdict;
    }
    verdict.wrong.extend(truth.missed(&proof).into_iter().map(|rule| format!("missed by {rule}")));
    for rule in &truth.while_learning {
        // The past was new in its time, and is told of too.
        let tells = found.iter().filter(|f| f.rule == *rule && truth.seen_by(rule, &self::proof([*f])));
        let of_it = truth.seen_by(rule, &proof);
        match day {
            Day::Later if !of_it => verdict.wrong.push(format!("missed by {rule}, which has learned enough")),
            Day::Later => {
                let unsure = tells.filter(|f| f.learning).count();
                verdict.wrong.extend((unsure > 0).then(|| format!("{rule} still learns after nine days")));
            }
            _ => {
                let sure = tells.filter(|f| !f.learning).count();
                verdict.wrong.extend((sure > 0).then(|| format!("{rule} is sure on its first day")));
            }
        }
    }
    verdict
}

fn proof<'f>(found: impl IntoIterator<Item = &'f Finding>) -> Proof {
    let mut proof = Proof::default();
    for finding in found {
        for event in &finding.evidence.events {
            proof.add(&finding.rule, &event.event_uid, event.raw.as_bytes());
        }
    }
    proof
}
