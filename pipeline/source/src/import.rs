//! Files as a feed: a bounded stream with an origin of its own. Each file is hashed, then streamed, gzip or plain.
//! Nothing in it is lost or changed: a message is the exact bytes of a line (or of a document that spans lines), and
//! what cannot be read is an error that names file and line. Line numbers count blank lines.

mod lines;
mod walk;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event::{Message, Offsets, Origin, Polled, Source};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::feed::now;
use crate::{Feed, POLL_BYTES_MAX, POLL_MESSAGES_MAX, SourceError};
use lines::{Line, Lines};
use walk::{Found, walk};

/// Bytes per read of a file.
const READ_BYTES: usize = 256 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

pub struct Import {
    source: Source,
    cluster: Option<Arc<str>>,
    /// Still to be read, last first.
    waiting: Vec<Found>,
    open: Option<Open>,
    progress: Progress,
    /// Reported by the next poll, after what was read before it.
    failure: Option<SourceError>,
}

/// How far an import is; bytes as on disk, before decompression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub files_done: usize,
    pub files_total: usize,
}

struct Open {
    path: PathBuf,
    topic: Arc<str>,
    sha256: Arc<str>,
    bytes: u64,
    read: Arc<AtomicU64>,
    lines: Lines<Box<dyn BufRead + Send>>,
}

impl Import {
    /// Files and folders, folders in full. Reports every path that cannot be read before anything is.
    pub fn open(paths: &[PathBuf], source: Source, cluster: Option<&str>) -> Result<Import, SourceError> {
        if source.needs_cluster() && cluster.unwrap_or("").is_empty() {
            return Err(SourceError::Invalid(format!(
                "{source} events do not say which cluster they come from\nhint: --cluster NAME"
            )));
        }
        let mut waiting = walk(paths)?;
        let bytes_total = waiting.iter().map(|file| file.bytes).sum();
        let progress = Progress { bytes_total, files_total: waiting.len(), ..Progress::default() };
        waiting.reverse();
        Ok(Import { source, cluster: cluster.map(Arc::from), waiting, open: None, progress, failure: None })
    }

    pub fn progress(&self) -> Progress {
        let reading = self.open.as_ref().map_or(0, |open| open.read.load(Ordering::Relaxed));
        Progress { bytes_done: self.progress.bytes_done + reading, ..self.progress }
    }

    /// The next message; `None` when all files are done.
    fn next(&mut self) -> Result<Option<Message>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(file) = self.waiting.pop() else { return Ok(None) };
                let failed = SourceError::io(format!("read {}", file.path.display()));
                self.open = Some(Open::new(file).map_err(failed)?);
                continue;
            };
            if let Some(line) = open.next()? {
                let (topic, sha256) = (open.topic.clone(), open.sha256.clone());
                return Ok(Some(self.message(topic, sha256, line)));
            }
            self.progress.bytes_done += open.bytes;
            self.progress.files_done += 1;
            self.open = None;
        }
    }

    fn message(&self, topic: Arc<str>, sha256: Arc<str>, line: Line) -> Message {
        Message {
            source: self.source,
            cluster: self.cluster.clone(),
            origin: Origin::Import,
            topic,
            partition: 0,
            offset: line.number,
            file_sha256: Some(sha256),
            received: now(),
            bytes: line.bytes,
        }
    }
}

impl Feed for Import {
    /// Does not wait: files are there. Ranges and partitions stay empty.
    fn poll(&mut self, _wait: Duration) -> Result<Polled, SourceError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut polled = Polled::default();
        let mut bytes = 0;
        while bytes < POLL_BYTES_MAX && polled.messages.len() < POLL_MESSAGES_MAX {
            match self.next() {
                Ok(Some(message)) => {
                    bytes += message.bytes.len();
                    polled.messages.push(message);
                }
                Ok(None) => break,
                Err(error) if polled.messages.is_empty() => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(polled)
    }

    fn committed(&mut self, _offsets: &Offsets) -> Result<(), SourceError> {
        Ok(())
    }

    fn finished(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty() && self.failure.is_none()
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Open {
    fn new(found: Found) -> io::Result<Open> {
        let (sha256, bytes) = hash(&found.path)?;
        let read = Arc::new(AtomicU64::new(0));
        // What is appended meanwhile is not part of what was hashed.
        let file = Counted { inner: File::open(&found.path)?.take(bytes), read: read.clone() };
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let input: Box<dyn BufRead + Send> = if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let topic = format!("file:{}", found.path.display()).into();
        Ok(Open { path: found.path, topic, sha256, bytes: found.bytes, read, lines: Lines::new(input) })
    }

    fn next(&mut self) -> Result<Option<Line>, SourceError> {
        self.lines.next().map_err(|error| {
            let line = self.lines.number() + 1;
            SourceError::io(format!("read line {line} of {}", self.path.display()))(error)
        })
    }
}

/// Hex SHA-256 of a file and the number of bytes it is of.
fn hash(path: &Path) -> io::Result<(Arc<str>, u64)> {
    let mut hasher = Sha256::new();
    let bytes = io::copy(&mut BufReader::with_capacity(READ_BYTES, File::open(path)?), &mut hasher)?;
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((hex.into(), bytes))
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
