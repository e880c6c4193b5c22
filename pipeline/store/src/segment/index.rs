//! The inverted index of a segment: one tantivy JSON field over every leaf of `raw`, row number = doc id, positions
//! for phrases, no document store content, fast fields or field norms. A path is one key of the field, so that a term
//! reads `<path> 0 's' <word>`. A number is one word, its literal; a leaf without words is the empty word, so that
//! the terms of a path know every row that has the path.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::StringViewArray;
use tantivy::directory::{MmapDirectory, RamDirectory};
use tantivy::index::{Index, IndexSettings, SegmentComponent, SegmentReader};
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf};
use tantivy::schema::{Field, IndexRecordOption, JsonObjectOptions, Schema, TextFieldIndexing, Value};
use tantivy::store::Compressor;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{Directory, Document, InvertedIndexReader, SingleSegmentIndexWriter};

use super::NewFile;
use crate::StoreError;
use crate::search::leaves::{Leaf, Leaves};
use crate::search::words::{fold, next_word};

/// Names the tokenizer in the index's schema; it changes if what a word is should ever change.
const WORDS: &str = "words1";

/// Folder of the index files within the segment.
pub const FOLDER: &str = "index";

/// All distinct paths, so that a query need not scan the dictionary for them.
const PATHS: &str = "paths.json";

/// Initial size of tantivy's term table; it grows with the segment, whose size the seal limits.
const WRITER_BYTES: usize = 64 << 20;

/// Between path and value, and the type code of text, as tantivy writes them.
pub const TERM_TEXT: [u8; 2] = [0, b's'];

/// Opens a string that is a number; a text that happens to begin with it gets a space in front.
const NUMBER: char = '\u{10fffd}';

/// The index files over the `raw` columns, in row order.
pub fn build<'a>(raws: impl Iterator<Item = &'a StringViewArray>) -> Result<Vec<NewFile>, StoreError> {
    let directory = RamDirectory::create();
    let mut writer: SingleSegmentIndexWriter<Row> = Index::builder()
        .schema(schema())
        .tokenizers(tokenizers())
        .settings(IndexSettings {
            docstore_compression: Compressor::Lz4,
            docstore_compress_dedicated_thread: false,
            ..Default::default()
        })
        .single_segment_index_writer(directory.clone(), WRITER_BYTES)?;
    let mut paths: BTreeSet<String> = BTreeSet::new();
    let mut leaves = Leaves::default();
    for raw in raws.flat_map(|column| column.iter()) {
        leaves.read(raw.unwrap_or_default());
        let mut last = None;
        for (path, _) in leaves.iter() {
            if last != Some(path) && !paths.contains(path) {
                paths.insert(path.to_owned());
            }
            last = Some(path);
        }
        writer.add_document(Row::new(&leaves))?;
    }
    let index = writer.finalize()?;
    let mut files = files_of(&index, &directory)?;
    files.push(paths_file(&paths));
    Ok(files)
}

/// The index files over the rows of `segments`, one after the other: tantivy stacks documents in the order given.
/// Held in memory until written: about an eighth of the `raw` that is merged.
pub fn merge(segments: &[impl AsRef<Path>]) -> Result<Vec<NewFile>, StoreError> {
    let (mut indexes, mut paths) = (Vec::with_capacity(segments.len()), BTreeSet::new());
    for segment in segments {
        indexes.push(open(segment.as_ref())?.1);
        paths.extend(read_paths(segment.as_ref())?);
    }
    let directory = RamDirectory::create();
    let merged = tantivy::indexer::merge_indices(&indexes, directory.clone())?;
    let mut files = files_of(&merged, &directory)?;
    files.push(paths_file(&paths));
    Ok(files)
}

fn paths_file(paths: &BTreeSet<String>) -> NewFile {
    let bytes = serde_json::to_vec(paths).expect("strings always serialize");
    NewFile { name: format!("{FOLDER}/{PATHS}"), bytes }
}

fn read_paths(segment: &Path) -> Result<Vec<String>, StoreError> {
    let file = segment.join(FOLDER).join(PATHS);
    let paths = std::fs::read(&file).map_err(StoreError::io("read", &file))?;
    serde_json::from_slice(&paths).map_err(|error| StoreError::Damaged {
        segment: segment.display().to_string(),
        what: format!("{PATHS}: {error}"),
    })
}

/// The index of a segment's folder and its only part.
fn open(segment: &Path) -> Result<(tantivy::Segment, Index), StoreError> {
    let directory = MmapDirectory::open(segment.join(FOLDER)).map_err(tantivy::TantivyError::from)?;
    let index = Index::open(directory)?;
    let mut parts = index.searchable_segments()?;
    match (parts.pop(), parts.len()) {
        (Some(part), 0) => Ok((part, index)),
        (_, more) => Err(StoreError::Damaged {
            segment: segment.display().to_string(),
            what: format!("its index does not have one part but {more} more"),
        }),
    }
}

fn schema() -> Schema {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let mut schema = Schema::builder();
    schema.add_json_field("raw", JsonObjectOptions::default().set_indexing_options(indexing));
    schema.build()
}

fn tokenizers() -> TokenizerManager {
    let tokenizers = TokenizerManager::new();
    tokenizers.register(WORDS, Words::default());
    tokenizers
}

fn files_of(index: &Index, directory: &RamDirectory) -> Result<Vec<NewFile>, StoreError> {
    use SegmentComponent::*;
    let mut names = vec![PathBuf::from("meta.json")];
    for segment in index.searchable_segment_metas()? {
        names.extend(
            [Postings, Positions, FastFields, FieldNorms, Terms, Store].map(|part| segment.relative_path(part)),
        );
    }
    let mut files = Vec::new();
    for name in names {
        if directory.exists(&name).map_err(tantivy::TantivyError::from)? {
            let bytes = directory.atomic_read(&name).map_err(tantivy::TantivyError::from)?;
            files.push(NewFile { name: format!("{FOLDER}/{}", name.display()), bytes });
        }
    }
    Ok(files)
}

/// The index of one segment, memory-mapped.
pub struct IndexReader {
    pub terms: Arc<InvertedIndexReader>,
    pub paths: Vec<String>,
    pub rows: u32,
}

impl IndexReader {
    pub fn open(segment: &Path) -> Result<IndexReader, StoreError> {
        let paths = read_paths(segment)?;
        let (part, _) = open(segment)?;
        let reader = SegmentReader::open(&part)?;
        Ok(IndexReader { terms: reader.inverted_index(Field::from_field_id(0))?, paths, rows: reader.max_doc() })
    }
}

/// One row as tantivy wants to see it: an object whose keys are whole paths.
struct Row {
    text: String,
    /// End of path and end of value in `text`, one after the other.
    ends: Vec<(u32, u32)>,
}

impl Row {
    fn new(leaves: &Leaves) -> Row {
        let mut row = Row { text: String::with_capacity(2048), ends: Vec::with_capacity(leaves.count()) };
        for (path, leaf) in leaves.iter() {
            row.text.push_str(path);
            let path_end = row.text.len() as u32;
            match leaf {
                Leaf::Text(text) => {
                    if text.starts_with(NUMBER) {
                        row.text.push(' ');
                    }
                    row.text.push_str(text);
                }
                Leaf::Number(literal) => {
                    row.text.push(NUMBER);
                    row.text.push_str(literal);
                }
                Leaf::Bool(true) => row.text.push_str("true"),
                Leaf::Bool(false) => row.text.push_str("false"),
                Leaf::Time(_) => unreachable!("JSON has no times"),
            }
            row.ends.push((path_end, row.text.len() as u32));
        }
        row
    }
}

#[derive(Clone, Copy, Debug)]
enum View<'a> {
    Row { text: &'a str, ends: &'a [(u32, u32)] },
    Leaf(&'a str),
}

struct Pairs<'a> {
    text: &'a str,
    ends: std::slice::Iter<'a, (u32, u32)>,
    start: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, View<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path_end, value_end) = self.ends.next()?;
        let path = &self.text[self.start..*path_end as usize];
        let value = &self.text[*path_end as usize..*value_end as usize];
        self.start = *value_end as usize;
        Some((path, View::Leaf(value)))
    }
}

impl<'a> Value<'a> for View<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = Pairs<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match *self {
            View::Row { text, ends } => ReferenceValue::Object(Pairs { text, ends: ends.iter(), start: 0 }),
            View::Leaf(text) => ReferenceValue::Leaf(ReferenceValueLeaf::Str(text)),
        }
    }
}

impl Document for Row {
    type Value<'a> = View<'a>;
    type FieldsValuesIter<'a> = std::iter::Once<(Field, View<'a>)>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        std::iter::once((Field::from_field_id(0), View::Row { text: &self.text, ends: &self.ends }))
    }
}

/// The words of a leaf for tantivy.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    at: usize,
    started: bool,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, started: false, token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if first && let Some(literal) = self.text.strip_prefix(NUMBER) {
            self.at = self.text.len();
            fold(literal, &mut self.token.text);
        } else if let Some((start, end)) = next_word(self.text, self.at) {
            self.at = end;
            fold(&self.text[start..end], &mut self.token.text);
        } else if first {
            self.token.text.clear();
        } else {
            return false;
        }
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
