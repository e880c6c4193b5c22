//! A topic's folder: its name, what its messages are, and the nonce that seals its records. Written once.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event::Source;

use crate::{FileLayer, SourceError, TopicMapping};

const META: &str = "topic";
const META_NEW: &str = "topic.new";
const VERSION: &str = "stakeout log 1";
/// A meta file is four short lines.
const META_BYTES_MAX: u64 = 64 << 10;

/// What the embedded log knows of one of its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub source: Source,
    pub cluster: Option<Arc<str>>,
    pub(crate) nonce: u64,
    pub(crate) dir: PathBuf,
}

impl Topic {
    /// The topic in `root/<name>`, made if it is not there. What its messages are cannot change.
    pub(crate) fn create(files: &dyn FileLayer, root: &Path, mapping: &TopicMapping) -> Result<Topic, SourceError> {
        let mistakes = mapping.mistakes();
        if !mistakes.is_empty() {
            return Err(SourceError::Invalid(mistakes.join("\n")));
        }
        let made = match Topic::open(files, root, &mapping.topic)? {
            Some(topic) => topic,
            None => Topic::write(files, root, mapping)?,
        };
        if made.source != mapping.source || made.cluster.as_deref() != mapping.cluster.as_deref() {
            let of = |cluster: Option<&str>| cluster.map(|c| format!(" of cluster `{c}`")).unwrap_or_default();
            return Err(SourceError::Invalid(format!(
                "topic `{}` holds {} events{}, not {}{}\nhint: use another topic",
                mapping.topic,
                made.source,
                of(made.cluster.as_deref()),
                mapping.source,
                of(mapping.cluster.as_deref()),
            )));
        }
        Ok(made)
    }

    /// `None`: there is no such topic (yet).
    pub(crate) fn open(files: &dyn FileLayer, root: &Path, name: &str) -> Result<Option<Topic>, SourceError> {
        let dir = root.join(name);
        let path = dir.join(META);
        let reading = || format!("read {}", path.display());
        if !files.list(&dir).map_err(SourceError::io(reading()))?.iter().any(|name| name == META) {
            return Ok(None);
        }
        let file = files.open(&path).map_err(SourceError::io(reading()))?;
        let size = file.size().map_err(SourceError::io(reading()))?.min(META_BYTES_MAX);
        let mut bytes = vec![0; size as usize];
        file.read_at(0, &mut bytes).map_err(SourceError::io(reading()))?;
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text) {
            Some((source, cluster, nonce)) => Ok(Some(Topic { name: name.into(), source, cluster, nonce, dir })),
            None => Err(SourceError::Corrupt { file: path, byte: 0, what: "not a topic description".to_owned() }),
        }
    }

    /// Name after content, so that a topic that is there is whole.
    fn write(files: &dyn FileLayer, root: &Path, mapping: &TopicMapping) -> Result<Topic, SourceError> {
        let dir = root.join(&mapping.topic);
        let topic = Topic {
            name: mapping.topic.as_str().into(),
            source: mapping.source,
            cluster: mapping.cluster.as_deref().map(Arc::from),
            // Random per process: the standard library seeds hash maps against attackers with it.
            nonce: RandomState::new().hash_one(&mapping.topic),
            dir: dir.clone(),
        };
        let write = || -> std::io::Result<()> {
            files.create_dir(&dir)?;
            if files.list(&dir)?.iter().any(|name| name == META_NEW) {
                files.remove(&dir.join(META_NEW))?;
            }
            let mut file = files.create(&dir.join(META_NEW))?;
            file.append(format(&topic).as_bytes())?;
            file.sync()?;
            files.rename(&dir.join(META_NEW), &dir.join(META))?;
            files.sync_dir(&dir)?;
            files.sync_dir(root)
        };
        write().map_err(SourceError::io(format!("create topic {}", dir.display())))?;
        Ok(topic)
    }
}

fn format(topic: &Topic) -> String {
    let cluster = topic.cluster.as_deref().map(|name| format!("cluster={name}\n")).unwrap_or_default();
    format!("{VERSION}\nsource={}\n{cluster}nonce={:016x}\n", topic.source, topic.nonce)
}

fn parse(text: &str) -> Option<(Source, Option<Arc<str>>, u64)> {
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return None;
    }
    let (mut source, mut cluster, mut nonce) = (None, None, None);
    for line in lines {
        match line.split_once('=')? {
            ("source", name) => source = Some(name.parse().ok()?),
            ("cluster", name) => cluster = Some(Arc::from(name)),
            ("nonce", hex) => nonce = Some(u64::from_str_radix(hex, 16).ok()?),
            _ => return None,
        }
    }
    Some((source?, cluster, nonce?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::PowerLoss;

    fn mapping(source: Source, cluster: Option<&str>) -> TopicMapping {
        TopicMapping { topic: "audit".into(), source, cluster: cluster.map(str::to_owned), cluster_header: None }
    }

    #[test]
    fn a_topic_stays_what_it_was_made_as() {
        let files = PowerLoss::new(1);
        let root = Path::new("/logs");
        let made = Topic::create(&files, root, &mapping(Source::Kubernetes, Some("prod"))).unwrap();
        files.crash();
        assert_eq!(Topic::open(&files, root, "audit").unwrap(), Some(made.clone()));
        assert_eq!(Topic::create(&files, root, &mapping(Source::Kubernetes, Some("prod"))).unwrap(), made);
        let error = Topic::create(&files, root, &mapping(Source::Falco, Some("dev"))).unwrap_err().to_string();
        assert!(error.starts_with("topic `audit` holds kubernetes events of cluster `prod`, not falco"), "{error}");
        assert_eq!(Topic::open(&files, root, "other").unwrap(), None);
    }

    #[test]
    fn mappings_are_checked() {
        let check = |mapping: TopicMapping, expected: &str| {
            let error = Topic::create(&PowerLoss::new(1), Path::new("/logs"), &mapping).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(mapping(Source::Kubernetes, None), "name it with `cluster`");
        check(mapping(Source::Falco, Some("a\nb")), "one line");
        check(TopicMapping { topic: "../etc".into(), ..mapping(Source::CloudTrail, None) }, "letters, digits");
    }
}
