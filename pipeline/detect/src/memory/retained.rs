//! What remains of rows that retention removes: of each state table the versions that can still matter, of each rule with
//! `first_seen` the spans in which its keys were there, and since when it looks. Rows are taken in before they go. To take
//! in a row twice changes nothing, so that a crash in between loses nothing, and who reads stored rows first and this
//! afterwards misses nothing.
//!
//! Unlike [`super::derived`] this is no cache: nothing else knows what is in it. So its files do not depend on the build:
//! Parquet, with the values as the SELECT gave them. A state table or rule whose meaning changes begins anew, and finds
//! what it knew when the change is taken back within [`UNUSED_DAYS_MAX`].

mod file;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use event::{Micros, Origin, Watermarks};

use super::begin::lowest_time;
use super::disk;
use super::judge::{FirstSeen, Remembering, hash};
use super::seen::{Key, Span, join};
use super::sieve::{Sieve, Sieved};
use super::state::StateTable;
use super::tables::load_versions;
use super::versions::{ENDED_US, Version, Versions};
use super::{BEHIND_US, RULE_BYTES_MAX, STATE_BYTES_MAX, of_table};
use crate::error::DetectError;
use crate::fault::{self, Fault};
use crate::history::History;
use crate::rule::{Body, Rule};
use crate::ruleset::RuleSet;
use file::Head;

/// Files that no rule in force has use for are kept so long, in case it comes back.
const UNUSED_DAYS_MAX: u64 = 30;

/// Written by one at a time, the owner of the store; read by anybody.
#[derive(Debug)]
pub struct Retained {
    dir: PathBuf,
    is_owner: bool,
}

/// Rows that are about to go.
pub struct Going<'a> {
    pub rows: &'a dyn History,
    /// The tables they are of.
    pub tables: BTreeSet<String>,
    /// The lowest time of what stays of a table.
    pub stays: &'a (dyn Fn(&str) -> Micros + Sync),
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Versions and spans that remain, of what was looked at.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// State tables and rules that need more memory than they may have: what goes is lost to them.
    pub too_much: Vec<String>,
    /// State tables and rules that could not take in what goes, with the reason.
    pub failed: Vec<(String, String)>,
    /// A disk that is full was one of the reasons.
    pub disk_full: bool,
}

/// What a state table or rule made of what goes.
enum Taken {
    Nothing,
    Rows(u64),
    TooMuch,
}

impl Retained {
    /// In a folder of its own.
    pub fn new(dir: PathBuf) -> Retained {
        Retained { dir, is_owner: true }
    }

    /// That of a store that another process owns.
    pub fn read_only(dir: PathBuf) -> Retained {
        Retained { dir, is_owner: false }
    }

    pub fn is_there(&self) -> bool {
        self.dir.exists()
    }

    /// That of a session with stored rows.
    pub(crate) fn of(stored: &SessionContext) -> Option<Arc<Retained>> {
        stored.state_ref().read().config().get_extension::<Retained>()
    }

    /// Forgets everything.
    pub fn clear(&self) -> io::Result<()> {
        disk::clear(&self.dir)
    }

    /// Takes in what rows that go say to the rules in force.
    pub async fn fold(&self, rules: &RuleSet, marks: &Watermarks, going: &Going<'_>) -> Result<Folded, DetectError> {
        let mut folded = Folded::default();
        if fault::is(Fault::RetainedNot) {
            return Ok(folded);
        }
        let gone = rules.stored(going.rows)?;
        let reads = |sieve: &Sieve| sieve.tables.iter().any(|table| going.tables.contains(&**table));
        for state in rules.states.iter().filter(|s| rules.joins(s) && reads(&s.sieve)) {
            let stays = state.sieve.tables.iter().map(|table| (going.stays)(table)).min().unwrap_or(Micros::MIN);
            let outcome = self.fold_state(state, marks, stays, &gone).await;
            folded.add(&state.name, outcome);
        }
        let readers: Vec<_> = first_seens(rules).filter(|(_, body, _)| reads(&body.sieve)).collect();
        let mut begins = BTreeMap::new();
        for table in going.tables.iter().filter(|_| !readers.is_empty()) {
            match lowest_time(table, &gone).await {
                Ok(time) => begins.extend(time.map(|time| (table.clone(), time))),
                Err(error) => folded.add(table, Err(error)),
            }
        }
        for reader in readers {
            let outcome = self.fold_seen(reader, marks, &begins, &gone).await;
            folded.add(&reader.0.id, outcome);
        }
        self.forget_unused(rules);
        Ok(folded)
    }

    async fn fold_state(
        &self,
        state: &StateTable,
        marks: &Watermarks,
        stays: Micros,
        gone: &SessionContext,
    ) -> Result<Taken> {
        let (more, _) = load_versions(state, gone, Origin::Live, "true", Micros::MIN).await?;
        if more.is_empty() {
            return Ok(Taken::Nothing);
        }
        // Beyond the budget it was not read to its end.
        if more.bytes() > STATE_BYTES_MAX {
            return Ok(Taken::TooMuch);
        }
        let mut versions = self.versions(state)?.unwrap_or_default();
        versions.absorb(more);
        // As far back as the slowest rule may ask; and no end is forgotten while what it ended may still be stored.
        let asked = of_table(&state.table, marks).saturating_sub(BEHIND_US);
        let stays = if fault::is(Fault::EndForgotten) { Micros::MAX } else { stays };
        versions.advance(asked.min(stays.saturating_add(ENDED_US)));
        if versions.bytes() > STATE_BYTES_MAX {
            return Ok(Taken::TooMuch);
        }
        let rows: Vec<(&[u8], &Version)> =
            versions.keys().flat_map(|(key, versions)| versions.iter().map(move |v| (key, v))).collect();
        let head = Head::new(&state.meaning, versions.floor(), BTreeMap::new());
        disk::replace(&self.dir, &of_state(state), &[&file::of_versions(&head, state, &rows)?])?;
        Ok(Taken::Rows(rows.len() as u64))
    }

    /// `gone_since` is the lowest time of what goes, by table.
    async fn fold_seen(
        &self,
        (rule, body, first_seen): (&Rule, &Remembering, &FirstSeen),
        marks: &Watermarks,
        gone_since: &BTreeMap<String, Micros>,
        gone: &SessionContext,
    ) -> Result<Taken> {
        let interval = first_seen.interval_us;
        let mut keys = Keys { interval, ..Keys::default() };
        let mut error = None;
        let mut take = |sieved: Sieved| match body.keys_of(&sieved) {
            // More than the budget need not be read to the end.
            Ok(Some(encoded)) if keys.bytes <= RULE_BYTES_MAX => {
                for (row, mark) in sieved.marks.iter().enumerate() {
                    encoded.whole(row).into_iter().for_each(|key| keys.add(key, Span::of(mark)));
                }
            }
            Ok(_) => {}
            Err(e) => drop(error.get_or_insert(e)),
        };
        body.sieve.stored(gone, Origin::Live, "true", &mut take).await?;
        if let Some(error) = error {
            return Err(error);
        }
        let no_rows = keys.spans.is_empty();
        let before = self.spans(&rule.id, first_seen, &mut |key, span| keys.add(key, span))?;
        let mut begins = before.clone();
        for (table, time) in gone_since.iter().filter(|(table, _)| body.sieve.tables.iter().any(|t| **t == ***table)) {
            begins.entry(table.clone()).and_modify(|begin| *begin = *time.min(begin)).or_insert(*time);
        }
        if no_rows && begins == before {
            return Ok(Taken::Nothing);
        }
        let now = body.sieve.tables.iter().map(|table| of_table(table, marks)).min().unwrap_or(Micros::MIN);
        // Rows that are late look back from where they are.
        let floor = now.saturating_sub(interval).saturating_sub(BEHIND_US);
        if keys.bytes > RULE_BYTES_MAX {
            return Ok(Taken::TooMuch);
        }
        keys.spans.values_mut().for_each(|spans| spans.retain(|span| span.last >= floor));
        let rows: Vec<(&[u8], &Span)> =
            keys.spans.iter().flat_map(|(key, spans)| spans.iter().map(move |span| (&**key, span))).collect();
        let head = Head::new(&first_seen.meaning, Micros::MIN, begins);
        disk::replace(&self.dir, &of_first_seen(&rule.id, first_seen), &[&file::of_spans(&head, first_seen, &rows)?])?;
        Ok(Taken::Rows(rows.len() as u64))
    }

    /// What remains of a state table; `None` if nothing of it has expired.
    pub(super) fn versions(&self, state: &StateTable) -> Result<Option<Versions>> {
        self.read(&of_state(state), &state.meaning, |head, batches| {
            let mut versions = Versions::restored(Vec::new(), head.floor);
            batches.iter().try_for_each(|batch| file::versions(state, batch, &mut versions))?;
            Ok(versions)
        })
    }

    /// Something of a state table has expired.
    pub(super) fn has(&self, state: &StateTable) -> bool {
        self.dir.join(of_state(state)).exists()
    }

    /// The spans in which the keys of a rule were there. Returns by table since when it has looked at rows that are gone.
    pub(super) fn seen(
        &self,
        rule: &str,
        first_seen: &FirstSeen,
        take: &mut dyn FnMut(Key, Span),
    ) -> Result<BTreeMap<String, Micros>> {
        self.spans(rule, first_seen, &mut |key, span| take(hash(key), span))
    }

    fn spans(
        &self,
        rule: &str,
        first_seen: &FirstSeen,
        take: &mut dyn FnMut(&[u8], Span),
    ) -> Result<BTreeMap<String, Micros>> {
        let begins = self.read(&of_first_seen(rule, first_seen), &first_seen.meaning, |head, batches| {
            batches.iter().try_for_each(|batch| file::spans(first_seen, batch, take))?;
            Ok(head.begins)
        });
        Ok(begins?.unwrap_or_default())
    }

    /// Removes what no rule in force has used for long.
    fn forget_unused(&self, rules: &RuleSet) {
        let seen = first_seens(rules).map(|(rule, _, first_seen)| of_first_seen(&rule.id, first_seen));
        let used: BTreeSet<String> = rules.states.iter().map(|state| of_state(state)).chain(seen).collect();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
            let (age, path) = (age.unwrap_or_default(), entry.path());
            let name = entry.file_name().to_string_lossy().into_owned();
            if used.contains(&name) {
                // Its age is that of its last use.
                if age > days(1) {
                    drop(File::options().append(true).open(path).and_then(|f| f.set_modified(SystemTime::now())));
                }
            } else if name.ends_with(".parquet") && age > days(UNUSED_DAYS_MAX) && fs::remove_file(path).is_ok() {
                tracing::info!(file = name, "removed what no rule has used for {UNUSED_DAYS_MAX} days");
            }
        }
    }

    /// What `take` makes of a file, if there is one of this name and meaning.
    fn read<T>(
        &self,
        name: &str,
        meaning: &str,
        take: impl FnOnce(Head, Vec<RecordBatch>) -> Result<T>,
    ) -> Result<Option<T>> {
        let path = self.dir.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let taken = match file::read(file, meaning) {
            Ok(file::Read::Whole(head, batches)) => take(head, batches).map_err(|error| error.strip_backtrace()),
            Ok(file::Read::Newer) => {
                let what = format!("{} was written by a later version of stakeout", path.display());
                return Err(DataFusionError::Execution(what));
            }
            Err(why) => Err(why),
        };
        match taken {
            Ok(taken) => Ok(Some(taken)),
            Err(why) => self.set_aside(&path, &why).map(|()| None),
        }
    }

    /// A damaged file must not keep rules from running. What it held is forgotten, loudly.
    fn set_aside(&self, path: &Path, why: &str) -> Result<()> {
        if !self.is_owner {
            return Err(DataFusionError::Execution(format!("{} is damaged: {why}", path.display())));
        }
        metrics::counter!("stakeout_retained_damaged_total").increment(1);
        let mut aside = path.as_os_str().to_owned();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        aside.push(format!(".damaged-{}", now.as_millis()));
        let moved = fs::rename(path, &aside);
        tracing::error!(
            path = %path.display(),
            moved = moved.is_ok(),
            "what is remembered of expired rows is damaged and set aside; stop, put the file of a backup in its place, remove `derived`, start: {why}"
        );
        Ok(())
    }
}

/// Keys with their spans, as they are put together.
#[derive(Default)]
struct Keys {
    interval: i64,
    spans: HashMap<Box<[u8]>, Vec<Span>>,
    /// About what they take.
    bytes: usize,
}

impl Keys {
    fn add(&mut self, key: &[u8], span: Span) {
        let spans = match self.spans.get_mut(key) {
            Some(spans) => spans,
            None => {
                self.bytes += key.len() + 64;
                self.spans.entry(key.into()).or_default()
            }
        };
        let before = spans.len();
        join(spans, self.interval, span);
        self.bytes = self.bytes + spans.len() * SPAN_BYTES - before * SPAN_BYTES;
    }
}

/// With the uid of an event in it.
const SPAN_BYTES: usize = size_of::<Span>() + 48;

impl Folded {
    fn add(&mut self, what: &str, outcome: Result<Taken>) {
        match outcome {
            Ok(Taken::Rows(rows)) => {
                self.rows += rows;
                self.files += 1;
                metrics::gauge!("stakeout_retained_rows", "of" => what.to_owned()).set(rows as f64);
            }
            Ok(Taken::Nothing) => {}
            Ok(Taken::TooMuch) => self.too_much.push(what.to_owned()),
            Err(error) => {
                let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
                self.disk_full |= matches!(&error, DataFusionError::IoError(e) if full.contains(&e.kind()));
                self.failed.push((what.to_owned(), error.strip_backtrace()));
            }
        }
    }
}

/// The name of a file says of what it is, and what that means: of another meaning it is another file.
fn of_state(state: &StateTable) -> String {
    format!("state-{}-{}.parquet", state.name, &state.meaning[..12])
}

fn of_first_seen(rule: &str, first_seen: &FirstSeen) -> String {
    format!("seen-{rule}-{}.parquet", &first_seen.meaning[..12])
}

fn first_seens(rules: &RuleSet) -> impl Iterator<Item = (&Rule, &Remembering, &FirstSeen)> {
    rules.rules.iter().filter_map(|rule| match &rule.body {
        Body::Remembering(body) => Some((&**rule, &**body, body.first_seen.as_ref()?)),
        _ => None,
    })
}
