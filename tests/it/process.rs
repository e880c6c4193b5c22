//! The real binary as a child process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub fn stakeout() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stakeout"));
    command.current_dir(root());
    command
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs to the end; panics with what it said unless the exit code is one of `codes`.
pub fn finish(command: &mut Command, codes: &[i32]) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(codes.contains(&status.code().unwrap_or(-1)), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// `stakeout run`, killed when dropped.
pub struct Run {
    child: Child,
    listen: SocketAddr,
    log: PathBuf,
}

impl Run {
    pub fn start(config: &Path, listen: SocketAddr, log: &Path) -> Run {
        Run::start_with(config, listen, log, &[])
    }

    /// With environment variables, such as one that arms a crash point.
    pub fn start_with(config: &Path, listen: SocketAddr, log: &Path, envs: &[(&str, &str)]) -> Run {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = stakeout()
            .arg("run")
            .arg("--config")
            .arg(config)
            .envs(envs.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Run { child, listen, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.assert_running();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for a clean exit.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn is_ready(&self) -> bool {
        get(self.listen, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("stakeout ended by itself with {status}:\n{}", self.said());
        }
    }

    /// Until then a signal may come before there is someone to heed it.
    pub fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while !self.is_ready() {
            self.assert_running();
            assert!(started.elapsed() < Duration::from_secs(60), "never ready\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `/metrics` satisfies the condition.
    pub fn wait_for_metrics(&mut self, what: &str, at_most: Duration, condition: impl Fn(&str) -> bool) {
        let started = Instant::now();
        loop {
            self.assert_running();
            let metrics = get(self.listen, "/metrics").unwrap_or_default();
            if condition(&metrics) {
                return;
            }
            assert!(started.elapsed() < at_most, "waited {at_most:?} for {what}\n{metrics}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The value of a sample line of the Prometheus text format.
pub fn sample(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
