//! gzip, bounded: what a few bytes unpack to is the sender's choice, so it must not be our memory.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// What one message may unpack to in all: CloudTrail's files are below 50 MB, and brokers take messages of some MB.
const UNPACKED_MAX: usize = 128 << 20;
/// Audit logs unpack to ten to a hundred times their size, a bomb to a thousand.
const RATIO_MAX: usize = 300;
/// However few bytes there are, so much may come of them.
const UNPACKED_MIN: usize = 1 << 20;

/// What may still be unpacked of one message.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

/// Does it begin like gzip (https://www.rfc-editor.org/rfc/rfc1952)?
pub(crate) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b, 8])
}

impl Budget {
    pub fn new() -> Self {
        Budget { left: UNPACKED_MAX }
    }

    /// The text, or why there is none.
    pub fn inflate(&mut self, packed: &[u8]) -> Result<String, String> {
        let max = packed.len().saturating_mul(RATIO_MAX).max(UNPACKED_MIN).min(self.left);
        let mut unpacked = Vec::new();
        let mut reader = MultiGzDecoder::new(packed).take(max as u64 + 1);
        let read = reader.read_to_end(&mut unpacked);
        self.left -= unpacked.len().min(self.left);
        read.map_err(|error| format!("not gzip: {error}"))?;
        if unpacked.len() > max {
            return Err(format!("gzip of more than {max} bytes in {}: not unpacked", packed.len()));
        }
        String::from_utf8(unpacked).map_err(|error| {
            format!("gzip of what is not UTF-8: invalid byte at byte {}", error.utf8_error().valid_up_to())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn unpacks_within_bounds() {
        let mut budget = Budget::new();
        let packed = gzip(b"some text");
        assert!(is_gzip(&packed));
        assert_eq!(budget.inflate(&packed).unwrap(), "some text");
        assert_eq!(budget.inflate(&[&packed[..], &packed].concat()).unwrap(), "some textsome text", "several members");
        assert!(budget.inflate(&packed[..packed.len() - 3]).unwrap_err().starts_with("not gzip: "));
        assert!(budget.inflate(b"text").unwrap_err().starts_with("not gzip: "));
        assert_eq!(budget.inflate(&gzip(b"ab\xff")).unwrap_err(), "gzip of what is not UTF-8: invalid byte at byte 2");
        let bomb = gzip(&vec![b' '; 20 << 20]);
        let error = budget.inflate(&bomb).unwrap_err();
        assert!(error.starts_with("gzip of more than "), "{error}");
        assert_eq!(budget.inflate(&gzip(&vec![b' '; 1 << 20])).unwrap().len(), 1 << 20, "small ones are harmless");
    }

    #[test]
    fn a_message_unpacks_to_so_much_in_all() {
        let mut budget = Budget::new();
        let packed = gzip(&vec![b' '; 1 << 20]);
        let unpacked = (0..200).filter(|_| budget.inflate(&packed).is_ok()).count();
        assert_eq!(unpacked, UNPACKED_MAX >> 20);
    }
}
