//! A story and its benign twin, and how they are played: twice the same stage, once with a thief on it.

use std::collections::BTreeMap;

use event::Micros;

use super::cast::draw;
use super::scene::{Scene, Spacing};
use super::scenery::quiet_days;
use super::truth::Planted;
use crate::Event;

pub(super) struct Story {
    pub id: &'static str,
    pub title: &'static str,
    /// What the twin is.
    pub twin: &'static str,
    /// Rules of the pack that are meant to see it, and not the twin.
    pub detections: &'static [&'static str],
    /// Detections that are meant to see it and have no rule yet.
    pub without_rule: &'static [&'static str],
    /// Rules that see it too once they have learned what is normal.
    pub while_learning: &'static [&'static str],
    /// What may be told of the twin, and why.
    pub allow: &'static [(&'static str, &'static str)],
    pub attack: fn(&mut Scene),
    pub benign: fn(&mut Scene),
}

/// A story as it was played.
#[derive(Clone, Debug)]
pub struct Played {
    pub truth: Planted,
    /// What happened nine days before, for those who want a past.
    pub history: Vec<Event>,
    /// The story with what goes on around it, by time.
    pub events: Vec<Event>,
}

impl Story {
    /// The same seed and number give the same entities and the same bytes.
    pub fn play(&self, seed: u64, number: u64, start: Micros, spacing: Spacing, benign: bool) -> Played {
        let mut scene = Scene::new(draw(seed ^ if benign { 0x7219_0000 } else { 0xA77A_C4ED }, number), start, benign);
        quiet_days(&mut scene);
        if benign {
            (self.benign)(&mut scene)
        } else {
            (self.attack)(&mut scene)
        }
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let allow = self.allow.iter().filter(|_| benign);
        let truth = Planted {
            id: self.id.to_owned(),
            title: if benign { self.twin } else { self.title }.to_owned(),
            benign,
            detections: texts(self.detections),
            without_rule: texts(self.without_rule),
            while_learning: texts(self.while_learning),
            allow: allow.map(|(rule, why)| ((*rule).to_owned(), (*why).to_owned())).collect::<BTreeMap<_, _>>(),
            entity: std::mem::take(&mut scene.entity),
            first: String::new(),
            last: String::new(),
            events: Vec::new(),
        };
        let (history, events) = scene.render(spacing);
        let truth = truth.with_events(&events);
        Played { truth, history, events: events.into_iter().map(|(_, event)| event).collect() }
    }
}
