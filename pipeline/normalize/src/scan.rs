//! Where the plain part of a JSON string ends, sixteen bytes at a time.

/// Bytes looked at in one step.
const STEP: usize = 16;

/// Index at or after `at` of the first quote, backslash or control character, or the length when there is none.
#[inline(always)]
pub(crate) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<STEP>()) {
        let word = u128::from_le_bytes(*chunk);
        let (low, high) = (special(word as u64), special((word >> 64) as u64));
        if low | high != 0 {
            // The length of a string is hard to guess, so this should compile to no branch.
            let marks = u128::from(low) | u128::from(high) << 64;
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += STEP;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Marks special bytes by their highest bit (Mycroft's test for zero bytes): the first mark is right, later ones may
/// be wrong.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    // Flipping this bit puts the quote right behind the control characters, and leaves those where they are.
    let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_byte_at_every_place() {
        for byte in 0..=255u8 {
            for at in 0..40 {
                let mut bytes = *b"plain \x7f\x80\xffx text of some length, forty bytes";
                bytes[at] = byte;
                let expected = if is_special(byte) { at } else { bytes.len() };
                assert_eq!(plain_end(&bytes, 0), expected, "{byte} at {at}");
            }
        }
        assert_eq!((plain_end(b"", 0), plain_end(b"ab\"", 1), plain_end(b"\"", 5)), (0, 2, 5));
    }
}
