//! Logs on stderr and the metrics recorder. stdout is for data.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// `STAKEOUT_LOG` takes tracing's filter syntax; info by default. Commands that print data log warnings only.
pub fn logs(default: &str) {
    let filter = EnvFilter::try_from_env("STAKEOUT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
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
    fn gauges_of_what_is_gone_are_left_out() {
        let page = "# TYPE lag gauge\nlag{partition=\"0\"} NaN\nlag{partition=\"1\"} 7\nlag{topic=\"a NaN\"} 1\n";
        assert_eq!(without_nan(page), "# TYPE lag gauge\nlag{partition=\"1\"} 7\nlag{topic=\"a NaN\"} 1\n");
    }
}
