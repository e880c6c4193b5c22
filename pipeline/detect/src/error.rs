//! What can go wrong: mistakes in rule files, all of them at once with their places, and failures of the store.

use std::fmt;
use std::path::PathBuf;

use query::QueryError;

/// One mistake in a rule or test file. Lines count from 1; 0 is the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    pub path: PathBuf,
    pub line: u64,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a folder of rules, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleErrors(pub Vec<RuleProblem>);

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleErrors {}

/// Detection cannot go on: not a rule's fault (those degrade the rule), but the store's or ours.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("cannot read stored rows: {0}")]
    History(#[from] QueryError),
}

impl From<datafusion::error::DataFusionError> for DetectError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        DetectError::History(QueryError::run(error))
    }
}
