//! The cluster of a record: from the header that the topic's mapping names, else the mapping's own.

use std::collections::HashMap;
use std::sync::Arc;

use event::Source;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};

use crate::TopicMapping;

/// Names that are kept to be shared by rows. Clusters are few; whoever sends more gets a string per record.
const NAMES_MAX: usize = 1_000;

/// A longer name is not one: Kubernetes allows 63 bytes a label, a DNS name has 253.
const NAME_BYTES_MAX: usize = 253;

/// What the records of a topic are.
pub(super) struct Mapped {
    pub topic: Arc<str>,
    pub source: Source,
    cluster: Option<Arc<str>>,
    header: Option<String>,
    names: HashMap<Box<[u8]>, Arc<str>>,
}

impl Mapped {
    pub fn new(mapping: &TopicMapping) -> Mapped {
        Mapped {
            topic: mapping.topic.as_str().into(),
            source: mapping.source,
            cluster: mapping.cluster.as_deref().map(Arc::from),
            header: mapping.cluster_header.clone(),
            names: HashMap::new(),
        }
    }

    pub fn cluster_of(&mut self, message: &BorrowedMessage<'_>) -> Option<Arc<str>> {
        let (Some(name), Some(headers)) = (&self.header, message.headers()) else { return self.cluster.clone() };
        // Of several the last counts, as in Kafka's own clients: who forwards a record appends.
        let value = headers.iter().filter(|header| header.key == name).last().and_then(|header| header.value);
        self.named(value)
    }

    /// No word is the mapping's cluster; a word that is no name is no cluster at all, for to guess would put the
    /// record into a wrong one.
    fn named(&mut self, value: Option<&[u8]>) -> Option<Arc<str>> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return self.cluster.clone() };
        if let Some(known) = self.names.get(value) {
            return Some(known.clone());
        }
        let name = std::str::from_utf8(value).ok().filter(|name| is_name(name))?;
        let name: Arc<str> = name.into();
        if self.names.len() < NAMES_MAX {
            self.names.insert(value.into(), name.clone());
        }
        Some(name)
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.trim().is_empty() && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_cluster_else_the_mapping_does() {
        let check = |fallback: Option<&str>, value: Option<&[u8]>, expected: Option<&str>| {
            let mut mapped = Mapped::new(&TopicMapping {
                topic: "t".into(),
                source: Source::Falco,
                cluster: fallback.map(str::to_owned),
                cluster_header: Some("cluster".into()),
            });
            for _ in 0..2 {
                assert_eq!(mapped.named(value).as_deref(), expected);
            }
        };
        check(Some("rest"), Some(b"prod"), Some("prod"));
        check(None, Some("größe".as_bytes()), Some("größe"));
        check(Some("rest"), None, Some("rest"));
        check(Some("rest"), Some(b""), Some("rest"));
        check(None, None, None);
        for junk in [&b"\xff\xfe"[..], b"two\nlines", b" ", &[b'x'; 254]] {
            check(Some("rest"), Some(junk), None);
        }
    }

    #[test]
    fn names_are_shared_and_bounded() {
        let mapping =
            TopicMapping { topic: "t".into(), source: Source::Falco, cluster: None, cluster_header: Some("c".into()) };
        let mut mapped = Mapped::new(&mapping);
        let (first, again) = (mapped.named(Some(b"prod")).unwrap(), mapped.named(Some(b"prod")).unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        for number in 0..2 * NAMES_MAX {
            let name = number.to_string();
            assert_eq!(mapped.named(Some(name.as_bytes())).as_deref(), Some(&*name));
        }
        assert_eq!(mapped.names.len(), NAMES_MAX);
    }
}
