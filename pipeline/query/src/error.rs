//! What can be wrong with SQL, said so that its author can fix it: where, what, and the nearest name.

use std::fmt;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// A mistake in a statement, or a refusal. Lines and columns count from 1 in the text as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), line: None, column: None, hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Points at the first place where `needle` is written outside comments, if there is one.
    pub(crate) fn at(mut self, sql: &str, needle: &str) -> Self {
        if let Some((line, column)) = locate(sql, needle) {
            self.line = Some(line);
            self.column = Some(column);
        }
        self
    }

    /// Points at the first name that the message quotes.
    pub(crate) fn at_quoted(self, sql: &str) -> Self {
        match self.message.split('`').nth(1).map(str::to_owned) {
            Some(name) => self.at(sql, &name),
            None => self,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}")?;
            match self.column {
                Some(column) => write!(f, ", column {column}: ")?,
                None => write!(f, ": ")?,
            }
        }
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The author of the SQL must change it.
    #[error("{0}")]
    Sql(Problem),
    /// All rows up to the limit were returned; there are more.
    #[error("stopped after {rows_max} rows: there are more\nhint: narrow the query or raise the limit")]
    RowsMax { rows_max: u64 },
    #[error("stopped after {seconds} s: the query takes too long\nhint: narrow its time range or raise the timeout")]
    Timeout { seconds: u64 },
    #[error("the query needs more memory than its limit: {0}\nhint: narrow its time range or group by fewer columns")]
    Memory(String),
    /// Reading or computing failed.
    #[error("query failed: {0}")]
    Run(String),
}

impl QueryError {
    /// An error met while executing, after planning went well.
    pub fn run(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(what) => {
                QueryError::Memory(what.lines().next().unwrap_or_default().to_owned())
            }
            root => QueryError::Run(bare(&root.strip_backtrace()).to_owned()),
        }
    }
}

impl From<Problem> for QueryError {
    fn from(problem: Problem) -> Self {
        QueryError::Sql(problem)
    }
}

/// Turns what the parser or planner said into our words.
pub(crate) fn from_planning(error: DataFusionError, sql: &str) -> QueryError {
    let span = error.diagnostic().and_then(|d| d.span);
    let mut problem = match error.find_root() {
        DataFusionError::SQL(parser, _) => from_parser(&parser.to_string()),
        DataFusionError::SchemaError(schema, _) => from_schema(schema),
        other => from_text(&other.strip_backtrace()),
    };
    if problem.line.is_none()
        && let Some(span) = span
    {
        problem.line = Some(span.start.line);
        problem.column = Some(span.start.column);
    }
    if problem.line.is_none() {
        problem = problem.at_quoted(sql);
    }
    problem.into()
}

/// `sql parser error: Expected: …, found: x at Line: 3, Column: 9`.
fn from_parser(text: &str) -> Problem {
    let text = text.trim_start_matches("sql parser error: ");
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return Problem::new(format!("syntax error: {}", lower_first(text)));
    };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse().ok());
    let (line, column) = (numbers.next().flatten(), numbers.next().flatten());
    Problem { message: format!("syntax error: {}", lower_first(message)), line, column, hint: None }
}

fn from_schema(error: &SchemaError) -> Problem {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let problem = Problem::new(format!("unknown column `{}`", field.name));
            match nearest(&field.name, valid_fields.iter().map(|f| f.name.as_str())) {
                Some(name) => problem.hint(format!("did you mean `{name}`?")),
                None => problem,
            }
        }
        SchemaError::AmbiguousReference { field } => Problem::new(format!("column `{}` is ambiguous", field.name))
            .hint("write it with the table's name or alias in front"),
        other => Problem::new(lower_first(&other.to_string())),
    }
}

fn from_text(text: &str) -> Problem {
    let text = bare(text);
    let quoted = text.split('\'').nth(1).unwrap_or_default();
    if text.starts_with("Invalid function") {
        let problem = Problem::new(format!("unknown function `{quoted}`"));
        return match text.split('\'').nth(3) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        };
    }
    // Ours say more than DataFusion says about them.
    let text = text.split_once("coercion failed with: ").map_or(text, |(_, ours)| bare(ours));
    match text.split_once("\nhint: ") {
        Some((message, hint)) => Problem::new(lower_first(message)).hint(hint),
        None => Problem::new(lower_first(text)),
    }
}

/// Without the names of DataFusion's error kinds.
fn bare(text: &str) -> &str {
    ["Error during planning: ", "Execution error: ", "Arrow error: "]
        .iter()
        .fold(text, |t, kind| t.trim_start_matches(kind))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // `SELECT …` and other words in capitals stay as they are.
        Some(first) if !chars.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// The candidate most like `name`, if any is close enough to be a slip.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: beyond that a suggestion misleads.
    let distance_max = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= distance_max || is_tail(name, candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `user_name` for `actor_user_name`.
fn is_tail(name: &str, candidate: &str) -> bool {
    name.len() >= 4 && candidate.strip_suffix(name).is_some_and(|head| head.ends_with('_'))
}

/// Line and column of `needle` as a whole word outside a leading block comment.
fn locate(sql: &str, needle: &str) -> Option<(u64, u64)> {
    let start = match sql.trim_start().starts_with("/*") {
        true => sql.find("*/").map_or(0, |end| end + 2),
        false => 0,
    };
    let lower = sql.to_ascii_lowercase();
    let needle = needle.to_ascii_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (at, _) = lower[start..].match_indices(&needle).find(|(at, _)| {
        let (before, after) = (&lower[..start + at], &lower[start + at + needle.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })?;
    let before = &sql[..start + at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Some((line, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_slip_away_or_nothing() {
        let names = ["actor_user_name", "cluster", "verb"];
        let check = |name, expected| assert_eq!(nearest(name, names), expected, "{name}");
        check("actor_usr_name", Some("actor_user_name"));
        check("user_name", Some("actor_user_name"));
        check("vreb", None);
        check("verbs", Some("verb"));
        check("something_else", None);
    }

    #[test]
    fn a_name_is_found_outside_the_header() {
        assert_eq!(locate("/* now */\nSELECT a,\n  now()", "now"), Some((3, 3)));
        assert_eq!(locate("SELECT known", "now"), None);
    }
}
