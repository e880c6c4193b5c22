//! The sieves of all windowed rules over one batch: one scan picks, per leg, the rows that pass. A leg that a batch does
//! not touch costs nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::TableSchema;

use super::live::Live;
use crate::scan::{Question, Rows, Scan};

/// Rule, leg and part.
type Place = (String, usize, usize);

pub struct Together {
    /// The keys of the scan are positions in `places`.
    scan: Scan,
    places: Vec<Place>,
}

/// What of a batch a leg has to look at.
pub enum Chosen {
    All,
    Rows(Vec<u32>),
}

/// One batch's rows by place. Places that are not there look at all rows.
pub struct Choices(HashMap<Place, Vec<u32>>);

impl Together {
    pub fn new<'a>(states: impl IntoIterator<Item = (&'a String, &'a Live)>, schemas: &[Arc<TableSchema>]) -> Together {
        let (mut questions, mut places) = (Vec::new(), Vec::new());
        for (id, state) in states {
            for (leg, number, part) in state.all_parts() {
                // Of a part that keeps everything there is nothing to choose.
                let Some(keeps) = part.keeps.clone().filter(|keeps| !keeps.is_empty()) else { continue };
                questions.push(Question { key: places.len() as u32, table: part.table.clone(), keeps, output: None });
                places.push((id.clone(), leg, number));
            }
        }
        let scan = Scan::new(&questions, schemas);
        for (key, _) in &scan.refused {
            // No place: its leg looks at all rows.
            places[*key as usize].0.clear();
        }
        Together { scan, places }
    }

    pub fn choose(&self, table: &str, batch: &RecordBatch) -> Choices {
        let mut chosen: HashMap<Place, Vec<u32>> =
            self.places.iter().map(|place| (place.clone(), Vec::new())).collect();
        for answer in self.scan.run(table, batch) {
            let rows = match answer.rows {
                Rows::Passed(rows, _) => rows,
                // Which of these fail is found by the leg itself.
                Rows::Failed(candidates, _) => candidates,
            };
            chosen.insert(self.places[answer.key as usize].clone(), rows);
        }
        Choices(chosen)
    }
}

impl Choices {
    /// All rows for everyone.
    pub fn all() -> Choices {
        Choices(HashMap::new())
    }

    pub fn of(&mut self, rule: &str, leg: usize, part: usize) -> Chosen {
        self.0.remove(&(rule.to_owned(), leg, part)).map_or(Chosen::All, Chosen::Rows)
    }
}
