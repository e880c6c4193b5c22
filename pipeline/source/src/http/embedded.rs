//! Bodies into the embedded log. One thread per topic writes what has gathered while it was writing, with one write
//! and one sync for all of it: many senders share the price of being durable.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::Offsets;
use tracing::{error, info};

use super::{Done, NotKept, Record, Sink, Token};
use crate::{FileLayer, Log, SourceError, TopicMapping};

/// Records waiting for their topic's writer. Their bytes are bounded by what may be in flight.
const QUEUE_RECORDS: usize = 4096;
/// One write: large enough that the sync is shared, small enough that its copy does not count. A record may exceed it.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_RECORDS: usize = 1024;
/// A log that failed recovers at the next record, but senders are turned away for this long first.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

pub struct EmbeddedSink {
    topics: BTreeMap<String, Writer>,
    backlog: Arc<Backlog>,
}

struct Writer {
    /// `None` once it is told to end.
    queue: Option<SyncSender<(Record, Done)>>,
    failed: Arc<Mutex<Option<(Instant, NotKept)>>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedSink {
    /// Opens every topic of `topics` in `root`. `committed` is where the line stands.
    pub fn open(
        files: Arc<dyn FileLayer>,
        root: &Path,
        topics: &[TopicMapping],
        committed: &Offsets,
        backlog: Arc<Backlog>,
    ) -> Result<EmbeddedSink, SourceError> {
        let mut sink = EmbeddedSink { topics: BTreeMap::new(), backlog };
        for mapping in topics {
            // A topic whose folder is gone goes on at the manifest's position: offsets below it would never be read.
            let at = committed.next(&mapping.topic, 0).unwrap_or(0);
            let mut log = Log::open_from(files.clone(), root, mapping, at)?;
            sink.backlog.appended(&mapping.topic, log.next_offset(), log.backlog_bytes(at));
            sink.topics.insert(mapping.topic.clone(), Writer::start(log, &mapping.topic, sink.backlog.clone())?);
        }
        Ok(sink)
    }

    fn writer(&self, token: &Token) -> Result<&Writer, NotKept> {
        let missing = || NotKept::Failed(format!("topic `{}` is not open", token.topic));
        self.topics.get(&token.topic).ok_or_else(missing)
    }
}

impl Sink for EmbeddedSink {
    fn ready(&self, token: &Token) -> Result<(), NotKept> {
        self.backlog.check()?;
        match &*lock(&self.writer(token)?.failed) {
            Some((at, why)) if at.elapsed() < FAILED_PAUSE => Err(why.clone()),
            _ => Ok(()),
        }
    }

    fn send(&self, token: &Token, record: Record, done: Done) -> Result<(), NotKept> {
        let queue = self.writer(token)?.queue.as_ref();
        match queue.map(|queue| queue.try_send((record, done))) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(NotKept::Busy),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(NotKept::Failed(format!("the writer of topic `{}` is gone", token.topic)))
            }
        }
    }
}

/// Writes what was taken, then lets go of the logs.
impl Drop for EmbeddedSink {
    fn drop(&mut self) {
        self.topics.values_mut().for_each(|writer| drop(writer.queue.take()));
        for writer in self.topics.values_mut() {
            if let Some(thread) = writer.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Writer {
    fn start(log: Log, topic: &str, backlog: Arc<Backlog>) -> Result<Writer, SourceError> {
        let (queue, records) = sync_channel(QUEUE_RECORDS);
        let failed = Arc::default();
        let noted = Arc::clone(&failed);
        let thread = std::thread::Builder::new()
            .name(format!("log-{topic}"))
            .spawn(move || write(log, &records, &backlog, &noted))
            .map_err(SourceError::io("start a thread"))?;
        Ok(Writer { queue: Some(queue), failed, thread: Some(thread) })
    }
}

fn write(
    mut log: Log,
    records: &Receiver<(Record, Done)>,
    backlog: &Backlog,
    failed: &Mutex<Option<(Instant, NotKept)>>,
) {
    let topic = log.topic().name.clone();
    while let Ok(first) = records.recv() {
        let batch = gather(first, records);
        let outcome = match append(&mut log, &batch) {
            Ok(bytes) => {
                backlog.appended(&topic, log.next_offset(), bytes);
                if lock(failed).take().is_some() {
                    info!(%topic, "the embedded log takes records again");
                }
                Ok(())
            }
            Err(error) => {
                let why = NotKept::of_log(&error);
                // Said once until it is well again.
                if lock(failed).replace((Instant::now(), why.clone())).is_none() {
                    error!(%topic, "what is received cannot be kept: {error}");
                }
                Err(why)
            }
        };
        for (record, done) in batch {
            drop(record);
            done(outcome.clone());
        }
    }
}

/// What has come while the last batch was written.
fn gather(first: (Record, Done), records: &Receiver<(Record, Done)>) -> Vec<(Record, Done)> {
    let mut bytes = first.0.payload.len();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES && batch.len() < BATCH_RECORDS {
        let Ok(next) = records.try_recv() else { break };
        bytes += next.0.payload.len();
        batch.push(next);
    }
    batch
}

/// A log that failed must recover first. Returns the bytes appended.
fn append(log: &mut Log, batch: &[(Record, Done)]) -> Result<u64, SourceError> {
    if log.has_failed() {
        log.recover()?;
    }
    let payloads: Vec<&[u8]> = batch.iter().map(|(record, _)| record.payload.as_slice()).collect();
    log.append(&payloads)?;
    metrics::counter!("stakeout_receiver_appends_total").increment(1);
    Ok(payloads.iter().map(|payload| payload.len() as u64).sum())
}

/// Bytes that were received and that the manifest does not cover yet. A line that falls behind would fill the disk;
/// its senders wait instead.
pub struct Backlog {
    bytes_max: u64,
    topics: Mutex<BTreeMap<String, VecDeque<Extent>>>,
}

/// Records up to `next`, from where the extent before it ended.
struct Extent {
    next: i64,
    bytes: u64,
}

/// Smaller extents are joined, so that a long backlog of small records is a short list.
const EXTENT_BYTES: u64 = 1 << 20;

impl Backlog {
    pub fn new(bytes_max: u64) -> Backlog {
        Backlog { bytes_max, topics: Mutex::default() }
    }

    fn appended(&self, topic: &str, next: i64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut topics = lock(&self.topics);
        let extents = topics.entry(topic.to_owned()).or_default();
        match extents.back_mut() {
            Some(last) if last.bytes + bytes <= EXTENT_BYTES => {
                last.next = next;
                last.bytes += bytes;
            }
            _ => extents.push_back(Extent { next, bytes }),
        }
        show(&topics);
    }

    /// The manifest has these positions.
    pub fn committed(&self, offsets: &Offsets) {
        let mut topics = lock(&self.topics);
        for (topic, extents) in topics.iter_mut() {
            let at = offsets.next(topic, 0).unwrap_or(0);
            while extents.front().is_some_and(|extent| extent.next <= at) {
                extents.pop_front();
            }
        }
        show(&topics);
    }

    fn check(&self) -> Result<(), NotKept> {
        let bytes = total(&lock(&self.topics));
        match bytes > self.bytes_max {
            true => Err(NotKept::Backlog { bytes, bytes_max: self.bytes_max }),
            false => Ok(()),
        }
    }
}

fn total(topics: &BTreeMap<String, VecDeque<Extent>>) -> u64 {
    topics.values().flatten().map(|extent| extent.bytes).sum()
}

fn show(topics: &BTreeMap<String, VecDeque<Extent>>) {
    metrics::gauge!("stakeout_receiver_backlog_bytes").set(total(topics) as f64);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use event::Source;

    use super::*;
    use crate::fault::PowerLoss;

    fn mapping() -> TopicMapping {
        TopicMapping {
            topic: "audit".into(),
            source: Source::Kubernetes,
            cluster: Some("prod".into()),
            cluster_header: None,
        }
    }

    fn token() -> Token {
        Token::new("a-secret-of-some-length", "t", Source::Kubernetes, Some("prod"), "audit")
    }

    fn open(disk: &PowerLoss, committed: i64, bytes_max: u64) -> (EmbeddedSink, Arc<Backlog>) {
        let backlog = Arc::new(Backlog::new(bytes_max));
        let committed = Offsets([(("audit".into(), 0), committed)].into());
        let files = Arc::new(disk.clone());
        let sink = EmbeddedSink::open(files, Path::new("/log"), &[mapping()], &committed, backlog.clone()).unwrap();
        (sink, backlog)
    }

    fn send(sink: &EmbeddedSink, payload: &[u8]) -> mpsc::Receiver<Result<(), NotKept>> {
        let (done, outcome) = mpsc::channel();
        let record = Record { payload: payload.to_vec(), held: None };
        sink.send(&token(), record, Box::new(move |kept| done.send(kept).unwrap())).unwrap();
        outcome
    }

    fn records(disk: &PowerLoss) -> i64 {
        Log::open(Arc::new(disk.clone()), Path::new("/log"), &mapping()).unwrap().next_offset()
    }

    #[test]
    fn what_was_acknowledged_survives_the_power() {
        let disk = PowerLoss::new(7);
        let (sink, _) = open(&disk, 0, 1 << 30);
        let waiting: Vec<_> = (0..500).map(|n: i32| send(&sink, &n.to_le_bytes())).collect();
        for outcome in waiting {
            outcome.recv().unwrap().unwrap();
        }
        drop(sink);
        disk.crash();
        assert_eq!(records(&disk), 500);
    }

    #[test]
    fn a_log_that_failed_recovers() {
        let disk = PowerLoss::new(7);
        let (sink, _) = open(&disk, 0, 1 << 30);
        send(&sink, b"{}").recv().unwrap().unwrap();
        disk.fail_after(0);
        let refused = send(&sink, b"{}").recv().unwrap().unwrap_err();
        assert!(matches!(&refused, NotKept::Failed(why) if why.contains("no power")), "{refused:?}");
        assert_eq!(sink.ready(&token()), Err(refused), "for a moment nobody need try");
        disk.kill();
        send(&sink, b"{}").recv().unwrap().unwrap();
        assert_eq!(sink.ready(&token()), Ok(()));
        drop(sink);
        // The refused record may be there, at most once.
        assert!((2..=3).contains(&records(&disk)));
    }

    #[test]
    fn a_topic_made_anew_goes_on_where_the_line_stands() {
        let disk = PowerLoss::new(7);
        let (sink, backlog) = open(&disk, 70, 1 << 30);
        send(&sink, b"{}").recv().unwrap().unwrap();
        assert_eq!(total(&lock(&backlog.topics)), 2);
        drop(sink);
        assert_eq!(records(&disk), 71);
    }

    #[test]
    fn senders_wait_for_a_line_that_is_behind() {
        let disk = PowerLoss::new(7);
        let (sink, backlog) = open(&disk, 0, 3000);
        let offsets = |at| Offsets([(("audit".into(), 0), at)].into());
        for _ in 0..4 {
            assert_eq!(sink.ready(&token()), Ok(()));
            send(&sink, &[b' '; 1000]).recv().unwrap().unwrap();
        }
        assert_eq!(sink.ready(&token()), Err(NotKept::Backlog { bytes: 4000, bytes_max: 3000 }));
        drop(sink);
        // It is known again after a restart, and gone once it is committed.
        let (sink, _) = open(&disk, 1, 3000);
        assert!(matches!(sink.ready(&token()), Err(NotKept::Backlog { .. })));
        drop(sink);
        let (sink, restarted) = open(&disk, 1, 3000);
        restarted.committed(&offsets(3));
        assert!(matches!(sink.ready(&token()), Err(NotKept::Backlog { .. })));
        restarted.committed(&offsets(4));
        assert_eq!(sink.ready(&token()), Ok(()));
        backlog.committed(&offsets(4));
        assert_eq!(backlog.check(), Ok(()));
        drop(sink);
        let (sink, _) = open(&disk, 4, 0);
        assert_eq!(sink.ready(&token()), Ok(()));
    }
}
