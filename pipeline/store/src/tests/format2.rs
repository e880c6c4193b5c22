//! The index as format 2 had it: written by tantivy from its documents, every word with positions. Segments like that are
//! read and merged for as long as there are any.

use std::collections::BTreeSet;

use tantivy::directory::RamDirectory;
use tantivy::index::{Index, IndexSettings};
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf};
use tantivy::schema::{Field, Value};
use tantivy::store::Compressor;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{Document, SingleSegmentIndexWriter};

use crate::search::leaves::{Leaf, Leaves};
use crate::search::words::{fold, next_word};
use crate::segment::NewFile;
use crate::segment::index::{files_of, schema};

use super::format3::paths_file;

/// Opens a string that is a number; a text that happens to begin with it gets a space in front.
const NUMBER: char = '\u{10fffd}';

pub fn build<'a>(raws: impl Iterator<Item = &'a str>) -> Vec<NewFile> {
    let directory = RamDirectory::create();
    let tokenizers = TokenizerManager::new();
    tokenizers.register("words1", Words::default());
    let settings = IndexSettings {
        docstore_compression: Compressor::Lz4,
        docstore_compress_dedicated_thread: false,
        ..Default::default()
    };
    let index = Index::builder().schema(schema()).tokenizers(tokenizers).settings(settings);
    let mut writer: SingleSegmentIndexWriter<Row> =
        index.single_segment_index_writer(directory.clone(), 64 << 20).unwrap();
    let mut paths: BTreeSet<String> = BTreeSet::new();
    let mut leaves = Leaves::default();
    for raw in raws {
        leaves.read(raw);
        paths.extend(leaves.iter().map(|(path, _)| path.to_owned()));
        writer.add_document(Row::new(&leaves)).unwrap();
    }
    let mut files = files_of(&writer.finalize().unwrap(), &directory).unwrap();
    files.push(paths_file(paths.iter().map(String::as_str)));
    files
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
