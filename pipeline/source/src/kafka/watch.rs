//! Asks the broker where each assigned partition ends, on a thread of its own: the question takes a round trip or,
//! when a broker is down, a timeout, and polling must not wait for either. An old answer counts as none.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::{Context, Marks};
use crate::SourceError;

const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Beyond this age the end of a partition is not known. Several intervals, so that a slow round is none.
pub(super) const FRESH: Duration = Duration::from_secs(15);

pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(consumer: Arc<BaseConsumer<Context>>) -> Result<Watch, SourceError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("kafka-lag".to_owned()).spawn(move || {
            let mut wait = Duration::from_millis(200);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let partitions: Vec<Partition> = consumer.context().state().assigned.keys().cloned().collect();
                for partition in partitions {
                    if stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
                        return;
                    }
                    ask(&consumer, &partition);
                }
                wait = ASK_EVERY;
            }
        });
        let thread = thread.map_err(SourceError::io("start the kafka lag thread"))?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if a bug makes it; the feed goes down anyway.
            let _ = thread.join();
        }
    }
}

fn ask(consumer: &BaseConsumer<Context>, partition: &Partition) {
    let asked = Instant::now();
    match consumer.fetch_watermarks(&partition.0, partition.1, ANSWER_TIMEOUT) {
        Ok((low, high)) => {
            if let Some(assigned) = consumer.context().state().assigned.get_mut(partition) {
                assigned.marks = Some(Marks { low, high, at: asked });
            }
        }
        Err(error) => {
            consumer
                .context()
                .warn("lag", &format!("cannot ask for the end of {}/{}: {error}", partition.0, partition.1));
        }
    }
}
