//! The query over a segment, without reading its events where the index or a column knows better: words, patterns
//! and existence come from the index's dictionary and postings, columns from just that Parquet column. Codes, phrases with a
//! rare word or over a code, regular expressions, networks and ranges on paths take rows as candidates and verify them on `raw` by
//! brute force. Agrees with [`Node::matches`] on every row.

use std::io;
use std::sync::Arc;

use arrow::array::AsArray;
use event::column;
use memchr::memmem;
use tantivy::postings::{Postings, SegmentPostings, TermInfo};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, TERMINATED};

use super::bits::Bits;
use super::leaves::Leaves;
use super::query::{Phrase, Test, Word, in_words};
use super::rows::{Node, Target, column_matches, raw_matches};
use crate::StoreError;
use crate::segment::index::{IndexReader, Kind};
use crate::segment::paths::IndexedPath;
use crate::segment::{Data, Segment};

/// The matching rows of a segment.
pub fn matches(node: &Node, segment: &Arc<Segment>) -> Result<Bits, StoreError> {
    let mut search = Search { segment, data: None };
    search.eval(node, &Bits::all(segment.rows()))
}

struct Search<'a> {
    segment: &'a Arc<Segment>,
    data: Option<Data>,
}

impl Search<'_> {
    /// The rows of `within` that match.
    fn eval(&mut self, node: &Node, within: &Bits) -> Result<Bits, StoreError> {
        if within.is_empty() {
            return Ok(within.clone());
        }
        match node {
            Node::All => Ok(within.clone()),
            Node::And(all) => {
                // Cheap conditions first: what they rule out need not be read.
                let mut all: Vec<&Node> = all.iter().collect();
                all.sort_by_key(|node| cost(node));
                all.into_iter().try_fold(within.clone(), |left, node| self.eval(node, &left))
            }
            Node::Or(any) => {
                let mut found = Bits::none(within.len());
                for node in any {
                    let mut open = within.clone();
                    open.without(&found);
                    found.or(&self.eval(node, &open)?);
                }
                Ok(found)
            }
            Node::Not(inner) => {
                let mut left = within.clone();
                left.without(&self.eval(inner, within)?);
                Ok(left)
            }
            Node::Leaf { target: Target::Column(name), test } => self.column(name, test, within),
            Node::Leaf { target, test } => self.leaf(target, test, within),
        }
    }

    fn column(&mut self, name: &str, test: &Test, within: &Bits) -> Result<Bits, StoreError> {
        let mut found = Bits::none(within.len());
        let mut rows = within.iter();
        for batch in self.data()?.read(&[name], within.iter())? {
            let batch = batch?;
            for (index, row) in rows.by_ref().take(batch.num_rows()).enumerate() {
                if column_matches(batch.column(0), index, test) {
                    found.set(row);
                }
            }
        }
        Ok(found)
    }

    fn leaf(&mut self, target: &Target, test: &Test, within: &Bits) -> Result<Bits, StoreError> {
        let index = self.segment.index()?;
        let reading = |error| StoreError::io("read the index of", &self.segment.dir)(error);
        let mut found = Bits::none(within.len());
        match test {
            Test::Words(phrase) => {
                let mut open = Bits::none(within.len());
                for path in index.paths.iter().filter(|path| target.covers(&path.name, false)) {
                    words_at(index, path, phrase, &mut found, &mut open).map_err(reading)?;
                }
                found.and(within);
                open.and(within);
                open.without(&found);
                found.or(&self.verify(target, test, &open)?);
                Ok(found)
            }
            Test::Exists => {
                exists(index, target, &mut found).map_err(reading)?;
                found.and(within);
                Ok(found)
            }
            Test::Regex(_) | Test::Cidr(_) | Test::Range(_) => {
                let mut candidates = within.clone();
                if *target != Target::Any {
                    exists(index, target, &mut found).map_err(reading)?;
                    candidates.and(&found);
                }
                self.verify(target, test, &candidates)
            }
        }
    }

    /// Reads `raw` of the candidates.
    fn verify(&mut self, target: &Target, test: &Test, candidates: &Bits) -> Result<Bits, StoreError> {
        let mut found = Bits::none(candidates.len());
        if candidates.is_empty() {
            return Ok(found);
        }
        let (mut leaves, mut rows) = (Leaves::default(), candidates.iter());
        for batch in self.data()?.read(&[column::RAW], candidates.iter())? {
            let batch = batch?;
            let raw = batch.column(0).as_string_view();
            for (index, row) in rows.by_ref().take(batch.num_rows()).enumerate() {
                leaves.read(raw.value(index));
                if raw_matches(&leaves, target, test) {
                    found.set(row);
                }
            }
        }
        Ok(found)
    }

    fn data(&mut self) -> Result<&Data, StoreError> {
        if self.data.is_none() {
            self.data = Some(self.segment.data()?);
        }
        Ok(self.data.as_ref().expect("just opened"))
    }
}

/// Index, column, event: each reads about ten times what the one before does.
fn cost(node: &Node) -> u8 {
    match node {
        Node::All => 0,
        Node::And(all) | Node::Or(all) => all.iter().map(cost).max().unwrap_or(0),
        Node::Not(inner) => cost(inner),
        Node::Leaf { target: Target::Column(_), .. } => 1,
        Node::Leaf { test: Test::Words(_) | Test::Exists, .. } => 0,
        Node::Leaf { .. } => 2,
    }
}

/// Rows with a leaf at the target's paths or below: every leaf has a term there, if only the empty word.
fn exists(index: &IndexReader, target: &Target, found: &mut Bits) -> io::Result<()> {
    for path in index.paths.iter().filter(|path| target.covers(&path.name, true)) {
        let all = Word::Glob(super::query::Glob::new("*"));
        for_terms(index, path, &all, &Kind::ALL, true, |_, info| set_docs(index, info, found))?;
    }
    Ok(())
}

/// Rows that match for certain go to `found`, those whose words would have to be looked at to `open`.
fn words_at(
    index: &IndexReader,
    path: &IndexedPath,
    phrase: &Phrase,
    found: &mut Bits,
    open: &mut Bits,
) -> io::Result<()> {
    if let Some(number) = &phrase.number {
        let number = Word::Exact(number.clone());
        for_terms(index, path, &number, &Kind::WORDS, false, |_, info| set_docs(index, info, found))?;
    }
    runs_at(index, path, &phrase.words, found)?;
    match phrase.words.as_slice() {
        [only] => {
            for_terms(index, path, only, &Kind::WORDS, false, |_, info| set_docs(index, info, found))?;
            codes_at(index, path, only, open)
        }
        words => {
            phrase_at(index, path, words, found, open)?;
            phrase_over_codes(index, path, words, open)
        }
    }
}

/// Rows with a run that has the phrase in it.
fn runs_at(index: &IndexReader, path: &IndexedPath, phrase: &[Word], found: &mut Bits) -> io::Result<()> {
    if !path.kinds.has(Kind::Run) {
        return Ok(());
    }
    let exact = phrase.iter().filter_map(|word| match word {
        Word::Exact(exact) => Some(exact.as_bytes()),
        Word::Glob(_) => None,
    });
    // Most runs do not have it.
    let finder = memmem::Finder::new(exact.max_by_key(|word| word.len()).unwrap_or_default());
    let mut key = Vec::new();
    Kind::Run.key(&path.name, &mut key);
    let mut terms = index.terms.terms().range().ge(&key).into_stream()?;
    while let Some((term, info)) = terms.next() {
        let Some(run) = term.strip_prefix(key.as_slice()) else { break };
        if finder.find(run).is_some()
            && let Ok(run) = std::str::from_utf8(run)
            && in_words(phrase, run.split(' '))
        {
            set_docs(index, info, found)?;
        }
    }
    Ok(())
}

/// Rows with a code that may match.
fn codes_at(index: &IndexReader, path: &IndexedPath, word: &Word, open: &mut Bits) -> io::Result<()> {
    let Some(heads) = word.code_heads().filter(|_| path.kinds.has(Kind::Code)) else { return Ok(()) };
    let mut key = Vec::new();
    Kind::Code.key(&path.name, &mut key);
    let start = key.len();
    if let Some(shorter) = heads.shorter {
        key.extend_from_slice(shorter.as_bytes());
        if let Some(info) = index.terms.terms().get(&key)? {
            set_docs(index, &info, open)?;
        }
        key.truncate(start);
    }
    key.extend_from_slice(heads.all.as_bytes());
    let mut terms = index.terms.terms().range().ge(&key).into_stream()?;
    while let Some((term, info)) = terms.next()
        && term.starts_with(&key)
    {
        set_docs(index, info, open)?;
    }
    Ok(())
}

/// A phrase that goes over a code goes over the end of a run: the rows that have all of its words, wherever.
fn phrase_over_codes(index: &IndexReader, path: &IndexedPath, words: &[Word], open: &mut Bits) -> io::Result<()> {
    if !path.kinds.has(Kind::Code) || words.iter().all(|word| word.code_heads().is_none()) {
        return Ok(());
    }
    let mut all = Bits::all(open.len());
    for word in words {
        let mut rows = Bits::none(open.len());
        codes_at(index, path, word, &mut rows)?;
        for_terms(index, path, word, &Kind::WORDS, false, |_, info| set_docs(index, info, &mut rows))?;
        runs_at(index, path, std::slice::from_ref(word), &mut rows)?;
        all.and(&rows);
        if all.is_empty() {
            return Ok(());
        }
    }
    open.or(&all);
    Ok(())
}

/// First the rows that have all the words at the path, then their positions. A row in which a word is rare has none there.
fn phrase_at(
    index: &IndexReader,
    path: &IndexedPath,
    words: &[Word],
    found: &mut Bits,
    open: &mut Bits,
) -> io::Result<()> {
    let mut terms: Vec<Vec<TermInfo>> = Vec::with_capacity(words.len());
    let mut candidates = Bits::all(found.len());
    let mut unplaced = Bits::none(found.len());
    for word in words {
        let (mut infos, mut docs) = (Vec::new(), Bits::none(found.len()));
        for_terms(index, path, word, &[Kind::Rare, Kind::Placed], false, |kind, info| {
            match kind {
                Kind::Placed => infos.push(info.clone()),
                _ => set_docs(index, info, &mut unplaced)?,
            }
            set_docs(index, info, &mut docs)
        })?;
        candidates.and(&docs);
        if candidates.is_empty() {
            return Ok(());
        }
        terms.push(infos);
    }
    unplaced.and(&candidates);
    open.or(&unplaced);
    // (row, position) of the last word so far, for as much of the phrase as has been seen.
    let mut ends: Option<Vec<(u32, u32)>> = None;
    for infos in &terms {
        let mut here = Vec::new();
        for info in infos {
            positions(index, info, &candidates, &mut here)?;
        }
        here.sort_unstable();
        if let Some(before) = ends {
            here.retain(|(row, position)| {
                position.checked_sub(1).is_some_and(|previous| before.binary_search(&(*row, previous)).is_ok())
            });
        }
        ends = Some(here);
    }
    ends.into_iter().flatten().for_each(|(row, _)| found.set(row as usize));
    Ok(())
}

/// Calls `each` for the terms at `path` that match. The empty word only counts where asked for.
fn for_terms(
    index: &IndexReader,
    path: &IndexedPath,
    word: &Word,
    kinds: &[Kind],
    with_empty: bool,
    mut each: impl FnMut(Kind, &TermInfo) -> io::Result<()>,
) -> io::Result<()> {
    let dictionary = index.terms.terms();
    let mut key = Vec::new();
    for kind in kinds.iter().filter(|kind| path.kinds.has(**kind)) {
        kind.key(&path.name, &mut key);
        let start = key.len();
        let glob = match word {
            Word::Exact(exact) => {
                key.extend_from_slice(exact.as_bytes());
                if let Some(info) = dictionary.get(&key)? {
                    each(*kind, &info)?;
                }
                continue;
            }
            Word::Glob(glob) => glob,
        };
        key.extend_from_slice(glob.prefix().as_bytes());
        let mut terms = dictionary.range().ge(&key).into_stream()?;
        while let Some((term, info)) = terms.next() {
            if !term.starts_with(&key) {
                break;
            }
            let Ok(found) = std::str::from_utf8(&term[start..]) else { continue };
            if (with_empty || !found.is_empty()) && glob.matches(found) {
                each(*kind, info)?;
            }
        }
    }
    Ok(())
}

fn set_docs(index: &IndexReader, info: &TermInfo, found: &mut Bits) -> io::Result<()> {
    let mut postings = index.terms.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    while postings.doc() != TERMINATED {
        found.set(postings.doc() as usize);
        postings.advance();
    }
    Ok(())
}

fn positions(index: &IndexReader, info: &TermInfo, within: &Bits, out: &mut Vec<(u32, u32)>) -> io::Result<()> {
    let mut postings: SegmentPostings =
        index.terms.read_postings_from_terminfo(info, IndexRecordOption::WithFreqsAndPositions)?;
    let mut here = Vec::new();
    while postings.doc() != TERMINATED {
        let row = postings.doc();
        if within.has(row as usize) {
            postings.positions(&mut here);
            out.extend(here.iter().map(|position| (row, *position)));
        }
        postings.advance();
    }
    Ok(())
}
