//! `stakeout test` and `stakeout check`: rules against the events beside them, and everything that can be wrong
//! before anything runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use detect::testing::{self, Case, TestFile};
use detect::{Engine, History, RuleProblem, RuleSet};
use event::{Finding, Frontier, Message, Micros, Origin, Polled, RowKey, Seen, SeenError, Watermarks};
use normalize::Schemas;

use crate::cli::{Common, Rules};
use crate::config::Config;
use crate::pack;
use crate::rooms::{Door, load_rules, load_schemas, rules_dir, runtime};

/// Wall clock of a test: ten years after its events, so that no event lies in the future.
const TEST_CLOCK_LATER: Micros = 10 * 365 * 86_400 * 1_000_000;

/// True if every case passed.
pub fn test(args: &Rules, config: &Config) -> Result<bool> {
    let schemas = load_schemas(config)?;
    let rules = load_rules(config, &schemas)?;
    let (files, problems) = test_files(config);
    let mut failed = problems.len();
    problems.iter().for_each(|p| println!("{p}"));
    let wanted = |id: &str| args.filter.as_deref().is_none_or(|f| id.contains(f));
    let started = Instant::now();
    let (mut passed, mut tested) = (0, 0);
    for file in files.iter().filter(|f| wanted(&f.rule)) {
        if rules.get(&file.rule).is_none() {
            println!("{}: there is no rule `{}` beside it", file.path.display(), file.rule);
            failed += 1;
            continue;
        }
        tested += 1;
        for case in &file.cases {
            let findings = play(case, &file.rule, &rules, &schemas, config)?;
            match testing::check(case, &findings) {
                Ok(()) => passed += 1,
                Err(diff) => {
                    failed += 1;
                    println!(
                        "{}:{}: case `{}`\n{}",
                        file.path.display(),
                        case.line,
                        case.name,
                        indent(&diff.to_string())
                    );
                }
            }
        }
    }
    for rule in rules.rules.iter().filter(|r| wanted(&r.id) && !files.iter().any(|f| f.rule == r.id)) {
        println!("{}: no tests\nhint: write {}.test.yaml beside it", rule.path.display(), rule.id);
        failed += 1;
    }
    println!("{tested} rules, {passed} cases passed, {failed} failed ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(failed == 0)
}

/// One case through normalize, admit and the rule, as a stream that ends.
fn play(case: &Case, rule: &str, rules: &RuleSet, schemas: &Schemas, config: &Config) -> Result<Vec<Finding>> {
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
    let mut door = Door::new(config, schemas, Watermarks::default());
    let clock = testing::START_DEFAULT + TEST_CLOCK_LATER;
    let admitted = door.admit_at(Polled { messages, ..Polled::default() }, clock, &NothingHeld)?;

    let mut engine = Engine::new(rules.clone().only(&[rule]), Frontier::default(), &Watermarks::default());
    let runtime = runtime()?;
    let mut findings = runtime.block_on(engine.on_admitted(&admitted))?.findings;
    let history = Rows { admitted: &admitted, schemas };
    findings.extend(runtime.block_on(engine.finish_bounded(Origin::Live, None, &history))?.findings);
    Ok(findings)
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

/// The test files beside the rules, and what is wrong with those that cannot be read.
fn test_files(config: &Config) -> (Vec<TestFile>, Vec<RuleProblem>) {
    let texts = match rules_dir(config) {
        Some(dir) => pack::read(&dir, ".test.yaml"),
        None => pack::tests(),
    };
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for (path, text) in texts {
        match TestFile::parse(&path, &text) {
            Ok(file) => files.push(file),
            Err(errors) => problems.extend(errors.0),
        }
    }
    (files, problems)
}

/// True if nothing is wrong with config, schemas, rules and their tests.
pub fn check(common: &Common) -> Result<bool> {
    let mut mistakes: Vec<String> = Vec::new();
    let mut config = match config_path(common).map(|path| Config::load(&path)) {
        Some(Ok(config)) => config,
        Some(Err(wrong)) => {
            mistakes.extend(wrong.iter().map(ToString::to_string));
            Config::default()
        }
        None => Config::default(),
    };
    if let Some(dir) = &common.detections {
        config.detections = Some(dir.clone());
    }
    mistakes.extend(config.alerts.check_secrets());
    mistakes.extend(config.receivers.iter().flat_map(|receivers| receivers.check()));
    let mut counted = (0, 0);
    match load_schemas(&config) {
        Ok(schemas) => {
            counted.0 = schemas.tables().len();
            match load_rules(&config, &schemas) {
                Ok(rules) => {
                    counted.1 = rules.rules.len();
                    let (files, problems) = test_files(&config);
                    mistakes.extend(problems.iter().map(ToString::to_string));
                    let untested = rules.rules.iter().filter(|r| !files.iter().any(|f| f.rule == r.id));
                    mistakes.extend(
                        untested.map(|r| {
                            format!("{}: no tests\nhint: write {}.test.yaml beside it", r.path.display(), r.id)
                        }),
                    );
                }
                Err(error) => mistakes.push(format!("{error:#}")),
            }
        }
        Err(error) => mistakes.push(format!("{error:#}")),
    }
    mistakes.iter().for_each(|m| println!("{m}"));
    let (tables, rules) = counted;
    println!(
        "{tables} tables, {rules} rules checked: {}",
        match mistakes.len() {
            0 => "nothing is wrong".to_owned(),
            n => format!("{n} files or settings have mistakes"),
        }
    );
    Ok(mistakes.is_empty())
}

fn config_path(common: &Common) -> Option<PathBuf> {
    let default = PathBuf::from("stakeout.yaml");
    common.config.clone().or_else(|| default.exists().then_some(default))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Loads the config as every command but `check` does.
pub fn config(common: &Common) -> Result<Config> {
    let mut config = match config_path(common) {
        Some(path) => Config::load(&path),
        None => Ok(Config::default()),
    }
    .map_err(|mistakes| anyhow!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    if let Some(dir) = &common.data_dir {
        config.data_dir = dir.clone();
    }
    if let Some(dir) = &common.detections {
        config.detections = Some(dir.clone());
    }
    Ok(config)
}
