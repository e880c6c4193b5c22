//! The line of an import: files are read ahead, polls normalized by several threads, then admitted, matched and
//! appended one after the other in their order, while another thread seals. How many threads there are changes nothing
//! of what comes out.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use event::{Admitted, Counts, Micros, Polled, column, tables};
use normalize::{Normalized, Normalizer};
use source::{Feed, FileRead, Import, Progress, Remark};
use store::Store;

use super::ledger::{Ends, Ledger};
use crate::rooms::{Detection, Door};
use crate::shutdown::Shutdown;

/// Polls that wait for each normalizing thread, and behind it: one each keeps it busy.
const UNITS_WAITING_MAX: usize = 1;

/// What may be admitted and not yet sealed, in seals: one being written, one filling.
const TAIL_SEALS_MAX: u64 = 2;

const SEAL_CHECK: Duration = Duration::from_millis(20);

/// How long files that brought nothing new wait to be noted as imported.
const NOTE_AFTER: Duration = Duration::from_secs(5);

/// Different reasons counted; a broken file has one or two.
const REASONS_MAX: usize = 1000;

/// What came of it.
#[derive(Default)]
pub struct Imported {
    pub counts: Counts,
    pub findings: usize,
    /// Of `unparsed` rows, numbers left out.
    pub reasons: BTreeMap<String, u64>,
    /// First and last event time of new events.
    pub span: Option<(Micros, Micros)>,
    pub files: usize,
    pub errors: Vec<Remark>,
    pub notes: Vec<Remark>,
    /// Stopped before the end.
    pub interrupted: bool,
}

pub struct Line<'a> {
    pub door: Door,
    pub normalizers: Vec<Normalizer>,
    pub detection: &'a mut Detection,
    pub store: &'a Store,
    pub seal_bytes: u64,
    pub ledger: &'a Ledger,
    pub stopping: &'a Shutdown,
}

/// One poll on its way.
struct Unit<R> {
    polled: Polled,
    /// Files whose last message is in this poll or was in an earlier one.
    read: Vec<FileRead>,
    progress: Progress,
    rows: R,
}

type Rows = (Normalized, HashMap<String, Ends>);
type Durable = Mutex<Vec<(FileRead, Ends)>>;

impl Line<'_> {
    /// Reads everything, or as much as there is time for before `stopping` is pulled; then all of it is durable.
    pub fn run(self, feed: Import, mut each: impl FnMut(&Progress, &Counts)) -> Result<Imported> {
        let Line { mut door, normalizers, detection, store, seal_bytes, ledger, stopping } = self;
        let tail_bytes_max = seal_bytes.saturating_mul(TAIL_SEALS_MAX);
        let (drained, sealed, appended) = (Shutdown::new(), Shutdown::new(), Durable::default());
        std::thread::scope(|scope| {
            let (mut to, mut from) = (Vec::new(), Vec::new());
            for normalizer in normalizers {
                let ((polls, polled), (rows, normalized)) =
                    (sync_channel(UNITS_WAITING_MAX), sync_channel(UNITS_WAITING_MAX));
                scope.spawn(move || normalize(normalizer, &polled, &rows));
                to.push(polls);
                from.push(normalized);
            }
            let reader = scope.spawn(|| read(feed, to, stopping));
            let sealer = scope.spawn(|| {
                let _sealed = sealed.pull_on_drop();
                seal(store, ledger, &appended, &drained)
            });
            let drain = drained.pull_on_drop();
            let mut imported = Imported::default();
            let mut open = HashMap::new();
            let mut admit = || -> Result<()> {
                for turn in (0..from.len()).cycle() {
                    // The first that has no more is where the stream ends.
                    let Ok(unit) = from[turn].recv() else { return Ok(()) };
                    let Unit { polled, read, progress, rows: (rows, ends) } = unit;
                    let admitted = door.admit_rows(&polled, rows, store)?;
                    // Found before it is durable: what is committed has been matched, whenever the process dies.
                    imported.findings += detection.on_admitted(&admitted)?;
                    store.append(&admitted)?;
                    imported.count(&admitted);
                    for (topic, ends) in ends {
                        open.entry(topic).or_insert_with(Ends::default).extend(ends);
                    }
                    for read in read {
                        imported.file(&read);
                        let ends = open.remove(&*read.topic).unwrap_or_default();
                        appended.lock().unwrap_or_else(PoisonError::into_inner).push((read, ends));
                    }
                    each(&progress, &imported.counts);
                    while store.tail_bytes()? > tail_bytes_max && !sealed.wait(SEAL_CHECK) {}
                    // Before the end it stops only because it failed.
                    if sealed.pulled() {
                        return Ok(());
                    }
                }
                Ok(())
            };
            let admitted = admit();
            // Whoever waits to hand something over gives up.
            drop(from);
            drop(drain);
            imported.interrupted = reader.join().map_err(|_| anyhow!("reading panicked; this is a bug"))??;
            sealer.join().map_err(|_| anyhow!("sealing panicked; this is a bug"))??;
            admitted.map(|()| imported)
        })
    }
}

impl Imported {
    fn count(&mut self, admitted: &Admitted) {
        self.counts.add(&admitted.counts);
        for batch in &admitted.batches {
            if &*batch.table == tables::UNPARSED {
                let reasons = batch.rows.column_by_name("reason").expect("`unparsed` has reasons").as_string_view();
                for reason in reasons.iter().flatten().map(without_numbers) {
                    if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason) {
                        *self.reasons.entry(reason).or_default() += 1;
                    }
                }
                continue;
            }
            let times = batch.rows.column_by_name(column::TIME).expect("every stored table has the meta columns");
            for &time in times.as_primitive::<TimestampMicrosecondType>().values() {
                let (first, last) = self.span.unwrap_or((time, time));
                self.span = Some((first.min(time), last.max(time)));
            }
        }
    }

    fn file(&mut self, read: &FileRead) {
        self.files += 1;
        let remark = |what: &String| Remark { path: read.file.path.clone(), what: what.clone() };
        self.errors.extend(read.errors.iter().map(remark));
        self.notes.extend(read.notes.iter().map(remark));
    }
}

/// Numbers that stand alone are positions.
fn without_numbers(reason: &str) -> String {
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    reason.split(' ').map(|word| if number(word) { "#" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Polls, and deals the polls out in turn. True: stopped before the end.
fn read(mut feed: Import, to: Vec<SyncSender<Unit<()>>>, stopping: &Shutdown) -> Result<bool> {
    for sender in to.iter().cycle() {
        if feed.finished() {
            break;
        }
        if stopping.pulled() {
            return Ok(true);
        }
        let polled = feed.poll(Duration::ZERO)?;
        let unit = Unit { polled, read: feed.take_read(), progress: feed.progress(), rows: () };
        if sender.send(unit).is_err() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn normalize(mut normalizer: Normalizer, polled: &Receiver<Unit<()>>, rows: &SyncSender<Unit<Rows>>) {
    while let Ok(Unit { polled, read, progress, rows: () }) = polled.recv() {
        polled.messages.iter().for_each(|message| normalizer.push(message));
        let normalized = normalizer.finish();
        let ends = Ends::of(&normalized);
        if rows.send(Unit { polled, read, progress, rows: (normalized, ends) }).is_err() {
            return;
        }
    }
}

/// Seals when it is due and once more at the end; then notes the files that had been appended to their end.
fn seal(store: &Store, ledger: &Ledger, appended: &Durable, drained: &Shutdown) -> Result<()> {
    let mut noted = Instant::now();
    loop {
        let last = drained.wait(SEAL_CHECK);
        let due = store.seal_due(Instant::now());
        if last || due || (noted.elapsed() >= NOTE_AFTER && store.tail_bytes()? == 0) {
            let durable = std::mem::take(&mut *appended.lock().unwrap_or_else(PoisonError::into_inner));
            store.seal().context("cannot store what was read; start the import again to go on from the last commit")?;
            ledger.add(&durable)?;
            noted = Instant::now();
        }
        if last {
            return Ok(());
        }
    }
}
