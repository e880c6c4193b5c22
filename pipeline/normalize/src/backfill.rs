//! Columns that a table gained after rows were stored, from the rows' own bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray, new_null_array};
use event::{ColumnType, Recompute, TableSchema};

use crate::arena::Arena;
use crate::column::{ColumnBuilder, RowPlace};
use crate::program::Program;
use crate::schema::Schemas;
use crate::walk::Found;

/// Fills columns from stored `raw` as [`crate::Normalizer`] would have. Immutable; cheap to share.
#[derive(Debug)]
pub struct Backfill {
    /// By table.
    programs: BTreeMap<String, Program>,
}

/// A column that is asked for: its fill, and its place among those that pod specs feed.
struct Wanted {
    fill: usize,
    builder: ColumnBuilder,
}

impl Backfill {
    pub fn new(schemas: &Schemas) -> Self {
        let programs = schemas.plans().iter().map(|plan| (plan.table.name.clone(), Program::new(plan)));
        Backfill { programs: programs.collect() }
    }
}

impl Recompute for Backfill {
    fn recompute(&self, table: &TableSchema, names: &[&str], raw: &StringViewArray) -> Vec<ArrayRef> {
        let kind = |name: &str| table.column(name).map_or(ColumnType::String, |column| column.kind);
        let nulls = |name: &str| new_null_array(&kind(name).arrow(), raw.len());
        // What code alone fills (`unparsed` and the meta columns) does not follow from the bytes.
        let Some(program) = self.programs.get(&table.name) else {
            return names.iter().map(|name| nulls(name)).collect();
        };
        let mut wanted: Vec<Option<Wanted>> = names.iter().map(|name| Wanted::new(program, name)).collect();
        let mut arena = Arena::default();
        let mut scratch = program.scratch();
        for row in 0..raw.len() {
            let text = if raw.is_valid(row) { raw.value(row) } else { "" };
            let text = match program.walk(text, &mut scratch) {
                Some(_) => text,
                None => {
                    program.walk("{}", &mut scratch);
                    "{}"
                }
            };
            fill_row(
                program,
                &mut wanted,
                scratch.found(text),
                RowPlace { row, raw: arena.add(text), arena: &mut arena },
            );
        }
        let blocks = arena.finish();
        let columns = wanted.into_iter().zip(names);
        columns
            .map(|(wanted, name)| {
                wanted.and_then(|mut w| w.builder.finish(raw.len(), &blocks)).unwrap_or_else(|| nulls(name))
            })
            .collect()
    }
}

impl Wanted {
    /// `None` for a column that nothing of today fills.
    fn new(program: &Program, name: &str) -> Option<Wanted> {
        let columns = &program.table.columns;
        let mut own = columns.iter().skip(columns.len() - program.columns.len());
        let fill = program.columns[own.position(|column| column.name == name)?];
        Some(Wanted { fill, builder: ColumnBuilder::new(program.fills[fill].kind) })
    }
}

fn fill_row(program: &Program, wanted: &mut [Option<Wanted>], found: Found, mut place: RowPlace) {
    let needs_pod = |w: &Wanted| program.fills[w.fill].pod.is_some();
    let pod = if wanted.iter().flatten().any(needs_pod) { program.pod(found) } else { None };
    for Wanted { fill, builder } in wanted.iter_mut().flatten() {
        let fill = &program.fills[*fill];
        match fill.pod {
            None => builder.append(fill, found, &mut place),
            Some(feature) => {
                if let Some(made) = pod.as_ref().and_then(|pod| pod.feature(feature)) {
                    builder.append_made(made, found.text, &mut place);
                }
            }
        }
    }
}

/// [`Recompute`] behind a pointer, as the store wants it.
impl From<Backfill> for Arc<dyn Recompute> {
    fn from(backfill: Backfill) -> Self {
        Arc::new(backfill)
    }
}
