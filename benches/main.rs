//! `cargo bench --profile dev`: what `stakeout bench` measures, with the profile that demo and tests are built with, so that nothing
//! is compiled again. `cargo bench --profile dev -- --quick --json FILE` and so on; the goals are in `goals.yaml` beside this.

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// What cargo passes
    #[arg(long = "bench", hide = true)]
    _bench: bool,
    #[command(flatten)]
    args: stakeout::cli::Bench,
}

fn main() -> anyhow::Result<()> {
    let fine = stakeout::bench::run(&Args::parse().args)?;
    std::process::exit(i32::from(!fine));
}
