//! Gzip as it is found: several members in a row, zeros or other bytes behind the last one, and bombs.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::GzDecoder;

use super::sniff::GZIP_MAGIC;

/// Audit logs unpack to some 20 times their size, very repetitive ones to 100. Deflate can do 1032.
const RATIO_MAX: u64 = 250;
/// Below this size the ratio does not matter.
const UNPACKED_BYTES_FREE: u64 = 1 << 30;

/// What is worth telling about a file although all of it was read.
pub(super) type Note = Arc<Mutex<Option<String>>>;

pub(super) struct Gzip<R> {
    member: Option<GzDecoder<R>>,
    unpacked: u64,
    packed: Arc<AtomicU64>,
    free_bytes: u64,
    note: Note,
}

impl<R: BufRead> Gzip<R> {
    /// `packed` counts what is read of the file.
    pub fn new(input: R, packed: Arc<AtomicU64>, note: Note) -> Self {
        Gzip { member: Some(GzDecoder::new(input)), unpacked: 0, packed, free_bytes: UNPACKED_BYTES_FREE, note }
    }

    /// Behind the end of a member: the next one, or nothing.
    fn next_member(&mut self, mut input: R) -> io::Result<()> {
        let rest = input.fill_buf()?;
        // A buffer may end between the two bytes; the decoder will tell.
        if rest.is_empty() || !GZIP_MAGIC.starts_with(&rest[..rest.len().min(2)]) {
            return self.note_rest(input);
        }
        self.member = Some(GzDecoder::new(input));
        Ok(())
    }

    fn note_rest(&self, mut input: R) -> io::Result<()> {
        let (mut bytes, mut zeros) = (0, true);
        loop {
            let rest = input.fill_buf()?;
            if rest.is_empty() {
                break;
            }
            zeros &= rest.iter().all(|byte| *byte == 0);
            let read = rest.len();
            bytes += read;
            input.consume(read);
        }
        // Tapes and some tools pad with zeros.
        if !zeros {
            let what = format!("{bytes} bytes behind the end of the gzip data were not read");
            *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let got = member.read(buffer)?;
            if got == 0 {
                let ended = self.member.take().expect("it was there a moment ago");
                self.next_member(ended.into_inner())?;
                continue;
            }
            self.unpacked += got as u64;
            let packed = self.packed.load(Ordering::Relaxed).max(1);
            if self.unpacked > self.free_bytes && self.unpacked / packed > RATIO_MAX {
                return Err(io::Error::other(format!(
                    "it unpacks to more than {RATIO_MAX} times its size, as no log does; the rest is not read"
                )));
            }
            return Ok(got);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> (Vec<u8>, io::Result<()>, Option<String>) {
        let count = Arc::new(AtomicU64::new(packed.len() as u64));
        let note = Note::default();
        // A small buffer, so that members begin at its end.
        let mut gzip = Gzip::new(io::BufReader::with_capacity(5, packed), count, note.clone());
        gzip.free_bytes = 100_000;
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        let outcome = loop {
            match gzip.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(got) => all.extend_from_slice(&buffer[..got]),
                Err(error) => break Err(error),
            }
        };
        let note = note.lock().unwrap().clone();
        (all, outcome, note)
    }

    #[test]
    fn members_follow_one_another() {
        for first in [&b"a"[..], b"abcdefgh", b"abcdefghij klmnop"] {
            let (all, outcome, note) = unpack(&[pack(first), pack(b"second")].concat());
            outcome.unwrap();
            assert_eq!((all, note), ([first, b"second"].concat(), None));
        }
    }

    #[test]
    fn what_is_behind_the_end_is_named_unless_zeros() {
        let (all, outcome, note) = unpack(&[pack(b"text"), vec![0; 512]].concat());
        outcome.unwrap();
        assert_eq!((&*all, note), (&b"text"[..], None));
        let (all, outcome, note) = unpack(&[pack(b"text"), b"\0\0garbage".to_vec()].concat());
        outcome.unwrap();
        assert_eq!(&*all, b"text");
        assert_eq!(note.as_deref(), Some("9 bytes behind the end of the gzip data were not read"));
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error_behind_what_can_be_read() {
        let text: Vec<u8> = (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let packed = pack(&text);
        let (all, outcome, _) = unpack(&packed[..packed.len() / 2]);
        assert!(outcome.is_err() && text.starts_with(&all) && all.len() > 10_000);
        let mut damaged = packed;
        let end = damaged.len() - 6;
        damaged[end] ^= 1;
        let (all, outcome, _) = unpack(&damaged);
        assert!(outcome.is_err() && all == text, "the checksum is behind the data");
    }

    #[test]
    fn bombs_are_not_unpacked() {
        let (all, outcome, _) = unpack(&pack(&vec![b'x'; 10 << 20]));
        assert!(outcome.unwrap_err().to_string().contains("times its size"));
        assert!(all.len() < 5 << 20, "{}", all.len());
    }
}
