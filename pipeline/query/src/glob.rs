//! Patterns with `*` (any text) and `?` (one character), as AWS and people write them.

/// Whether the whole text is of the pattern. After a mismatch only the last star is tried again, so that the time
/// is at most the product of the lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        };
        check("", "", true);
        check("*", "", true);
        check("", "a", false);
        check("iam:put*", "iam:putuserpolicy", true);
        check("iam:put*policy", "iam:putuserpolicy", true);
        check("*b*b", "abab", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("ä?", "äö", true);
        check("a*", "ba", false);
        check("**a**", "xax", true);
        check(&"*a".repeat(1_000), &"a".repeat(2_000), true);
        check(&format!("{}b", "*a".repeat(500)), &"a".repeat(2_000), false);
    }
}
