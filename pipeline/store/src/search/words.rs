//! What a word is. One definition for the index, the query compiler and the brute-force evaluator: a maximal run of
//! alphanumeric characters (Unicode), lower-cased, cut at a character boundary to [`WORD_BYTES_MAX`] bytes.

/// Longer words are cut, not dropped: the beginning of a base64 blob stays findable, and terms stay small.
pub const WORD_BYTES_MAX: usize = 255;

/// The next word at or after `from`, as a byte range of `text`.
pub fn next_word(text: &str, from: usize) -> Option<(usize, usize)> {
    let start = find(text, from, true)?;
    Some((start, find(text, start, false).unwrap_or(text.len())))
}

/// The first position at or after `from` whose character is (not) part of a word.
fn find(text: &str, from: usize, wanted: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if bytes[at].is_ascii() {
            if bytes[at].is_ascii_alphanumeric() == wanted {
                return Some(at);
            }
            at += 1;
        } else {
            let c = text[at..].chars().next().expect("`at` is a character boundary before the end");
            if c.is_alphanumeric() == wanted {
                return Some(at);
            }
            at += c.len_utf8();
        }
    }
    None
}

/// Writes the folded form of a word into `out`, replacing what is there.
pub fn fold(word: &str, out: &mut String) {
    out.clear();
    fold_case(word, out);
    if out.len() > WORD_BYTES_MAX {
        out.truncate(out.floor_char_boundary(WORD_BYTES_MAX));
    }
}

fn fold_case(text: &str, out: &mut String) {
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
    } else {
        out.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// What the index keeps of a code at most, and of a fraction of a second: which one is hardly looked for without the rest of its
/// time, and the second alone leaves few rows.
pub const CODE_HEAD: usize = 4;
pub const FRACTION_HEAD: usize = 1;

/// What the index keeps of a code.
pub fn code_head(code: &str) -> &str {
    &code[..if is_fraction(code) { FRACTION_HEAD } else { CODE_HEAD }]
}

/// Of a second, in a time in UTC.
pub fn is_fraction(code: &str) -> bool {
    code.strip_suffix('z').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Shorter words are not codes: keeping them short would save nothing.
const CODE_BYTES_MIN: usize = 7;

/// Does the (folded) word look like a piece of a UUID, a hash, a number or a fraction of a second? Mostly such words are seen once.
pub fn is_code(word: &str) -> bool {
    word.len() >= CODE_BYTES_MIN && word.bytes().all(of_code) && word.bytes().any(|b| b.is_ascii_digit())
}

/// Can it stand in a code? `z` ends times in UTC.
pub fn of_code(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'z')
}

/// The same lower-casing for text that is not split: paths, bounds of ranges, patterns.
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    fold_case(text, &mut out);
    out
}

/// The one word that a number is.
pub fn number_word(literal: &str) -> String {
    let mut word = String::new();
    fold(literal, &mut word);
    word
}

/// The folded words of a text.
pub fn words(text: &str) -> Vec<String> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = next_word(text, at) {
        let mut word = String::new();
        fold(&text[start..end], &mut word);
        out.push(word);
        at = end;
    }
    out
}

/// Paths are compared without case, and a dot is as good as an underscore.
pub fn path_key(path: &str) -> String {
    folded(path).replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_folds() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text:?}");
        check("arn:aws:iam::123:user/Ben", &["arn", "aws", "iam", "123", "user", "ben"]);
        check("", &[]);
        check(" -- ", &[]);
        check("Straße ÉTÉ, 東京", &["straße", "été", "東京"]);
        check("system:serviceaccount:kube-system", &["system", "serviceaccount", "kube", "system"]);
    }

    #[test]
    fn codes() {
        for word in ["550e8400", "446655440000", "123456z", "0000000", "deadbee1"] {
            assert!(is_code(word), "{word}");
        }
        for word in ["", "e29b", "defaced", "123456", "15t0900", "x1234567", "x123é567"] {
            assert!(!is_code(word), "{word}");
        }
        for (code, head) in [("550e8400", "550e"), ("123456z", "1"), ("123456789z", "1"), ("12345fz", "1234")] {
            assert_eq!(code_head(code), head);
        }
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        assert_eq!(words(&"a".repeat(400))[0].len(), WORD_BYTES_MAX);
        assert_eq!(words(&"é".repeat(400))[0].len(), WORD_BYTES_MAX - 1);
    }
}
