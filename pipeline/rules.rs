//! `stakeout check`: everything that can be wrong before anything runs, all of it at once. Its two neighbours are the
//! loading of the config for every other command, and `test`.

mod junit;
pub mod test;

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use detect::lint::{self, Grade, Lint};
use detect::testing::TestFile;
use detect::{Rule, RuleErrors, RuleProblem, RuleSet};

use crate::cli;
use crate::cli::Common;
use crate::config::Config;
use crate::pack;
use crate::rooms::{load_rules, load_schemas, rules_dir};

/// What is wrong, and what is only odd.
#[derive(Default)]
struct Remarks {
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

/// True if nothing is wrong with config, schemas, rules and their tests.
pub fn check(args: &cli::Check, common: &Common) -> Result<bool> {
    let mut remarks = Remarks::default();
    let mut config = match config_path(common).map(|path| Config::load(&path)) {
        Some(Ok(config)) => config,
        Some(Err(wrong)) => {
            remarks.mistakes.extend(wrong.iter().map(ToString::to_string));
            Config::default()
        }
        None => Config::default(),
    };
    if let Some(dir) = &common.detections {
        config.detections = Some(dir.clone());
    }
    remarks.mistakes.extend(config.alerts.check_secrets());
    remarks.mistakes.extend(config.receivers.iter().flat_map(|receivers| receivers.check()));
    let (tables, rules) = remarks.of_rules(&config);
    remarks.mistakes.iter().chain(&remarks.warnings).for_each(|remark| println!("{remark}"));
    println!("{tables} tables, {rules} rules checked: {}", remarks.sum());
    Ok(remarks.mistakes.is_empty() && (!args.strict || remarks.warnings.is_empty()))
}

impl Remarks {
    /// How many tables and rules were looked at.
    fn of_rules(&mut self, config: &Config) -> (usize, usize) {
        let schemas = match load_schemas(config) {
            Ok(schemas) => schemas,
            Err(error) => {
                self.mistakes.push(format!("{error:#}"));
                return (0, 0);
            }
        };
        let tables = schemas.tables().len();
        let tests = Tests::read(config);
        self.mistakes.extend(tests.problems.iter().map(ToString::to_string));
        match load_rules(config, &schemas) {
            Ok(rules) => {
                lint::lint(&rules).iter().for_each(|lint| self.add(lint));
                self.mistakes.extend(tests.missing(&rules).map(|problem| problem.to_string()));
                (tables, rules.rules.len())
            }
            Err(error) => {
                match error.downcast_ref::<RuleErrors>() {
                    Some(errors) => self.mistakes.extend(errors.0.iter().map(ToString::to_string)),
                    None => self.mistakes.push(format!("{error:#}")),
                }
                (tables, 0)
            }
        }
    }

    fn add(&mut self, lint: &Lint) {
        match lint.grade {
            Grade::Error => self.mistakes.push(lint.to_string()),
            Grade::Warning => self.warnings.push(lint.to_string()),
        }
    }

    fn sum(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (self.mistakes.len(), self.warnings.len()) {
            (0, 0) => "nothing is wrong".to_owned(),
            (0, warnings) => format!("nothing is wrong, {}", count(warnings, "warning")),
            (mistakes, 0) => count(mistakes, "mistake"),
            (mistakes, warnings) => format!("{}, {}", count(mistakes, "mistake"), count(warnings, "warning")),
        }
    }
}

/// The test files beside the rules.
struct Tests {
    files: Vec<TestFile>,
    /// What is wrong with those that cannot be read.
    problems: Vec<RuleProblem>,
    /// Rules that have a file, whether or not it can be read.
    named: Vec<String>,
}

impl Tests {
    fn read(config: &Config) -> Tests {
        let texts = match rules_dir(config) {
            Some(dir) => pack::read(&dir, ".test.yaml"),
            None => pack::tests(),
        };
        let mut tests = Tests { files: Vec::new(), problems: Vec::new(), named: Vec::new() };
        for (path, text) in texts {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            tests.named.extend(name.strip_suffix(".test.yaml").map(str::to_owned));
            match TestFile::parse(&path, &text) {
                Ok(file) => tests.files.push(file),
                Err(errors) => tests.problems.extend(errors.0),
            }
        }
        tests
    }

    /// Rules without a test file.
    fn missing<'a>(&'a self, rules: &'a RuleSet) -> impl Iterator<Item = RuleProblem> + 'a {
        let untested = |rule: &Rule| RuleProblem {
            path: rule.path.clone(),
            line: 0,
            message: "no tests".to_owned(),
            hint: Some(format!("write {}.test.yaml beside it", rule.id)),
        };
        rules.rules.iter().filter(|rule| !self.named.contains(&rule.id)).map(move |rule| untested(rule))
    }
}

/// Whether each case of a rule's tests is to fire.
pub(crate) fn cases(config: &Config, rule: &str) -> Vec<bool> {
    let tests = Tests::read(config);
    let of_rule = tests.files.iter().filter(|file| file.rule == rule);
    of_rule.flat_map(|file| &file.cases).map(|case| case.expect.fires()).collect()
}

/// The rule that somebody typed, or what they may have meant.
pub(crate) fn find<'a>(rules: &'a RuleSet, id: &str) -> Result<&'a Rule> {
    match rules.get(id) {
        Some(rule) => Ok(rule),
        None => match query::nearest(id, rules.rules.iter().map(|r| r.id.as_str())) {
            Some(near) => bail!("there is no rule `{id}`\nhint: did you mean `{near}`?"),
            None => bail!("there is no rule `{id}`\nhint: a rule's id is its file name without `.sql`"),
        },
    }
}

fn config_path(common: &Common) -> Option<PathBuf> {
    let default = PathBuf::from("stakeout.yaml");
    common.config.clone().or_else(|| default.exists().then_some(default))
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
