//! Two runs side by side. A figure with a floor is compared by its ratio to it, so that a slower machine is not taken for
//! slower code; the floors stand beside it.

use std::fmt::Write;

use super::figure::{Better, Figure};
use super::report::{Report, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Noise,
}

/// The comparison as text, and whether something became worse by more than the threshold.
pub fn compare(a: &Report, b: &Report, threshold_percent: f64) -> (String, bool) {
    let mut text = format!("A  {}\nB  {}\n\n", a.origin(), b.origin());
    let wide = a.figures.iter().chain(&b.figures).map(|f| f.what.len()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "{:<wide$}  {:>12}  {:>12}  {:<19}  {:>12}  {:>12}  {:>8}  verdict",
        "what", "A", "B", "unit", "floor A", "floor B", "change"
    );
    let mut worse = 0;
    for old in &a.figures {
        let Some(new) = b.figures.iter().find(|f| f.name == old.name) else { continue };
        let floor = |f: &Figure| f.floor.as_ref().map_or("-".to_owned(), |floor| number(floor.value));
        let (change, verdict) = match change_percent(old, new) {
            Some(change) => (format!("{change:+.1} %"), judge(change, threshold_percent)),
            None => ("-".to_owned(), Verdict::Noise),
        };
        worse += usize::from(verdict == Verdict::Worse);
        let verdict = match verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Noise => "noise",
        };
        let _ = writeln!(
            text,
            "{:<wide$}  {:>12}  {:>12}  {:<19}  {:>12}  {:>12}  {change:>8}  {verdict}",
            old.what,
            number(old.value),
            number(new.value),
            old.unit,
            floor(old),
            floor(new)
        );
    }
    for (name, ours, others) in [("A", a, b), ("B", b, a)] {
        let only: Vec<&str> = ours
            .figures
            .iter()
            .filter(|f| !others.figures.iter().any(|o| o.name == f.name))
            .map(|f| f.name.as_str())
            .collect();
        if !only.is_empty() {
            let _ = writeln!(text, "only in {name}: {}", only.join(", "));
        }
    }
    text.push_str("\nchange: above zero is better; of the ratio to the floor where there is one, else of the value\n");
    for (what, differs) in [
        ("events", a.events != b.events),
        ("seed", a.seed != b.seed),
        ("build profile", a.profile != b.profile),
        ("quick", a.quick != b.quick),
        ("machine", a.machine != b.machine),
    ] {
        if differs {
            let _ = writeln!(text, "note: the runs differ in their {what}");
        }
    }
    let _ = writeln!(text, "{worse} of {} worse by more than {threshold_percent} %", a.figures.len());
    (text, worse > 0)
}

/// By how much `new` is better. `None` where one of the two is zero.
fn change_percent(old: &Figure, new: &Figure) -> Option<f64> {
    let (old, new) = match (old.ratio, new.ratio) {
        (Some(old), Some(new)) => (old, new),
        _ => match old.better {
            Better::More => (old.value, new.value),
            Better::Less => (new.value, old.value),
        },
    };
    (old > 0.0 && new > 0.0).then(|| (new / old - 1.0) * 100.0)
}

fn judge(change: f64, threshold: f64) -> Verdict {
    // A tenth slower is a ninth down from where one came: the bound is the same both ways.
    let up = (100.0 / (100.0 - threshold.min(99.0)) - 1.0) * 100.0;
    match change {
        c if c < -threshold => Verdict::Worse,
        c if c > up => Verdict::Better,
        _ => Verdict::Noise,
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Floor;
    use super::*;

    fn figure(name: &str, better: Better, value: f64, floor: Option<f64>) -> Figure {
        let ratio = floor.map(|floor| if better == Better::More { value / floor } else { floor / value });
        Figure {
            name: name.to_owned(),
            what: format!("the {name}"),
            unit: "MB/s".to_owned(),
            better,
            value,
            floor: floor.map(|value| Floor { what: "a floor".to_owned(), value }),
            ratio,
            goal: None,
            reached: None,
        }
    }

    fn verdict(old: Figure, new: Figure) -> (String, bool) {
        let report = |f| Report::new(true, 1, 1_000, vec![f]);
        let (text, worse) = compare(&report(old), &report(new), 10.0);
        let line = text.lines().find(|line| line.starts_with("the ")).expect("a line per figure");
        (line.split_whitespace().last().unwrap_or_default().to_owned(), worse)
    }

    #[test]
    fn a_slower_machine_is_not_slower_code() {
        let rate = |value, floor| figure("rate", Better::More, value, Some(floor));
        assert_eq!(verdict(rate(100.0, 1_000.0), rate(50.0, 500.0)), ("noise".to_owned(), false));
        assert_eq!(verdict(rate(100.0, 1_000.0), rate(100.0, 2_000.0)), ("worse".to_owned(), true));
        assert_eq!(verdict(rate(100.0, 1_000.0), rate(60.0, 400.0)), ("better".to_owned(), false));
        assert_eq!(verdict(rate(100.0, 1_000.0), rate(91.0, 1_000.0)), ("noise".to_owned(), false));
        assert_eq!(verdict(rate(100.0, 1_000.0), rate(89.0, 1_000.0)), ("worse".to_owned(), true));
    }

    #[test]
    fn less_can_be_better_with_and_without_a_floor() {
        let time = |value, floor| figure("time", Better::Less, value, Some(floor));
        assert_eq!(verdict(time(10.0, 2.0), time(20.0, 4.0)), ("noise".to_owned(), false));
        assert_eq!(verdict(time(10.0, 2.0), time(20.0, 2.0)), ("worse".to_owned(), true));
        let size = |value| figure("size", Better::Less, value, None);
        assert_eq!(verdict(size(0.30), size(0.20)), ("better".to_owned(), false));
        assert_eq!(verdict(size(0.20), size(0.30)), ("worse".to_owned(), true));
        assert_eq!(verdict(size(0.0), size(0.30)), ("noise".to_owned(), false), "nothing to compare with");
    }
}
