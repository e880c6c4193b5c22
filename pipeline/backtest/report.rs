//! What a backtest says: per rule how much it finds, of whom, when, and what it costs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use event::{Finding, Micros, format_micros};

use super::{Format, Tried, cell, ndjson};

const DAY_US: i64 = 86_400_000_000;

/// So many days are listed one by one; more become a line of bars.
const DAYS_LISTED: usize = 5;

/// Bars that fit on a line; a longer span is summed up in steps.
const BARS_MAX: usize = 60;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn write(tried: &[Tried], format: Format) -> Result<()> {
    match format {
        Format::Table => table(tried),
        Format::Ndjson => ndjson(tried.iter().flat_map(|t| &t.findings))?,
        Format::Csv => csv(tried),
    }
    Ok(())
}

fn table(tried: &[Tried]) {
    let width = tried.iter().map(|t| t.rule.id.len()).max().unwrap_or(0).max(4);
    println!("{:<width$}  findings  entities        rows    seconds     rows/s  per day (UTC)", "rule");
    for t in tried {
        let seconds = t.took.as_secs_f64();
        println!(
            "{:<width$}  {:>8}  {:>8}  {:>10}  {:>9.3}  {:>9.0}  {}",
            t.rule.id,
            t.findings.len(),
            entities(&t.findings),
            t.rows,
            seconds,
            t.rows as f64 / seconds.max(1e-6),
            per_day(&t.findings)
        );
    }
    let findings: usize = tried.iter().map(|t| t.findings.len()).sum();
    let seconds: f64 = tried.iter().map(|t| t.took.as_secs_f64()).sum();
    println!("{} rules, {findings} findings in {seconds:.1} s; nothing was recorded", tried.len());
}

fn csv(tried: &[Tried]) {
    println!("rule,id,origin,severity,first,last,entity,events,summary");
    for f in tried.iter().flat_map(|t| &t.findings) {
        println!(
            "{},{},{},{},{},{},{},{},{}",
            f.rule,
            f.id,
            f.origin.name(),
            f.severity,
            format_micros(f.time.first()),
            format_micros(f.time.last()),
            cell(&f.entity_text()),
            f.evidence.count,
            cell(&f.summary)
        );
    }
}

fn entities(findings: &[Finding]) -> usize {
    findings.iter().map(|f| &f.entity).collect::<BTreeSet<_>>().len()
}

/// `2026-01-15: 3, 2026-01-16: 1`, or from the first day to the last as bars.
fn per_day(findings: &[Finding]) -> String {
    let mut days: BTreeMap<i64, u64> = BTreeMap::new();
    for finding in findings {
        *days.entry(finding.time.first().div_euclid(DAY_US)).or_default() += 1;
    }
    let (Some((&first, _)), Some((&last, _))) = (days.first_key_value(), days.last_key_value()) else {
        return "-".to_owned();
    };
    if days.len() <= DAYS_LISTED {
        return days.iter().map(|(day, count)| format!("{}: {count}", date(*day))).collect::<Vec<_>>().join(", ");
    }
    let span = usize::try_from(last - first + 1).unwrap_or(1);
    let step = span.div_ceil(BARS_MAX);
    let mut counts = vec![0; span.div_ceil(step)];
    for (day, count) in &days {
        counts[usize::try_from(day - first).unwrap_or(0) / step] += count;
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let each = if step == 1 { String::new() } else { format!(" in {step} days") };
    format!("{} {} {}, at most {most}{each}", date(first), bars(&counts), date(last))
}

/// Nothing is a space, anything a bar.
fn bars(counts: &[u64]) -> String {
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let bar = |count: u64| match count {
        0 => ' ',
        count => BARS[(((count - 1) * BARS.len() as u64) / most) as usize],
    };
    counts.iter().map(|count| bar(*count)).collect()
}

fn date(day: i64) -> String {
    let midnight: Micros = day * DAY_US;
    format_micros(midnight).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_more_as_higher() {
        let check = |counts: &[u64], expected: &str| assert_eq!(bars(counts), expected);
        check(&[0, 1, 8], " ▁█");
        check(&[1, 1], "██".replace('█', "▁").as_str());
        check(&[0, 100, 50, 1], " █▄▁");
    }

    #[test]
    fn days_have_dates() {
        assert_eq!(date(20_468), "2026-01-15");
        assert_eq!(date(-1), "1969-12-31");
    }
}
