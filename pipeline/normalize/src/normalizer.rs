//! Messages in, batches out: one row per element, in the source's table or in `unparsed`.

use event::{Batch, Message, RowHash, Source, tables};

use crate::envelope::{self, Element};
use crate::hash::{hex, row_hash};
use crate::program::{Program, Uid};
use crate::rows::{EventRows, Row, UnparsedRows};
use crate::schema::Schemas;
use crate::walk::Scratch;

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
/// The string columns of a batch are views into the same bytes, which are little more than `raw`, and columns that are
/// filled alike are one array. So `RecordBatch::get_array_memory_size` counts these bytes once per string column that
/// has a text of more than twelve bytes, some 15 times over: what a batch takes is the sum of its distinct buffers.
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

const UNPARSED: u8 = 3;

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
        let text = match std::str::from_utf8(&message.bytes) {
            Ok(text) => text,
            Err(error) => return self.pending.not_utf8(message, error.valid_up_to()),
        };
        let table = table_index(message.source);
        let (program, scratch, pending) = (&self.programs[table], &mut self.scratch[table], &mut self.pending);
        let mut index = 0;
        envelope::open(program, scratch, text, &mut |element| {
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
        match element {
            Element::Event { found, time } => {
                let hash = row_hash(found.text.as_bytes());
                let uid = match program.uid(found, &mut self.uid) {
                    Some(uid) => uid,
                    None => Uid::Made(hex(&hash, &mut self.own_uid)),
                };
                let row = Row { index, time, uid, hash: &hash, raw: found.text };
                self.events[table].append(program, message, row, found);
                self.order.push(table as u8);
            }
            Element::Bad { raw, reason } => {
                let hash = row_hash(raw.as_bytes());
                self.unparsed(message, index, &hash, raw, &reason, None);
            }
        }
    }

    fn not_utf8(&mut self, message: &Message, at: usize) {
        let hash = row_hash(&message.bytes);
        let lossy = String::from_utf8_lossy(&message.bytes);
        let reason = format!("not UTF-8: invalid byte at byte {at}");
        self.unparsed(message, 0, &hash, &lossy, &reason, Some(&message.bytes));
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
        let row = Row { index, time: message.received, uid, hash, raw };
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
