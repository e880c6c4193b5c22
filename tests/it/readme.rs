//! What the READMEs tell people to type is typed here, over what a short demo leaves behind, and the configs that they show
//! are parsed. A command that is neither run nor excepted fails; so does an exception that no longer excepts anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use stakeout::config::Config;

use crate::process::{finish, root, stakeout};

const READMES: [&str; 2] = ["README.md", "detections/README.md"];

/// Commands that do not run here as they stand, by how they begin.
const EXCEPTIONS: [(&str, Instead); 10] = [
    // `bench.rs` measures and compares; here it is only that they are commands.
    ("stakeout bench --quick --json before.json", Instead::Run("stakeout bench --help")),
    ("stakeout bench --quick --only line,windows", Instead::Run("stakeout bench --help")),
    (
        "stakeout bench --compare before.json after.json",
        Instead::Nothing("needs two measurements; `bench.rs` compares"),
    ),
    // A binary that is already built, and a demo that is only as long as it must be.
    ("cargo run -- demo --for 60s", Instead::Run("stakeout demo --for 12s")),
    ("cargo test --workspace", Instead::Nothing("this is part of it")),
    (
        "stakeout check --config stakeout.yaml",
        Instead::Nothing("its secrets are in files and variables that are not here; parsed below"),
    ),
    (
        "stakeout run --config stakeout.yaml",
        Instead::Nothing("needs the Kafka of its config; `crash.rs` and `anger.rs` run it"),
    ),
    ("docker compose", Instead::Nothing("needs a container engine; `deploy.rs` checks the file")),
    ("kube-apiserver", Instead::Nothing("needs a cluster; `receivers.rs` sends what it sends")),
    (
        "curl --fail-with-body --cacert ca.crt",
        Instead::Nothing("needs a trail and a certificate; `receivers.rs` sends it"),
    ),
];

enum Instead {
    Run(&'static str),
    /// And why.
    Nothing(&'static str),
}

#[test]
fn every_command_of_the_readmes_runs() {
    let home = Home::new();
    let mut excepted = BTreeSet::new();
    for readme in READMES {
        for command in commands(&read(readme)) {
            let exception = EXCEPTIONS.iter().position(|(begin, _)| command.starts_with(begin));
            excepted.extend(exception);
            match exception.map(|at| &EXCEPTIONS[at].1) {
                None => home.run(&command),
                Some(Instead::Run(other)) => home.run(other),
                Some(Instead::Nothing(why)) => println!("not run: {command}\n  {why}"),
            }
        }
    }
    let unused: Vec<_> = (0..EXCEPTIONS.len()).filter(|n| !excepted.contains(n)).map(|n| EXCEPTIONS[n].0).collect();
    assert!(unused.is_empty(), "no README has these any more: {unused:?}");
}

#[test]
fn every_yaml_of_the_readmes_is_what_it_says_it_is() {
    // Files of others, by their first lines.
    let foreign = ["# /etc/kubernetes/stakeout.yaml", "# falco.yaml", "# falcosidekick's config.yaml"];
    let mut config = String::new();
    for readme in READMES {
        for block in blocks(&read(readme), "yaml") {
            let first = block.lines().next().unwrap_or_default();
            if first.starts_with("# stakeout.yaml") {
                // All parts that are shown make one config.
                config += &block;
                if let Err(mistakes) = Config::parse(readme, &config) {
                    panic!("{mistakes:#?}\nin\n{config}");
                }
            } else if first == "cases:" {
                let parsed = detect::testing::TestFile::parse(Path::new("readme.test.yaml"), &block);
                assert!(parsed.is_ok(), "{}\nin\n{block}", parsed.err().unwrap());
            } else {
                assert!(foreign.contains(&first), "whose file is this, and which test reads it?\n{block}");
            }
        }
    }
    assert!(config.contains("kafka:") && config.contains("receivers:"), "{config}");
}

#[test]
fn the_sql_of_the_readme_of_detections_is_taken() {
    let blocks = blocks(&read("detections/README.md"), "sql");
    let [new, state, join] = blocks.as_slice() else { panic!("other blocks of sql than this test knows: {blocks:#?}") };
    let rules = tempfile::tempdir().unwrap();
    let header = "/*\ntitle: A tag moved\nseverity: low\nentity: [repository, tag]\nsummary: \"{tag}\"\n*/\n";
    let files = [
        ("cloudtrail/new.sql", new.clone()),
        ("state/image_tags.sql", state.clone()),
        ("cloudtrail/join.sql", header.to_owned() + join),
    ];
    for (name, text) in files {
        let path = rules.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    for rule in ["new", "join"] {
        finish(stakeout().args(["explain", rule, "--detections"]).arg(rules.path()), &[0]);
    }
}

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let check = |block: &str, expected: &[&str]| {
        assert_eq!(commands(&format!("Text.\n\n```sh\n{block}\n```\nMore.\n")), expected);
    };
    check("one --a   # why\n# not this\n\ntwo 'x # y'", &["one --a", "two 'x # y'"]);
    check("one \\\n  --b\ntwo", &["one \\\n  --b", "two"]);
    check("cat > f <<'END'\n# kept\nEND\ntwo", &["cat > f <<'END'\n# kept\nEND", "two"]);
    assert!(commands("```yaml\none: 1\n```\n").is_empty());
}

/// A folder that has what the READMEs speak of.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        let dir = home.0.path();
        std::fs::create_dir(dir.join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stakeout"), dir.join("bin/stakeout")).unwrap();
        finish(stakeout().args(["generate", "--events", "3000", "--out"]).arg(dir.join("made")), &[0]);
        std::fs::create_dir_all(dir.join("s3-copy/AWSLogs")).unwrap();
        std::fs::rename(dir.join("made/cloudtrail.ndjson"), dir.join("s3-copy/AWSLogs/trail.json")).unwrap();
        std::fs::rename(dir.join("made/kubernetes.ndjson"), dir.join("audit.log")).unwrap();
        home
    }

    /// Only what is in the folder is touched: a backup goes there too.
    fn run(&self, command: &str) {
        let mut command = command.replace("/mnt/backup/", "backups/");
        if command.contains(" FINDING ") {
            command = command.replace(" FINDING ", &format!(" {} ", self.finding()));
        }
        let path = format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        // What a short demo has besides its attacks depends on the hour: that nothing was found is an answer too.
        let asks =
            ["stakeout search", "stakeout backtest", "stakeout alerts"].iter().any(|ask| command.starts_with(ask));
        let codes: &[i32] = if asks { &[0, 1] } else { &[0] };
        let shown =
            finish(Command::new("sh").args(["-c", &command]).env("PATH", path).current_dir(self.0.path()), codes);
        println!("$ {command}\n{}", shown.lines().take(5).collect::<Vec<_>>().join("\n"));
    }

    /// The id of one, as a person would take it from what is shown: in brackets.
    fn finding(&self) -> String {
        let mut command = stakeout();
        command.args(["alerts", "--findings", "--limit", "1", "--data-dir"]).arg(self.0.path().join("stakeout-demo"));
        let shown = finish(&mut command, &[0]);
        let id = shown.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("an id is shown").0;
        id.to_owned()
    }
}

fn read(readme: &str) -> String {
    std::fs::read_to_string(root().join(readme)).unwrap()
}

/// The fenced blocks of one language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().take_while(|line| line.trim() != "```").map(|line| format!("{line}\n")).collect();
        if info == language {
            blocks.push(block);
        }
    }
    blocks
}

/// The commands of all `sh` blocks: comments are taken off, continued lines and here-documents stay together.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in blocks(markdown, "sh") {
        let mut lines = block.lines();
        while let Some(line) = lines.next() {
            let mut command = uncommented(line).to_owned();
            while command.ends_with('\\') {
                command = format!("{command}\n{}", uncommented(lines.next().expect("a continued line continues")));
            }
            if let Some((_, end)) = command.split_once("<<") {
                let end = end.trim().trim_matches('\'').to_owned();
                loop {
                    let line = lines.next().unwrap_or_else(|| panic!("no {end} ends {command}"));
                    command = format!("{command}\n{line}");
                    if line == end {
                        break;
                    }
                }
            }
            if !command.is_empty() {
                commands.push(command);
            }
        }
    }
    commands
}

/// Without a comment at its end: a `#` that begins a word outside of quotes.
fn uncommented(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if before == ' ' => return line[..at].trim_end(),
            _ => {}
        }
        before = c;
    }
    line.trim_end()
}
