//! Since when a table has a history, as each row sees it: the lowest time of the rows visible to it. Kept as the few
//! (stamp, time) at which that falls.

use std::collections::BTreeMap;

use event::Micros;

#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// By stamp, times falling.
    steps: BTreeMap<Micros, Micros>,
}

impl Begin {
    /// A row with this time, stamped so.
    pub fn add(&mut self, stamp: Micros, time: Micros) {
        if self.steps.range(..=stamp).next_back().is_some_and(|(_, have)| *have <= time) {
            return;
        }
        let useless: Vec<Micros> =
            self.steps.range(stamp..).take_while(|(_, have)| **have >= time).map(|(stamp, _)| *stamp).collect();
        for stamp in useless {
            self.steps.remove(&stamp);
        }
        self.steps.insert(stamp, time);
    }

    /// The lowest time of rows stamped before `boundary`.
    pub fn before(&self, boundary: Micros) -> Option<Micros> {
        self.steps.range(..boundary).next_back().map(|(_, time)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boundary_has_the_lowest_time_stamped_before_it() {
        let rows = [(5, 40), (3, 50), (9, 45), (7, 20), (7, 30), (1, 60), (12, 10), (5, 39)];
        let mut begin = Begin::default();
        rows.iter().for_each(|(stamp, time)| begin.add(*stamp, *time));
        for boundary in 0..15 {
            let expected = rows.iter().filter(|(stamp, _)| *stamp < boundary).map(|(_, time)| *time).min();
            assert_eq!(begin.before(boundary), expected, "before {boundary}");
        }
        assert!(begin.steps.len() <= 5);
    }
}
