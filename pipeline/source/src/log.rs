//! The embedded log: what Kafka is elsewhere, for a machine without Kafka. A folder per topic, one partition (0),
//! append-only segments named by their first offset, offsets dense from 0.
//!
//! Promises: a record whose `append` returned Ok is read back exactly once, in order and intact, whatever the power
//! does. An append that failed may survive in part (a prefix of its records). A torn tail is cut when the log is
//! opened for appending; damage to acknowledged records is an error that names file and byte. One writer per topic
//! (a lock file); readers may be other processes. Whole segments are removed from the front once every record in them
//! is committed in the manifest, never the last one; offsets go on as before.

mod feed;
mod reader;
mod topic;

use std::collections::VecDeque;
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

/// How exactly [`Log::backlog_bytes`] knows where a record lies.
const MARK_BYTES: u64 = 1 << 20;

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
    /// Offsets about [`MARK_BYTES`] apart and the bytes of the log before them, counted from the first mark.
    marks: VecDeque<(i64, u64)>,
    bytes: u64,
    _lock: Box<dyn Send + Sync>,
}

impl Log {
    /// Opens or creates the topic in `root`. Cuts a torn tail.
    pub fn open(files: Arc<dyn FileLayer>, root: &Path, mapping: &TopicMapping) -> Result<Log, SourceError> {
        Log::open_with(files, root, mapping, 0, SEGMENT_BYTES_MAX)
    }

    /// Like [`Log::open`]; a topic that is new begins at offset `first`. A writer that knows the manifest's position
    /// passes it, so that a topic made anew does not give out offsets again.
    pub fn open_from(
        files: Arc<dyn FileLayer>,
        root: &Path,
        mapping: &TopicMapping,
        first: i64,
    ) -> Result<Log, SourceError> {
        Log::open_with(files, root, mapping, first, SEGMENT_BYTES_MAX)
    }

    fn open_with(
        files: Arc<dyn FileLayer>,
        root: &Path,
        mapping: &TopicMapping,
        first: i64,
        segment_bytes_max: u64,
    ) -> Result<Log, SourceError> {
        let topic = Topic::create(&*files, root, mapping)?;
        let lock = files.lock(&topic.dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                SourceError::Invalid(format!("topic `{}` is being written by another process", topic.name))
            }
            _ => SourceError::io(format!("lock {}", topic.dir.display()))(error),
        })?;
        if segments(&*files, &topic.dir)?.is_empty() {
            let creating = SourceError::io(format!("create a segment in {}", topic.dir.display()));
            create_segment(&*files, &topic.dir, first).map_err(creating)?;
        }
        let End { segment, segment_bytes, next, marks, bytes } = End::find(&*files, &topic)?;
        let failed = false;
        Ok(Log { files, topic, segment, segment_bytes, segment_bytes_max, next, failed, marks, bytes, _lock: lock })
    }

    /// After a failed append: finds out what the log holds and takes appends again, without giving up the lock. As
    /// when opening, a prefix of the records that failed may have survived, and readers may have seen them; so
    /// [`Log::next_offset`] may have moved. An error changes nothing, and this can be tried again.
    pub fn recover(&mut self) -> Result<(), SourceError> {
        let End { segment, segment_bytes, next, marks, bytes } = End::find(&*self.files, &self.topic)?;
        (self.segment, self.segment_bytes, self.next) = (segment, segment_bytes, next);
        (self.marks, self.bytes, self.failed) = (marks, bytes, false);
        Ok(())
    }

    /// An append failed, and [`Log::recover`] has not succeeded since.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Bytes on disk of the records from `committed` on: what the manifest does not have yet. Cheap; rounded up by at
    /// most 1 MiB, or to whole segments for what was there when the log was opened. `committed` must not go back.
    pub fn backlog_bytes(&mut self, committed: i64) -> u64 {
        while self.marks.get(1).is_some_and(|(offset, _)| *offset <= committed) {
            self.marks.pop_front();
        }
        match self.marks.front() {
            Some((_, before)) if committed < self.next => self.bytes - before,
            _ => 0,
        }
    }

    /// The oldest record's offset; the next one's when there is none.
    #[cfg(test)]
    fn first_offset(&self) -> Result<i64, SourceError> {
        Ok(segments(&*self.files, &self.topic.dir)?.first().copied().unwrap_or(self.next))
    }

    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// Appends `payloads` with one write and one sync; returns their offsets once they are durable. After an error
    /// of the disk the log refuses further appends until [`Log::recover`].
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<Range<i64>, SourceError> {
        if self.failed {
            let why = format!("topic `{}` failed before and has not recovered", self.topic.name);
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
        if self.marks.back().is_none_or(|(_, before)| self.bytes - before >= MARK_BYTES) {
            self.marks.push_back((self.next, self.bytes));
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Where a log goes on.
struct End {
    segment: Box<dyn FileHandle>,
    segment_bytes: u64,
    next: i64,
    marks: VecDeque<(i64, u64)>,
    bytes: u64,
}

impl End {
    /// Cuts a torn tail. There is a segment.
    fn find(files: &dyn FileLayer, topic: &Topic) -> Result<End, SourceError> {
        let firsts = segments(files, &topic.dir)?;
        let Some((&last, earlier)) = firsts.split_last() else {
            let what = "its segments are gone".to_owned();
            return Err(SourceError::Corrupt { file: topic.dir.clone(), byte: 0, what });
        };
        let (segment, segment_bytes, next) = recover(files, topic, last)?;
        // The names, too, may not have been synced before the power failed.
        files.sync_dir(&topic.dir).map_err(SourceError::io(format!("open {}", topic.dir.display())))?;
        let (mut marks, mut bytes) = (VecDeque::new(), 0);
        for &first in earlier {
            marks.push_back((first, bytes));
            bytes += segment_size(files, &topic.dir, first)?;
        }
        marks.push_back((last, bytes));
        Ok(End { segment, segment_bytes, next, marks, bytes: bytes + segment_bytes })
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

/// 0: it was removed meanwhile.
fn segment_size(files: &dyn FileLayer, dir: &Path, first: i64) -> Result<u64, SourceError> {
    let path = segment_path(dir, first);
    match files.open(&path).and_then(|file| file.size()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        other => other.map_err(SourceError::io(format!("read {}", path.display()))),
    }
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
