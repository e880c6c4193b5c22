//! Which rules a batch can touch. Every rule asks for some terms, each a list of keys of which a row must pass one.
//! Keys are found by looking each distinct value up once, so a batch costs its values, whatever the number of rules;
//! a rule is touched when all of its terms are, and then starts from the rows of the rarest one.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::error::{DataFusionError, Result};
use foldhash::fast::RandomState;

use super::codes::{Codes, NONE, hash_text, number, text};
use super::need::{At, Constant, Key};

#[derive(Default)]
pub struct Index {
    columns: Vec<Looked>,
    /// The rule of each term.
    rule_of: Vec<u32>,
    /// Terms per rule.
    terms_of: Vec<u32>,
}

/// The keys on one column.
struct Looked {
    column: usize,
    /// The keys are for elements of lists.
    elements: bool,
    texts: Texts,
    numbers: HashMap<i64, Vec<u32>, RandomState>,
    patterns: Vec<(Box<str>, At, u32)>,
    automaton: Option<AhoCorasick>,
}

/// Texts to terms, by the hash that codes have already.
#[derive(Default)]
struct Texts {
    slots: Vec<u32>,
    entries: Vec<(u64, Box<str>, Vec<u32>)>,
    /// While rules are added.
    places: HashMap<Box<str>, usize>,
}

/// A rule that a batch touches, and the rows it starts from.
#[derive(Debug)]
pub struct Touched {
    pub rule: u32,
    pub rows: Vec<u32>,
}

impl Index {
    /// Adds a rule with its terms; rules are counted from 0.
    pub fn add(&mut self, terms: Vec<Vec<Key>>) {
        let rule = self.terms_of.len() as u32;
        self.terms_of.push(terms.len() as u32);
        for keys in terms {
            let term = self.rule_of.len() as u32;
            self.rule_of.push(rule);
            for key in keys {
                self.add_key(key, term);
            }
        }
    }

    fn add_key(&mut self, key: Key, term: u32) {
        match key {
            Key::Value(column, Constant::Text(text)) => self.looked(column, false).texts.add(text, term),
            Key::Value(column, Constant::Number(number)) => {
                self.looked(column, false).numbers.entry(number).or_default().push(term);
            }
            Key::Element(column, text) => self.looked(column, true).texts.add(text, term),
            Key::Pattern(column, pattern) => {
                self.looked(column, false).patterns.push((pattern.literal, pattern.at, term));
            }
        }
    }

    fn looked(&mut self, column: usize, elements: bool) -> &mut Looked {
        let known = self.columns.iter().position(|c| c.column == column && c.elements == elements);
        let at = known.unwrap_or_else(|| {
            self.columns.push(Looked {
                column,
                elements,
                texts: Texts::default(),
                numbers: HashMap::default(),
                patterns: Vec::new(),
                automaton: None,
            });
            self.columns.len() - 1
        });
        &mut self.columns[at]
    }

    /// Call once after the last rule.
    pub fn finish(&mut self, state: &RandomState) -> Result<()> {
        for column in &mut self.columns {
            column.texts.finish(state);
            if !column.patterns.is_empty() {
                let automaton = AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .build(column.patterns.iter().map(|(literal, ..)| literal.as_bytes()))
                    .map_err(|error| DataFusionError::External(Box::new(error)))?;
                column.automaton = Some(automaton);
            }
        }
        Ok(())
    }

    /// The columns that must be there before [`Index::touched`].
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|c| c.column)
    }

    /// Rules without terms are not among the touched ones: they look at every row anyway.
    pub fn touched(&self, batch: &RecordBatch, codes: &[Option<Codes>], state: &RandomState) -> Result<Vec<Touched>> {
        let mut found =
            Found { hits: vec![0; self.rule_of.len()], head: vec![NONE; self.rule_of.len()], pieces: vec![] };
        let mut elements = Vec::new();
        for (place, column) in self.columns.iter().enumerate() {
            elements.push(match column.elements {
                true => Some(Elements::of(batch, column.column, state)?),
                false => None,
            });
            let codes = match &elements[place] {
                Some(elements) => &elements.codes,
                None => codes[column.column].as_ref().expect("columns of the index are computed first"),
            };
            column.look_up(place as u32, codes, state, &mut found);
        }
        let mut hit = vec![0; self.terms_of.len()];
        for term in (0..found.hits.len()).filter(|term| found.hits[*term] > 0) {
            hit[self.rule_of[term] as usize] += 1;
        }
        let mut rarest = vec![NONE; self.terms_of.len()];
        for (term, rule) in self.rule_of.iter().map(|rule| *rule as usize).enumerate() {
            let rarer = rarest[rule] == NONE || found.hits[term] < found.hits[rarest[rule] as usize];
            if hit[rule] == self.terms_of[rule] && rarer {
                rarest[rule] = term as u32;
            }
        }
        let touched = rarest.iter().zip(0..).filter(|(term, _)| **term != NONE).map(|(term, rule)| {
            let pieces = found.pieces_of(*term).map(|(place, code)| match &elements[place as usize] {
                Some(elements) => (&elements.codes, Some(&elements.row_of), code),
                None => (codes[self.columns[place as usize].column].as_ref().expect("looked up above"), None, code),
            });
            Touched { rule, rows: union(pieces, batch.num_rows()) }
        });
        Ok(touched.collect())
    }
}

/// What was found of each term: how many rows, and in which codes of which columns.
struct Found {
    hits: Vec<u32>,
    head: Vec<u32>,
    /// (place of the column, code, next piece of the same term).
    pieces: Vec<(u32, u32, u32)>,
}

impl Found {
    fn add(&mut self, term: u32, place: u32, code: u32, rows: usize) {
        let term = term as usize;
        self.hits[term] += rows as u32;
        self.pieces.push((place, code, self.head[term]));
        self.head[term] = self.pieces.len() as u32 - 1;
    }

    fn pieces_of(&self, term: u32) -> impl Iterator<Item = (u32, u32)> {
        let piece = |at: u32| self.pieces.get(at as usize);
        std::iter::successors(piece(self.head[term as usize]), move |(.., next)| piece(*next))
            .map(|(place, code, _)| (*place, *code))
    }
}

impl Looked {
    fn look_up(&self, place: u32, codes: &Codes, state: &RandomState, found: &mut Found) {
        let values = codes.values.as_ref();
        // A pattern that occurs several times in a text is found once.
        let mut seen = vec![NONE; self.patterns.len()];
        for code in 0..codes.len() {
            let mut add = |term: u32| {
                let rows = codes.rows_of(code as u32).len();
                if rows > 0 {
                    found.add(term, place, code as u32, rows);
                }
            };
            if let Some(text) = text(values, code) {
                if !self.texts.entries.is_empty() {
                    let hash = codes.hash(code, text, state);
                    self.texts.get(text, hash).iter().for_each(|term| add(*term));
                }
                let Some(automaton) = &self.automaton else { continue };
                for hit in automaton.find_overlapping_iter(text) {
                    let (_, at, term) = &self.patterns[hit.pattern().as_usize()];
                    let there = match at {
                        At::Start => hit.start() == 0,
                        At::End => hit.end() == text.len(),
                        At::Anywhere => true,
                    };
                    let seen = &mut seen[hit.pattern().as_usize()];
                    if there && *seen != code as u32 {
                        *seen = code as u32;
                        add(*term);
                    }
                }
            } else if let Some(number) = number(values, code) {
                self.numbers.get(&number).into_iter().flatten().for_each(|term| add(*term));
            }
        }
    }
}

impl Texts {
    fn add(&mut self, text: Box<str>, term: u32) {
        let place = *self.places.entry(text.clone()).or_insert(self.entries.len());
        match self.entries.get_mut(place) {
            Some((.., terms)) => terms.push(term),
            None => self.entries.push((0, text, vec![term])),
        }
    }

    fn finish(&mut self, state: &RandomState) {
        self.places = HashMap::new();
        self.slots = vec![NONE; (self.entries.len() * 2).next_power_of_two()];
        for (place, (hash, text, _)) in self.entries.iter_mut().enumerate() {
            *hash = hash_text(text.as_bytes(), state);
            let mut slot = *hash as usize & (self.slots.len() - 1);
            while self.slots[slot] != NONE {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.slots[slot] = place as u32;
        }
    }

    fn get(&self, text: &str, hash: u64) -> &[u32] {
        let mut slot = hash as usize & (self.slots.len() - 1);
        while self.slots[slot] != NONE {
            let (known_hash, known, terms) = &self.entries[self.slots[slot] as usize];
            if *known_hash == hash && **known == *text {
                return terms;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        &[]
    }
}

/// The elements of a column of lists, and the row of each.
struct Elements {
    codes: Codes,
    row_of: Vec<u32>,
}

impl Elements {
    fn of(batch: &RecordBatch, column: usize, state: &RandomState) -> Result<Elements> {
        let lists = batch.column(column).as_list::<i32>();
        let mut row_of = Vec::new();
        let offsets = lists.value_offsets();
        let values = lists.values().slice(offsets[0] as usize, (offsets[lists.len()] - offsets[0]) as usize);
        for row in 0..lists.len() {
            let count = (offsets[row + 1] - offsets[row]) as usize;
            // Below a NULL there may be elements, which are not in it.
            let owner = if lists.is_null(row) { NONE } else { row as u32 };
            row_of.extend(std::iter::repeat_n(owner, count));
        }
        Ok(Elements { codes: Codes::of(&values, state)?, row_of })
    }
}

/// The rows of all the codes, ascending.
fn union<'a>(pieces: impl Iterator<Item = (&'a Codes, Option<&'a Vec<u32>>, u32)>, count: usize) -> Vec<u32> {
    let pieces: Vec<_> = pieces.collect();
    if let [(codes, None, code)] = pieces[..] {
        return codes.rows_of(code).to_vec();
    }
    let mut bits = vec![0u64; count.div_ceil(64)];
    for (codes, row_of, code) in pieces {
        for at in codes.rows_of(code) {
            let row = row_of.map_or(*at, |row_of| row_of[*at as usize]);
            if row != NONE {
                bits[row as usize / 64] |= 1 << (row % 64);
            }
        }
    }
    let mut rows = Vec::with_capacity(bits.iter().map(|word| word.count_ones() as usize).sum());
    for (word, mut left) in (0..).zip(bits) {
        while left != 0 {
            rows.push(word * 64 + left.trailing_zeros());
            left &= left - 1;
        }
    }
    rows
}
