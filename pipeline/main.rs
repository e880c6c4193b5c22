//! The command line: parse, call, print, exit. 0 is fine, 1 is "no" (tests failed, nothing found), 2 is broken.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use stakeout::cli::{Cli, Command};
use stakeout::config::Config;
use stakeout::run::{Options, Running};
use stakeout::shutdown::Shutdown;
use stakeout::{alerts, backtest, bench, demo, explain, generate, hunt, import, keep, rules, telemetry, why};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if only_tells(&cli.command) {
        // Who reads the first lines only (`| head`) has seen enough: that is no error.
        sigpipe::reset();
    }
    match call(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", told_once(&error));
            ExitCode::from(2)
        }
    }
}

/// Commands that end with what they print. The others have work to finish, whoever listens.
fn only_tells(command: &Command) -> bool {
    use Command::{Alerts, Check, Explain, Search, Sql, Test, Why};
    matches!(command, Alerts(_) | Check(_) | Explain(_) | Search(_) | Sql(_) | Test(_) | Why(_))
}

/// The chain of causes; one that its effect already quotes is not repeated.
fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told {
        told if told.is_empty() => cause,
        told if told.contains(&cause) => told,
        told => format!("{told}: {cause}"),
    })
}

fn call(cli: &Cli) -> Result<bool> {
    telemetry::logs(if matches!(cli.command, Command::Run) { "info" } else { "warn" });
    if let Command::Check(args) = &cli.command {
        return rules::check(args, &cli.common);
    }
    let config = rules::config(&cli.common)?;
    match &cli.command {
        Command::Demo(args) => {
            let shutdown = Shutdown::new();
            shutdown.on_signals()?;
            let outcome = demo::run(args, config, cli.common.data_dir.as_deref(), &shutdown)?;
            Ok(outcome.found == outcome.planted && outcome.twins_found == 0)
        }
        Command::Run => run(&config).map(|()| true),
        Command::Import(args) => {
            let shutdown = Shutdown::new();
            shutdown.on_signals()?;
            import::run(args, config, &shutdown)
        }
        Command::Search(args) => hunt::search(args, &config),
        Command::Sql(args) => hunt::sql(args, &config),
        Command::Alerts(args) => alerts::run(args, &config),
        Command::Test(args) => rules::test::run(args, &config),
        Command::Check(_) => unreachable!("handled above"),
        Command::Explain(args) => explain::run(args, &config).map(|()| true),
        Command::Why(args) => why::run(args, &config),
        Command::Backtest(args) => backtest::run(args, config),
        Command::Generate(args) => generate::run(args, &config).map(|()| true),
        Command::Bench(args) => bench::run(args),
        Command::Health => stakeout::health::run(&config),
        Command::Verify(args) => keep::verify(args, &config),
        Command::Backup(args) => keep::backup(args, &config).map(|()| true),
        Command::Restore(args) => keep::restore(args, &config),
        Command::Hold(args) => keep::hold(args, &config),
    }
}

fn run(config: &Config) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let line = Running::start(config, |offsets| stakeout::run::feed(config, offsets), Options { bounded: false })?;
    tracing::info!(data_dir = %config.data_dir.display(), api = ?line.api, "running");
    while !shutdown.wait(Duration::from_millis(200)) && !line.stopping.pulled() {}
    let stats = line.stats.clone();
    line.stop()?;
    let counts = stats.counts();
    tracing::info!(admitted = counts.admitted, duplicates = counts.duplicates, unparsed = counts.unparsed, "stopped");
    Ok(())
}
