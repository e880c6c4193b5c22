//! The reading side of one topic: from any offset, following appends of this or another process. What it hands over
//! it has synced, so that an offset that a reader went past never comes back with another record.

use std::path::PathBuf;
use std::sync::Arc;

use event::Micros;

use super::{Topic, damaged, segment_path, segments};
use crate::frame::{Decoded, HEADER_BYTES, decode, proves_acknowledged, size_hint};
use crate::{FileHandle, FileLayer, SourceError};

/// Bytes per read: large against a record, small against a poll.
const READ_BYTES: usize = 1 << 20;

pub(super) struct Record {
    pub offset: i64,
    pub timestamp: Micros,
    pub payload: Vec<u8>,
}

pub(super) struct LogReader {
    files: Arc<dyn FileLayer>,
    topic: Topic,
    next: i64,
    /// Someone counts on what comes next being the record at `next`.
    held_to: bool,
    open: Option<Segment>,
    end: End,
}

struct Segment {
    first: i64,
    path: PathBuf,
    file: Box<dyn FileHandle>,
    at: u64,
    /// An unreadable tail was found to be no damage when the file had this size.
    excused_bytes: Option<u64>,
}

/// Walks the headers to the end of the log, each once, to know how far behind we are.
#[derive(Default)]
struct End {
    segment: Option<(i64, Box<dyn FileHandle>)>,
    at: u64,
    next: i64,
}

impl LogReader {
    /// From `position`; `None`: from the oldest record there is.
    pub fn new(files: Arc<dyn FileLayer>, topic: Topic, position: Option<i64>) -> Self {
        let (next, held_to) = (position.unwrap_or(0), position.is_some());
        LogReader { files, topic, next, held_to, open: None, end: End::default() }
    }

    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Hands over what is there, at most about `bytes_max` (one record may exceed it) and `records_max`.
    /// [`SourceError::Trimmed`] if the record at our position was removed.
    pub fn read(&mut self, bytes_max: usize, records_max: usize) -> Result<Vec<Record>, SourceError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && records.len() < records_max {
            if self.open.is_none() && !self.seek()? {
                break;
            }
            let had = records.len();
            match self.read_on(bytes_max - bytes, records_max, &mut records) {
                Ok(true) => bytes += records[had..].iter().map(|record| record.payload.len()).sum::<usize>(),
                Ok(false) => break,
                // What was read before is handed over first, but nothing that could not be synced; the next call
                // meets the error again.
                Err(_) if had > 0 => {
                    records.truncate(had);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Reads some records or goes on to the next segment. False: at the end.
    fn read_on(
        &mut self,
        bytes_max: usize,
        records_max: usize,
        records: &mut Vec<Record>,
    ) -> Result<bool, SourceError> {
        let had = records.len();
        self.read_some(bytes_max, records_max, records)?;
        Ok(records.len() > had || self.next_segment()?)
    }

    /// Records between our position and the end of the log; counts unfinished appends too.
    pub fn lag(&mut self) -> Result<i64, SourceError> {
        let last = segments(&*self.files, &self.topic.dir)?.last().copied();
        if let Some(first) = last {
            let path = segment_path(&self.topic.dir, first);
            let failed = || SourceError::io(format!("read {}", path.display()));
            if self.end.segment.as_ref().is_none_or(|(open, _)| *open != first) {
                let file = self.files.open(&path).map_err(failed())?;
                self.end = End { segment: Some((first, file)), at: 0, next: first };
            }
            self.end.walk().map_err(failed())?;
        }
        Ok((self.end.next - self.next).max(0))
    }

    /// Opens the segment that holds `next` and goes to it. False: there is nothing yet.
    fn seek(&mut self) -> Result<bool, SourceError> {
        let firsts = segments(&*self.files, &self.topic.dir)?;
        let Some(&oldest) = firsts.first() else { return Ok(false) };
        if self.next < oldest && self.held_to {
            return Err(self.trimmed(oldest));
        }
        self.next = self.next.max(oldest);
        let first = firsts.iter().rev().find(|first| **first <= self.next).copied().unwrap_or(oldest);
        match self.open_segment(first) {
            // Removed since it was listed: the next call looks again.
            Err(SourceError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        self.held_to = true;
        let wanted = std::mem::replace(&mut self.next, first);
        while self.next < wanted {
            let left = usize::try_from(wanted - self.next).unwrap_or(usize::MAX);
            let before = self.next;
            self.read_some(usize::MAX, left, &mut Vec::new())?;
            if self.next == before {
                let (low, high) = (oldest, self.next);
                let topic = self.topic.name.to_string();
                return Err(SourceError::Lost { topic, partition: 0, ours: wanted, low, high });
            }
        }
        Ok(true)
    }

    fn open_segment(&mut self, first: i64) -> Result<(), SourceError> {
        let path = segment_path(&self.topic.dir, first);
        let file = self.files.open(&path).map_err(SourceError::io(format!("open {}", path.display())))?;
        // Its name is durable: the writer syncs the folder before the first append.
        self.open = Some(Segment { first, path, file, at: 0, excused_bytes: None });
        Ok(())
    }

    /// Goes on to the segment that begins where this one ends. False: there is none.
    fn next_segment(&mut self) -> Result<bool, SourceError> {
        let Some(open) = &self.open else { return Ok(false) };
        let firsts = segments(&*self.files, &self.topic.dir)?;
        let Some(&first) = firsts.iter().find(|first| **first > open.first) else { return Ok(false) };
        if first == self.next {
            self.open_segment(first)?;
            return Ok(true);
        }
        // The writer may have filled this segment and begun the next since we read; then there is more now.
        let open = self.open.as_ref().expect("checked above");
        let size = open.file.size().map_err(SourceError::io(format!("read {}", open.path.display())))?;
        let mut header = [0; HEADER_BYTES];
        let got = open.file.read_at(open.at, &mut header);
        let got = got.map_err(SourceError::io(format!("read {}", open.path.display())))?;
        match size_hint(&header[..got]) {
            Some(record) if open.at + record as u64 <= size && open.excused_bytes != Some(size) => Ok(true),
            // Ours was removed under us, and what followed it too.
            _ if !firsts.contains(&open.first) => Err(self.trimmed(first)),
            _ => Err(damaged(open.path.clone(), open.at, self.next)),
        }
    }

    fn trimmed(&self, first: i64) -> SourceError {
        SourceError::Trimmed { topic: self.topic.name.to_string(), ours: self.next, first }
    }

    /// Reads records from the open segment, syncs, then moves on behind them.
    fn read_some(
        &mut self,
        bytes_max: usize,
        records_max: usize,
        records: &mut Vec<Record>,
    ) -> Result<(), SourceError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let reading = || SourceError::io(format!("read {}", open.path.display()));
        let mut buffer = vec![0; READ_BYTES];
        let (mut used, mut next) = (0, self.next);
        let mut got = open.file.read_at(open.at, &mut buffer).map_err(reading())?;
        let mut unreadable = None;
        while used < bytes_max && records.len() < records_max {
            match decode(self.topic.nonce, &buffer[used..got]) {
                Decoded::Frame(frame) if frame.offset == next => {
                    used += frame.size();
                    next += 1;
                    let payload = frame.payload.to_vec();
                    records.push(Record { offset: frame.offset, timestamp: frame.timestamp, payload });
                }
                // A record larger than the buffer, with nothing before it: read it whole.
                Decoded::Short(size) if used == 0 && size > buffer.len() => {
                    buffer.resize(size, 0);
                    let more = open.file.read_at(open.at, &mut buffer).map_err(reading())?;
                    if more < size {
                        unreadable = Some(more);
                        break;
                    }
                    got = more;
                }
                Decoded::Short(_) if used > 0 => break,
                Decoded::Frame(_) | Decoded::Short(_) | Decoded::Bad(_) => {
                    unreadable = (got > used).then_some(got);
                    break;
                }
            }
        }
        if used > 0 {
            open.file.sync().map_err(SourceError::io(format!("sync {}", open.path.display())))?;
            open.at += used as u64;
            self.next = next;
        } else if unreadable.is_some() {
            open.excuse_tail(self.topic.nonce, next)?;
        }
        Ok(())
    }
}

impl Segment {
    /// What cannot be read at the end is a record half written or the torn tail of a crash, which the writer will
    /// cut; unless a later append proves that it had been acknowledged.
    fn excuse_tail(&mut self, nonce: u64, next: i64) -> Result<(), SourceError> {
        let reading = || SourceError::io(format!("read {}", self.path.display()));
        let size = self.file.size().map_err(reading())?;
        if self.excused_bytes == Some(size) {
            return Ok(());
        }
        let mut tail = vec![0; size.saturating_sub(self.at) as usize];
        let got = self.file.read_at(self.at, &mut tail).map_err(reading())?;
        let tail = &tail[..got];
        // A writer may have finished the record between the two reads.
        let finished = matches!(decode(nonce, tail), Decoded::Frame(frame) if frame.offset == next);
        if !finished && proves_acknowledged(nonce, tail, next) {
            return Err(damaged(self.path.clone(), self.at, next));
        }
        self.excused_bytes = (!finished).then_some(size);
        Ok(())
    }
}

impl End {
    fn walk(&mut self) -> std::io::Result<()> {
        let Some((_, file)) = &self.segment else { return Ok(()) };
        let size = file.size()?;
        // A shorter file: the writer cut a tail that we had counted.
        if size < self.at {
            (self.at, self.next) = (0, self.segment.as_ref().map_or(0, |(first, _)| *first));
        }
        let mut header = [0; HEADER_BYTES];
        loop {
            let got = file.read_at(self.at, &mut header)?;
            match size_hint(&header[..got]) {
                Some(record) if self.at + record as u64 <= size => self.at += record as u64,
                _ => return Ok(()),
            }
            self.next += 1;
        }
    }
}
