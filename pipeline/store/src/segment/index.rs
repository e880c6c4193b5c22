//! The inverted index of a segment: one tantivy JSON field over every leaf of `raw`, row number = doc id, no document
//! store content, fast fields or field norms. A path is one key of the field, so that a term reads `<path> 0 <kind> <word>`
//! with a [`Kind`]. A number is one word, its literal; a leaf without words is the empty word, so that the terms of a path
//! know every row that has the path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::StringViewArray;
use tantivy::directory::{MmapDirectory, RamDirectory};
use tantivy::index::{Index, IndexSettings, SegmentComponent, SegmentReader};
use tantivy::postings::InvertedIndexSerializer;
use tantivy::schema::{Field, IndexRecordOption, JsonObjectOptions, Schema, TextFieldIndexing};
use tantivy::store::Compressor;
use tantivy::tokenizer::{RawTokenizer, TokenizerManager};
use tantivy::{Directory, InvertedIndexReader, SingleSegmentIndexWriter, TantivyDocument};

use super::NewFile;
use super::invert::Inverter;
use super::paths::{self, IndexedPath, Kinds};
use crate::StoreError;

/// Names what a word is in the index's schema; it changes if that should ever change.
const WORDS: &str = "words1";

/// Folder of the index files within the segment.
pub const FOLDER: &str = "index";

/// For tantivy's own term table, which stays empty. The least it takes.
const WRITER_BYTES: usize = 1 << 20;

/// How the words of a leaf are indexed; the byte is the type code of their terms. tantivy keeps no frequencies and
/// positions for terms that are not text, also when it merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Of a value of several words, in few rows: no positions, a phrase looks at the rows.
    Rare = b'b',
    /// The head of a code in few rows: whoever looks for the code looks at the rows. Not before format 4.
    Code = b'c',
    /// The only word of its value: no part of a longer phrase.
    Alone = b'o',
    /// With positions. All words are such up to format 2.
    Placed = b's',
    /// Words of a value that follow each other, with a space between any two: all of them, or those between codes. Not before
    /// format 4.
    Run = b'u',
}

impl Kind {
    /// In the dictionary's order.
    pub const ALL: [Kind; 5] = [Kind::Rare, Kind::Code, Kind::Alone, Kind::Placed, Kind::Run];

    /// Those whose terms are whole single words.
    pub const WORDS: [Kind; 3] = [Kind::Rare, Kind::Alone, Kind::Placed];

    /// What the terms of a path begin with, replacing what is in `key`.
    pub fn key(self, path: &str, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(path.as_bytes());
        key.extend_from_slice(&[0, self as u8]);
    }
}

/// The index files over the `raw` columns, in row order.
pub fn build<'a>(raws: impl Iterator<Item = &'a StringViewArray>) -> Result<Vec<NewFile>, StoreError> {
    let mut inverter = Inverter::default();
    raws.flat_map(|column| column.iter()).for_each(|raw| inverter.add(raw.unwrap_or_default()));
    written(inverter)
}

/// The index files over the rows of an inverter.
pub fn written(inverter: Inverter) -> Result<Vec<NewFile>, StoreError> {
    let directory = RamDirectory::create();
    let index = rows_without_words(&directory, inverter.rows())?;
    let paths = write_terms(&index, &directory, inverter)?;
    forget_documents(&index, &directory)?;
    let mut files = files_of(&index, &directory)?;
    files.push(paths::file(&paths));
    Ok(files)
}

/// An index of so many rows that have no words yet.
fn rows_without_words(directory: &RamDirectory, rows: u32) -> Result<Index, StoreError> {
    // tantivy wants the schema's tokenizer to exist, and never calls it.
    let tokenizers = TokenizerManager::new();
    tokenizers.register(WORDS, RawTokenizer::default());
    let mut writer: SingleSegmentIndexWriter = Index::builder()
        .schema(schema())
        .tokenizers(tokenizers)
        .settings(IndexSettings {
            docstore_compression: Compressor::Lz4,
            docstore_compress_dedicated_thread: false,
            ..Default::default()
        })
        .single_segment_index_writer(directory.clone(), WRITER_BYTES)?;
    for _ in 0..rows {
        writer.add_document(TantivyDocument::default())?;
    }
    Ok(writer.finalize()?)
}

/// Replaces dictionary, postings and positions of the index's only part, which are empty.
fn write_terms(index: &Index, directory: &RamDirectory, inverter: Inverter) -> Result<Vec<IndexedPath>, StoreError> {
    let segment = index.new_segment();
    let mut serializer = InvertedIndexSerializer::open(&segment)?;
    let mut field = serializer.new_field(Field::from_field_id(0), inverter.tokens(), None).map_err(in_memory)?;
    let paths = inverter.write(&mut field).map_err(in_memory)?;
    field.close().map_err(in_memory)?;
    serializer.close().map_err(in_memory)?;
    for empty in index.searchable_segment_metas()? {
        for part in [SegmentComponent::Terms, SegmentComponent::Postings, SegmentComponent::Positions] {
            let written = segment.relative_path(part.clone());
            let bytes = directory.atomic_read(&written).map_err(tantivy::TantivyError::from)?;
            directory.atomic_write(&empty.relative_path(part), &bytes).map_err(in_memory)?;
        }
    }
    Ok(paths)
}

/// Replaces the document store of the index's only part, four bytes of nothing per row, by one without rows: nobody reads it, and a
/// merge takes what it finds.
fn forget_documents(index: &Index, directory: &RamDirectory) -> Result<(), StoreError> {
    let nothing = RamDirectory::create();
    let without_rows = rows_without_words(&nothing, 0)?.searchable_segment_metas()?;
    for (of, empty) in index.searchable_segment_metas()?.iter().zip(&without_rows) {
        let bytes = nothing.atomic_read(&empty.relative_path(SegmentComponent::Store));
        let bytes = bytes.map_err(tantivy::TantivyError::from)?;
        directory.atomic_write(&of.relative_path(SegmentComponent::Store), &bytes).map_err(in_memory)?;
    }
    Ok(())
}

fn in_memory(error: std::io::Error) -> StoreError {
    StoreError::Index(error.into())
}

/// The index files over the rows of `segments`, one after the other: tantivy stacks documents in the order given.
/// Held in memory until written: about an eighth of the `raw` that is merged.
pub fn merge(segments: &[impl AsRef<Path>]) -> Result<Vec<NewFile>, StoreError> {
    let (mut indexes, mut paths) = (Vec::with_capacity(segments.len()), BTreeMap::<String, Kinds>::new());
    for segment in segments {
        indexes.push(open(segment.as_ref())?.1);
        for path in paths::read(segment.as_ref())? {
            paths.entry(path.name).or_default().add(path.kinds);
        }
    }
    let directory = RamDirectory::create();
    let merged = tantivy::indexer::merge_indices(&indexes, directory.clone())?;
    forget_documents(&merged, &directory)?;
    let mut files = files_of(&merged, &directory)?;
    let paths: Vec<IndexedPath> = paths.into_iter().map(|(name, kinds)| IndexedPath { name, kinds }).collect();
    files.push(paths::file(&paths));
    Ok(files)
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

pub fn schema() -> Schema {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let mut schema = Schema::builder();
    schema.add_json_field("raw", JsonObjectOptions::default().set_indexing_options(indexing));
    schema.build()
}

pub fn files_of(index: &Index, directory: &RamDirectory) -> Result<Vec<NewFile>, StoreError> {
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
    pub paths: Vec<IndexedPath>,
    pub rows: u32,
}

impl IndexReader {
    pub fn open(segment: &Path) -> Result<IndexReader, StoreError> {
        let paths = paths::read(segment)?;
        let (part, _) = open(segment)?;
        let reader = SegmentReader::open(&part)?;
        Ok(IndexReader { terms: reader.inverted_index(Field::from_field_id(0))?, paths, rows: reader.max_doc() })
    }
}
