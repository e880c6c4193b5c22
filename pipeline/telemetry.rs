//! Logs on stderr and the metrics recorder. stdout is for data.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// `STAKEOUT_LOG` takes tracing's filter syntax; info by default. Commands that print data log warnings only.
pub fn logs(default: &str) {
    let filter = EnvFilter::try_from_env("STAKEOUT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr).with_target(false).try_init();
}

/// Log lines while a screen is shown on the terminal that they would land on: none otherwise.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);
/// What is held at most; a demo that logs more has said enough.
const HELD_BYTES_MAX: usize = 1 << 20;

/// From here on lines are kept instead of written across the screen. Where stderr is no terminal they go on.
pub fn hold() {
    if io::stderr().is_terminal() {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }
}

/// Writes what was kept, and lines from here on.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = io::stderr().write_all(&held.unwrap_or_default());
}

struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match HELD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(held) if held.len() + line.len() > HELD_BYTES_MAX => Ok(line.len()),
            Some(held) => held.write(line),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The page of metrics. A gauge of something that is gone is NaN (the recorder forgets nothing), and is left out.
pub fn render(metrics: &PrometheusHandle) -> String {
    without_nan(&metrics.render())
}

fn without_nan(page: &str) -> String {
    let mut kept = String::with_capacity(page.len());
    for line in page.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(" NaN")) {
        kept.push_str(line);
    }
    kept
}

/// The process has one recorder; a second line in it (tests) shares it.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Fails only if another recorder is installed, and then that one renders.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_while_a_screen_is_shown() {
        HELD.lock().unwrap().get_or_insert_default();
        Stderr.write_all(b"kept\n").unwrap();
        assert_eq!(HELD.lock().unwrap().as_deref(), Some(b"kept\n".as_slice()));
        release();
        assert!(HELD.lock().unwrap().is_none());
    }

    #[test]
    fn gauges_of_what_is_gone_are_left_out() {
        let page = "# TYPE lag gauge\nlag{partition=\"0\"} NaN\nlag{partition=\"1\"} 7\nlag{topic=\"a NaN\"} 1\n";
        assert_eq!(without_nan(page), "# TYPE lag gauge\nlag{partition=\"1\"} 7\nlag{topic=\"a NaN\"} 1\n");
    }
}
