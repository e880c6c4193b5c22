//! All rules of a folder, checked, with the hash of everything that decides what they find.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use datafusion::execution::context::SessionContext;
use event::{Micros, TableSchema};
use query::{LookupProblem, Lookups, QueryError};
use tokio::runtime::Handle;

use crate::error::{RuleErrors, RuleProblem};
use crate::history::History;
use crate::ident::Identity;
use crate::load::{Bench, id_of};
use crate::memory::StateTable;
use crate::rule::Rule;
use crate::tuning::Tuning;
use crate::windows::have_same_panes;

/// Bytes of a rule file. A page of SQL with generous lists.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Exceptions, beside the folders of rules.
const TUNING: &str = "tuning.yaml";

/// What rules stand on beside tables.
#[derive(Default)]
struct Ground {
    lookups: Lookups,
    tuning: Tuning,
}

/// A folder of rules as texts, each with its path.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    pub rules: Vec<(PathBuf, String)>,
    pub states: Vec<(PathBuf, String)>,
    pub lookups: Vec<(PathBuf, String)>,
    pub tuning: Option<(PathBuf, String)>,
}

#[derive(Clone)]
pub struct RuleSet {
    /// By id.
    pub rules: Vec<Arc<Rule>>,
    /// BLAKE3 over the rule files and the schemas, hex.
    pub bundle: String,
    /// Hash of what all rules stand on: a state lasts as long as it and the rule's own file do.
    pub context: String,
    pub schemas: Vec<Arc<TableSchema>>,
    /// What is odd about the folder and keeps no rule from working.
    pub warnings: Vec<RuleProblem>,
    /// When an exception of tuning.yaml ends next: from then on the set is another.
    pub tuned_until: Option<Micros>,
    /// By name; those that no rule joins too.
    pub states: Vec<Arc<StateTable>>,
    /// The session that rules run in: functions and limits, no tables.
    pub(crate) base: SessionContext,
}

impl RuleSet {
    /// A session with the stored tables and their views, and with what remains of expired rows.
    pub(crate) fn stored(&self, history: &dyn History) -> Result<SessionContext, QueryError> {
        let ctx = query::fork(&self.base);
        if let Some(retained) = history.retained() {
            ctx.state_ref().write().config_mut().set_extension(retained);
        }
        query::register_tables(&ctx, &self.schemas, &|name| history.table(name))?;
        Ok(ctx)
    }

    /// Some rule joins this state table.
    pub(crate) fn joins(&self, state: &StateTable) -> bool {
        self.rules.iter().any(|rule| rule.states.contains(&state.name))
    }

    /// Reads `<dir>/state/*.sql`, `<dir>/<source>/*.sql`, `<dir>/lookups` and `<dir>/tuning.yaml`. All mistakes of all
    /// files are reported at once.
    pub async fn load(dir: &Path, schemas: &[Arc<TableSchema>], schemas_hash: &str) -> Result<RuleSet, RuleErrors> {
        let mut problems = Vec::new();
        let read_all = |paths: Vec<PathBuf>, problems: &mut Vec<RuleProblem>| {
            let mut files = Vec::new();
            for path in paths {
                match read(&path) {
                    Ok(text) => files.push((path, text)),
                    Err(message) => problems.push(RuleProblem { path, line: 0, message, hint: None }),
                }
            }
            files
        };
        let paths = state_files(dir, &mut problems);
        let states = read_all(paths, &mut problems);
        let paths = rule_files(dir, &mut problems);
        let files = read_all(paths, &mut problems);
        let lookups = match Lookups::load(&dir.join("lookups")) {
            Ok(lookups) => lookups,
            Err(found) => {
                problems.extend(found.into_iter().map(of_lookup));
                Lookups::default()
            }
        };
        let path = dir.join(TUNING);
        let tuning = match path.exists().then(|| read(&path)) {
            Some(Ok(text)) => Tuning::parse(&path, &text, now(), &mut problems),
            Some(Err(message)) => {
                problems.push(RuleProblem { path, line: 0, message, hint: None });
                Tuning::default()
            }
            None => Tuning::default(),
        };
        let ground = Ground { lookups, tuning };
        Self::parse_after(problems, ground, &states, &files, schemas, schemas_hash).await
    }

    /// The same of texts, as of a moment: which exceptions are in force depends on it.
    pub async fn parse_folder(
        folder: &Folder,
        now: Micros,
        schemas: &[Arc<TableSchema>],
        schemas_hash: &str,
    ) -> Result<RuleSet, RuleErrors> {
        let (lookups, mut problems) = match Lookups::parse(&folder.lookups) {
            Ok(lookups) => (lookups, Vec::new()),
            Err(found) => (Lookups::default(), found.into_iter().map(of_lookup).collect()),
        };
        let tuning = folder.tuning.as_ref().map(|(path, text)| Tuning::parse(path, text, now, &mut problems));
        let ground = Ground { lookups, tuning: tuning.unwrap_or_default() };
        Self::parse_after(problems, ground, &folder.states, &folder.rules, schemas, schemas_hash).await
    }

    /// Rules given as (path, text), and nothing else.
    pub async fn parse(
        files: &[(PathBuf, String)],
        schemas: &[Arc<TableSchema>],
        schemas_hash: &str,
    ) -> Result<RuleSet, RuleErrors> {
        Self::parse_after(Vec::new(), Ground::default(), &[], files, schemas, schemas_hash).await
    }

    async fn parse_after(
        mut problems: Vec<RuleProblem>,
        Ground { lookups, tuning }: Ground,
        states: &[(PathBuf, String)],
        files: &[(PathBuf, String)],
        schemas: &[Arc<TableSchema>],
        schemas_hash: &str,
    ) -> Result<RuleSet, RuleErrors> {
        let whole = |message: String| RuleProblem { path: PathBuf::new(), line: 0, message, hint: None };
        for name in lookups.names().filter(|name| schemas.iter().any(|s| s.name == **name)) {
            problems.push(whole(format!("lookup `{name}` has the name of a table")));
        }
        let texts = lookups.texts().map(|(name, text)| format!("{name}\n{text}")).collect::<Vec<_>>();
        let context =
            texts.iter().fold(Identity::new().part(schemas_hash.as_bytes()), |id, t| id.part(t.as_bytes())).version();
        let (mut warnings, tuned_until) = (expired(&lookups), tuning.until);
        warnings.extend(tuning.expired.iter().cloned());
        let mut bench =
            Bench::new(schemas, Arc::new(lookups), tuning).map_err(|e| RuleErrors(vec![whole(e.to_string())]))?;
        bench.load_states(states, &mut problems).await;
        let mut rules: BTreeMap<String, Arc<Rule>> = BTreeMap::new();
        let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
        let bench = Arc::new(bench);
        for ((path, _), (rule, found)) in files.iter().zip(load_all(&bench, files).await) {
            let id = id_of(path);
            if let Some(first) = paths.insert(id.clone(), path.clone()) {
                let message = format!("rule `{id}` is there twice: also in {}", first.display());
                let hint = Some("a rule's id is its file name without `.sql`".to_owned());
                problems.push(RuleProblem { path: path.clone(), line: 0, message, hint });
            }
            problems.extend(found);
            if let Some(rule) = rule {
                rules.insert(id, Arc::new(rule));
            }
        }
        let ids: Vec<&str> = paths.keys().map(String::as_str).collect();
        bench.tuning.strangers(&ids, &mut problems);
        if !problems.is_empty() {
            return Err(RuleErrors(problems));
        }
        let bundle = bundle(&rules, &bench.states, &context);
        let (base, schemas, states) = (bench.base.clone(), bench.schemas.clone(), bench.states.clone());
        let rules = rules.into_values().collect();
        Ok(RuleSet { rules, bundle, context, schemas, states, warnings, tuned_until, base })
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|r| r.id == id)
    }

    /// The rules that keep the same of the same rows as `rule` does, and share its panes where they begin together.
    pub fn sharing_panes_with(&self, rule: &Rule) -> Vec<&Arc<Rule>> {
        self.rules.iter().filter(|other| other.id != rule.id && have_same_panes(rule, other)).collect()
    }

    /// Without exceptions, for the tests of rules: what a place lives with says nothing about a rule.
    pub fn untuned(mut self) -> RuleSet {
        for rule in &mut self.rules {
            if !rule.exceptions.is_empty() {
                *rule = Arc::new(Rule { exceptions: Vec::new(), ..rule.as_ref().clone() });
            }
        }
        self
    }

    /// The same set with only these rules, for tests and backtests. The bundle stays: it names the folder.
    pub fn only(mut self, ids: &[&str]) -> RuleSet {
        self.rules.retain(|r| ids.contains(&r.id.as_str()));
        self
    }
}

/// Every file's rule or mistakes, in the order of the files. Planning is most of a start: all cores share it.
async fn load_all(bench: &Arc<Bench>, files: &[(PathBuf, String)]) -> Vec<(Option<Rule>, Vec<RuleProblem>)> {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(files.len());
    let (files, next) = (Arc::new(files.to_vec()), Arc::new(AtomicUsize::new(0)));
    let work = |_| {
        let (bench, files, next) = (bench.clone(), files.clone(), next.clone());
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut loaded = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                let Some((path, text)) = files.get(at) else { return loaded };
                let mut found = Vec::new();
                let rule = runtime.block_on(bench.load(path, text, &mut found));
                loaded.push((at, (rule, found)));
            }
        })
    };
    let workers: Vec<_> = (0..workers).map(work).collect();
    let mut loaded = Vec::new();
    for worker in workers {
        loaded.extend(worker.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic())));
    }
    loaded.sort_by_key(|(at, _)| *at);
    loaded.into_iter().map(|(_, rule)| rule).collect()
}

fn of_lookup(problem: LookupProblem) -> RuleProblem {
    let LookupProblem { path, line, message, hint } = problem;
    RuleProblem { path, line, message, hint }
}

/// Rows whose date has passed still match, so that a bundle has one meaning: someone has to take them out.
fn expired(lookups: &Lookups) -> Vec<RuleProblem> {
    let warning = |row: query::Expired| RuleProblem {
        path: row.path,
        line: row.line,
        message: format!("the row has expired ({}) and still matches", row.date),
        hint: Some("take it out, or give it a new date".to_owned()),
    };
    lookups.expired(now()).into_iter().map(warning).collect()
}

fn now() -> Micros {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

fn bundle(rules: &BTreeMap<String, Arc<Rule>>, states: &[Arc<StateTable>], schemas_hash: &str) -> String {
    let start = Identity::new().part(schemas_hash.as_bytes());
    let state = |id: Identity, s: &Arc<StateTable>| id.part(b"state").part(s.name.as_bytes()).part(s.sql.as_bytes());
    let start = states.iter().fold(start, state);
    rules.values().fold(start, |id, rule| id.part(rule.id.as_bytes()).part(rule.version.as_bytes())).version()
}

/// The `.sql` files of `state` in `dir`, if it is there, sorted.
fn state_files(dir: &Path, problems: &mut Vec<RuleProblem>) -> Vec<PathBuf> {
    let dir = dir.join("state");
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(RuleProblem {
                path: dir,
                line: 0,
                message: format!("cannot list the folder: {error}"),
                hint: None,
            });
            Vec::new()
        }
    };
    files.retain(|p| p.extension().is_some_and(|e| e == "sql"));
    files.sort();
    files
}

/// The `.sql` files of the folders in `dir`, sorted. `state` holds state tables and `lookups` lists.
fn rule_files(dir: &Path, problems: &mut Vec<RuleProblem>) -> Vec<PathBuf> {
    let mut list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        match entries {
            Ok(entries) => entries.into_iter().map(|e| e.path()).collect(),
            Err(error) => {
                let message = format!("cannot list the folder: {error}");
                problems.push(RuleProblem { path: dir.to_owned(), line: 0, message, hint: None });
                Vec::new()
            }
        }
    };
    let is_source = |p: &PathBuf| p.is_dir() && !["state", "lookups"].iter().any(|name| p.ends_with(name));
    let folders: Vec<PathBuf> = list(dir).into_iter().filter(is_source).collect();
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| list(folder)).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "sql"));
    files.sort();
    files
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|e| format!("cannot read the file: {e}"))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("the file has {bytes} bytes, more than {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("cannot read the file: {e}"))
}
