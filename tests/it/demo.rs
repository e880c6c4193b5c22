//! The first thing a newcomer runs: everything planted is found, nothing benign raises an alert (the exit code says
//! so), and the commands that it prints at the end work on what it leaves behind. On a terminal it draws a screen and gives
//! the terminal back as it was.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{finish, root, stakeout};

#[test]
fn the_demo_finds_what_it_planted_and_leaves_a_directory_to_look_around_in() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a demo");
    let said = finish(stakeout().args(["demo", "--for", "12s", "--data-dir"]).arg(&dir), &[0]);
    println!("{said}");
    assert!(said.contains("0 unparsed"), "{said}");
    assert!(!said.contains('\x1b'), "without a terminal there are plain lines: {said:?}");

    let commands: Vec<&str> = said.lines().skip_while(|line| *line != "look around:").skip(1).collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let shown = finish(Command::new("sh").args(["-c", command]).current_dir(root()), &[0]);
        assert!(shown.lines().count() > 3, "{command:?} shows {shown}");
    }
    // A second demo may clear what the first one made; anything else it leaves alone.
    std::fs::remove_file(dir.join("made-by-stakeout-demo")).unwrap();
    finish(stakeout().args(["demo", "--for", "1s", "--data-dir"]).arg(&dir), &[2]);
}

#[test]
fn on_a_terminal_it_shows_sources_incidents_and_the_score_and_gives_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    // However slow the machine is: until some of what was planted is found, and shown.
    let steps = json!([{"when": "found [1-9]", "type": "q"}]);
    let watched = Watched::new(&dir.path().join("demo"), &["--for", "10m"], &steps, false);
    assert!(matches!(watched.code, Some(0 | 1)), "{:?} {}", watched.code, watched.after);
    watched.was_restored();
    for frame in &watched.frames {
        assert!(frame.len() <= 24 && frame.iter().all(|row| row.chars().count() <= 80), "{frame:#?}");
    }
    let last = watched.frames.last().expect("it draws").join("\n");
    println!("{last}\n----\n{}", watched.after);
    for part in ["kubernetes ", "cloudtrail ", "falco ", " left", "waiting", "pages acknowledged", "q ends it"] {
        assert!(last.contains(part), "expected `{part}` in\n{last}");
    }
    // The latest incident: time, severity, rule and entity in one row, its sentence below it.
    let rows: Vec<&str> = last.lines().collect();
    let at = rows.iter().position(|row| row.starts_with("latest of ")).expect("incidents are shown") + 1;
    let words: Vec<&str> = rows[at].split_whitespace().collect();
    assert_eq!(words[0].len(), "09:00:00".len(), "{last}");
    assert!(["critical", "high", "medium", "low", "informational"].contains(&words[1]), "{last}");
    assert!(words[2].contains('-') && words[3].contains('='), "{last}");
    let sentence: Vec<&str> =
        rows[at + 1..].iter().take_while(|row| row.starts_with("  ")).flat_map(|row| row.split_whitespace()).collect();
    assert!(sentence.len() > 2, "{last}");
    let score = rows.iter().find(|row| row.starts_with("found ")).expect("the score is shown");
    let numbers: Vec<usize> = score.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] > 0 && numbers[0] <= numbers[1], "{score}");
    // What is said at the end is on the normal screen.
    assert!(watched.after.contains(" planted attacks ") && watched.after.contains("look around:"), "{}", watched.after);
}

#[test]
fn it_follows_a_resize_ends_on_q_and_has_no_colors_with_no_color() {
    let dir = tempfile::tempdir().unwrap();
    // In ten rows there is no room for the heading; the score stays.
    let steps = json!([{"when": "latest of", "size": [40, 10]}, {"when": "so far", "type": "x"}, {"when": "so far", "type": "q"}]);
    let watched = Watched::new(&dir.path().join("demo"), &[], &steps, true);
    assert!(matches!(watched.code, Some(0 | 1)), "{:?} {}", watched.code, watched.after);
    watched.was_restored();
    assert!(!watched.sent.contains("\x1b[1m") && !watched.sent.contains("\x1b[38;"), "{:?}", watched.sent);
    let last = watched.frames.last().unwrap();
    assert!(last.len() <= 10 && last.iter().all(|row| row.chars().count() <= 40), "{last:#?}");
    assert!(last.iter().any(|row| row.starts_with("found ")), "{last:#?}");
    assert!(watched.after.contains("look around:"), "{}", watched.after);
}

#[test]
fn a_signal_ends_it_as_a_key_does() {
    const SIGTERM: i32 = 15;
    let dir = tempfile::tempdir().unwrap();
    let steps = json!([{"when": "kubernetes", "signal": SIGTERM}]);
    let watched = Watched::new(&dir.path().join("demo"), &[], &steps, false);
    assert!(matches!(watched.code, Some(0 | 1)), "{:?} {}", watched.code, watched.after);
    watched.was_restored();
    assert!(watched.after.contains("look around:"), "{}", watched.after);
}

/// A demo within a pseudo-terminal of 80x24, and what was on its screen.
struct Watched {
    code: Option<i32>,
    /// All that was sent to the terminal.
    sent: String,
    /// Each frame as rows without trailing spaces; rows below the last text are left out.
    frames: Vec<Vec<String>>,
    /// What came after the other screen was left.
    after: String,
    state: String,
}

impl Watched {
    fn new(dir: &Path, args: &[&str], steps: &Value, no_color: bool) -> Watched {
        let mut command = Command::new("python3");
        command.arg(root().join("tests/it/terminal.py")).args(["80x24", &steps.to_string(), "--"]);
        command.arg(env!("CARGO_BIN_EXE_stakeout")).args(["demo", "--data-dir"]).arg(dir).args(args);
        command.current_dir(root()).env_remove("NO_COLOR");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let output = command.output().expect("python3 is there");
        let sent = String::from_utf8_lossy(&output.stdout).into_owned();
        let after = sent.rsplit_once("\x1b[?1049l").map(|(_, after)| after.to_owned()).unwrap_or_default();
        let state = String::from_utf8_lossy(&output.stderr).into_owned();
        Watched { code: output.status.code(), frames: frames(&sent), sent, after, state }
    }

    fn was_restored(&self) {
        let (enter, leave) = ("\x1b[?1049h", "\x1b[?1049l");
        assert_eq!((self.sent.matches(enter).count(), self.sent.matches(leave).count()), (1, 1), "{:?}", self.sent);
        assert!(self.sent.rfind("\x1b[?25h") > self.sent.rfind("\x1b[?25l"), "the cursor is shown again");
        assert!(self.sent.rfind("\x1b[?7h") > self.sent.rfind("\x1b[?7l"), "lines wrap again");
        assert!(!self.after.contains('\x1b'), "{:?}", self.after);
        assert_eq!(self.state.trim(), "cooked");
    }
}

/// Plays what was sent; every frame is painted whole between the two marks of a synchronized update.
fn frames(sent: &str) -> Vec<Vec<String>> {
    let paint = |painted: &str| {
        let mut rows: Vec<Vec<char>> = Vec::new();
        let mut at = (0, 0);
        for piece in painted.split_inclusive('\x1b').map(|piece| piece.trim_end_matches('\x1b')) {
            // After an escape: `[`, numbers, a letter; then text.
            let text = match piece.strip_prefix('[') {
                None => piece,
                Some(rest) => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends with a letter");
                    if &rest[end..=end] == "H" {
                        let (row, column) = rest[..end].split_once(';').expect("row and column");
                        at = (row.parse::<usize>().unwrap() - 1, column.parse::<usize>().unwrap() - 1);
                    }
                    &rest[end + 1..]
                }
            };
            for c in text.chars() {
                rows.resize(rows.len().max(at.0 + 1), Vec::new());
                let row = &mut rows[at.0];
                row.resize(row.len().max(at.1 + 1), ' ');
                row[at.1] = c;
                at.1 += 1;
            }
        }
        rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
    };
    let begun = sent.split("\x1b[?2026h").skip(1);
    begun.filter_map(|frame| frame.split_once("\x1b[?2026l")).map(|(painted, _)| paint(painted)).collect()
}
