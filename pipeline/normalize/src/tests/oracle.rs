//! The walk once more, by way of serde: what the hand-written one must agree with. Slower, and it refuses what
//! serde cannot hold: keys with half a surrogate pair, numbers beyond a double where an object could be.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::trie::{Node, Trie};

/// What a walk found; slices of the walked text.
#[derive(Debug)]
pub(crate) struct Found<'de> {
    /// JSON text by slot of the trie; `null` is as good as absent.
    pub slots: Vec<Option<&'de str>>,
    /// Elements of the list at the envelope's slot, or of the root if that is a list.
    pub list: Option<Vec<&'de RawValue>>,
    /// The root is an object.
    pub object: bool,
    /// Nodes that have had their value: a second one is a repeated key.
    visited: Vec<bool>,
}

/// Walks one JSON value, which must be all there is in `text`. `list_slot` is the slot of the path under which an
/// envelope keeps its elements.
pub(crate) fn walk<'de>(
    trie: &Trie,
    list_slot: Option<usize>,
    text: &'de str,
) -> Result<Found<'de>, serde_json::Error> {
    let mut found =
        Found { slots: vec![None; trie.slots()], list: None, object: false, visited: vec![false; trie.nodes()] };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Walk { trie, list_slot, node: Trie::ROOT, found: &mut found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

struct Walk<'w, 'de> {
    trie: &'w Trie,
    list_slot: Option<usize>,
    node: usize,
    found: &'w mut Found<'de>,
}

impl<'w, 'de> Walk<'w, 'de> {
    /// Goes on at a child, unless it has had its value.
    fn child(&mut self, child: Option<usize>) -> Option<Walk<'_, 'de>> {
        let child = child?;
        let repeated = std::mem::replace(&mut self.found.visited[child], true);
        (!repeated).then_some(Walk { trie: self.trie, list_slot: self.list_slot, node: child, found: self.found })
    }

    fn here(&self) -> &'w Node {
        self.trie.node(self.node)
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(slot) = self.here().slot else {
            return deserializer.deserialize_any(self);
        };
        if self.list_slot == Some(slot) {
            return deserializer.deserialize_any(List(self.found));
        }
        let raw: &'de RawValue = serde::Deserialize::deserialize(deserializer)?;
        self.found.slots[slot] = Some(raw.get()).filter(|raw| *raw != "null");
        if self.here().has_children() {
            // Wanted as a whole and in parts: rare, so its bytes are read twice. They were valid the first time.
            let mut inner = serde_json::Deserializer::from_str(raw.get());
            inner.deserialize_any(self).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.found.object |= self.node == Trie::ROOT;
        let node = self.here();
        while let Some(child) = map.next_key_seed(Key(node))? {
            match self.child(child) {
                Some(walk) => map.next_value_seed(walk)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        if self.node == Trie::ROOT {
            return List(self.found).visit_seq(list);
        }
        let node = self.here();
        let mut index = 0;
        while node.has_indexes() {
            let more = match self.child(node.index(index)) {
                Some(walk) => list.next_element_seed(walk)?.is_some(),
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    // A scalar where paths expect an object or a list: nothing to be found in it.

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Looks a key up without keeping it.
struct Key<'w>(&'w Node);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.key(key.as_bytes()))
    }
}

/// Keeps the elements of a list as slices; anything else is skipped.
struct List<'w, 'de>(&'w mut Found<'de>);

impl<'de> Visitor<'de> for List<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        self.0.list = Some(elements);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
