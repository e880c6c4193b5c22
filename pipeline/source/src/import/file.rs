//! One file -> its messages. A file's hash comes with every message, so it is hashed first: small ones in memory, so
//! that they are read once, others by reading them twice.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event::{Message, Origin, Source};
use sha2::{Digest, Sha256};

use super::gzip::{Gzip, Note};
use super::lines::Lines;
use super::sniff::{self, Content, GZIP_MAGIC};
use super::walk::FileStamp;
use crate::feed::now;

/// Bytes per read of a file.
const READ_BYTES: usize = 256 << 10;

/// Files up to this size are read into memory.
const SMALL_BYTES: u64 = 8 << 20;

/// What is handed over at once: much more than what handing it over costs, much less than a poll.
const PIECE_BYTES: usize = 512 << 10;
const PIECE_MESSAGES: usize = 1000;

/// Whose events the files hold.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    pub source: Source,
    pub cluster: Option<Arc<str>>,
}

/// What became of a file.
#[derive(Clone, Debug)]
pub struct FileRead {
    pub file: FileStamp,
    /// Of its messages.
    pub topic: Arc<str>,
    pub sha256: Arc<str>,
    pub messages: u64,
    /// What could not be read. Empty: all of it was.
    pub errors: Vec<String>,
    /// Odd, but nothing is missing.
    pub notes: Vec<String>,
}

/// Some messages of a file, in order.
pub(super) struct Piece {
    pub messages: Vec<Message>,
    pub bytes: usize,
}

/// Hands the file over piece by piece, as long as `each` wants more. `done` counts bytes as on disk.
pub(super) fn read_file(
    file: FileStamp,
    origins: &Origins,
    done: &Arc<AtomicU64>,
    each: &mut dyn FnMut(Piece) -> bool,
) -> FileRead {
    let topic: Arc<str> = format!("file:{}", file.path.display()).into();
    let sha256 = Arc::from("");
    let mut read = FileRead { file, topic, sha256, messages: 0, errors: Vec::new(), notes: Vec::new() };
    if let Err(error) = read.all(origins, done, each) {
        read.errors.push(error.to_string());
    }
    read
}

impl FileRead {
    fn all(&mut self, origins: &Origins, done: &Arc<AtomicU64>, each: &mut dyn FnMut(Piece) -> bool) -> io::Result<()> {
        let mut file = File::open(&self.file.path)?;
        let found = FileStamp::new(&self.file.path, &file.metadata()?);
        let bytes: Box<dyn Read + Send> = if found.bytes <= SMALL_BYTES {
            let mut bytes = Vec::with_capacity(found.bytes as usize + 1);
            // What is appended meanwhile comes with the next import.
            (&mut file).take(found.bytes).read_to_end(&mut bytes)?;
            self.sha256 = hash(&mut &bytes[..])?;
            Box::new(Cursor::new(bytes))
        } else {
            self.sha256 = hash(&mut (&file).take(found.bytes))?;
            Box::new(File::open(&self.file.path)?.take(found.bytes))
        };
        let own = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: bytes, own: own.clone(), all: done.clone() };
        let outcome = self.messages(BufReader::with_capacity(READ_BYTES, counted), own.clone(), origins, each);
        // What was not read is done with, too.
        done.fetch_add(self.file.bytes.saturating_sub(own.load(Ordering::Relaxed)), Ordering::Relaxed);
        outcome?;
        let after = FileStamp::new(&self.file.path, &std::fs::metadata(&self.file.path)?);
        if found.bytes > SMALL_BYTES && (after.bytes < found.bytes || after.modified != found.modified) {
            self.errors.push("it changed while it was read\nhint: import it again".to_owned());
        }
        self.file = found;
        Ok(())
    }

    fn messages(
        &mut self,
        mut input: BufReader<Counted>,
        packed: Arc<AtomicU64>,
        origins: &Origins,
        each: &mut dyn FnMut(Piece) -> bool,
    ) -> io::Result<()> {
        let note = Note::default();
        let mut input: Box<dyn BufRead> = if input.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::with_capacity(READ_BYTES, Gzip::new(input, packed, note.clone())))
        } else {
            Box::new(input)
        };
        // An error here comes again when the lines are read, and is told then.
        if let Content::Unusable(what) = input.fill_buf().map_or(Content::Other, sniff::content) {
            return Err(io::Error::other(what));
        }
        let mut lines = Lines::new(input, origins.source);
        let outcome = self.lines(&mut lines, origins, each);
        self.errors.extend(lines.troubles());
        self.notes.extend(note.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        outcome.map_err(|error| {
            let at = format!("line {}", lines.number() + 1);
            match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other(format!("{at}: the gzip data breaks off here")),
                _ => io::Error::new(error.kind(), format!("{at}: {error}")),
            }
        })
    }

    fn lines(
        &mut self,
        lines: &mut Lines<Box<dyn BufRead>>,
        origins: &Origins,
        each: &mut dyn FnMut(Piece) -> bool,
    ) -> io::Result<()> {
        let empty = || Piece { messages: Vec::new(), bytes: 0 };
        let mut piece = empty();
        let outcome = loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            piece.bytes += line.bytes.len();
            self.messages += 1;
            piece.messages.push(Message {
                source: origins.source,
                cluster: origins.cluster.clone(),
                origin: Origin::Import,
                topic: self.topic.clone(),
                partition: 0,
                offset: line.number,
                file_sha256: Some(self.sha256.clone()),
                received: now(),
                bytes: line.bytes,
            });
            let full = piece.bytes >= PIECE_BYTES || piece.messages.len() >= PIECE_MESSAGES;
            if full && !each(std::mem::replace(&mut piece, empty())) {
                return Ok(());
            }
        };
        if !piece.messages.is_empty() {
            each(piece);
        }
        outcome
    }
}

/// Hex SHA-256.
fn hash(input: &mut dyn Read) -> io::Result<Arc<str>> {
    let mut hasher = Sha256::new();
    io::copy(&mut BufReader::with_capacity(READ_BYTES, input), &mut hasher)?;
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hex.into())
}

struct Counted {
    inner: Box<dyn Read + Send>,
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.own.fetch_add(got as u64, Ordering::Relaxed);
        self.all.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}
