//! Files as a feed: a bounded stream with an origin of its own. Files are read in a fixed order, several at a time, each
//! hashed, then streamed, gzip or plain. Nothing in them is lost or changed: a message is the exact bytes of a line (or
//! of a document that spans lines), and what cannot be read is told by [`Import::take_read`], with file and line. Line
//! numbers count blank lines.
//!
//! Memory: what is read ahead (32 MiB), per thread a file of up to 8 MiB or a message of up to
//! [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX).

mod ahead;
mod file;
mod gzip;
mod input;
mod layout;
mod lines;
mod sniff;
mod split;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event::{Message, Offsets, Polled, Source};

use crate::{Feed, POLL_BYTES_MAX, POLL_MESSAGES_MAX, SourceError};
use ahead::{Ahead, Next};
pub use file::FileRead;
use file::Origins;
pub use walk::{FileStamp, Remark, Survey};

pub struct Import {
    ahead: Ahead,
    /// Of the piece at hand, last first.
    messages: Vec<Message>,
    bytes_done: Arc<AtomicU64>,
    bytes_total: u64,
    files_done: usize,
    files_total: usize,
    read: Vec<FileRead>,
}

/// How far an import is; bytes as on disk, before decompression, of what was read ahead, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub files_done: usize,
    pub files_total: usize,
}

impl Import {
    /// Reads `files` in their order with `jobs` threads.
    pub fn start(
        files: Vec<FileStamp>,
        source: Source,
        cluster: Option<&str>,
        jobs: usize,
    ) -> Result<Import, SourceError> {
        if source.needs_cluster() && cluster.unwrap_or("").is_empty() {
            return Err(SourceError::Invalid(format!(
                "{source} events do not say which cluster they come from\nhint: --cluster NAME"
            )));
        }
        let (bytes_total, files_total) = (files.iter().map(|file| file.bytes).sum(), files.len());
        let bytes_done = Arc::new(AtomicU64::new(0));
        let origins = Origins { source, cluster: cluster.map(Arc::from) };
        let ahead = Ahead::start(files, origins, jobs, bytes_done.clone());
        let ahead = ahead.map_err(SourceError::io("start a thread that reads files"))?;
        Ok(Import {
            ahead,
            messages: Vec::new(),
            bytes_done,
            bytes_total,
            files_done: 0,
            files_total,
            read: Vec::new(),
        })
    }

    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.bytes_done.load(Ordering::Relaxed).min(self.bytes_total),
            bytes_total: self.bytes_total,
            files_done: self.files_done,
            files_total: self.files_total,
        }
    }

    /// The files of which the last message has been handed over since this was asked before.
    pub fn take_read(&mut self) -> Vec<FileRead> {
        std::mem::take(&mut self.read)
    }

    /// The next message; `None` when all files are done.
    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.pop() {
                return Some(message);
            }
            match self.ahead.next()? {
                Next::Piece(piece) => {
                    self.messages = piece.messages;
                    self.messages.reverse();
                }
                Next::End(read) => {
                    self.files_done += 1;
                    self.read.push(read);
                }
            }
        }
    }
}

impl Feed for Import {
    /// Waits for files only. Ranges and partitions stay empty. What a poll holds does not depend on the number of
    /// threads.
    fn poll(&mut self, _wait: Duration) -> Result<Polled, SourceError> {
        let mut polled = Polled::default();
        let mut bytes = 0;
        while bytes < POLL_BYTES_MAX && polled.messages.len() < POLL_MESSAGES_MAX {
            let Some(message) = self.next() else { break };
            bytes += message.bytes.len();
            polled.messages.push(message);
        }
        Ok(polled)
    }

    fn committed(&mut self, _offsets: &Offsets) -> Result<(), SourceError> {
        Ok(())
    }

    fn finished(&self) -> bool {
        self.messages.is_empty() && self.ahead.at_end()
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
