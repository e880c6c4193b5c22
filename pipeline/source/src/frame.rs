//! The record format of the embedded log, as values: no I/O.
//!
//! ```text
//! magic "SKO1" | crc32 u32 | length u32 | batch i64 | offset i64 | timestamp i64 | payload      (little endian)
//! ```
//!
//! The checksum covers everything behind it, seeded with the log's secret nonce, so that no payload can contain
//! something that passes for a record. `batch` is the offset of the first record of the append this one belongs to.
//! Everything before it was synced when the record was written, which tells a torn tail (an append that was never
//! acknowledged) from damage.

use event::Micros;
use memchr::memmem;

/// The largest payload: the longest line that an import hands over whole.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

pub(crate) const HEADER_BYTES: usize = 36;
const MAGIC: &[u8; 4] = b"SKO1";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub batch: i64,
    pub offset: i64,
    pub timestamp: Micros,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    pub fn encode(&self, nonce: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let length = u32::try_from(self.payload.len()).expect("payloads are refused above RECORD_BYTES_MAX");
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.batch.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(self.payload);
        let crc = checksum(nonce, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    Frame(Frame<'a>),
    /// The record at hand needs this many bytes, which may not have been written yet.
    Short(usize),
    Bad(&'static str),
}

/// Reads the record that `bytes` begin with.
pub(crate) fn decode(nonce: u64, bytes: &[u8]) -> Decoded<'_> {
    let Some(size) = size_hint(bytes) else {
        return if bytes.len() < HEADER_BYTES { Decoded::Short(HEADER_BYTES) } else { Decoded::Bad("not a record") };
    };
    if bytes.len() < size {
        return Decoded::Short(size);
    }
    if checksum(nonce, &bytes[8..size]).to_le_bytes() != bytes[4..8] {
        return Decoded::Bad("checksum does not match");
    }
    let number = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Decoded::Frame(Frame {
        batch: number(12),
        offset: number(20),
        timestamp: number(28),
        payload: &bytes[HEADER_BYTES..size],
    })
}

/// Size of the record whose header `bytes` begin with, unchecked; `None` if that is no header.
pub(crate) fn size_hint(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    (length <= RECORD_BYTES_MAX).then_some(HEADER_BYTES + length)
}

/// Do `bytes`, which follow the end of the readable part, prove that the record with offset `expected` had been
/// acknowledged? They do if they hold a record of a later append.
pub(crate) fn proves_acknowledged(nonce: u64, bytes: &[u8], expected: i64) -> bool {
    memmem::find_iter(bytes, MAGIC).any(|at| match decode(nonce, &bytes[at..]) {
        Decoded::Frame(frame) => frame.batch > expected,
        Decoded::Short(_) | Decoded::Bad(_) => false,
    })
}

fn checksum(nonce: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&nonce.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(batch: i64, offset: i64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Frame { batch, offset, timestamp: 42, payload }.encode(9, &mut out);
        out
    }

    #[test]
    fn reads_back_what_was_written() {
        for payload in [&b""[..], b"x", b"{\"kind\":\"Event\"}"] {
            let bytes = record(3, 5, payload);
            let expected = Frame { batch: 3, offset: 5, timestamp: 42, payload };
            assert_eq!(decode(9, &bytes), Decoded::Frame(expected));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let whole = record(3, 5, b"payload");
        for length in 0..whole.len() {
            assert!(matches!(decode(9, &whole[..length]), Decoded::Short(_)), "cut at {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(9, &bytes), Decoded::Frame(_)), "bit {bit}");
        }
        assert_eq!(decode(8, &whole), Decoded::Bad("checksum does not match"), "another log's record");
    }

    #[test]
    fn a_later_append_proves_the_earlier_one() {
        let same_append = [b"junk".to_vec(), record(5, 6, b"x")].concat();
        let later_append = [b"SKO1junk".to_vec(), record(6, 7, b"x")].concat();
        assert!(!proves_acknowledged(9, &same_append, 5));
        assert!(proves_acknowledged(9, &later_append, 5));
        assert!(!proves_acknowledged(1, &later_append, 5), "a payload cannot forge a record without the nonce");
    }
}
