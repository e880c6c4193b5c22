//! The log through its door: random appends, reads and power failures against a list in memory, then single cases.

use std::time::{Duration, Instant};

use event::{Message, Offsets, Polled, Positions, Source};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::fault::PowerLoss;
use crate::{Disk, Feed};

const CASES: u64 = 3_000;
/// Small, so that every case rolls.
const SMALL_SEGMENT_BYTES: u64 = 600;

fn mapping() -> TopicMapping {
    TopicMapping {
        topic: "audit".into(),
        source: Source::Kubernetes,
        cluster: Some("prod".into()),
        cluster_header: None,
    }
}

fn open(disk: &PowerLoss) -> Result<Log, SourceError> {
    Log::open_with(Arc::new(disk.clone()), Path::new("/logs"), &mapping(), SMALL_SEGMENT_BYTES)
}

fn follow(disk: &PowerLoss, position: usize) -> Result<LogFeed, SourceError> {
    let positions: Positions = [(("audit".into(), 0), position as i64)].into();
    LogFeed::open(Arc::new(disk.clone()), Path::new("/logs"), positions, Duration::ZERO)
}

fn poll(feed: &mut LogFeed) -> Result<Vec<Message>, SourceError> {
    Ok(feed.poll(Duration::ZERO)?.messages)
}

/// What the log must hold: `certain` was acknowledged or handed over, then perhaps a beginning of `perhaps`.
#[derive(Default)]
struct Model {
    certain: Vec<Vec<u8>>,
    perhaps: Vec<Vec<u8>>,
    handed_over: usize,
}

impl Model {
    fn hand_over(&mut self, messages: &[Message]) {
        for message in messages {
            assert_eq!(message.offset, self.handed_over as i64, "offsets are dense");
            if self.handed_over == self.certain.len() {
                assert!(!self.perhaps.is_empty(), "a record from nowhere");
                self.certain.push(self.perhaps.remove(0));
            }
            assert_eq!(message.bytes, self.certain[self.handed_over], "offset {}", message.offset);
            self.handed_over += 1;
        }
    }
}

/// Appends and reads until the power fails.
fn live(disk: &PowerLoss, random: &mut StdRng, model: &mut Model) -> Result<(), SourceError> {
    let mut feed = follow(disk, model.handed_over)?;
    if random.random_bool(0.3) {
        model.hand_over(&poll(&mut feed)?);
    }
    let mut log = open(disk)?;
    // Opening settles what became of the failed append.
    let survived = log.next_offset() as usize - model.certain.len();
    assert!(survived <= model.perhaps.len());
    model.certain.extend(model.perhaps.drain(..survived));
    model.perhaps.clear();
    loop {
        let batch: Vec<Vec<u8>> = (0..random.random_range(0..5))
            .map(|i| {
                let mut payload = format!("{}:{i}:", model.certain.len()).into_bytes();
                payload.resize(random.random_range(0..300).max(payload.len()), b'x');
                payload
            })
            .collect();
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        match log.append(&slices) {
            Ok(offsets) => {
                assert_eq!(offsets.start as usize, model.certain.len());
                model.certain.extend(batch);
            }
            Err(error) => {
                model.perhaps = batch;
                return Err(error);
            }
        }
        if random.random_bool(0.4) {
            model.hand_over(&poll(&mut feed)?);
        }
    }
}

fn survives(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = PowerLoss::new(seed);
    let mut model = Model::default();
    for _ in 0..random.random_range(1..6) {
        disk.fail_after(random.random_range(0..60));
        live(&disk, &mut random, &mut model).expect_err("only a power failure ends a life");
        if random.random_bool(0.5) { disk.kill() } else { disk.crash() }
    }
    disk.crash();
    let log = open(&disk).unwrap();
    let mut feed = follow(&disk, model.handed_over).unwrap();
    while model.handed_over < log.next_offset() as usize {
        model.hand_over(&poll(&mut feed).unwrap());
    }
    assert_eq!(model.handed_over, model.certain.len(), "everything acknowledged was read");
    model.perhaps.clear();
    model.handed_over = 0;
    model.hand_over(&poll(&mut follow(&disk, 0).unwrap()).unwrap());
    assert_eq!(model.handed_over, model.certain.len(), "and is read again from the start");
}

#[test]
fn acknowledged_records_survive_power_loss() {
    let base: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let started = Instant::now();
    for seed in (0..CASES).map(|case| base.wrapping_add(case)) {
        let outcome = std::panic::catch_unwind(|| survives(seed));
        assert!(outcome.is_ok(), "failed with SEED={seed}");
    }
    println!("{CASES} cases from SEED={base} in {:?}", started.elapsed());
}

#[test]
fn damage_to_acknowledged_records_is_named() {
    // Offset 1 of three appends; the third proves that the second was acknowledged.
    let disk = PowerLoss::new(7);
    let files: Arc<dyn FileLayer> = Arc::new(disk.clone());
    let mut log = Log::open(files.clone(), Path::new("/logs"), &mapping()).unwrap();
    for payload in [b"one", b"two", b"six"] {
        log.append(&[payload]).unwrap();
    }
    drop(log);
    let second = HEADER_BYTES + 3;
    disk.damage(Path::new("/logs/audit/00000000000000000000.log"), second + HEADER_BYTES);
    let check = |error: SourceError| match error {
        SourceError::Corrupt { file, byte, .. } => {
            assert_eq!(file, Path::new("/logs/audit/00000000000000000000.log"));
            assert_eq!(byte, second as u64);
        }
        other => panic!("{other}"),
    };
    check(Log::open(files, Path::new("/logs"), &mapping()).err().unwrap());
    let mut feed = follow(&disk, 0).unwrap();
    assert_eq!(poll(&mut feed).unwrap().len(), 1, "what is before the damage is handed over");
    check(poll(&mut feed).unwrap_err());
}

#[test]
fn a_torn_tail_is_cut_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn FileLayer> = Arc::new(Disk);
    let open = || Log::open(files.clone(), dir.path(), &mapping());
    let mut log = open().unwrap();
    assert_eq!(log.append(&[b"a", b"bc"]).unwrap(), 0..2);
    assert!(open().err().unwrap().to_string().contains("another process"));
    drop(log);

    let segment = dir.path().join("audit/00000000000000000000.log");
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [&whole[..], b"SKO1half a header"].concat()).unwrap();
    let mut feed = LogFeed::open(files.clone(), dir.path(), Positions::new(), Duration::ZERO).unwrap();
    assert_eq!(poll(&mut feed).unwrap().len(), 2, "a half-written record is not yet there");

    let mut log = open().unwrap();
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    assert_eq!(log.append(&[b"def"]).unwrap(), 2..3);
    let polled = feed.poll(Duration::from_secs(5)).unwrap();
    let bytes: Vec<&[u8]> = polled.messages.iter().map(|m| m.bytes.as_slice()).collect();
    assert_eq!(bytes, [b"def"]);
}

#[test]
fn says_what_the_rows_need() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn FileLayer> = Arc::new(Disk);
    let mut feed = LogFeed::open(files.clone(), dir.path(), Positions::new(), Duration::ZERO).unwrap();
    assert_eq!(poll(&mut feed).unwrap().len(), 0);

    let mut log = Log::open(files.clone(), dir.path(), &mapping()).unwrap();
    let payloads = vec![&b"x"[..]; POLL_MESSAGES + 5];
    log.append(&payloads).unwrap();
    let Polled { messages, ranges, partitions } = feed.poll(Duration::from_secs(5)).unwrap();
    assert_eq!(messages.len(), POLL_MESSAGES);
    let (first, partition) = (&messages[0], &partitions[0]);
    assert_eq!((first.source, first.cluster.as_deref()), (Source::Kubernetes, Some("prod")));
    assert_eq!((partition.lag, partition.idle), (Some(5), false));
    let range = ranges.0[&("audit".into(), 0)];
    assert_eq!((range.from, range.next), (0, POLL_MESSAGES as i64));

    let polled = feed.poll(Duration::ZERO).unwrap();
    assert_eq!((polled.messages.len(), polled.partitions[0].lag), (5, Some(0)));
    assert!(polled.partitions[0].idle);

    let mut beyond = LogFeed::open(files, dir.path(), [(("audit".into(), 0), 99_999)].into(), Duration::ZERO).unwrap();
    assert!(matches!(poll(&mut beyond).unwrap_err(), SourceError::Lost { ours: 99_999, high: 10_005, .. }));
}

const POLL_MESSAGES: usize = crate::POLL_MESSAGES_MAX;

#[test]
fn large_records_and_old_segments() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn FileLayer> = Arc::new(Disk);
    let mut log = Log::open_with(files.clone(), dir.path(), &mapping(), SMALL_SEGMENT_BYTES).unwrap();
    let large = vec![b'l'; 5 << 20];
    for payload in [&b"small"[..], &large, b"small", b"last"] {
        log.append(&[payload]).unwrap();
    }
    let names = |files: &dyn FileLayer| segments(files, &dir.path().join("audit")).unwrap();
    assert_eq!(names(&*files), [0, 2]);

    let feed = LogFeed::open(files.clone(), dir.path(), Positions::new(), Duration::ZERO).unwrap();
    let mut feed = feed.keep_bytes(0);
    let mut sizes = Vec::new();
    while sizes.len() < 4 {
        sizes.extend(poll(&mut feed).unwrap().iter().map(|m| m.bytes.len()));
    }
    assert_eq!(sizes, [5, 5 << 20, 5, 4]);
    let at = |next| Offsets([(("audit".into(), 0), next)].into());
    feed.committed(&at(1)).unwrap();
    assert_eq!(names(&*files), [0, 2]);
    feed.committed(&at(2)).unwrap();
    assert_eq!(names(&*files), [2]);
    let mut late = LogFeed::open(files, dir.path(), at(1).0, Duration::ZERO).unwrap();
    let polled = late.poll(Duration::ZERO).unwrap();
    let range = polled.ranges.0[&("audit".into(), 0)];
    assert_eq!((polled.messages.len(), range.from, range.next), (2, 1, 4), "what was removed is covered");
}
