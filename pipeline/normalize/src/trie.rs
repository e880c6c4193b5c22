//! All paths of a source as one trie. A path's end is a slot, numbered in the order of insertion; looking up a key
//! costs one multiplication and, for nearly every key, at most one comparison of a few words.

use std::collections::BTreeMap;

use crate::path::Step;

#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub slot: Option<usize>,
    /// The key that leads here.
    pub label: Option<Label>,
    keys: KeyTable,
    indexes: BTreeMap<usize, usize>,
}

impl Trie {
    pub const ROOT: usize = 0;

    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many distinct paths there are.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

impl Node {
    #[inline]
    pub fn key(&self, key: &[u8]) -> Option<usize> {
        self.keys.find(key)
    }

    pub fn index(&self, index: usize) -> Option<usize> {
        self.indexes.get(&index).copied()
    }

    pub fn has_children(&self) -> bool {
        !self.keys.entries.is_empty() || !self.indexes.is_empty()
    }

    pub fn has_indexes(&self) -> bool {
        !self.indexes.is_empty()
    }
}

/// Collects paths; [`TrieBuilder::build`] freezes them.
#[derive(Debug, Default)]
pub(crate) struct TrieBuilder {
    nodes: Vec<Growing>,
    slots: usize,
}

/// A key as it nearly always stands in JSON, without escapes and with its closing quote.
#[derive(Debug)]
pub(crate) struct Label {
    text: Box<[u8]>,
    /// The first bytes of it, and which of sixteen these are.
    head: u128,
    mask: u128,
}

const LABEL_HEAD: usize = 16;

impl Label {
    /// `None` for keys that need escapes.
    fn new(key: &str) -> Option<Label> {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if !key.bytes().all(plain) {
            return None;
        }
        let text = [key.as_bytes(), b"\""].concat().into_boxed_slice();
        let mut head = [0; LABEL_HEAD];
        let length = text.len().min(LABEL_HEAD);
        head[..length].copy_from_slice(&text[..length]);
        Some(Label { text, head: u128::from_le_bytes(head), mask: u128::MAX >> (8 * (LABEL_HEAD - length)) })
    }

    /// Its length, if `text` begins with it. At the very end of a text it may be overlooked.
    #[inline(always)]
    pub fn begins(&self, text: &[u8]) -> Option<usize> {
        let head = u128::from_le_bytes(*text.first_chunk()?);
        let length = self.text.len();
        let rest = || text.get(LABEL_HEAD..length) == Some(&self.text[LABEL_HEAD..]);
        (head & self.mask == self.head && (length <= LABEL_HEAD || rest())).then_some(length)
    }
}

#[derive(Debug, Default)]
struct Growing {
    slot: Option<usize>,
    label: Option<Label>,
    children: BTreeMap<Step, usize>,
}

impl TrieBuilder {
    /// The path's slot; the same path has the same slot.
    pub fn insert(&mut self, steps: &[Step]) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Growing::default());
        }
        let mut at = Trie::ROOT;
        for step in steps {
            let next = self.nodes.len();
            at = *self.nodes[at].children.entry(step.clone()).or_insert(next);
            if at == next {
                let label = if let Step::Key(key) = step { Label::new(key) } else { None };
                self.nodes.push(Growing { label, ..Growing::default() });
            }
        }
        let slots = &mut self.slots;
        *self.nodes[at].slot.get_or_insert_with(|| {
            *slots += 1;
            *slots - 1
        })
    }

    pub fn build(self) -> Trie {
        Trie { nodes: self.nodes.into_iter().map(Growing::freeze).collect(), slots: self.slots }
    }
}

impl Growing {
    fn freeze(self) -> Node {
        let mut keys = Vec::new();
        let mut indexes = BTreeMap::new();
        for (step, child) in self.children {
            match step {
                Step::Key(key) => keys.push((key.into_boxed_str(), child)),
                Step::Index(index) => {
                    indexes.insert(index, child);
                }
            }
        }
        Node { slot: self.slot, label: self.label, keys: KeyTable::new(keys), indexes }
    }
}

/// A hash table that never changes: entries lie sorted by bucket, and the multiplier is the one of the first few
/// with the fewest keys that share a bucket.
#[derive(Debug, Default)]
struct KeyTable {
    multiplier: u64,
    shift: u32,
    /// Entries of bucket `b` are `starts[b]..starts[b + 1]`.
    starts: Vec<u16>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    ends: Ends,
    key: Box<str>,
    child: usize,
}

/// Multipliers tried per table.
const TRIES: u64 = 200;

impl KeyTable {
    fn new(keys: Vec<(Box<str>, usize)>) -> KeyTable {
        let mut entries: Vec<Entry> =
            keys.into_iter().map(|(key, child)| Entry { ends: Ends::of(key.as_bytes()), key, child }).collect();
        if entries.is_empty() {
            return KeyTable::default();
        }
        let bits = (entries.len() * 4).next_power_of_two().trailing_zeros();
        let shift = 64 - bits;
        let bucket = |multiplier: u64, ends: Ends| (ends.digest().wrapping_mul(multiplier) >> shift) as usize;
        // Odd multiples of 2^64 divided by the golden ratio: well spread (Knuth, TAOCP 6.4).
        let multiplier = (0..TRIES)
            .map(|i| 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(2 * i + 1))
            .min_by_key(|m| {
                let mut buckets: Vec<usize> = entries.iter().map(|entry| bucket(*m, entry.ends)).collect();
                buckets.sort_unstable();
                buckets.windows(2).filter(|w| w[0] == w[1]).count()
            })
            .expect("TRIES is not zero");
        entries.sort_by_key(|entry| bucket(multiplier, entry.ends));
        let mut starts = vec![0u16; (1 << bits) + 1];
        for entry in &entries {
            starts[bucket(multiplier, entry.ends) + 1] += 1;
        }
        for b in 1..starts.len() {
            starts[b] += starts[b - 1];
        }
        KeyTable { multiplier, shift, starts, entries }
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let ends = Ends::of(key);
        let bucket = (ends.digest().wrapping_mul(self.multiplier) >> self.shift) as usize;
        let range = usize::from(self.starts[bucket])..usize::from(self.starts[bucket + 1]);
        let is = |entry: &&Entry| entry.ends == ends && (ends.are_all() || entry.key.as_bytes() == key);
        self.entries[range].iter().find(is).map(|entry| entry.child)
    }
}

/// Length, first and last bytes of a key. Up to 32 bytes these are all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    length: usize,
    head: u128,
    tail: u128,
}

impl Ends {
    #[inline(always)]
    fn of(key: &[u8]) -> Ends {
        let length = key.len();
        let (head, tail) = if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
            (u128::from_le_bytes(*head), u128::from_le_bytes(*tail))
        } else if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
            (u128::from(u64::from_le_bytes(*head)), u128::from(u64::from_le_bytes(*tail)))
        } else if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
            (u128::from(u32::from_le_bytes(*head)), u128::from(u32::from_le_bytes(*tail)))
        } else if length > 0 {
            (u128::from(key[0]) | u128::from(key[length / 2]) << 8, u128::from(key[length - 1]))
        } else {
            (0, 0)
        };
        Ends { length, head, tail }
    }

    fn are_all(self) -> bool {
        self.length <= 32
    }

    /// Mixed: tells apart the keys that occur in practice.
    #[inline]
    fn digest(self) -> u64 {
        let word = self.head as u64 ^ ((self.tail >> 64) as u64 ^ self.tail as u64).rotate_left(23);
        (word ^ (word >> 32)).wrapping_add((self.length as u64) << 40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Path;

    #[test]
    fn labels_are_whole_keys() {
        for key in ["", "k", "fourteen bytes", "fifteen bytes--", "sixteen bytes---", "seventeen bytes--", "é"] {
            let label = Label::new(key).unwrap();
            let text = format!("{key}\": and something else");
            assert_eq!(label.begins(text.as_bytes()), Some(key.len() + 1), "{key}");
            for other in
                [format!("{key}s\": and something else"), format!("x{text}"), format!("{key}\\\": and so on, on")]
            {
                assert_eq!(label.begins(other.as_bytes()), None, "{key} {other}");
            }
        }
        assert!(["a\"b", "a\\b", "a\nb"].iter().all(|key| Label::new(key).is_none()));
    }

    #[test]
    fn finds_every_inserted_path_and_no_other() {
        let mut builder = TrieBuilder::default();
        let paths = [
            "verb",
            "user.username",
            "user.groups",
            "user",
            "a[0].b",
            "a[1]",
            "x",
            "xy",
            "xyz",
            r#"f["k.1"]"#,
            "abcdefgh12345678ijklmnop",
            "abcdefgh87654321ijklmnop",
            "abcdefghijklmnop12345678abcdefghijklmnop",
            "abcdefghijklmnop87654321abcdefghijklmnop",
        ];
        let slots: Vec<usize> = paths.iter().map(|p| builder.insert(&Path::parse(p).unwrap().steps)).collect();
        assert_eq!(slots, (0..paths.len()).collect::<Vec<_>>());
        assert_eq!(builder.insert(&Path::parse("verb").unwrap().steps), 0);
        let trie = builder.build();
        let find = |path: &str| {
            let steps = Path::parse(path).unwrap().steps;
            let end = steps.iter().try_fold(Trie::ROOT, |node, step| match step {
                Step::Key(key) => trie.node(node).key(key.as_bytes()),
                Step::Index(index) => trie.node(node).index(*index),
            });
            end.and_then(|node| trie.node(node).slot)
        };
        for (slot, path) in paths.iter().enumerate() {
            assert_eq!(find(path), Some(slot), "{path}");
        }
        for path in [
            "ver",
            "verbs",
            "a",
            "a[2]",
            "f",
            "username",
            "abcdefgh00000000ijklmnop",
            "abcdefghijklmnop00000000abcdefghijklmnop",
            "yz",
            "[0]",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
