//! Indexes over the keys of a lookup. Rows are named by their place; where several match, all are given in order.

use std::collections::{BTreeSet, HashMap};

use crate::functions::address::{Cidr, address};
use crate::glob;

type Key<'a> = Vec<Option<&'a str>>;

/// Keys that are equal. A cell without a value equals nothing.
#[derive(Debug)]
pub struct Exact {
    first: HashMap<String, usize>,
}

impl Exact {
    pub fn new<'a>(keys: impl Iterator<Item = Key<'a>>) -> Exact {
        let mut first = HashMap::new();
        for (row, key) in keys.enumerate() {
            if let Some(values) = key.into_iter().collect::<Option<Vec<&str>>>() {
                first.entry(joined(&values)).or_insert(row);
            }
        }
        Exact { first }
    }

    pub fn get(&self, values: &[&str]) -> Option<usize> {
        match values {
            [one] => self.first.get(*one).copied(),
            many => self.first.get(&joined(many)).copied(),
        }
    }
}

/// One value as it is; of several each with its length, so that they cannot run into each other.
fn joined(values: &[&str]) -> String {
    match values {
        [one] => (*one).to_owned(),
        many => many.iter().map(|value| format!("{}:{value}", value.len())).collect(),
    }
}

/// Keys with wildcards; those without are looked up.
#[derive(Debug)]
pub struct Patterns {
    plain: Exact,
    wild: Vec<Vec<String>>,
}

impl Patterns {
    pub fn new<'a>(keys: impl Iterator<Item = Key<'a>>) -> Patterns {
        let (mut plain, mut wild) = (Vec::new(), Vec::new());
        for key in keys {
            let is_wild = key.iter().flatten().any(|cell| glob::is_pattern(cell));
            match key.iter().copied().collect::<Option<Vec<&str>>>() {
                Some(cells) if is_wild => wild.push(cells.into_iter().map(str::to_owned).collect()),
                _ => plain.push(key),
            }
        }
        Patterns { plain: Exact::new(plain.into_iter()), wild }
    }

    pub fn matches(&self, values: &[&str]) -> bool {
        let of_pattern = |pattern: &Vec<String>| pattern.iter().zip(values).all(|(p, value)| glob::matches(p, value));
        self.plain.get(values).is_some() || self.wild.iter().any(of_pattern)
    }
}

/// Texts that others begin with.
#[derive(Debug)]
pub struct Prefixes {
    rows: HashMap<String, Vec<usize>>,
    /// In bytes; there are few different ones.
    lengths: BTreeSet<usize>,
}

impl Prefixes {
    pub fn new<'a>(keys: impl Iterator<Item = Key<'a>>) -> Prefixes {
        let mut rows: HashMap<String, Vec<usize>> = HashMap::new();
        for (row, key) in keys.enumerate() {
            if let Some(prefix) = key[0] {
                rows.entry(prefix.to_owned()).or_default().push(row);
            }
        }
        Prefixes { lengths: rows.keys().map(String::len).collect(), rows }
    }

    pub fn of(&self, text: &str) -> Vec<usize> {
        let prefixes = self.lengths.range(..=text.len()).filter_map(|len| text.get(..*len));
        prefixes.filter_map(|prefix| self.rows.get(prefix)).flatten().copied().collect()
    }
}

/// Blocks of addresses.
#[derive(Debug)]
pub struct Addresses {
    rows: HashMap<Cidr, Vec<usize>>,
    /// Lengths of the blocks, by whether they are of IPv4.
    lengths: BTreeSet<(bool, u8)>,
}

impl Addresses {
    /// The place of the first row that is no block is the error.
    pub fn new<'a>(keys: impl Iterator<Item = Key<'a>>) -> Result<Addresses, usize> {
        let mut rows: HashMap<Cidr, Vec<usize>> = HashMap::new();
        for (row, key) in keys.enumerate() {
            let block = key[0].and_then(Cidr::parse).ok_or(row)?;
            rows.entry(block).or_default().push(row);
        }
        Ok(Addresses { lengths: rows.keys().map(|b| (b.is_v4(), b.len)).collect(), rows })
    }

    pub fn of(&self, text: &str) -> Vec<usize> {
        let Some(address) = address(text) else { return Vec::new() };
        let lengths = self.lengths.iter().filter(|(v4, _)| *v4 == address.is_ipv4());
        lengths.filter_map(|(_, len)| self.rows.get(&Cidr::of(address, *len))).flatten().copied().collect()
    }
}
