//! What was made of a value before in the same batch: clients, names, addresses and reasons come again and again, and
//! finding one costs less than reading it. What is not here can be made anew, so a new value takes an old one's place.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// Values by their JSON text, as far as they were remembered last.
#[derive(Debug)]
pub(crate) struct Memo<T> {
    /// Empty until there is a value, then [`ENTRIES`].
    entries: Vec<Entry<T>>,
    batch: u64,
}

#[derive(Debug, Default)]
struct Entry<T> {
    json: String,
    /// What was made in another batch lies in that one's text.
    batch: u64,
    made: T,
}

/// Some hundred principals make most of a stream. What is remembered of them should stay in a core's cache.
const ENTRIES: usize = 512;
/// Longer values seldom come twice. Bounds what a column remembers to half a megabyte.
const JSON_MAX: usize = 1024;

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo { entries: Vec::new(), batch: 1 }
    }
}

impl<T: Copy + Default> Memo<T> {
    #[inline]
    pub fn find(&self, json: &str) -> Option<T> {
        let entry = self.entries.get(place(json))?;
        (entry.batch == self.batch && entry.json == json).then_some(entry.made)
    }

    pub fn remember(&mut self, json: &str, made: T) {
        if json.len() > JSON_MAX {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize_with(ENTRIES, Entry::default);
        }
        let entry = &mut self.entries[place(json)];
        entry.json.clear();
        entry.json.push_str(json);
        (entry.batch, entry.made) = (self.batch, made);
    }

    pub fn end_batch(&mut self) {
        self.batch += 1;
    }
}

#[inline]
fn place(json: &str) -> usize {
    FixedState::default().hash_one(json.as_bytes()) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_made_of_the_same_text_in_the_same_batch() {
        let mut memo = Memo::default();
        let check = |memo: &mut Memo<usize>, json: &str, made: usize, expected: usize| {
            let got = memo.find(json).unwrap_or_else(|| {
                memo.remember(json, made);
                made
            });
            assert_eq!(got, expected, "{json}");
        };
        check(&mut memo, "\"a\"", 1, 1);
        check(&mut memo, "\"b\"", 2, 2);
        check(&mut memo, "\"a\"", 3, 1);
        for value in 0..10 * ENTRIES {
            check(&mut memo, &value.to_string(), value, value);
        }
        check(&mut memo, "5119", 0, 5119);
        memo.end_batch();
        check(&mut memo, "5119", 6, 6);
        let long = "x".repeat(JSON_MAX + 1);
        check(&mut memo, &long, 7, 7);
        check(&mut memo, &long, 8, 8);
    }
}
