//! One switch that everything long-running watches. Pulling it closes the sources; the rooms then drain.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone, Default)]
pub struct Shutdown(Arc<(Mutex<bool>, Condvar)>);

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    pub fn pull(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn pulled(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pulls the switch when the guard goes, however that happens.
    pub fn pull_on_drop(&self) -> PullOnDrop {
        PullOnDrop(self.clone())
    }

    /// Waits for the switch at most this long; true if it has been pulled.
    pub fn wait(&self, at_most: Duration) -> bool {
        let pulled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pulled, _) =
            self.0.1.wait_timeout_while(pulled, at_most, |pulled| !*pulled).unwrap_or_else(PoisonError::into_inner);
        *pulled
    }

    /// Pulls the switch on SIGINT and SIGTERM.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shutdown = self.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                match signal(SignalKind::terminate()) {
                    Ok(mut terminate) => {
                        tokio::select! {
                            _ = tokio::signal::ctrl_c() => {}
                            _ = terminate.recv() => {}
                        }
                    }
                    Err(_) => drop(tokio::signal::ctrl_c().await),
                }
            });
            tracing::info!("stopping: sources are closed, the rest drains");
            shutdown.pull();
        })?;
        Ok(())
    }
}

pub struct PullOnDrop(Shutdown);

impl Drop for PullOnDrop {
    fn drop(&mut self) {
        self.0.pull();
    }
}
