//! What real streams measure, and how a made one compares.

use std::fmt;

use synthetic::{Options, Stream, cloudtrail, falco, kubernetes};

use crate::sample::Class;

/// A loop of a few real megabytes gives 5.8.
pub const LONG_OVER_SHORT_MAX: f64 = 1.25;

/// Exponent of the shares of Falco's rules by rank in production, assumed.
const FALCO_ZIPF: f64 = 1.6;

/// Within which `zstd -3 --long=27` makes the class smaller.
pub fn ratio_bounds(class: Class) -> Option<(f64, f64)> {
    match class {
        Class::CloudTrail | Class::Metadata => Some((8.0, 13.0)),
        Class::Falco => Some((8.0, 20.0)),
        Class::RequestResponse => Some((5.0, 12.0)),
        Class::Request => None,
    }
}

/// Measured bytes of lines: quantile, value, and which number of lines it takes (0, 1, 2 in rising order).
/// RequestResponse: the log-normal through the measured p50 and p95, and its tail; of 100 measured lines p99 is but the
/// largest.
pub fn sizes(class: Class, options: &Options) -> [(f64, f64, usize); 3] {
    let [p50, p95, p99] = match class {
        Class::CloudTrail if options.data_events => [1_563.0, 2_435.0, 2_435.0],
        Class::CloudTrail => [1_175.0, 1_845.0, 2_304.0],
        Class::Metadata => [672.0, 1_336.0, 1_618.0],
        Class::Request => [850.0, 1_185.0, 1_549.0],
        Class::RequestResponse => [2_164.0, 17_360.0, 45_700.0],
        Class::Falco => [1_403.0, 2_440.0, 2_497.0],
    };
    [(0.5, p50, 0), (0.95, p95, 1), (0.99, p99, 2)]
}

/// Percent by action, the commonest first.
pub fn shares(class: Class, options: &Options) -> Vec<(String, f64)> {
    let mut shares = match class {
        Class::CloudTrail if options.data_events => {
            cloudtrail::DATA_SHARES.iter().map(|row| (format!("{}:{}", row.0, row.1), row.2)).collect()
        }
        Class::CloudTrail => cloudtrail::calls().measured(),
        Class::Falco => {
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-FALCO_ZIPF);
            let sum: f64 = (0..falco::RULES.len()).map(weight).sum();
            falco::RULES
                .iter()
                .enumerate()
                .map(|(rank, rule)| (rule.name.to_owned(), 100.0 * weight(rank) / sum))
                .collect()
        }
        _ => kubernetes::actions().measured(),
    };
    // The pods' lives of this stream are laid out by themselves.
    shares.retain(|(action, _)| options.stream != Stream::HighCardinality || !action.ends_with(" pods"));
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    shares
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Met,
    Failed,
    /// The sample is too small to tell.
    Small,
}

pub struct Row {
    stream: &'static str,
    class: Class,
    what: String,
    bounds: (f64, f64),
    got: f64,
    pub verdict: Verdict,
}

impl Row {
    pub const HEAD: &'static str =
        "stream            class            what                               wanted             got";

    pub fn new(stream: &'static str, class: Class, what: String, bounds: (f64, f64), got: f64, judged: bool) -> Row {
        let verdict = match (bounds.0..=bounds.1).contains(&got) {
            _ if !judged => Verdict::Small,
            true => Verdict::Met,
            false => Verdict::Failed,
        };
        Row { stream, class, what, bounds, got, verdict }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { stream, class, what, bounds: (low, high), got, verdict } = self;
        let digits = if *got < 100.0 { 2 } else { 0 };
        let class = format!("{class:?}");
        let wanted = match (*low, *high) {
            (low, f64::MAX) => format!(">= {low}"),
            (0.0, high) => format!("<= {high}"),
            (low, high) if low < 0.0 => format!("within {high} points"),
            (low, high) => format!("{low:.0} to {high:.0}"),
        };
        let verdict = match verdict {
            Verdict::Met => "",
            Verdict::Failed => "  FAILED",
            Verdict::Small => "  (sample too small to judge)",
        };
        write!(f, "{stream:<17} {class:<16} {what:<34} {wanted:<18} {got:.digits$}{verdict}")
    }
}
