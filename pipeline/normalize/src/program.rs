//! A source's plan with its paths resolved to slots of one trie.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use event::{ColumnType, Micros, TableSchema};

use crate::envelope;
use crate::path::{Path, Step};
use crate::schema::{Fill, Plan};
use crate::transform::Transform;
use crate::trie::{Trie, TrieBuilder};
use crate::value;
use crate::walk::{self, Found, Scratch};

#[derive(Debug)]
pub(crate) struct Program {
    pub table: Arc<TableSchema>,
    /// The different ways in which columns are filled.
    pub fills: Vec<FillSlots>,
    /// Of each column after the meta columns its fill: `verb` and `api_operation` share one, and so their array.
    pub columns: Vec<usize>,
    event_name: String,
    trie: Trie,
    /// Where an envelope of this source keeps its elements.
    list_slot: Option<usize>,
    require: Vec<Alternatives>,
    time: Alternatives,
    uid: Vec<usize>,
}

/// Slots of which one is needed, and how to name them to people.
#[derive(Debug)]
struct Alternatives {
    slots: Vec<usize>,
    label: String,
}

/// A row's uid, as it stands in the element or put together.
pub(crate) enum Uid<'u> {
    Part(Range<usize>),
    Made(&'u str),
}

#[derive(Debug, PartialEq)]
pub(crate) struct FillSlots {
    pub kind: ColumnType,
    slots: Vec<usize>,
    pub transform: Option<Transform>,
    default: Option<String>,
    when: Option<usize>,
}

impl Program {
    pub fn new(plan: &Plan) -> Program {
        let mut trie = TrieBuilder::default();
        let list_slot = envelope::list_key(plan.source).map(|key| trie.insert(&[Step::Key(key.into())]));
        let require = plan.require.iter().map(|paths| Alternatives::new(paths, &mut trie)).collect();
        let time = Alternatives::new(&plan.time, &mut trie);
        let uid = slots(&plan.uid, &mut trie);
        let (mut fills, mut columns) = (Vec::new(), Vec::new());
        for fill in plan.fills.iter().map(|fill| FillSlots::new(fill, &mut trie)) {
            columns.push(fills.iter().position(|known| *known == fill).unwrap_or(fills.len()));
            if columns.last() == Some(&fills.len()) {
                fills.push(fill);
            }
        }
        Program {
            table: plan.table.clone(),
            event_name: plan.event_name.clone(),
            trie: trie.build(),
            list_slot,
            require,
            time,
            uid,
            fills,
            columns,
        }
    }

    /// What its walks write to.
    pub fn scratch(&self) -> Scratch {
        Scratch::new(&self.trie)
    }

    /// Walks the JSON value that `text` begins with, and returns its end; `None` when there is none.
    pub fn walk(&self, text: &str, scratch: &mut Scratch) -> Option<usize> {
        walk::walk(&self.trie, self.list_slot, text, scratch)
    }

    #[cfg(test)]
    pub fn paths(&self) -> (&Trie, Option<usize>) {
        (&self.trie, self.list_slot)
    }

    /// Has all that makes it an event of this source, its time apart.
    pub fn is_event(&self, found: Found) -> bool {
        self.require.iter().all(|a| a.has_text(found))
    }

    /// The event's time, or why it is no event.
    pub fn event_time(&self, found: Found) -> Result<Micros, String> {
        if !found.object {
            return Err(format!("not a {}: not an object", self.event_name));
        }
        if let Some(missing) = self.require.iter().find(|a| !a.has_text(found)) {
            return Err(format!("not a {}: no {}", self.event_name, missing.label));
        }
        let present = || self.time.slots.iter().filter_map(|slot| found.json(*slot));
        match present().find_map(value::time) {
            Some(time) => Ok(time),
            None if present().next().is_some() => Err(format!("no event time: cannot read {}", self.time.label)),
            None => Err(format!("no event time: no {}", self.time.label)),
        }
    }

    /// The vendor's id; `None` when there is none. `made` is where it is put together if it has to be.
    pub fn uid<'u>(&self, found: Found, made: &'u mut String) -> Option<Uid<'u>> {
        if let [slot] = self.uid[..]
            && let Some(part) = found.text_part(slot)
        {
            return (!part.is_empty()).then_some(Uid::Part(part));
        }
        made.clear();
        for (i, slot) in self.uid.iter().enumerate() {
            match found.json(*slot) {
                Some(part) => {
                    if i > 0 {
                        made.push('/');
                    }
                    made.push_str(&value::text(part));
                }
                None if i == 0 => return None,
                None => {}
            }
        }
        (!made.is_empty()).then_some(Uid::Made(made))
    }
}

impl Alternatives {
    fn new(paths: &[Path], trie: &mut TrieBuilder) -> Self {
        let label = paths.iter().map(|p| p.text.as_str()).collect::<Vec<_>>().join("/");
        Alternatives { slots: slots(paths, trie), label }
    }

    fn has_text(&self, found: Found) -> bool {
        self.slots.iter().any(|slot| found.is_string(*slot))
    }
}

impl FillSlots {
    fn new(fill: &Fill, trie: &mut TrieBuilder) -> Self {
        FillSlots {
            kind: fill.kind,
            slots: slots(&fill.paths, trie),
            transform: fill.transform,
            default: fill.default.clone(),
            when: fill.when.as_ref().map(|path| trie.insert(&path.steps)),
        }
    }

    /// The first path that is present.
    #[inline]
    pub fn slot(&self, found: Found) -> Option<usize> {
        self.slots.iter().copied().find(|slot| found.is_present(*slot))
    }

    /// Text for a row in which no path is present.
    #[inline]
    pub fn default(&self, found: Found) -> Option<&str> {
        let default = self.default.as_deref()?;
        match self.when {
            Some(slot) => found.is_present(slot).then_some(default),
            None => Some(default),
        }
    }

    pub fn text<'v>(&self, raw: &'v str) -> Option<Cow<'v, str>> {
        match self.transform {
            Some(transform) => transform.apply(raw),
            None => Some(value::text(raw)),
        }
    }
}

fn slots(paths: &[Path], trie: &mut TrieBuilder) -> Vec<usize> {
    paths.iter().map(|path| trie.insert(&path.steps)).collect()
}
