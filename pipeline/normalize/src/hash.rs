//! The hash that tells rows apart, and how it is written.

use event::RowHash;
use sha2::{Digest, Sha256};

/// SHA-256, for which current processors have instructions: BLAKE3 has the lead only on inputs longer than events
/// (`tests::speed` measures both).
pub(crate) fn row_hash(bytes: &[u8]) -> RowHash {
    *Sha256::digest(bytes).first_chunk().expect("a SHA-256 hash has 32 bytes")
}

/// Replaces `text` by the hash in lower-case hex.
pub(crate) fn hex<'t>(hash: &RowHash, text: &'t mut String) -> &'t str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.clear();
    for byte in hash {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_hash_is_the_beginning_of_sha256() {
        let mut text = "old".to_owned();
        hex(&row_hash(b""), &mut text);
        assert_eq!(text, "e3b0c44298fc1c149afbf4c8996fb924");
    }
}
