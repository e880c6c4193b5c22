//! A story while it is played: a clock of its own, and drafts of events without their times. Only when it is over is it
//! known how long it took; then it is stretched to the wanted spacing, and each event gets its times.

use std::collections::BTreeMap;

use event::{Micros, Source, format_micros};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::Value;

use super::cast::Cast;
use super::{cloudtrail, falco, kubernetes};
use crate::{Event, SECOND};

const DAY: Micros = 86_400 * SECOND;

/// How far apart the steps of a story are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// As in life: seconds to an hour.
    Real,
    /// Pressed together, so that nobody waits: for a demo.
    Brief,
}

/// A story in [`Spacing::Brief`] is over in this time; its twin, which begins later, too.
const BRIEF: Micros = 20 * SECOND;

/// What an event is to the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Days before: what was normal.
    History,
    /// Around it: it goes on whether or not the story happens.
    Scenery,
    Act,
}

/// An event whose times are still to be filled in.
pub(super) struct Draft {
    pub source: Source,
    pub body: Value,
    /// Between the arrival of the request and this stage of it.
    pub took: Micros,
    pub part: Part,
    /// Since the story began.
    pub at: Micros,
}

impl Draft {
    pub fn new(source: Source, body: Value) -> Draft {
        Draft { source, body, took: 0, part: Part::Act, at: 0 }
    }
}

pub(super) struct Scene {
    pub rng: SmallRng,
    pub cast: Cast,
    /// What is now is counted from here.
    pub start: Micros,
    /// How far `start` is moved back.
    past: Micros,
    clock: Micros,
    part: Part,
    drafts: Vec<Draft>,
    pub entity: BTreeMap<String, String>,
}

impl Scene {
    pub fn new(mut rng: SmallRng, start: Micros, benign: bool) -> Scene {
        let cast = Cast::draw(&mut rng, benign);
        Scene { rng, cast, start, past: 0, clock: 0, part: Part::Act, drafts: Vec::new(), entity: BTreeMap::new() }
    }

    /// Names who or what the story is about.
    pub fn about(&mut self, what: &str, who: impl Into<String>) {
        self.entity.insert(what.to_owned(), who.into());
    }

    /// About so many seconds pass.
    pub fn wait(&mut self, seconds: i64) {
        self.clock += seconds * SECOND + self.rng.random_range(1..SECOND.min(200_000 + seconds * 100_000));
    }

    pub fn wait_ms(&mut self, ms: i64) {
        self.clock += ms * 1_000 + self.rng.random_range(0..1_000);
    }

    /// What was going on days before.
    pub fn history(&mut self, days: i64, tell: impl FnOnce(&mut Scene)) {
        let now = std::mem::replace(&mut self.clock, 0);
        self.past = days * DAY;
        self.start -= self.past;
        self.within(Part::History, tell);
        self.start += self.past;
        self.past = 0;
        self.clock = now;
    }

    /// What goes on around the story, now.
    pub fn scenery(&mut self, tell: impl FnOnce(&mut Scene)) {
        self.within(Part::Scenery, tell);
    }

    fn within(&mut self, part: Part, tell: impl FnOnce(&mut Scene)) {
        let outer = std::mem::replace(&mut self.part, part);
        tell(self);
        self.part = outer;
    }

    pub fn kubernetes(&mut self, call: kubernetes::Call) {
        let draft = call.complete(&mut self.rng);
        self.push(draft);
    }

    /// A request that switches protocols and stays open for so many seconds: two stages of one audit id.
    pub fn stream(&mut self, call: kubernetes::Call, seconds: i64) {
        let (started, mut complete) = call.stream(&mut self.rng);
        self.push(started);
        let begun = self.clock;
        self.clock += seconds * SECOND + self.rng.random_range(1..SECOND);
        complete.took += self.clock - begun;
        self.push(complete);
        self.clock = begun;
    }

    pub fn cloudtrail(&mut self, record: cloudtrail::Record) {
        let draft = record.draft(&mut self.rng);
        self.push(draft);
    }

    pub fn falco(&mut self, alert: falco::Alert) {
        let draft = alert.draft(&mut self.rng);
        self.push(draft);
    }

    fn push(&mut self, draft: Draft) {
        self.drafts.push(Draft { part: self.part, at: self.clock - self.past, ..draft });
    }

    /// History, and the story itself, each in order of time.
    pub fn render(mut self, spacing: Spacing) -> (Vec<Event>, Vec<(Part, Event)>) {
        self.drafts.sort_by_key(|draft| draft.at);
        let longest = self.drafts.last().map_or(0, |draft| draft.at).max(1);
        let squeeze = |at: Micros| match spacing {
            Spacing::Brief if longest > BRIEF && at > 0 => {
                (i128::from(at) * i128::from(BRIEF) / i128::from(longest)) as i64
            }
            _ => at,
        };
        let (mut history, mut story) = (Vec::new(), Vec::new());
        for draft in self.drafts {
            let part = draft.part;
            let time = self.start + squeeze(draft.at);
            // A request that was open for half the story is squeezed with it.
            let took =
                if draft.took > SECOND { squeeze(draft.at) - squeeze(draft.at - draft.took) } else { draft.took };
            let event = finish(draft, self.cast.cluster.name, time, took);
            match part {
                Part::History => history.push(event),
                _ => story.push((part, event)),
            }
        }
        // CloudTrail's whole seconds may have moved a record before its neighbours.
        history.sort_by_key(|event| event.time);
        story.sort_by_key(|(_, event)| event.time);
        (history, story)
    }
}

fn finish(draft: Draft, cluster: &'static str, time: Micros, took: Micros) -> Event {
    let Draft { source, mut body, .. } = draft;
    fill(&mut body, &format_micros(time - time.rem_euclid(SECOND)));
    let time = match source {
        Source::Kubernetes => kubernetes::stamp(&mut body, time - took, time),
        Source::CloudTrail => cloudtrail::stamp(&mut body, time),
        Source::Falco => falco::stamp(&mut body, time),
    };
    let bytes = serde_json::to_vec(&body).expect("a JSON value is JSON");
    Event { source, cluster: (source != Source::CloudTrail).then_some(cluster), time, bytes }
}

/// Stands in bodies for the time of their event.
pub(super) const NOW: &str = "{now}";

fn fill(value: &mut Value, now: &str) {
    match value {
        Value::String(text) if text == NOW => now.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, now)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill(field, now)),
        _ => {}
    }
}
