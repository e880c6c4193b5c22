//! What is wrong with schema files: all of it at once, each with its place and, where we can guess, the way out.

use std::fmt;

/// One mistake, printed as `file:line: message` and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// From 1; 0 when it concerns the file as a whole.
    pub line: u64,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}: {}", self.file, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The schemas cannot be used. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct SchemaError {
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

/// The hint for an unknown name: the nearest known one if it is near, else all of them.
pub(crate) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known.iter().map(|k| (strsim::levenshtein(name, k), *k)).min();
    match nearest {
        // Up to a third of the letters wrong still reads as a typing error.
        Some((edits, near)) if edits <= 1 + name.chars().count() / 3 => format!("did you mean `{near}`?"),
        _ => format!("one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name_or_lists_them() {
        let known = ["actor_user_name", "status", "verb"];
        assert_eq!(suggest("usr_name", ["user_name", "verb"]), "did you mean `user_name`?");
        assert_eq!(suggest("statsu", known), "did you mean `status`?");
        assert_eq!(suggest("zzz", known), "one of actor_user_name, status, verb");
    }
}
