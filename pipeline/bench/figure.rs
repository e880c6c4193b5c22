//! Figures as data: what was measured, against which floor and goal. `benches/goals.yaml` says what there is to measure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const GOALS: &str = include_str!("../../benches/goals.yaml");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    More,
    Less,
}

/// Of the value itself, or of its ratio to the floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    Value(f64),
    Ratio(f64),
}

/// An entry of `goals.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    what: String,
    unit: String,
    better: Better,
    floor: Option<String>,
    goal: Option<Goal>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub what: String,
    pub unit: String,
    pub better: Better,
    pub value: f64,
    pub floor: Option<Floor>,
    /// Above 1: better than the floor, whichever way is better.
    pub ratio: Option<f64>,
    pub goal: Option<Goal>,
    pub reached: Option<bool>,
}

/// What the machine does of something comparable, in the figure's unit, in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    pub what: String,
    pub value: f64,
}

/// The figures of one run, in the order of `goals.yaml`.
pub struct Figures {
    entries: Vec<Entry>,
    measured: BTreeMap<String, (f64, Option<f64>)>,
}

impl Figures {
    pub fn new() -> Result<Figures> {
        let entries = serde_saphyr::from_str(GOALS).context("benches/goals.yaml")?;
        Ok(Figures { entries, measured: BTreeMap::new() })
    }

    pub fn add(&mut self, name: &str, value: f64) {
        self.measured.insert(name.to_owned(), (value, None));
    }

    pub fn add_against(&mut self, name: &str, value: f64, floor: f64) {
        self.measured.insert(name.to_owned(), (value, Some(floor)));
    }

    /// An error if something was measured that `goals.yaml` does not know, or with a floor where it has none.
    pub fn finish(mut self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for entry in self.entries {
            if let Some((value, floor)) = self.measured.remove(&entry.name) {
                figures.push(entry.figure(value, floor)?);
            }
        }
        if let Some((name, _)) = self.measured.first_key_value() {
            bail!("figure `{name}` is not in benches/goals.yaml\nhint: say there what it is, and its goal");
        }
        Ok(figures)
    }
}

impl Entry {
    fn figure(self, value: f64, floor: Option<f64>) -> Result<Figure> {
        if floor.is_some() != self.floor.is_some() {
            bail!("figure `{}`: benches/goals.yaml and what measures it differ about the floor", self.name);
        }
        let ratio = floor.filter(|floor| *floor > 0.0 && value > 0.0).map(|floor| match self.better {
            Better::More => value / floor,
            Better::Less => floor / value,
        });
        let reached = self.goal.and_then(|goal| match (goal, self.better) {
            (Goal::Ratio(goal), _) => ratio.map(|ratio| ratio >= goal),
            (Goal::Value(goal), Better::More) => Some(value >= goal),
            (Goal::Value(goal), Better::Less) => Some(value <= goal),
        });
        let floor = self.floor.zip(floor).map(|(what, value)| Floor { what, value });
        let Entry { name, what, unit, better, goal, .. } = self;
        Ok(Figure { name, what, unit, better, value, floor, ratio, goal, reached })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(add: impl FnOnce(&mut Figures)) -> Result<Vec<Figure>> {
        let mut figures = Figures::new().expect("goals.yaml is well formed");
        add(&mut figures);
        figures.finish()
    }

    #[test]
    fn goals_are_of_the_value_or_of_the_ratio_and_a_ratio_above_one_is_better() {
        let made = figures(|f| {
            f.add_against("rules-100", 200.0, 700.0);
            f.add_against("normalize-synthetic", 200.0, 1_000.0);
            f.add("disk", 0.2);
            f.add("peak-memory", 600.0);
            f.add_against("search-word", 4.0, 2.0);
        });
        let made = made.unwrap();
        let of = |name: &str| {
            let f = made.iter().find(|f| f.name == name).unwrap();
            (f.ratio, f.reached)
        };
        assert_eq!(of("rules-100"), (Some(3.5), Some(true)));
        assert_eq!(of("normalize-synthetic"), (Some(0.2), Some(false)));
        assert_eq!(of("disk"), (None, Some(true)));
        assert_eq!(of("peak-memory"), (None, Some(false)));
        assert_eq!(of("search-word"), (Some(0.5), None));
        assert_eq!(made[0].name, "normalize-synthetic", "the order is that of the file");
    }

    #[test]
    fn what_goals_yaml_does_not_know_is_an_error() {
        let error = figures(|f| f.add("surprise", 1.0)).unwrap_err().to_string();
        assert!(error.contains("`surprise` is not in benches/goals.yaml"), "{error}");
        assert!(figures(|f| f.add("normalize-synthetic", 1.0)).is_err(), "its floor is missing");
    }
}
