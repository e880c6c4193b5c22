//! The embedded log: what Kafka is elsewhere, for a machine without Kafka. A folder per topic, one partition (0),
//! append-only segments named by their first offset, offsets dense from 0.
//!
//! Promises: a record whose `append` returned Ok is read back exactly once, in order and intact, whatever the power
//! does. An append that failed may survive in part (a prefix of its records). A torn tail is cut when the log is
//! opened for appending; damage to acknowledged records is an error that names file and byte. One writer per topic
//! (a lock file); readers may be other processes.

mod extent;
mod feed;
mod reader;
mod topic;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

pub use feed::LogFeed;
pub use topic::Topic;

use crate::feed::now;
use crate::frame::{Decoded, Frame, HEADER_BYTES, RECORD_BYTES_MAX, decode, proves_acknowledged};
use crate::{FileHandle, FileLayer, SourceError, TopicMapping};

/// A new segment begins beyond this size: opening a log scans its last segment, which should take well under a
/// second, and committed segments are removed whole.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// One append is one write; this bounds its buffer. Room for one record of the largest size and then some.
const BATCH_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

const SEGMENT_SUFFIX: &str = ".log";

/// The writing side of one topic.
pub struct Log {
    files: Arc<dyn FileLayer>,
    topic: Topic,
    segment: Box<dyn FileHandle>,
    segment_bytes: u64,
    segment_bytes_max: u64,
    next: i64,
    /// An append failed: what the file holds is not known until the log is opened again.
    failed: bool,
    _lock: Box<dyn Send + Sync>,
}

impl Log {
    /// Opens or creates the topic in `root`. Cuts a torn tail.
    pub fn open(files: Arc<dyn FileLayer>, root: &Path, mapping: &TopicMapping) -> Result<Log, SourceError> {
        Log::open_with(files, root, mapping, SEGMENT_BYTES_MAX)
    }

    fn open_with(
        files: Arc<dyn FileLayer>,
        root: &Path,
        mapping: &TopicMapping,
        segment_bytes_max: u64,
    ) -> Result<Log, SourceError> {
        let topic = Topic::create(&*files, root, mapping)?;
        let lock = files.lock(&topic.dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                SourceError::Invalid(format!("topic `{}` is being written by another process", topic.name))
            }
            _ => SourceError::io(format!("lock {}", topic.dir.display()))(error),
        })?;
        let opening = || SourceError::io(format!("open {}", topic.dir.display()));
        let (segment, segment_bytes, next) = match segments(&*files, &topic.dir)?.last() {
            Some(&first) => recover(&*files, &topic, first)?,
            None => (create_segment(&*files, &topic.dir, 0).map_err(opening())?, 0, 0),
        };
        // The names, too, may not have been synced before the power failed.
        files.sync_dir(&topic.dir).map_err(opening())?;
        Ok(Log { files, topic, segment, segment_bytes, segment_bytes_max, next, failed: false, _lock: lock })
    }

    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// Appends `payloads` with one write and one sync; returns their offsets once they are durable. After an error
    /// the log refuses further appends: open it again.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<Range<i64>, SourceError> {
        if self.failed {
            let why = format!("topic `{}` failed before and must be opened again", self.topic.name);
            return Err(SourceError::Invalid(why));
        }
        let bytes = self.encode(payloads)?;
        let first = self.next;
        if bytes.is_empty() {
            return Ok(first..first);
        }
        self.failed = true;
        self.write(&bytes).map_err(SourceError::io(format!("append to {}", self.topic.dir.display())))?;
        self.failed = false;
        self.next = first + payloads.len() as i64;
        Ok(first..self.next)
    }

    fn encode(&self, payloads: &[&[u8]]) -> Result<Vec<u8>, SourceError> {
        let size: usize = payloads.iter().map(|payload| HEADER_BYTES + payload.len()).sum();
        if size > BATCH_BYTES_MAX || payloads.iter().any(|payload| payload.len() > RECORD_BYTES_MAX) {
            return Err(SourceError::Invalid(format!(
                "append of {size} bytes: a record has at most {RECORD_BYTES_MAX} bytes, an append {BATCH_BYTES_MAX}"
            )));
        }
        let timestamp = now();
        let mut bytes = Vec::with_capacity(size);
        for (offset, payload) in (self.next..).zip(payloads) {
            Frame { batch: self.next, offset, timestamp, payload }.encode(self.topic.nonce, &mut bytes);
        }
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.segment_bytes >= self.segment_bytes_max {
            self.segment = create_segment(&*self.files, &self.topic.dir, self.next)?;
            self.segment_bytes = 0;
        }
        self.segment.append(bytes)?;
        self.segment.sync()?;
        self.segment_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// First offsets of the segments in `dir`, ascending.
fn segments(files: &dyn FileLayer, dir: &Path) -> Result<Vec<i64>, SourceError> {
    let names = files.list(dir).map_err(SourceError::io(format!("list {}", dir.display())))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()).collect())
}

fn segment_path(dir: &Path, first: i64) -> PathBuf {
    // Twenty digits hold every offset, so that names sort as numbers do.
    dir.join(format!("{first:020}{SEGMENT_SUFFIX}"))
}

fn create_segment(files: &dyn FileLayer, dir: &Path, first: i64) -> io::Result<Box<dyn FileHandle>> {
    let segment = files.create(&segment_path(dir, first))?;
    segment.sync()?;
    files.sync_dir(dir)?;
    Ok(segment)
}

/// Reads the last segment to its end, cuts what no append acknowledged, and syncs what stays: readers may have
/// handed it over. Returns the segment, its size and the next offset.
fn recover(files: &dyn FileLayer, topic: &Topic, first: i64) -> Result<(Box<dyn FileHandle>, u64, i64), SourceError> {
    let path = segment_path(&topic.dir, first);
    let failed = || SourceError::io(format!("recover {}", path.display()));
    let mut segment = files.open(&path).map_err(failed())?;
    let mut bytes = vec![0; segment.size().map_err(failed())? as usize];
    let size = segment.read_at(0, &mut bytes).map_err(failed())?;
    bytes.truncate(size);

    let (whole, next) = readable(topic.nonce, &bytes, first);
    if whole < bytes.len() {
        if proves_acknowledged(topic.nonce, &bytes[whole..], next) {
            return Err(damaged(path, whole as u64, next));
        }
        let cut_bytes = bytes.len() - whole;
        warn!(topic = %topic.name, cut_bytes, next_offset = next, "cut the torn tail of an append that never finished");
        segment.truncate(whole as u64).map_err(failed())?;
    }
    segment.sync().map_err(failed())?;
    Ok((segment, whole as u64, next))
}

/// How many of `bytes` are records in order from offset `first`, and the offset after them.
fn readable(nonce: u64, bytes: &[u8], first: i64) -> (usize, i64) {
    let (mut at, mut next) = (0, first);
    while let Decoded::Frame(frame) = decode(nonce, &bytes[at..]) {
        if frame.offset != next {
            break;
        }
        at += frame.size();
        next += 1;
    }
    (at, next)
}

fn damaged(file: PathBuf, byte: u64, offset: i64) -> SourceError {
    SourceError::Corrupt { file, byte, what: format!("record {offset} cannot be read, though it was acknowledged") }
}

#[cfg(test)]
mod tests;
