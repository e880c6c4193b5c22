//! A rule that passed every check.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::{Micros, Severity};

use crate::derive::EvidenceSource;
use crate::memory::{Remembering, StateTable};
use crate::program::Program;
use crate::tuning::{self, Exception};
use crate::windows::{Shape, Sieves};

/// Boundaries are the multiples of `every_us`; each looks back over `window_us`, a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub window_us: i64,
    pub every_us: i64,
}

impl Window {
    /// The last boundary at or before `time`.
    pub fn floor(&self, time: Micros) -> Micros {
        time.saturating_sub(time.rem_euclid(self.every_us))
    }

    /// The first boundary whose window holds a row at `time`: the row lies before it.
    pub fn first_reaching(&self, time: Micros) -> Micros {
        self.floor(time).saturating_add(self.every_us)
    }

    /// The last boundary whose window holds a row at `time`.
    pub fn last_reaching(&self, time: Micros) -> Micros {
        self.floor(time).saturating_add(self.window_us)
    }
}

/// One `.sql` file.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The file's stem.
    pub id: String,
    pub path: PathBuf,
    /// The whole file: the header is a comment to SQL, so that positions are the file's.
    pub sql: String,
    pub title: String,
    pub severity: Severity,
    pub attack: Vec<String>,
    pub window: Option<Window>,
    pub entity: Vec<String>,
    /// With `{column}` in it.
    pub summary: String,
    pub triage: Option<String>,
    pub benign: Option<String>,
    pub suppress_us: i64,
    pub needs_level: Option<String>,
    pub references: Vec<String>,
    /// BLAKE3 of the file and of the conditions in `exceptions`, hex.
    pub version: String,
    /// Of tuning.yaml, those in force.
    pub exceptions: Vec<Arc<Exception>>,
    /// The stored tables it reads, views and state tables resolved.
    pub tables: Vec<String>,
    /// The state tables it joins.
    pub states: Vec<String>,
    /// The tables and views its SQL names.
    pub(crate) relations: Vec<Relation>,
    pub(crate) body: Body,
}

/// How a windowed rule is evaluated, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// As panes; else over its sieved window, for this reason.
    pub panes: Result<(), String>,
    /// What it keeps of a group grows with the values that its SELECT lists.
    pub lists: bool,
    /// Fires when its last event comes; else when a boundary is final, for this reason.
    pub early: Result<(), String>,
    /// It speaks about what is absent from these, and not while they are silent altogether.
    pub absent: Vec<String>,
    /// What rows of each table or view can matter; `None` is all of them.
    pub sieves: Vec<(String, Option<String>)>,
}

impl Rule {
    /// Which of the rows that its SELECT returned are no findings; empty if none can be.
    pub(crate) fn excepted(&self, rows: &RecordBatch) -> Vec<bool> {
        tuning::taken(&self.id, &self.exceptions, rows)
    }

    /// Looks at each row alone, and remembers nothing.
    pub fn is_single(&self) -> bool {
        matches!(self.body, Body::Single(_))
    }

    /// Of a rule with a window.
    pub(crate) fn windowed(&self) -> &Windowed {
        match &self.body {
            Body::Windowed(windowed) => windowed,
            _ => unreachable!("only windowed rules have runs and a window's state"),
        }
    }

    /// See [`Windowed::absent`].
    pub(crate) fn absent(&self) -> &[String] {
        match &self.body {
            Body::Windowed(windowed) => &windowed.absent,
            _ => &[],
        }
    }

    /// `None` for rules without a window.
    pub fn explanation(&self) -> Option<Explanation> {
        let Body::Windowed(windowed) = &self.body else { return None };
        let sieves = windowed.sieves.legs().iter().map(|s| (s.relation.clone(), s.filter.clone())).collect();
        let panes = windowed.shape.as_ref().map(|_| ()).map_err(Clone::clone);
        let lists = windowed.shape.as_ref().is_ok_and(|shape| !shape.bags.is_empty());
        Some(Explanation { panes, lists, early: windowed.early.clone(), absent: windowed.absent.clone(), sieves })
    }
}

/// A table or view that the rule's FROM names.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub name: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Row-local: compiled once.
    Single(Arc<Program>),
    /// Row-local but for `first_seen` and state tables.
    Remembering(Arc<Remembering>),
    Windowed(Arc<Windowed>),
}

/// What loading made of a windowed rule.
#[derive(Debug)]
pub(crate) struct Windowed {
    pub window: Window,
    pub evidence: EvidenceSource,
    /// As panes, or why not.
    pub shape: Result<Arc<Shape>, String>,
    /// Tables and views about whose silence it speaks: withheld while one has no row in the window.
    pub absent: Vec<String>,
    /// The state tables that it joins.
    pub states: Vec<Arc<StateTable>>,
    /// Its rows, for evaluation over the window.
    pub sieves: Arc<Sieves>,
    /// May fire before its boundary is final, or why not.
    pub early: Result<(), String>,
}

impl Windowed {
    /// Of a rule that is kept as panes.
    pub fn panes(&self) -> &Arc<Shape> {
        self.shape.as_ref().expect("it was asked whether it is kept as panes")
    }
}
