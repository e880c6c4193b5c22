//! A segment: the rows of one table from one seal, immutable. A folder `segments/<table>/<ULID>/` with `data.parquet`
//! (all columns, in admission order), `index/` (row number = doc id), `dedup.bin` (sorted fingerprints of the row
//! hashes) and `meta.json`, which describes the others with their hashes.

mod build;
pub mod index;
mod publish;
mod read;

pub use build::{Built, Rows, build_all, fingerprint, hashes, raw_bytes, span};
pub use publish::{TEMPORARY, publish};
pub use read::{Data, Segment};

use event::Micros;
use serde::{Deserialize, Serialize};

/// Raised when an older version could misread a segment.
pub const FORMAT: u32 = 1;

pub const DATA: &str = "data.parquet";
pub const DEDUP: &str = "dedup.bin";
pub const META: &str = "meta.json";

/// A file that is to be part of a segment; the name is relative to the segment's folder.
pub struct NewFile {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What `meta.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SegmentMeta {
    pub format: u32,
    pub ulid: String,
    pub table: String,
    pub rows: u64,
    /// Bytes of `raw`.
    pub raw_bytes: u64,
    pub time: Span,
    pub ingest_time: Span,
    pub coordinates: Vec<CoordinateSpan>,
    pub files: Vec<FileMeta>,
}

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub first: Micros,
    pub last: Micros,
}

impl Span {
    pub fn contains(&self, time: Micros) -> bool {
        self.first <= time && time <= self.last
    }
}

/// Which offsets of a partition the rows come from, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinateSpan {
    pub topic: String,
    pub partition: i64,
    pub first: i64,
    pub last: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

impl SegmentMeta {
    pub fn disk_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
