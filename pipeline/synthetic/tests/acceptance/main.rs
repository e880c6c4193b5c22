mod sample;
use sample::*;
use synthetic::{Options, Stream};

#[test]
fn look() {
    let mb: usize = std::env::var("STAKEOUT_ACCEPTANCE_MB").ok().and_then(|s| s.parse().ok()).unwrap_or(100);
    let runs = [
        ("steady", Options { gap: 20_000, ..Options::default() }, 1),
        ("bulk", Options { stream: Stream::Bulk, ..Options::default() }, 2),
        ("data", Options { data_events: true, gap: 20_000, ..Options::default() }, 2),
    ];
    for (name, options, part) in runs {
        if std::env::var("ONLY").is_ok_and(|only| only != name) {
            continue;
        }
        let started = std::time::Instant::now();
        let samples = take(options, mb * 1_000_000 / part);
        println!("{name} {:.1}s", started.elapsed().as_secs_f64());
        for (class, s) in &samples {
            let (z3, long) = s.ratios();
            println!(
                "{class:?} n={} MB={:.1} z3={z3:.2} z3L={long:.2} L/3={:.3} B/ev={:.0} p5={} p50={} mean={:.0} p95={} p99={} max={} new={:?}",
                s.sizes.len(),
                s.text.len() as f64 / 1e6,
                long / z3,
                s.mean() / long,
                s.size(0.05),
                s.size(0.5),
                s.mean(),
                s.size(0.95),
                s.size(0.99),
                s.size(1.0),
                s.still_new()
            );
            let dir = format!("/tmp/look/{name}");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(format!("{dir}/{class:?}.ndjson"), &s.text[..s.text.len().min(3_000_000)]).unwrap();
        }
    }
}
