//! Faults on purpose, for the tests that show that the oracle would see them. In what ships there are none.

#[cfg(test)]
mod injected {
    use std::cell::Cell;

    use super::Fault;

    thread_local!(static FAULT: Cell<Option<Fault>> = const { Cell::new(None) });

    pub fn inject(fault: Option<Fault>) {
        FAULT.set(fault);
    }

    /// That of this thread, for its helpers.
    pub fn injected() -> Option<Fault> {
        FAULT.get()
    }

    pub fn is(fault: Fault) -> bool {
        FAULT.get() == Some(fault)
    }
}

#[cfg(test)]
pub use injected::{inject, injected, is};

#[cfg(not(test))]
pub const fn is(_: Fault) -> bool {
    false
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub enum Fault {
    /// A row is seen by the boundary it lies on.
    SeenAtItsEdge,
    /// A row is gone one slide early.
    GoneEarly,
    /// A row that came late is seen by boundaries that were final.
    StampIgnored,
    /// Rows that came late trigger nothing.
    LateDropped,
    /// What a row added is taken away at its last boundary already.
    ClosedTwice,
    /// A group is not looked at again when its rows leave.
    ExpiryNotSeen,
    /// A distinct value that comes again is not seen for longer.
    DistinctNotProlonged,
    /// The least value stays when its row has left.
    LeastOutlives,
    /// A value of a bag stays when its rows have left.
    MemberStays,
    /// A sieved window is not evaluated when rows leave it.
    LeaveNotEvaluated,
    /// What was announced and did not come stays announced.
    NotRetracted,
    /// A rebuilt state lacks the rows before its first boundary.
    RebuiltTooShort,
    /// A run that was open at a restart begins there.
    BeginsAtRestart,
    /// A plan is taken to need rows in all of its legs.
    SieveOfAll,
    /// "At least" is understood as "more than".
    AtLeastIsMore,
    /// A group is forgotten while rows of it are still to be seen.
    ForgottenEarly,
    /// A group that wakes is not looked at where the rows that it slept through go.
    WokenHalf,
    /// Of rules that share panes, the first alone says when a group wakes.
    FirstWakes,
    /// A value of one group counts for all groups.
    ValueOfAnyGroup,
    /// A relation that falls silent goes on speaking until something else changes.
    SilenceNotSeen,
    /// A state table is looked at only when a row comes or goes.
    StateStandsStill,
    /// A key is taken to be gone from one side of a join with the first of its rows.
    PartnerForgotten,
    /// A state table that is kept on disk says that it has some rows more.
    KeptTooFar,
    /// Rows expire without having been remembered.
    RetainedNot,
    /// How a key ended is forgotten while what it ended is not.
    EndForgotten,
}
