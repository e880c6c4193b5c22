//! Which windowed rules have the same panes: the same rows in the same windows, by the same keys, counted in the same way.
//! They differ in their HAVING and in what they say: thresholds of several severities are the usual case. A family has one
//! set of panes. It is made where states are made, for rules that begin at the same boundary; a rule that changes leaves it.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::Micros;

use crate::rule::{Body, Rule};

/// Windowed rules with the boundary at which each begins, as families. Every rule is in one, mostly alone.
pub(crate) fn families<'r>(rules: impl Iterator<Item = (&'r Arc<Rule>, Micros)>) -> Vec<(Vec<Arc<Rule>>, Micros)> {
    let mut families: Vec<(Vec<Arc<Rule>>, Micros)> = Vec::new();
    // Most rules differ in what is quick to compare.
    let mut alike: BTreeMap<(Micros, i64, &[String]), Vec<usize>> = BTreeMap::new();
    for (rule, start) in rules {
        let alike = alike.entry((start, rule.windowed().window.window_us, &rule.tables)).or_default();
        match alike.iter().find(|family| have_same_panes(&families[**family].0[0], rule)) {
            Some(family) => families[*family].0.push(rule.clone()),
            None => {
                alike.push(families.len());
                families.push((vec![rule.clone()], start));
            }
        }
    }
    families
}

pub(crate) fn have_same_panes(one: &Rule, other: &Rule) -> bool {
    let (Body::Windowed(a), Body::Windowed(b)) = (&one.body, &other.body) else { return false };
    match (&a.shape, &b.shape) {
        (Ok(x), Ok(y)) => a.window == b.window && one.tables == other.tables && x.has_panes_of(y),
        _ => false,
    }
}
