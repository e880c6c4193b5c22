//! `stakeout test`: rules against the events beside them. Cases are independent of each other and run on several threads;
//! what is printed has the order of the files.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use detect::testing::{self, Case, Diff, TestFile};
use detect::{Engine, History, RuleProblem, RuleSet};
use event::{Finding, Frontier, Message, Micros, Origin, Polled, RowKey, Seen, SeenError, Watermarks};
use normalize::Schemas;
use tokio::runtime::Runtime;

use super::Tests;
use super::junit;
use crate::cli;
use crate::config::Config;
use crate::rooms::{Door, load_rules, load_schemas, runtime};

/// Wall clock of a test: ten years after its events, so that no event lies in the future.
const TEST_CLOCK_LATER: Micros = 10 * 365 * 86_400 * 1_000_000;

/// One rule's file: its cases, or what keeps them from running.
pub(super) struct Suite<'a> {
    pub rule: &'a str,
    pub path: &'a Path,
    pub cases: Vec<(&'a Case, Verdict)>,
    /// Lines as they are printed.
    pub broken: Vec<String>,
}

pub(super) struct Verdict {
    pub outcome: Outcome,
    pub took: Duration,
}

pub(super) enum Outcome {
    Passed,
    Failed(Diff),
    /// It could not be played.
    Broken(String),
}

/// True if every case passed.
pub fn run(args: &cli::Test, config: &Config) -> Result<bool> {
    let schemas = load_schemas(config)?;
    let rules = load_rules(config, &schemas)?.untuned();
    let tests = Tests::read(config);
    let wanted = |id: &str| args.filter.as_deref().is_none_or(|f| id.contains(f));
    let started = Instant::now();
    let files: Vec<&TestFile> = tests.files.iter().filter(|f| wanted(&f.rule)).collect();
    let jobs = args.jobs.map_or_else(cores, usize::from);
    let mut suites = Play { rules: &rules, schemas: &schemas, config }.all(&files, jobs)?;
    let missing: Vec<RuleProblem> = tests.missing(&rules).collect();
    suites.extend(broken(&tests.problems, &wanted));
    suites.extend(broken(&missing, &wanted));
    let took = started.elapsed();
    // Before anything is printed: whoever reads the first lines only still gets the file.
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::report(&suites, took))
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    suites.iter().for_each(print);
    let (passed, failed) = suites.iter().map(Suite::counts).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let tested = suites.iter().filter(|s| !s.cases.is_empty()).count();
    println!("{tested} rules, {passed} cases passed, {failed} failed ({:.1} s)", took.as_secs_f64());
    Ok(failed == 0)
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Files that cannot be read, and rules that have none.
fn broken<'a>(problems: &'a [RuleProblem], wanted: &dyn Fn(&str) -> bool) -> Vec<Suite<'a>> {
    let mut suites: Vec<Suite> = Vec::new();
    for problem in problems {
        let name = problem.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let rule = name.strip_suffix(".test.yaml").or(name.strip_suffix(".sql")).unwrap_or(name);
        if !wanted(rule) {
            continue;
        }
        match suites.iter_mut().find(|s| s.path == problem.path) {
            Some(suite) => suite.broken.push(problem.to_string()),
            None => {
                suites.push(Suite { rule, path: &problem.path, cases: Vec::new(), broken: vec![problem.to_string()] })
            }
        }
    }
    suites
}

impl Suite<'_> {
    /// Passed and failed.
    pub fn counts(&self) -> (usize, usize) {
        let passed = self.cases.iter().filter(|(_, v)| matches!(v.outcome, Outcome::Passed)).count();
        (passed, self.cases.len() - passed + self.broken.len())
    }
}

fn print(suite: &Suite) {
    suite.broken.iter().for_each(|problem| println!("{problem}"));
    for (case, verdict) in &suite.cases {
        let text = match &verdict.outcome {
            Outcome::Passed => continue,
            Outcome::Failed(diff) => diff.to_string(),
            Outcome::Broken(error) => format!("cannot be played: {error}"),
        };
        println!("{}:{}: case `{}`\n{}", suite.path.display(), case.line, case.name, indent(&text));
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// What every case is played with.
struct Play<'a> {
    rules: &'a RuleSet,
    schemas: &'a Schemas,
    config: &'a Config,
}

impl Play<'_> {
    /// Each thread takes the next case that nobody has; a case is seen by one thread only, with an engine of its own.
    fn all<'f>(&self, files: &[&'f TestFile], jobs: usize) -> Result<Vec<Suite<'f>>> {
        let cases: Vec<(usize, &Case)> =
            files.iter().enumerate().flat_map(|(i, f)| f.cases.iter().map(move |case| (i, case))).collect();
        let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(cases.len())));
        std::thread::scope(|scope| -> Result<()> {
            let work = || -> Result<()> {
                let runtime = runtime()?;
                while let Some((file, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = self.judge(case, &files[*file].rule, &runtime);
                    verdicts.lock().unwrap_or_else(PoisonError::into_inner).push((*file, *case, verdict));
                }
                Ok(())
            };
            let threads: Vec<_> = (0..jobs.min(cases.len())).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a test panicked; this is a bug"))??;
            }
            Ok(())
        })?;
        let mut verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
        verdicts.sort_by_key(|(file, case, _)| (*file, case.line));
        let mut suites: Vec<Suite> = files.iter().map(|file| self.suite(file)).collect();
        for (file, case, verdict) in verdicts.into_iter().filter(|(file, _, _)| self.has(&files[*file].rule)) {
            suites[file].cases.push((case, verdict));
        }
        Ok(suites)
    }

    fn suite<'f>(&self, file: &'f TestFile) -> Suite<'f> {
        let broken = match self.has(&file.rule) {
            true => Vec::new(),
            false => vec![format!("{}: there is no rule `{}` beside it", file.path.display(), file.rule)],
        };
        Suite { rule: &file.rule, path: &file.path, cases: Vec::new(), broken }
    }

    fn has(&self, rule: &str) -> bool {
        self.rules.get(rule).is_some()
    }

    fn judge(&self, case: &Case, rule: &str, runtime: &Runtime) -> Verdict {
        let started = Instant::now();
        let outcome = match self.play(case, rule, runtime) {
            Ok(findings) => match testing::check(case, &findings) {
                Ok(()) => Outcome::Passed,
                Err(diff) if findings.is_empty() => Outcome::Failed(diff.with(self.silence(rule))),
                Err(diff) => Outcome::Failed(diff),
            },
            Err(error) => Outcome::Broken(format!("{error:#}")),
        };
        Verdict { outcome, took: started.elapsed() }
    }

    /// What keeps a rule quiet that looks for what is absent.
    fn silence(&self, rule: &str) -> Option<String> {
        let absent = self.rules.get(rule)?.explanation()?.absent;
        let tables = absent.join(" or ");
        (!absent.is_empty()).then(|| {
            format!("hint: nothing is found while {tables} has no row in the window: give the case some event of it")
        })
    }

    /// One case through normalize, admit and the rule, as a stream that ends.
    fn play(&self, case: &Case, rule: &str, runtime: &Runtime) -> Result<Vec<Finding>> {
        let message = |(n, e): (usize, &testing::RawEvent)| Message {
            source: e.source,
            cluster: e.cluster.as_deref().map(Into::into),
            origin: Origin::Live,
            topic: e.source.name().into(),
            partition: 0,
            offset: n as i64,
            file_sha256: None,
            received: testing::START_DEFAULT,
            bytes: e.bytes.clone(),
        };
        let messages = case.events.iter().enumerate().map(message).collect();
        let mut door = Door::new(self.config, self.schemas, Watermarks::default());
        let clock = testing::START_DEFAULT + TEST_CLOCK_LATER;
        let admitted = door.admit_at(Polled { messages, ..Polled::default() }, clock, &NothingHeld)?;

        let rules = self.rules.clone().only(&[rule]);
        let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
        let mut findings = runtime.block_on(engine.on_admitted(&admitted))?.findings;
        let history = Rows { admitted: &admitted, schemas: self.schemas };
        findings.extend(runtime.block_on(engine.finish_bounded(Origin::Live, None, &history))?.findings);
        Ok(findings)
    }
}

/// A case starts with an empty store.
struct NothingHeld;

impl Seen for NothingHeld {
    fn seen(&self, _: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError> {
        Ok(vec![false; keys.len()])
    }
}

/// The rows of one case as tables.
struct Rows<'a> {
    admitted: &'a event::Admitted,
    schemas: &'a Schemas,
}

impl History for Rows<'_> {
    fn table(&self, name: &str) -> Arc<dyn query::TableProvider> {
        let rows = self.admitted.batches.iter().filter(|b| &*b.table == name).map(|b| b.rows.clone()).collect();
        let schema = self.schemas.table(name).map(|t| t.arrow()).expect("the engine asks for stored tables");
        query::batch_table(schema, rows)
    }
}
