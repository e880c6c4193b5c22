//! A source's plan with its paths resolved to slots of one trie.

use std::ops::Range;
use std::sync::Arc;

use event::{ColumnType, Micros, TableSchema};

use crate::envelope::{self, Wrappers};
use crate::path::{Path, Step};
use crate::pod::{Pod, Request};
use crate::pod_feature::PodFeature;
use crate::redact::Secrets;
use crate::schema::{Fill, Plan};
use crate::transform::{INPUTS_MAX, Inputs, Made, Transform};
use crate::trie::{Trie, TrieBuilder};
use crate::value::{self, Value};
use crate::walk::{self, Found, Scratch};

#[derive(Debug)]
pub(crate) struct Program {
    pub table: Arc<TableSchema>,
    /// The different ways in which columns are filled; those from pod specs are the last.
    pub fills: Vec<FillSlots>,
    /// Of each column after the meta columns its fill: `verb` and `api_operation` share one, and so their array.
    pub columns: Vec<usize>,
    event_name: String,
    trie: Trie,
    /// Where an envelope of this source keeps its elements.
    list_slot: Option<usize>,
    pub wrappers: Wrappers,
    require: Vec<Alternatives>,
    time: Alternatives,
    uid: Vec<usize>,
    /// How many fills are not from pod specs, and where the others look.
    plain_fills: usize,
    pod: Option<PodSlots>,
    pub secrets: Secrets,
}

/// What decides whether a request makes pods.
#[derive(Debug)]
struct PodSlots {
    verb: usize,
    resource: usize,
    subresource: usize,
    body: usize,
    response: usize,
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

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FillSlots {
    pub kind: ColumnType,
    slots: Vec<usize>,
    pub transform: Option<Transform>,
    pub pod: Option<PodFeature>,
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
        let of_columns: Vec<FillSlots> = plan.fills.iter().map(|fill| FillSlots::new(fill, &mut trie)).collect();
        let mut fills: Vec<FillSlots> = Vec::new();
        let mut columns = vec![0; of_columns.len()];
        for pods in [false, true] {
            for (column, fill) in of_columns.iter().enumerate().filter(|(_, fill)| fill.pod.is_some() == pods) {
                columns[column] = fills.iter().position(|known| known == fill).unwrap_or(fills.len());
                if columns[column] == fills.len() {
                    fills.push(fill.clone());
                }
            }
        }
        let plain_fills = fills.iter().filter(|fill| fill.pod.is_none()).count();
        let pod = (plain_fills < fills.len()).then(|| PodSlots::new(&mut trie));
        let wrappers = Wrappers::new(plan.source, &mut trie);
        let secrets = Secrets::new(plan.source, &mut trie);
        Program {
            table: plan.table.clone(),
            event_name: plan.event_name.clone(),
            trie: trie.build(),
            list_slot,
            wrappers,
            require,
            time,
            uid,
            fills,
            columns,
            plain_fills,
            pod,
            secrets,
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

    /// The fills that paths feed.
    pub fn plain_fills(&self) -> &[FillSlots] {
        &self.fills[..self.plain_fills]
    }

    /// The fills that pod specs feed, behind the plain ones.
    pub fn pod_fills(&self) -> &[FillSlots] {
        &self.fills[self.plain_fills..]
    }

    /// What the event says of pods.
    #[inline]
    pub fn pod(&self, found: Found) -> Option<Pod> {
        let slots = self.pod.as_ref()?;
        let (body, response) = (found.json(slots.body), found.json(slots.response));
        if body.is_none() && response.is_none() {
            return None;
        }
        let text = |slot| found.value(slot).map(Value::text);
        let (verb, resource, subresource) = (text(slots.verb)?, text(slots.resource)?, text(slots.subresource));
        let subresource = subresource.as_deref().filter(|name| !name.is_empty());
        Pod::of(Request { verb: &verb, resource: &resource, subresource, body, response })
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
            match found.value(*slot) {
                Some(part) => {
                    if i > 0 {
                        made.push('/');
                    }
                    made.push_str(&part.text());
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
            pod: fill.pod,
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

    /// What the transform makes of the present values; `slot` is the first one.
    pub fn make<'f>(&self, transform: Transform, slot: usize, found: Found<'f>) -> Option<Made<'f>> {
        let mut values = [None; INPUTS_MAX];
        let mut count = 0;
        match transform.inputs() {
            Inputs::First => return transform.apply(&[found.value(slot)]),
            Inputs::Each(_) => {
                for (value, slot) in values.iter_mut().zip(&self.slots) {
                    *value = found.value(*slot);
                    count += 1;
                }
            }
            Inputs::Present => {
                let present = self.slots.iter().filter_map(|slot| found.value(*slot));
                for (value, given) in values.iter_mut().zip(present) {
                    *value = Some(given);
                    count += 1;
                }
            }
        }
        transform.apply(&values[..count])
    }
}

impl PodSlots {
    fn new(trie: &mut TrieBuilder) -> Self {
        let mut slot =
            |keys: &[&str]| trie.insert(&keys.iter().map(|key| Step::Key((*key).into())).collect::<Vec<_>>());
        PodSlots {
            verb: slot(&["verb"]),
            resource: slot(&["objectRef", "resource"]),
            subresource: slot(&["objectRef", "subresource"]),
            body: slot(&["requestObject"]),
            response: slot(&["responseObject"]),
        }
    }
}

fn slots(paths: &[Path], trie: &mut TrieBuilder) -> Vec<usize> {
    paths.iter().map(|path| trie.insert(&path.steps)).collect()
}
