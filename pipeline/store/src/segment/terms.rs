//! From the words of a path's values to its terms: which words become one term, which are kept short, which have positions.

use std::cmp::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::index::Kind;
use crate::search::words::is_code;

/// Words of longer values that occur at most this often have no positions: a phrase reads the rows themselves instead,
/// a page of `raw` each. Most words are such, and that makes the index a tenth smaller; 64 would save 2-4 % more.
const RARE: usize = 16;

/// Words that follow each other this often are one term. A term of its own costs about what its words take in this many rows.
const RUN: usize = 4;

/// Longer ones are split however often they occur: a search reads all runs of a path.
const RUN_BYTES_MAX: usize = 2 << 10;

/// The nth word of a value, or a run of them from there, with a space between any two.
#[derive(Clone, Copy)]
pub struct Word {
    /// The first eight bytes, so that most comparisons need no look at the text.
    head: u64,
    start: usize,
    pub value: u32,
    pub nth: u32,
    len: u32,
    pub part: Part,
}

/// What a word is of its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    One,
    Only,
    Run,
    Code,
}

impl Word {
    pub fn new(text: &str, start: usize, len: u32, value: u32, nth: u32) -> Word {
        let head = head(&text.as_bytes()[start..start + len as usize]);
        Word { head, start, value, nth, len, part: Part::One }
    }

    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.start + self.len as usize]
    }

    /// By term.
    pub fn order(&self, other: &Word, text: &str) -> Ordering {
        (self.part, self.head).cmp(&(other.part, other.head)).then_with(|| match self.len.max(other.len) > 8 {
            true => self.text(text).cmp(other.text(text)),
            false => self.len.cmp(&other.len),
        })
    }

    pub fn same(&self, other: &Word, text: &str) -> bool {
        (self.part, self.head, self.len) == (other.part, other.head, other.len)
            && (self.len <= 8 || self.text(text) == other.text(text))
    }

    fn code(self, text: &str, head: fn(&str) -> &str) -> Word {
        let head = head(self.text(text)).len() as u32;
        Word { part: Part::Code, ..Word::new(text, self.start, head, self.value, self.nth) }
    }
}

/// The words of a value that follow each other.
struct Run<'a>(&'a [Word]);

impl Run<'_> {
    fn len(&self) -> usize {
        self.0.last().map_or(0, |last| last.start + last.len as usize - self.0[0].start)
    }

    /// The words lie one after the other, with a space between any two.
    fn text<'a>(&self, text: &'a str) -> &'a str {
        self.0.first().map_or("", |first| &text[first.start..first.start + self.len()])
    }

    fn may_be_one(&self) -> bool {
        self.0.len() > 1 && self.len() <= RUN_BYTES_MAX
    }

    fn as_one(&self, text: &str) -> Word {
        let first = self.0[0];
        Word { part: Part::Run, ..Word::new(text, first.start, self.len() as u32, first.value, first.nth) }
    }
}

pub fn kind(term: &[Word], times: impl Fn(&Word) -> usize) -> Kind {
    match term[0].part {
        Part::Run => Kind::Run,
        Part::Code => Kind::Code,
        Part::Only => Kind::Alone,
        Part::One if term.iter().map(times).sum::<usize>() <= RARE => Kind::Rare,
        Part::One => Kind::Placed,
    }
}

/// The words of a path, value by value, with those in one that are often together, and rare codes short. A value is either one
/// run, or it falls apart at its rare codes into runs of which those that come often are one.
pub fn united(words: &[Word], text: &str, times: impl Fn(&Word) -> usize, head: fn(&str) -> &str) -> Vec<Word> {
    let values = || words.chunk_by(|a, b| a.value == b.value);
    let whole = |value: &[Word]| times(&value[0]) >= RUN && Run(value).may_be_one();
    let mut codes: HashMap<&str, usize, RandomState> = HashMap::default();
    for word in values().filter(|value| !whole(value)).flatten() {
        if is_code(word.text(text)) {
            *codes.entry(word.text(text)).or_default() += times(word);
        }
    }
    let rare_code = |word: &Word| codes.get(word.text(text)).is_some_and(|times| *times <= RARE);
    let mut runs: HashMap<&str, usize, RandomState> = HashMap::default();
    for value in values().filter(|value| !whole(value)) {
        for run in value.split(rare_code).map(Run).filter(Run::may_be_one) {
            *runs.entry(run.text(text)).or_default() += times(&value[0]);
        }
    }
    let mut united = Vec::with_capacity(words.len());
    for value in values() {
        if whole(value) {
            united.push(Run(value).as_one(text));
            continue;
        }
        for piece in value.chunk_by(|a, b| !rare_code(a) && !rare_code(b)) {
            let run = Run(piece);
            if rare_code(&piece[0]) {
                united.push(piece[0].code(text, head));
            } else if run.may_be_one() && runs[run.text(text)] >= RUN {
                united.push(run.as_one(text));
            } else {
                united.extend_from_slice(piece);
            }
        }
    }
    united
}

fn head(word: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = word.len().min(8);
    head[..len].copy_from_slice(&word[..len]);
    u64::from_be_bytes(head)
}
