//! The first thing a newcomer runs: everything planted is found, nothing benign raises an alert (the exit code says
//! so), and the commands that it prints at the end work on what it leaves behind.

use crate::process::{finish, stakeout};

#[test]
fn the_demo_finds_what_it_planted_and_leaves_a_directory_to_look_around_in() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("demo");
    let said = finish(stakeout().args(["demo", "--for", "12s", "--data-dir"]).arg(&dir), &[0]);
    println!("{said}");
    assert!(said.contains("0 unparsed"), "{said}");

    let commands: Vec<Vec<String>> = said
        .lines()
        .skip_while(|line| *line != "look around:")
        .skip(1)
        .map(|line| words(line.trim().strip_prefix("stakeout ").expect("a command of ours")))
        .collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let shown = finish(stakeout().args(&command), &[0]);
        assert!(shown.lines().count() > 3, "{command:?} shows {shown}");
    }
    // A second demo may clear what the first one made; anything else it leaves alone.
    std::fs::remove_file(dir.join("made-by-stakeout-demo")).unwrap();
    finish(stakeout().args(["demo", "--for", "1s", "--data-dir"]).arg(&dir), &[2]);
}

/// Splits as a shell would, as far as quotes go.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ') => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words
}
