//! What the demo shows: a snapshot becomes lines, as many and as wide as fit. No clock and no terminal here.
//!
//! Text of events may be an attacker's: nothing that a terminal obeys or that turns text around leaves this file.

use std::time::Duration;

use event::{Micros, Severity, Source, format_micros};
use unicode_width::UnicodeWidthChar;

/// An incident's head and the first row of its sentence.
const STORY_ROWS_MIN: usize = 2;
const SENTENCE_INDENT: &str = "          ";

/// All that is shown at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub elapsed: Duration,
    /// `None`: until someone ends it.
    pub left: Option<Duration>,
    pub sources: Vec<SourceRow>,
    pub bytes_per_second: f64,
    pub admitted: u64,
    pub duplicates: u64,
    pub sealed: u64,
    pub commits: u64,
    pub found: usize,
    pub planted: usize,
    /// Benign twins that raised an alert.
    pub wrong: usize,
    pub twins: usize,
    /// That asked for pages.
    pub incidents: usize,
    /// Of rules that are still learning what is normal: recorded, and nobody is paged.
    pub quiet: usize,
    pub pages: u64,
    /// The latest first.
    pub latest: Vec<Story>,
    /// Commands and addresses to go on with.
    pub look: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct SourceRow {
    pub source: Source,
    pub rows: u64,
    pub per_second: f64,
    /// Records not read yet; `None`: not known.
    pub waiting: Option<u64>,
    /// How far the watermark is behind the clock; `None` before the first event.
    pub behind: Option<Duration>,
}

/// One incident.
#[derive(Clone, Debug)]
pub struct Story {
    pub last: Micros,
    pub severity: Severity,
    pub rule: String,
    pub entity: String,
    pub summary: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Alarm,
}

/// Pieces of one line, each in its tone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Tone, String)>);

impl Line {
    fn of(tone: Tone, text: impl Into<String>) -> Line {
        Line(vec![(tone, text.into())])
    }

    fn with(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.0.push((tone, text.into()));
        self
    }

    /// At most so many columns, and only what is to be shown.
    fn clipped(self, columns: usize) -> Line {
        let mut room = columns;
        let mut pieces = Vec::new();
        for (tone, text) in self.0 {
            let mut kept = String::new();
            for c in text.chars().map(shown) {
                let wide = c.width().unwrap_or(0);
                if wide > room {
                    room = 0;
                    break;
                }
                // Marks and joiners take no column of their own, turn text around or hide it.
                if wide > 0 {
                    room -= wide;
                    kept.push(c);
                }
            }
            if !kept.is_empty() {
                pieces.push((tone, kept));
            }
        }
        Line(pieces)
    }

    #[cfg(test)]
    fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }
}

fn shown(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

/// Never more lines than rows, nor wider ones than columns. What matters most stays longest as room gets scarce: found
/// against planted, the latest incident, the sources, then how to go on.
pub fn draw(snapshot: &Snapshot, size: Size) -> Vec<Line> {
    let mut room = size.rows;
    let mut take = |rows: usize| {
        let fits = rows <= room;
        room -= if fits { rows } else { 0 };
        fits
    };
    let table = sources(snapshot);
    let score_fits = take(1);
    let head_fits = take(1);
    let first_story = !snapshot.latest.is_empty() && take(2);
    let table_fits = take(table.len());
    let end_fits = take(1);
    let totals_fit = take(1);
    let story_head_fits = take(1);
    let look_fits = take(snapshot.look.len());
    let air = take(4);
    let waiting_note = snapshot.latest.is_empty() && take(1);
    let stories = room + if first_story { STORY_ROWS_MIN } else { 0 };

    let mut lines = Vec::new();
    let breathe = |lines: &mut Vec<Line>| lines.extend(air.then(Line::default));
    if head_fits {
        lines.push(head(snapshot));
    }
    breathe(&mut lines);
    if table_fits {
        lines.extend(table);
    }
    if totals_fit {
        lines.push(totals(snapshot));
    }
    breathe(&mut lines);
    if score_fits {
        lines.push(score(snapshot));
    }
    breathe(&mut lines);
    if story_head_fits {
        lines.push(heading(snapshot));
    }
    if waiting_note {
        lines.push(Line::of(Tone::Plain, "none yet: the rules are watching"));
    }
    lines.extend(latest(snapshot, stories, size.columns));
    breathe(&mut lines);
    if look_fits {
        lines.extend(snapshot.look.iter().map(|look| Line::of(Tone::Faint, look)));
    }
    if end_fits {
        lines.push(Line::of(Tone::Strong, "q").with(Tone::Faint, " ends it and sums up"));
    }
    lines.truncate(size.rows);
    lines.into_iter().map(|line| line.clipped(size.columns)).collect()
}

fn head(s: &Snapshot) -> Line {
    let time = match s.left {
        Some(left) => format!("{} left", minutes(left)),
        None => format!("for {}", minutes(s.elapsed)),
    };
    Line::of(Tone::Strong, "stakeout demo")
        .with(Tone::Plain, format!("  {time}"))
        .with(Tone::Faint, "  synthetic events -> embedded log -> rules -> pager")
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// Most telling columns first: a narrow terminal cuts the others off.
fn sources(s: &Snapshot) -> Vec<Line> {
    let header = format!("{:<11}{:>9}{:>10}{:>13}{:>12}", "source", "events/s", "waiting", "watermark", "events");
    let mut lines = vec![Line::of(Tone::Faint, header)];
    for row in &s.sources {
        let waiting = row.waiting.map_or("-".to_owned(), |n| n.to_string());
        let behind = row.behind.map_or("-".to_owned(), |d| format!("{} s ago", d.as_secs()));
        // A second's worth of events may wait between two polls; more is a line that falls behind.
        let falls_behind = row.waiting.is_some_and(|n| n as f64 > row.per_second.max(100.0) * 2.0);
        lines.push(
            Line::of(Tone::Plain, format!("{:<11}{:>9.0}", row.source.name(), row.per_second))
                .with(if falls_behind { Tone::Warning } else { Tone::Plain }, format!("{waiting:>10}"))
                .with(Tone::Plain, format!("{behind:>13}{:>12}", row.rows)),
        );
    }
    lines
}

fn totals(s: &Snapshot) -> Line {
    let text = format!(
        "{:.1} MB/s; {} events in, {} duplicates dropped, {} sealed in {} commits",
        s.bytes_per_second / 1e6,
        s.admitted,
        s.duplicates,
        s.sealed,
        s.commits
    );
    Line::of(Tone::Faint, text)
}

fn score(s: &Snapshot) -> Line {
    let all = s.found == s.planted;
    let line = Line::of(
        if all { Tone::Good } else { Tone::Warning },
        format!("found {} of {} planted so far", s.found, s.planted),
    );
    line.with(
        if s.wrong == 0 { Tone::Plain } else { Tone::Alarm },
        format!("; {} of {} benign twins raised an alert", s.wrong, s.twins),
    )
}

fn heading(s: &Snapshot) -> Line {
    let quiet = match s.quiet {
        0 => String::new(),
        n => format!("; {n} more while rules learn"),
    };
    Line::of(Tone::Faint, format!("latest of {} incidents; {} pages acknowledged{quiet}", s.incidents, s.pages))
}

/// As many as fit into the rows; the last one may lose the end of its sentence.
fn latest(s: &Snapshot, rows: usize, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for one in &s.latest {
        if rows - lines.len() < STORY_ROWS_MIN {
            break;
        }
        lines.extend(story(one, columns));
        lines.truncate(rows);
    }
    lines
}

/// Time, severity, rule and entity; below it the sentence, in one row or two.
fn story(s: &Story, columns: usize) -> Vec<Line> {
    let tone = match s.severity {
        Severity::Critical | Severity::High => Tone::Alarm,
        Severity::Medium => Tone::Warning,
        Severity::Low | Severity::Informational => Tone::Plain,
    };
    let first = Line::of(Tone::Faint, clock(s.last))
        .with(tone, format!("  {:<8}", s.severity))
        .with(Tone::Strong, format!("  {}", s.rule))
        .with(Tone::Plain, format!("  {}", s.entity));
    let sentence = wrapped(&s.summary, columns.saturating_sub(SENTENCE_INDENT.len()));
    std::iter::once(first)
        .chain(sentence.into_iter().map(|part| Line::of(Tone::Plain, format!("{SENTENCE_INDENT}{part}"))))
        .collect()
}

/// In one row or two, broken between words where that is possible.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let wide = |text: &str| text.chars().map(shown).map(|c| c.width().unwrap_or(0)).sum::<usize>();
    if wide(text) <= columns {
        return vec![text.to_owned()];
    }
    let breaks = text.match_indices(' ').map(|(at, _)| at);
    match breaks.take_while(|at| wide(&text[..*at]) <= columns).last() {
        Some(at) => vec![text[..at].to_owned(), text[at + 1..].to_owned()],
        None => vec![text.to_owned()],
    }
}

/// Hours, minutes and seconds, UTC.
pub fn clock(time: Micros) -> String {
    format_micros(time).get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let source = |source, rows| SourceRow {
            source,
            rows,
            per_second: 412.4,
            waiting: Some(17),
            behind: Some(Duration::from_millis(5_400)),
        };
        let story = |n: usize| Story {
            last: 1_760_000_000_000_000 + n as i64 * 1_000_000,
            severity: Severity::Critical,
            rule: format!("rule-{n}"),
            entity: "cluster=prod".to_owned(),
            summary: format!("somebody did something bad, number {n}"),
        };
        Snapshot {
            left: Some(Duration::from_secs(65)),
            sources: vec![source(Source::Kubernetes, 48_000), source(Source::CloudTrail, 9_000)],
            found: 3,
            planted: 4,
            twins: 4,
            incidents: 12,
            quiet: 40,
            pages: 11,
            latest: (0..12).map(story).collect(),
            look: vec!["stakeout alerts --data-dir d".to_owned()],
            ..Snapshot::default()
        }
    }

    fn text(s: &Snapshot, columns: usize, rows: usize) -> Vec<String> {
        draw(s, Size { columns, rows }).iter().map(Line::text).collect()
    }

    fn wide(line: &str) -> usize {
        line.chars().map(|c| c.width().unwrap_or(0)).sum()
    }

    #[test]
    fn at_80_by_24_everything_is_there() {
        let shown = text(&snapshot(), 80, 24).join("\n");
        for part in [
            "stakeout demo  1:05 left",
            "kubernetes       412        17      5 s ago       48000",
            "cloudtrail       412        17",
            "found 3 of 4 planted so far; 0 of 4 benign twins raised an alert\n",
            "latest of 12 incidents; 11 pages acknowledged; 40 more while rules learn",
            "critical  rule-0  cluster=prod\n          somebody did something bad, number 0",
            "number 3",
            "stakeout alerts --data-dir d",
            "q ends it",
        ] {
            assert!(shown.contains(part), "expected `{part}` in\n{shown}");
        }
    }

    #[test]
    fn it_fits_whatever_the_size() {
        for s in [snapshot(), Snapshot::default()] {
            for rows in 0..40 {
                for columns in [0, 1, 2, 10, 39, 80, 200] {
                    let lines = text(&s, columns, rows);
                    assert!(lines.len() <= rows, "{} lines at {columns}x{rows}", lines.len());
                    assert!(lines.iter().all(|l| wide(l) <= columns), "{lines:?} at {columns}x{rows}");
                }
            }
        }
    }

    #[test]
    fn what_matters_most_stays_longest() {
        let has = |rows: usize, part: &str| text(&snapshot(), 80, rows).iter().any(|line| line.contains(part));
        assert!(has(1, "found 3 of 4"));
        assert!(has(2, "stakeout demo") && !has(3, "rule-0"));
        assert!(has(4, "number 0") && !has(6, "kubernetes"));
        assert!(has(7, "kubernetes") && !has(7, "q ends it"));
        assert!(has(8, "q ends it"));
    }

    #[test]
    fn room_that_is_left_goes_to_incidents() {
        let stories = |rows| text(&snapshot(), 80, rows).iter().filter(|l| l.contains("something bad")).count();
        assert_eq!((stories(24), stories(30), stories(60)), (5, 8, 12));
    }

    #[test]
    fn a_long_sentence_takes_two_rows_and_the_last_of_them_may_not_fit() {
        let mut s = snapshot();
        s.latest.iter_mut().for_each(|story| story.summary = "a word and more ".repeat(8).trim().to_owned());
        let lines = text(&s, 80, 24);
        let at = lines.iter().position(|l| l.contains("rule-0")).unwrap();
        assert_eq!(lines[at + 1], format!("          {}a word", "a word and more ".repeat(4)));
        assert!(
            lines[at + 2].starts_with("          and more a word") && lines[at + 3].contains("rule-1"),
            "{lines:#?}"
        );
        assert_eq!(text(&s, 80, 4).len(), 4);
        assert_eq!(wrapped(&"x".repeat(30), 10).len(), 1, "what has no break is cut");
    }

    #[test]
    fn text_of_events_cannot_move_the_cursor_or_turn_itself_around() {
        let mut s = snapshot();
        s.latest[0].summary = "a\x1b[2Jb\r\nc\u{202e}d\u{200b}e\u{9b}f".to_owned();
        s.latest[0].entity = "名前".repeat(40);
        let lines = text(&s, 80, 24);
        assert!(lines.iter().all(|l| wide(l) <= 80 && !l.chars().any(char::is_control)), "{lines:?}");
        assert!(lines.iter().any(|l| l.contains("a\u{fffd}[2Jb\u{fffd}\u{fffd}cde\u{fffd}f")), "{lines:?}");
    }
}
