//! What can be typed. Parsing only: each command's work lives in the file of its name.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use event::{Micros, Source};
use store::search::TimeRange;

#[derive(Parser)]
#[command(name = "stakeout", version, about = "Audit-log stream processor and SIEM in one binary", long_about = None)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Common {
    /// Config file; without it ./stakeout.yaml if there is one, else the defaults
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory; overrides the config
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Rules; overrides the config
    #[arg(long, global = true, value_name = "DIR")]
    pub detections: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run everything embedded on synthetic events and show what happens
    Demo(Demo),
    /// Process events from Kafka (or the embedded log) until stopped
    Run,
    /// Read files or folders of logs, plain or gzip, as a bounded stream; goes on where it was interrupted
    Import(Import),
    /// Find events: field:value, words, "phrases", AND OR NOT, wildcards, ranges
    Search(Search),
    /// Query the tables with read-only SQL
    Sql(Sql),
    /// List incidents (or findings) with their evidence
    Alerts(Alerts),
    /// Run the tests beside the rules
    Test(Test),
    /// Check config, schemas and rules; all mistakes at once
    Check(Check),
    /// Say what a rule means, what it reads and when it fires
    Explain(Explain),
    /// Say why a finding is there: its history, its rule and the rows that made it hold
    Why(Why),
    /// Evaluate rules over what is stored, without alerting anybody
    Backtest(Backtest),
    /// Make synthetic events with planted attacks
    Generate(Generate),
    /// Measure throughput, latencies and memory against floors of this machine, or compare two such runs
    Bench(Bench),
    /// Ask a running process whether it is ready; exit 1 if not
    Health,
    /// Check that everything stored is there, whole and once
    Verify(Verify),
    /// Copy the data directory, also while it is in use
    Backup(Backup),
    /// Put a backup into an empty data directory and verify it
    Restore(Restore),
    /// Keep a range of event time from expiring
    Hold(HoldArgs),
}

#[derive(Args)]
pub struct Verify {
    /// Move damaged segments out of the way, so that the store opens without them (needs it stopped)
    #[arg(long)]
    pub quarantine: bool,
}

#[derive(Args)]
pub struct Backup {
    /// Where to: a folder that is empty or does not exist yet
    #[arg(value_name = "DIR")]
    pub target: PathBuf,
    /// Hard links instead of copies of the segments: quick, and gone with the disk
    #[arg(long)]
    pub link: bool,
}

#[derive(Args)]
pub struct Restore {
    /// What `backup` wrote; goes to the data directory of the config or of --data-dir
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
}

#[derive(Args)]
pub struct HoldArgs {
    #[command(subcommand)]
    pub command: HoldCommand,
}

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Nothing in this range of event time expires until the hold is released
    Add {
        /// Event time from, inclusive (RFC 3339)
        #[arg(long, value_parser = time, value_name = "TIME")]
        from: Micros,
        /// Event time to, inclusive (RFC 3339)
        #[arg(long, value_parser = time, value_name = "TIME")]
        to: Micros,
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[arg(long, value_name = "NAME")]
        author: String,
    },
    /// All holds, released ones too
    List,
    Release {
        id: i64,
        #[arg(long, value_name = "NAME")]
        author: String,
    },
}

#[derive(Args)]
pub struct Demo {
    /// Stop after this long and report what was found against what was planted
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Events a second after the history has been replayed
    #[arg(long, default_value_t = 500, value_name = "EVENTS")]
    pub rate: u64,
}

#[derive(Args)]
pub struct Import {
    #[arg(long)]
    pub source: Source,
    /// Which cluster the events come from (Kubernetes and Falco need it)
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Also page for what is found
    #[arg(long)]
    pub page: bool,
    /// Threads that read and as many that parse; default: the number of cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Also read files that were imported before and have not changed
    #[arg(long)]
    pub again: bool,
    /// List the files that would be read, and read none
    #[arg(long)]
    pub dry_run: bool,
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

#[derive(Args)]
pub struct Span {
    /// Event time from, inclusive (RFC 3339)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub from: Option<Micros>,
    /// Event time to, exclusive (RFC 3339)
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub to: Option<Micros>,
    /// Event time within the last 30s, 10m, 24h, 7d
    #[arg(long, value_parser = duration, value_name = "TIME", conflicts_with = "from")]
    pub since: Option<Duration>,
}

impl Span {
    pub fn resolve(&self, now: Micros) -> TimeRange {
        let since = self.since.map(|s| now - s.as_micros() as i64);
        TimeRange { from: self.from.or(since), to: self.to }
    }
}

#[derive(Args)]
pub struct Search {
    pub query: String,
    /// Print only how many events match
    #[arg(long)]
    pub count: bool,
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// No limit: every match, newest first
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    #[command(flatten)]
    pub span: Span,
    #[arg(long, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Sql {
    pub query: String,
    #[arg(long, default_value = "table")]
    pub format: Format,
    /// Stop after this many rows
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub rows_max: usize,
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

#[derive(Args)]
pub struct Alerts {
    /// List findings instead of incidents
    #[arg(long)]
    pub findings: bool,
    /// Only this rule
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only this incident and its findings
    #[arg(long, value_name = "ID")]
    pub incident: Option<String>,
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    #[arg(long, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Test {
    /// Only rules whose id contains this
    pub filter: Option<String>,
    /// Also write the outcome as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Threads; default: the number of cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
}

#[derive(Args)]
pub struct Check {
    /// Warnings count as mistakes
    #[arg(long)]
    pub strict: bool,
}

#[derive(Args)]
pub struct Explain {
    pub rule: String,
}

#[derive(Args)]
pub struct Why {
    /// The finding's id, or how it begins
    #[arg(value_name = "FINDING")]
    pub finding: String,
    /// Show at most so many rows
    #[arg(long, default_value_t = 30, value_name = "N")]
    pub rows: usize,
}

#[derive(Args)]
pub struct Backtest {
    /// Rules by id; without any, all
    #[arg(value_name = "RULE")]
    pub rules: Vec<String>,
    #[command(flatten)]
    pub span: Span,
    /// What rules in one folder find and those in another do not
    #[arg(long, num_args = 2, value_names = ["DIR_A", "DIR_B"])]
    pub compare: Option<Vec<PathBuf>>,
    #[arg(long, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Generate {
    /// How many events
    #[arg(long, default_value_t = 100_000)]
    pub events: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Event time of the first event
    #[arg(long, value_parser = time, value_name = "TIME", default_value = "2026-01-15T09:00:00Z")]
    pub start: Micros,
    /// Events per second of event time
    #[arg(long, default_value_t = 1_000, value_name = "EVENTS")]
    pub density: u64,
    /// Background events between two planted attacks; 0 for none
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS")]
    pub attack_every: u64,
    /// Attacks of seconds instead of minutes to an hour
    #[arg(long)]
    pub brief: bool,
    /// Multiplies CloudTrail's delivery delay (1: median 191 s)
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub cloudtrail_delay: f64,
    /// What is odd about the stream
    #[arg(long, value_enum, default_value_t = Stream::Steady)]
    pub stream: Stream,
    /// CloudTrail also records what happens to objects
    #[arg(long)]
    pub data_events: bool,
    /// How large a stream the world is made for: people, pods and buckets grow with the 0.6th power
    #[arg(long, default_value_t = 1.0, value_name = "GB")]
    pub world_gb: f64,
    /// Threads that make events; the stream is the same with any number
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Events a second of wall clock; without it as fast as possible
    #[arg(long, value_name = "EVENTS")]
    pub rate: Option<u64>,
    /// Write one NDJSON file per source and truth.ndjson into this folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["kafka", "embedded"])]
    pub out: Option<PathBuf>,
    /// Send to the topics of the config's `kafka` section
    #[arg(long, conflicts_with_all = ["out", "embedded"])]
    pub kafka: bool,
    /// Append to the embedded log of the data directory
    #[arg(long, conflicts_with = "out")]
    pub embedded: bool,
    /// Where the truth about planted attacks goes, with --kafka or --embedded
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

#[derive(Args)]
pub struct Bench {
    /// About a minute instead of several, with less to rely on
    #[arg(long)]
    pub quick: bool,
    /// Events of the synthetic stream; default: 100,000, with --quick 20,000
    #[arg(long, value_name = "N")]
    pub events: Option<usize>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART,…")]
    pub only: Vec<Part>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Also write the figures, with what they were measured on
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure nothing: compare two files of --json. Exit 1 if B is worse than A
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["quick", "events", "only", "json"])]
    pub compare: Option<Vec<PathBuf>>,
    /// With --compare: percent, relative to the floors, from which worse is worse and not noise
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    pub threshold: f64,
}

/// A part of `stakeout bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The running line: capacity, latencies, memory
    Line,
    Normalize,
    /// The whole path stage by stage, and what it takes on disk
    Path,
    /// Search and SQL over what the path stored
    Hunt,
    /// Single-event rules
    Rules,
    Windows,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Ndjson,
    Csv,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    Steady,
    /// Kubernetes with whole bodies only, some of 220 KB
    Bulk,
    /// Ten times the rate for five seconds of every minute
    Burst,
    /// Lateness and repeats doubled
    Late,
    /// One principal is most of CloudTrail
    HotKey,
    /// A new pod and address every 20 events
    HighCardinality,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text).ok_or_else(|| "a number with a unit: 30s, 10m, 24h, 7d".to_owned())
}

fn time(text: &str) -> Result<Micros, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|t| t.timestamp_micros())
        .map_err(|e| format!("{e}; write it like 2026-01-15T09:00:00Z"))
}
