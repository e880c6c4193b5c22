//! The embedded log as a feed: all topics of a folder, each its partition 0; new topics are noticed. Segments of which
//! every record is committed are removed, oldest first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Message, Offsets, Origin, PartitionState, Polled, Positions};
use tracing::info;

use super::reader::LogReader;
use super::{Topic, segment_path, segment_size, segments};
use crate::cursor::Cursor;
use crate::{Feed, FileLayer, POLL_BYTES_MAX, POLL_MESSAGES_MAX, SourceError};

/// How long to sleep between looks at the files while nothing arrives: unnoticed by a person, idle for a CPU.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// New topics are rare; a look at the folder costs a system call.
const TOPICS_EVERY: Duration = Duration::from_secs(1);

pub struct LogFeed {
    files: Arc<dyn FileLayer>,
    root: PathBuf,
    idle_after: Duration,
    start: Positions,
    cursor: Cursor,
    readers: BTreeMap<Arc<str>, Following>,
    /// The topic that is read first at the next poll, so that a busy one cannot starve the others.
    turn: usize,
    looked: Option<Instant>,
}

struct Following {
    reader: LogReader,
    arrived: Instant,
}

impl LogFeed {
    /// Reads every topic in `root` from its position, or from its beginning. A topic is idle when nothing arrived
    /// for `idle_after` and everything has been read.
    pub fn open(
        files: Arc<dyn FileLayer>,
        root: &Path,
        positions: Positions,
        idle_after: Duration,
    ) -> Result<LogFeed, SourceError> {
        let mut feed = LogFeed {
            files,
            root: root.to_owned(),
            idle_after,
            start: positions.clone(),
            cursor: Cursor::new(positions),
            readers: BTreeMap::new(),
            turn: 0,
            looked: None,
        };
        feed.find_topics()?;
        Ok(feed)
    }

    fn find_topics(&mut self) -> Result<(), SourceError> {
        if self.looked.is_some_and(|at| at.elapsed() < TOPICS_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let listing = SourceError::io(format!("list {}", self.root.display()));
        for name in self.files.list(&self.root).map_err(listing)? {
            if self.readers.contains_key(name.as_str()) {
                continue;
            }
            if let Some(topic) = Topic::open(&*self.files, &self.root, &name)? {
                let at = self.start.get(&(topic.name.clone(), 0)).copied();
                info!(topic = %topic.name, source = %topic.source, offset = at.unwrap_or(0), "following embedded log");
                let reader = LogReader::new(self.files.clone(), topic.clone(), at);
                self.readers.insert(topic.name, Following { reader, arrived: Instant::now() });
            }
        }
        for following in self.readers.values() {
            let topic = following.reader.topic();
            let sizes = segments(&*self.files, &topic.dir)?;
            let sizes = sizes.into_iter().map(|first| segment_size(&*self.files, &topic.dir, first));
            let bytes: u64 = sizes.sum::<Result<u64, SourceError>>()?;
            metrics::gauge!("stakeout_embedded_log_bytes", "topic" => topic.name.to_string()).set(bytes as f64);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Polled, SourceError> {
        let mut polled = Polled::default();
        let mut bytes = 0;
        let mut readers: Vec<&mut Following> = self.readers.values_mut().collect();
        let count = readers.len().max(1);
        let turn = self.turn.min(readers.len());
        readers.rotate_left(turn);
        for following in readers {
            if bytes >= POLL_BYTES_MAX || polled.messages.len() >= POLL_MESSAGES_MAX {
                break;
            }
            let records = following.reader.read(POLL_BYTES_MAX - bytes, POLL_MESSAGES_MAX - polled.messages.len())?;
            if records.is_empty() {
                continue;
            }
            let topic = following.reader.topic().clone();
            following.arrived = Instant::now();
            for record in records {
                bytes += record.payload.len();
                let fresh = self.cursor.take(&topic.name, 0, record.offset);
                debug_assert!(fresh, "a reader only goes forward");
                polled.messages.push(Message {
                    source: topic.source,
                    cluster: topic.cluster.clone(),
                    origin: Origin::Live,
                    topic: topic.name.clone(),
                    partition: 0,
                    offset: record.offset,
                    file_sha256: None,
                    received: record.timestamp,
                    bytes: record.payload,
                });
            }
        }
        self.turn = (self.turn + 1) % count;
        polled.ranges = self.cursor.drain();
        Ok(polled)
    }

    fn states(&mut self) -> Result<Vec<PartitionState>, SourceError> {
        let mut states = Vec::with_capacity(self.readers.len());
        for following in self.readers.values_mut() {
            let lag = following.reader.lag()?;
            let topic = following.reader.topic();
            states.push(PartitionState {
                source: topic.source,
                topic: topic.name.clone(),
                partition: 0,
                lag: Some(lag),
                idle: lag == 0 && following.arrived.elapsed() >= self.idle_after,
            });
        }
        Ok(states)
    }

    /// Removes the oldest segments whose records are all below `committed`: what is committed is in the store.
    fn remove_committed(&self, topic: &Topic, committed: i64) -> Result<(), SourceError> {
        let removing = || SourceError::io(format!("remove old segments of {}", topic.dir.display()));
        for pair in segments(&*self.files, &topic.dir)?.windows(2).take_while(|pair| pair[1] <= committed) {
            let path = segment_path(&topic.dir, pair[0]);
            // One by one: a gap in the middle would pass for damage. The last one stays, it says where offsets go on.
            self.files.remove(&path).and_then(|()| self.files.sync_dir(&topic.dir)).map_err(removing())?;
        }
        Ok(())
    }
}

impl Feed for LogFeed {
    fn poll(&mut self, wait: Duration) -> Result<Polled, SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            self.find_topics()?;
            let mut polled = self.take()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !polled.messages.is_empty() || left.is_zero() {
                polled.partitions = self.states()?;
                return Ok(polled);
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn committed(&mut self, offsets: &Offsets) -> Result<(), SourceError> {
        for following in self.readers.values() {
            let topic = following.reader.topic();
            if let Some(at) = offsets.next(&topic.name, 0) {
                self.remove_committed(topic, at)?;
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}
