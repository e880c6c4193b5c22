//! Messages in, batches out: one row per element, in the source's table or in `unparsed`.

use event::{Batch, Message, Micros, RowHash, Source, tables};

use crate::envelope::{self, Element};
use crate::hash::{hex, row_hash};
use crate::inflate::{self, Budget};
use crate::program::{Program, Uid};
use crate::rows::{EventRows, Row, UnparsedRows};
use crate::schema::Schemas;
use crate::walk::{Found, Scratch};

/// Turns messages into rows. Rows collect until [`Normalizer::finish`].
#[derive(Debug)]
pub struct Normalizer {
    /// One per source, in the order of [`Source::ALL`].
    programs: Vec<Program>,
    scratch: Vec<Scratch>,
    pending: Pending,
}

/// The rows of the messages pushed since the last one.
///
/// The string columns of a batch are views into the same bytes, which are little more than `raw`; columns that are
/// filled alike are one array, as are those of a type that are null in every row. So
/// `RecordBatch::get_array_memory_size` counts these bytes once per string column that has a text of more than twelve
/// bytes, some 15 times over: what a batch takes is the sum of its distinct buffers.
#[derive(Clone, Debug, Default)]
pub struct Normalized {
    /// One per table with rows; `source_watermark` is `i64::MIN` until admission stamps it.
    pub batches: Vec<Batch>,
    /// Of every row in arrival order the index of its batch: what the order of rows was across tables.
    pub order: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    events: Vec<EventRows>,
    unparsed: UnparsedRows,
    /// Table of every row in arrival order, as in [`tables::STORED`].
    order: Vec<u8>,
    uid: String,
    own_uid: String,
}

/// What is known of a row before its columns are.
struct Event<'h> {
    index: i64,
    time: Micros,
    hash: &'h RowHash,
    redacted: bool,
}

const UNPARSED: u8 = 3;
const NO_CLUSTER: &str = "no cluster: neither the topic's mapping nor the message says which one it comes from";

impl Normalizer {
    pub fn new(schemas: &Schemas) -> Self {
        let programs: Vec<Program> = schemas.plans().iter().map(Program::new).collect();
        let unparsed = schemas.table(tables::UNPARSED).expect("schemas have every stored table").clone();
        let pending = Pending {
            events: programs.iter().map(EventRows::new).collect(),
            unparsed: UnparsedRows::new(unparsed),
            order: Vec::new(),
            uid: String::new(),
            own_uid: String::new(),
        };
        let scratch = programs.iter().map(Program::scratch).collect();
        Normalizer { programs, scratch, pending }
    }

    /// Appends a row per element of the message.
    pub fn push(&mut self, message: &Message) {
        let mut budget = Budget::new();
        if inflate::is_gzip(&message.bytes) {
            return match budget.inflate(&message.bytes) {
                Ok(text) => self.open(message, &text, &mut budget),
                Err(reason) => self.pending.bytes(message, &reason),
            };
        }
        match str::from_utf8(&message.bytes) {
            Ok(text) => self.open(message, text, &mut budget),
            Err(error) => {
                let reason = format!("not UTF-8: invalid byte at byte {}", error.valid_up_to());
                self.pending.bytes(message, &reason);
            }
        }
    }

    fn open(&mut self, message: &Message, text: &str, budget: &mut Budget) {
        let table = table_index(message.source);
        let (program, scratch, pending) = (&self.programs[table], &mut self.scratch[table], &mut self.pending);
        let mut index = 0;
        envelope::open(program, scratch, text, budget, &mut |element| {
            pending.append(program, table, message, index, element);
            index += 1;
        });
    }

    /// Hands over the rows and starts anew.
    pub fn finish(&mut self) -> Normalized {
        let pending = &mut self.pending;
        let mut batches = Vec::new();
        let mut index_of = [0u8; tables::STORED.len()];
        for (table, name) in tables::STORED.iter().enumerate() {
            let rows = match pending.events.get_mut(table) {
                Some(events) => events.finish(&self.programs[table]),
                None => pending.unparsed.finish(),
            };
            if let Some(rows) = rows {
                index_of[table] = batches.len() as u8;
                batches.push(Batch { table: (*name).into(), rows });
            }
        }
        let mut order = std::mem::take(&mut pending.order);
        order.iter_mut().for_each(|table| *table = index_of[usize::from(*table)]);
        Normalized { batches, order }
    }
}

impl Pending {
    fn append(&mut self, program: &Program, table: usize, message: &Message, index: i64, element: Element) {
        let (raw, reason) = match element {
            Element::Event { found, .. } if message.cluster.is_none() && message.source.needs_cluster() => {
                (found.text, NO_CLUSTER.into())
            }
            Element::Event { found, time } => {
                let hash = row_hash(found.text.as_bytes());
                match program.secrets.redacted(found) {
                    None => {
                        self.event(program, table, message, Event { index, time, hash: &hash, redacted: false }, found)
                    }
                    Some(text) => {
                        let mut scratch = program.scratch();
                        let end = program.walk(&text, &mut scratch);
                        debug_assert_eq!(end, Some(text.len()), "values became strings");
                        let event = Event { index, time, hash: &hash, redacted: true };
                        self.event(program, table, message, event, scratch.found(&text));
                    }
                }
                return;
            }
            Element::Bad { raw, reason } => (raw, reason),
        };
        let hash = row_hash(raw.as_bytes());
        self.unparsed(message, index, &hash, raw, &reason, None);
    }

    fn event(&mut self, program: &Program, table: usize, message: &Message, event: Event, found: Found) {
        let Event { index, time, hash, redacted } = event;
        let uid = match program.uid(found, &mut self.uid) {
            Some(uid) => uid,
            None => Uid::Made(hex(hash, &mut self.own_uid)),
        };
        let row = Row { index, time, uid, hash, raw: found.text, redacted };
        self.events[table].append(program, message, row, found);
        self.order.push(table as u8);
    }

    /// A message that is no text.
    fn bytes(&mut self, message: &Message, reason: &str) {
        let hash = row_hash(&message.bytes);
        let lossy = String::from_utf8_lossy(&message.bytes);
        self.unparsed(message, 0, &hash, &lossy, reason, Some(&message.bytes));
    }

    fn unparsed(
        &mut self,
        message: &Message,
        index: i64,
        hash: &RowHash,
        raw: &str,
        reason: &str,
        bytes: Option<&[u8]>,
    ) {
        let uid = Uid::Made(hex(hash, &mut self.own_uid));
        let row = Row { index, time: message.received, uid, hash, raw, redacted: false };
        self.unparsed.append(message, row, reason, bytes);
        self.order.push(UNPARSED);
    }
}

fn table_index(source: Source) -> usize {
    match source {
        Source::Kubernetes => 0,
        Source::CloudTrail => 1,
        Source::Falco => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_sources_are_in_the_same_order() {
        for source in Source::ALL {
            assert_eq!(tables::STORED[table_index(source)], source.name());
        }
        assert_eq!(tables::STORED[usize::from(UNPARSED)], tables::UNPARSED);
    }
}
