//! Identity of findings and versions: BLAKE3 over parts that cannot run into each other.

use event::Micros;

/// Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
pub struct Identity(blake3::Hasher);

impl Identity {
    pub fn new() -> Self {
        Identity(blake3::Hasher::new())
    }

    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// First 16 bytes, hex: the id of a finding.
    pub fn id(self) -> String {
        hex(&self.0.finalize().as_bytes()[..16])
    }

    /// All 32 bytes, hex: the version of a file or bundle.
    pub fn version(self) -> String {
        hex(self.0.finalize().as_bytes())
    }

    fn entity(mut self, entity: &[(String, String)]) -> Self {
        self = self.part(&(entity.len() as u64).to_le_bytes());
        for (name, value) in entity {
            self = self.part(name.as_bytes()).part(value.as_bytes());
        }
        self
    }
}

/// A row of a single-event rule.
pub fn of_row(rule: &str, entity: &[(String, String)], table: &str, row_hash: &[u8]) -> String {
    Identity::new().part(rule.as_bytes()).entity(entity).part(b"row").part(table.as_bytes()).part(row_hash).id()
}

/// A run of a windowed rule. Imported rows are another stream: a run over them must not pass for a live one that
/// happens to begin at the same boundary.
pub fn of_run(rule: &str, entity: &[(String, String)], origin: event::Origin, first: Micros) -> String {
    let run = Identity::new().part(rule.as_bytes()).entity(entity).part(b"run");
    match origin {
        event::Origin::Live => run.part(&first.to_le_bytes()).id(),
        event::Origin::Import => run.part(&first.to_le_bytes()).part(b"import").id(),
    }
}

/// A run that only late rows made: not the run of the same entity that may begin at the same boundary.
pub fn of_late_run(rule: &str, entity: &[(String, String)], origin: event::Origin, first: Micros) -> String {
    let run = Identity::new().part(rule.as_bytes()).entity(entity).part(b"late run").part(origin.name().as_bytes());
    run.part(&first.to_le_bytes()).id()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let entity = |k: &str, v: &str| vec![(k.to_owned(), v.to_owned())];
        assert_ne!(of_row("r", &entity("ab", "c"), "t", b"h"), of_row("r", &entity("a", "bc"), "t", b"h"));
        assert_ne!(of_row("rt", &[], "", b"h"), of_row("r", &[], "t", b"h"));
        assert_eq!(of_row("r", &entity("a", "b"), "t", b"h").len(), 32);
    }
}
