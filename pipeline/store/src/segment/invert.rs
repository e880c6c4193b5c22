//! Rows to postings. A segment's values repeat: each distinct (path, value) is split into words once, and what is kept of a
//! row is only which values it has. The postings of a word are then put together from the rows of its values, and written
//! by tantivy's own serializers.

use std::hash::BuildHasher;
use std::io;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tantivy::postings::FieldSerializer;

use super::index::Kind;
use super::paths::{IndexedPath, Kinds};
use super::terms::{self, Part, Word};
use crate::search::leaves::{Leaf, Leaves};
use crate::search::words::{CODE_HEAD, code_head, fold, next_word};

/// So many values of a path, of every sixteen times as many, tell whether they repeat.
const SAMPLE: u32 = 1 << 10;

/// Between the positions of two values of one path in one row, so that no phrase spans them.
const GAP: u32 = 1;

#[derive(Default)]
pub struct Inverter {
    /// The format whose terms are written, if it is not today's.
    older: Option<u32>,
    hasher: RandomState,
    /// Values and words, one after the other.
    text: String,
    paths: Vec<Path>,
    values: Vec<Value>,
    path_ids: HashTable<Known>,
    value_ids: HashTable<Known>,
    occurrences: Vec<Occurrence>,
    rows: u32,
    tokens: u64,
    leaves: Leaves,
    word: String,
}

/// The hash of what has this number: most others are told apart by it, and a table can grow without looking at them.
struct Known {
    hash: u64,
    id: u32,
}

struct Path {
    name: String,
    /// Of its distinct values.
    words: Vec<Word>,
    /// How many values it had, how many of this sample's were new, and whether that is nearly all.
    asked: u32,
    new: u32,
    unique: bool,
    /// The path that came after it last time: events of a kind have their keys in one order.
    then: u32,
    /// The last row that has it, and where the next value's positions begin there.
    row: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct Slice {
    start: usize,
    len: u32,
}

struct Value {
    path: u32,
    number: bool,
    text: Slice,
    words: u32,
}

#[derive(Clone, Copy)]
struct Occurrence {
    value: u32,
    row: u32,
    base: u32,
}

/// A word's row, and below it its position there: one number, because these are sorted by the million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn new(row: u32, position: u32) -> Place {
        Place(u64::from(row) << 32 | u64::from(position))
    }

    fn row(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn position(self) -> u32 {
        self.0 as u32
    }
}

impl Inverter {
    /// Up to format 3 all values are split into words, up to format 4 fractions of a second are kept like other codes.
    #[cfg(test)]
    pub fn of_format(older: u32) -> Inverter {
        Inverter { older: Some(older), ..Inverter::default() }
    }

    /// Adds the next row.
    pub fn add(&mut self, raw: &str) {
        let mut leaves = std::mem::take(&mut self.leaves);
        leaves.read(raw);
        let mut last = None;
        for (name, leaf) in leaves.iter() {
            let path = self.path(name, last);
            last = Some(path);
            let value = match leaf {
                Leaf::Text(text) => self.value(path, text, false),
                Leaf::Number(literal) => self.value(path, literal, true),
                Leaf::Bool(true) => self.value(path, "true", false),
                Leaf::Bool(false) => self.value(path, "false", false),
                Leaf::Time(_) => unreachable!("JSON has no times"),
            };
            self.occur(path, value);
        }
        self.leaves = leaves;
        self.rows += 1;
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Words in all rows.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    fn path(&mut self, name: &str, last: Option<u32>) -> u32 {
        let guess = last.map_or(0, |last| self.paths[last as usize].then);
        if self.paths.get(guess as usize).is_some_and(|path| path.name == name) {
            return guess;
        }
        let hash = self.hasher.hash_one(name);
        let id = match entry(&mut self.path_ids, hash, |id| self.paths[id as usize].name == name) {
            Entry::Occupied(found) => found.get().id,
            Entry::Vacant(free) => {
                let id = self.paths.len() as u32;
                self.paths.push(Path::new(name, id));
                free.insert(Known { hash, id });
                id
            }
        };
        if let Some(last) = last {
            self.paths[last as usize].then = id;
        }
        id
    }

    fn value(&mut self, path: u32, text: &str, number: bool) -> u32 {
        let id = self.values.len() as u32;
        if self.paths[path as usize].repeats() {
            let hash = self.hasher.hash_one((path, number, text));
            let same = |id| {
                let value: &Value = &self.values[id as usize];
                value.path == path && value.number == number && slice(&self.text, value.text) == text
            };
            match entry(&mut self.value_ids, hash, same) {
                Entry::Occupied(found) => return found.get().id,
                Entry::Vacant(free) => _ = free.insert(Known { hash, id }),
            }
            self.paths[path as usize].new += 1;
            let kept = keep(&mut self.text, text);
            self.values.push(Value { path, number, text: kept, words: 0 });
        } else {
            self.values.push(Value { path, number, text: Slice { start: 0, len: 0 }, words: 0 });
        }
        self.values[id as usize].words = self.split(path, id, text, number);
        id
    }

    /// Notes the words of a value and counts them: a number is one word, its literal; a text without words is the
    /// empty word.
    fn split(&mut self, path: u32, value: u32, text: &str, number: bool) -> u32 {
        let mut word = std::mem::take(&mut self.word);
        let words = &mut self.paths[path as usize].words;
        let first = words.len();
        let mut note = |word: &str| {
            let nth = (words.len() - first) as u32;
            if nth > 0 {
                self.text.push(' ');
            }
            let Slice { start, len } = keep(&mut self.text, word);
            words.push(Word::new(&self.text, start, len, value, nth));
        };
        if number {
            fold(text, &mut word);
            note(&word);
        } else {
            let mut at = 0;
            while let Some((start, end)) = next_word(text, at) {
                at = end;
                fold(&text[start..end], &mut word);
                note(&word);
            }
            if at == 0 {
                note("");
            }
        }
        if let [only] = &mut words[first..] {
            only.part = Part::Only;
        }
        self.word = word;
        (words.len() - first) as u32
    }

    fn occur(&mut self, path: u32, value: u32) {
        let words = self.values[value as usize].words;
        let (row, path) = (self.rows, &mut self.paths[path as usize]);
        if path.row != row {
            (path.row, path.next) = (row, 0);
        }
        self.occurrences.push(Occurrence { value, row, base: path.next });
        path.next += words + GAP;
        self.tokens += u64::from(words);
    }

    /// Writes all terms, in the dictionary's order. Returns the paths, sorted.
    pub fn write(mut self, out: &mut FieldSerializer<'_>) -> io::Result<Vec<IndexedPath>> {
        let rows = Grouped::new(self.values.len(), &self.occurrences, |o| o.value, |o| (o.row, o.base));
        let times = |word: &Word| rows.of(word.value as usize).len();
        self.paths.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let text = &self.text;
        let (mut key, mut places, mut paths) = (Vec::new(), Vec::new(), Vec::with_capacity(self.paths.len()));
        for Path { name, words, .. } in self.paths {
            let mut words = match self.older {
                None => terms::united(&words, text, times, code_head),
                Some(4) => terms::united(&words, text, times, |code| &code[..CODE_HEAD]),
                Some(_) => words,
            };
            // Stable: the values of a term stay in order. Most words are equal to many others.
            words.sort_by(|a, b| a.order(b, text));
            let terms: Vec<(Kind, &[Word])> =
                words.chunk_by(|a, b| a.same(b, text)).map(|term| (terms::kind(term, times), term)).collect();
            let mut kinds = Kinds::default();
            for kind in Kind::ALL {
                for (_, term) in terms.iter().filter(|(of, _)| *of == kind) {
                    kind.key(&name, &mut key);
                    key.extend_from_slice(term[0].text(text).as_bytes());
                    gather(term, &rows, &mut places);
                    write_term(out, &key, kind, &places)?;
                    kinds.add(kind.into());
                }
            }
            paths.push(IndexedPath { name, kinds });
        }
        Ok(paths)
    }
}

/// Where a term is: the rows of its values, in order.
fn gather(term: &[Word], rows: &Grouped<(u32, u32)>, places: &mut Vec<Place>) {
    places.clear();
    for word in term {
        let of_value = rows.of(word.value as usize).iter();
        places.extend(of_value.map(|(row, base)| Place::new(*row, base + word.nth)));
    }
    // Runs that ascend each, one per value.
    if !places.is_sorted() {
        places.sort();
    }
}

impl Path {
    fn new(name: &str, then: u32) -> Path {
        Path { name: name.to_owned(), words: Vec::new(), asked: 0, new: 0, unique: false, then, row: u32::MAX, next: 0 }
    }

    /// Ids and times hardly ever repeat: looking for the same value then costs more than it saves.
    fn repeats(&mut self) -> bool {
        let at = self.asked % (SAMPLE * 16);
        self.asked = self.asked.wrapping_add(1);
        match at {
            0 => (self.new, self.unique) = (0, false),
            SAMPLE => self.unique = self.new > SAMPLE / 10 * 9,
            _ => {}
        }
        !self.unique
    }
}

fn entry(table: &mut HashTable<Known>, hash: u64, same: impl Fn(u32) -> bool) -> Entry<'_, Known> {
    table.entry(hash, |known| known.hash == hash && same(known.id), |known| known.hash)
}

fn slice(text: &str, slice: Slice) -> &str {
    &text[slice.start..slice.start + slice.len as usize]
}

fn keep(all: &mut String, text: &str) -> Slice {
    let start = all.len();
    all.push_str(text);
    Slice { start, len: text.len() as u32 }
}

fn write_term(out: &mut FieldSerializer<'_>, key: &[u8], kind: Kind, places: &[Place]) -> io::Result<()> {
    let rows = || places.chunk_by(|a, b| a.row() == b.row());
    let positions = kind == Kind::Placed;
    // How many rows there are is only asked for the sake of scores, which need field norms.
    out.new_term(key, places.len() as u32, positions)?;
    let mut deltas = Vec::new();
    for row in rows() {
        deltas.clear();
        if positions {
            let mut before = 0;
            for place in row {
                deltas.push(place.position() - before);
                before = place.position();
            }
        }
        out.write_doc(row[0].row(), deltas.len() as u32, &deltas);
    }
    out.close_term()
}

/// Items by group, in their order.
struct Grouped<T> {
    items: Vec<T>,
    ends: Vec<u32>,
}

impl<T: Copy + Default> Grouped<T> {
    fn new<I>(groups: usize, from: &[I], group: impl Fn(&I) -> u32, item: impl Fn(&I) -> T) -> Grouped<T> {
        let mut ends = vec![0u32; groups];
        from.iter().for_each(|i| ends[group(i) as usize] += 1);
        let mut before = 0;
        // First where each begins; filling moves it to where it ends.
        for end in &mut ends {
            before += std::mem::replace(end, before);
        }
        let mut items = vec![T::default(); from.len()];
        for i in from {
            let at = &mut ends[group(i) as usize];
            items[*at as usize] = item(i);
            *at += 1;
        }
        Grouped { items, ends }
    }

    fn of(&self, group: usize) -> &[T] {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start as usize..self.ends[group] as usize]
    }
}
