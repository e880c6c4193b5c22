//! One pass over an element's bytes: what a path wants is remembered by its place, everything else is skipped.
//! Of a key that an object has twice the first one counts, as in `raw->>'key'`.

use std::ops::Range;

use crate::cursor::Cursor;
use crate::trie::{Node, Trie};
use crate::value::Value;

/// What a walk found in `text`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'f> {
    pub text: &'f str,
    /// The root is an object.
    pub object: bool,
    /// A key on some path stands twice in its object.
    pub repeated: bool,
    slots: &'f [Slot],
}

/// The place of a path's value; `null` is as good as absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    start: u32,
    end: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Absent,
    /// A string without escapes: what is between the quotes is its text.
    Plain,
    /// A string with escapes.
    Escaped,
    Other,
}

/// What walks write to, kept from one to the next.
#[derive(Debug)]
pub(crate) struct Scratch {
    slots: Vec<Slot>,
    /// Nodes that have had their value: a second one is a repeated key.
    visited: Vec<bool>,
    object: bool,
    repeated: bool,
    list: Option<Vec<Range<usize>>>,
    /// Which key came first in the last object of each node, and, behind these, which came next after each node's own:
    /// senders write keys in one order, so that mostly a glance tells which one it is. The root is none.
    expected: Vec<u32>,
}

impl<'f> Found<'f> {
    /// The slot's JSON text.
    #[inline]
    pub fn json(&self, slot: usize) -> Option<&'f str> {
        let Slot { start, end, kind } = self.slots[slot];
        (kind != Kind::Absent).then(|| &self.text[start as usize..end as usize])
    }

    #[inline]
    pub fn value(&self, slot: usize) -> Option<Value<'f>> {
        self.json(slot).map(|json| Value { json, plain: self.slots[slot].kind == Kind::Plain })
    }

    #[inline]
    pub fn is_present(&self, slot: usize) -> bool {
        self.slots[slot].kind != Kind::Absent
    }

    /// Place of the slot's text, if it stands there as it is meant: a string without escapes, or no string at all.
    #[inline]
    pub fn text_part(&self, slot: usize) -> Option<Range<usize>> {
        let Slot { start, end, kind } = self.slots[slot];
        match kind {
            Kind::Plain => Some(start as usize + 1..end as usize - 1),
            Kind::Other => Some(start as usize..end as usize),
            Kind::Absent | Kind::Escaped => None,
        }
    }

    #[inline]
    pub fn is_string(&self, slot: usize) -> bool {
        matches!(self.slots[slot].kind, Kind::Plain | Kind::Escaped)
    }
}

impl Scratch {
    pub fn new(trie: &Trie) -> Self {
        let (slots, visited) = (vec![Slot::default(); trie.slots()], vec![false; trie.nodes()]);
        let expected = vec![Trie::ROOT as u32; 2 * trie.nodes()];
        Scratch { slots, visited, object: false, repeated: false, list: None, expected }
    }

    /// What was found in the text walked last.
    pub fn found<'f>(&'f self, text: &'f str) -> Found<'f> {
        Found { text, object: self.object, repeated: self.repeated, slots: &self.slots }
    }

    /// Elements of the list at the envelope's slot, or of the root if that is a list.
    pub fn take_list(&mut self) -> Option<Vec<Range<usize>>> {
        self.list.take()
    }

    /// Where the slot's value lies.
    pub fn place(&self, slot: usize) -> Option<Range<usize>> {
        let Slot { start, end, kind } = self.slots[slot];
        (kind != Kind::Absent).then_some(start as usize..end as usize)
    }

    fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.visited.fill(false);
        (self.object, self.repeated, self.list) = (false, false, None);
    }
}

/// Walks the JSON value that `text` begins with, and returns its end; `None` when there is none. `list_slot` is the
/// slot of the path under which an envelope keeps its elements.
pub(crate) fn walk(trie: &Trie, list_slot: Option<usize>, text: &str, scratch: &mut Scratch) -> Option<usize> {
    assert!(u32::try_from(text.len()).is_ok(), "no source hands over a message of 4 GiB");
    scratch.clear();
    let mut walk = Walk { trie, list_slot, cursor: Cursor::new(text), scratch };
    walk.inside(Trie::ROOT)?;
    Some(walk.cursor.at)
}

struct Walk<'w, 'de> {
    trie: &'w Trie,
    list_slot: Option<usize>,
    cursor: Cursor<'de>,
    scratch: &'w mut Scratch,
}

impl<'w> Walk<'w, '_> {
    /// The value of a node that has not had one.
    fn value(&mut self, index: usize) -> Option<()> {
        let node = self.trie.node(index);
        match node.slot {
            None => self.inside(index),
            Some(slot) if self.list_slot == Some(slot) => self.list(),
            Some(slot) => self.wanted(index, node, slot),
        }
    }

    fn wanted(&mut self, index: usize, node: &Node, slot: usize) -> Option<()> {
        let first = self.cursor.peek()?;
        let start = self.cursor.at;
        let kind = if first == b'"' {
            self.cursor.at += 1;
            if self.cursor.string()? { Kind::Escaped } else { Kind::Plain }
        } else {
            match node.has_children() {
                true => self.inside(index)?,
                false => self.cursor.skip()?,
            }
            if self.cursor.since(start) == b"null" { Kind::Absent } else { Kind::Other }
        };
        self.scratch.slots[slot] = Slot { start: start as u32, end: self.cursor.at as u32, kind };
        Some(())
    }

    /// A value for the sake of what is in it.
    fn inside(&mut self, index: usize) -> Option<()> {
        match self.cursor.peek()? {
            b'{' => self.object(index),
            b'[' if index == Trie::ROOT => self.list(),
            b'[' => self.elements(self.trie.node(index)),
            _ => self.cursor.skip(),
        }
    }

    fn object(&mut self, index: usize) -> Option<()> {
        self.scratch.object |= index == Trie::ROOT;
        let node = self.trie.node(index);
        self.cursor.at += 1;
        if self.cursor.peek()? == b'}' {
            self.cursor.at += 1;
            return Some(());
        }
        // Where it is noted what comes next.
        let mut note = index;
        loop {
            let child = self.key(node, self.scratch.expected[note] as usize)?;
            if let Some(child) = child {
                self.scratch.expected[note] = child as u32;
                note = self.trie.nodes() + child;
            }
            self.child(child)?;
            match self.cursor.token()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Reads `"key":`, and says which child it leads to.
    #[inline(always)]
    fn key(&mut self, node: &Node, expected: usize) -> Option<Option<usize>> {
        if self.cursor.token()? != b'"' {
            return None;
        }
        let label = self.trie.node(expected).label.as_ref();
        let child = if let Some(length) = label.and_then(|label| label.begins(self.cursor.rest())) {
            self.cursor.at += length;
            Some(expected)
        } else {
            let (key, escaped) = self.cursor.key_text()?;
            if escaped { unescaped(key).and_then(|key| node.key(key.as_bytes())) } else { node.key(key) }
        };
        (self.cursor.token()? == b':').then_some(child)
    }

    /// A list into which paths may have indexes.
    fn elements(&mut self, node: &Node) -> Option<()> {
        if !node.has_indexes() {
            return self.cursor.skip();
        }
        self.each_element(|walk, index| walk.child(node.index(index)))
    }

    /// Keeps the places of a list's elements; anything else is skipped.
    fn list(&mut self) -> Option<()> {
        if self.cursor.peek()? != b'[' {
            return self.cursor.skip();
        }
        let mut elements = Vec::new();
        self.each_element(|walk, _| {
            walk.cursor.peek()?;
            let start = walk.cursor.at;
            walk.cursor.skip()?;
            elements.push(start..walk.cursor.at);
            Some(())
        })?;
        self.scratch.list = Some(elements);
        Some(())
    }

    fn each_element(&mut self, mut each: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        self.cursor.at += 1;
        if self.cursor.peek()? == b']' {
            self.cursor.at += 1;
            return Some(());
        }
        for index in 0.. {
            each(self, index)?;
            match self.cursor.token()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
        None
    }

    /// Goes on at a child, unless it has had its value.
    #[inline(always)]
    fn child(&mut self, child: Option<usize>) -> Option<()> {
        match child {
            Some(child) if !std::mem::replace(&mut self.scratch.visited[child], true) => self.value(child),
            repeated => {
                self.scratch.repeated |= repeated.is_some();
                self.cursor.skip()
            }
        }
    }
}

/// A key as it is meant. Half of a surrogate pair is no text that a path could have.
fn unescaped(key: &[u8]) -> Option<String> {
    let quoted = [b"\"", key, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}
