//! What makes a stream a stand-in for a real one: it is as compressible as real logs (neither noise nor a loop), its
//! lines are as long, it keeps meeting new entities, and its actions have the shares that were measured.
//! `STAKEOUT_ACCEPTANCE_MB` sets the size in all (default 100); `--nocapture` shows the table.

mod sample;
mod wanted;

use std::collections::BTreeMap;

use sample::{Class, Sample};
use synthetic::{Options, Stream};
use wanted::{LONG_OVER_SHORT_MAX, Row, Verdict, ratio_bounds, shares, sizes};

/// Zstandard's window at level 3 is 2 MB. A sample of a few windows cannot tell whether what is far away repeats, so
/// the gain of long-distance matching is judged from here.
const LONG_DISTANCE_BYTES: usize = 100_000_000;
/// Lines that a quantile, a share or a ratio takes.
const P50_LINES: usize = 500;
const P95_LINES: usize = 2_000;
const P99_LINES: usize = 5_000;
const SHARE_LINES: usize = 5_000;
const RATIO_BYTES: usize = 1_500_000;

fn megabytes() -> usize {
    let set = std::env::var("STAKEOUT_ACCEPTANCE_MB").ok();
    set.map_or(100, |text| text.parse().expect("STAKEOUT_ACCEPTANCE_MB is a number"))
}

#[test]
fn streams_are_as_real_ones() {
    // A density at which lateness is small against the stream.
    let options = |stream| Options { stream, gap: 20_000, attack_every: 0, ..Options::default() };
    let with_data = Options { data_events: true, ..options(Stream::Steady) };
    let runs = [
        ("steady", options(Stream::Steady), 50),
        ("data events", with_data, 20),
        ("bulk", options(Stream::Bulk), 10),
        ("burst", options(Stream::Burst), 5),
        ("late", options(Stream::Late), 5),
        ("hot key", options(Stream::HotKey), 5),
        ("high cardinality", options(Stream::HighCardinality), 5),
    ];
    let mut rows = Vec::new();
    for (name, options, percent) in runs {
        let samples = sample::take(options.clone(), megabytes() * 1_000_000 * percent / 100);
        judge(name, &options, &samples, &mut rows);
    }
    println!("{}", Row::HEAD);
    rows.iter().for_each(|row| println!("{row}"));
    let failed: Vec<String> = rows.iter().filter(|row| row.verdict == Verdict::Failed).map(Row::to_string).collect();
    assert!(failed.is_empty(), "{}\n{}", Row::HEAD, failed.join("\n"));
}

fn judge(stream: &'static str, options: &Options, samples: &BTreeMap<Class, Sample>, rows: &mut Vec<Row>) {
    for (&class, sample) in samples {
        let lines = sample.sizes.len();
        let mut row = |what: String, bounds, got, judged| rows.push(Row::new(stream, class, what, bounds, got, judged));
        let (short, long) = sample.ratios();
        if let Some(bounds) = ratio_bounds(class) {
            row("z3L ratio".to_owned(), bounds, long, sample.text.len() >= RATIO_BYTES);
        }
        let far = sample.text.len() >= LONG_DISTANCE_BYTES;
        row("z3L / z3".to_owned(), (0.0, LONG_OVER_SHORT_MAX), long / short, far);
        for (share, wanted, enough) in sizes(class, options) {
            let name = format!("size p{:.0}", share * 100.0);
            row(
                name,
                (wanted * 0.9, wanted * 1.1),
                sample.size(share),
                lines >= [P50_LINES, P95_LINES, P99_LINES][enough],
            );
        }
        for (kind, new) in sample.still_new() {
            // Users, people and nodes are few enough to have been met.
            let judged = kind != "users" && lines >= SHARE_LINES;
            row(format!("new {kind} in the last tenth"), (1.0, f64::MAX), new as f64, judged);
        }
        if matches!(class, Class::CloudTrail | Class::Metadata | Class::Falco) {
            let shares = shares(class, options);
            let off = shares.iter().take(20).map(|(action, wanted)| (sample.percent(action) - wanted, action));
            let (worst, action) =
                off.max_by(|one, other| one.0.abs().total_cmp(&other.0.abs())).expect("there are twenty");
            row(format!("top 20 shares: {action}"), (-2.0, 2.0), worst, lines >= SHARE_LINES);
        }
    }
}

/// Made, in megabytes a second of one core: `cargo test -p synthetic --test acceptance -- --ignored --nocapture`.
#[test]
#[ignore = "measures speed"]
fn speed() {
    for stream in Stream::ALL {
        for jobs in [1, 2] {
            let started = std::time::Instant::now();
            let (mut bytes, mut events) = (0, 0);
            for event in synthetic::Generator::parallel(Options { stream, ..Options::default() }, jobs) {
                (bytes, events) = (bytes + event.bytes.len() + 1, events + 1);
                if bytes > megabytes() * 2_000_000 {
                    break;
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            let (megabytes, mean) = (bytes as f64 / 1e6, bytes as f64 / f64::from(events));
            println!("{stream:?}, {jobs} jobs: {:.0} MB/s, {mean:.0} bytes an event", megabytes / seconds);
        }
    }
}
