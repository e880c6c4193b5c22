//! Mistakes that can be made on purpose, so that the differential test can show that it would find them. Only in
//! tests; elsewhere every question is a constant `false`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A disjunction is looked up by its first arm only.
    DropArm,
    /// NOT is taken for what it negates.
    LoseNot,
    /// NULL compares equal to the value asked for.
    NullMatches,
    /// NOT IN with NULL in the list is true for values that are not in it.
    NotInNull,
    /// A prefix is looked for at the end.
    PrefixAtEnd,
    /// `_` in a pattern is taken for itself.
    LiteralUnderscore,
    /// The NULL of one arm of a disjunction decides it.
    NullDecides,
    /// Rows for which a condition was not computed count as certain.
    CertainTooEarly,
    /// An expression that failed for one value counts as false for all it was asked for.
    FailedIsFalse,
    /// The last of equal JSON keys counts.
    LastKeyWins,
}

#[cfg(test)]
impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::DropArm,
        Fault::LoseNot,
        Fault::NullMatches,
        Fault::NotInNull,
        Fault::PrefixAtEnd,
        Fault::LiteralUnderscore,
        Fault::NullDecides,
        Fault::CertainTooEarly,
        Fault::FailedIsFalse,
        Fault::LastKeyWins,
    ];
}

#[cfg(test)]
thread_local! {
    static INJECTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Runs `work` with a mistake in place.
#[cfg(test)]
pub fn with<T>(fault: Fault, work: impl FnOnce() -> T) -> T {
    INJECTED.set(Some(fault));
    let result = work();
    INJECTED.set(None);
    result
}

#[cfg(test)]
pub fn injected(fault: Fault) -> bool {
    INJECTED.get() == Some(fault)
}

#[cfg(not(test))]
pub const fn injected(_: Fault) -> bool {
    false
}
