//! Reading ahead: several threads read files, one consumer gets their pieces in the order of the files, whoever was
//! quicker. What waits is bounded in bytes; the file whose turn it is always gets on.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::file::{FileRead, Origins, Piece, read_file};
use super::walk::FileStamp;

/// What is read and not yet taken. One message may exceed it.
const AHEAD_BYTES_MAX: usize = 32 << 20;

/// Files begun ahead of the one whose turn it is: small ones should not each wait for the consumer.
const FILES_AHEAD_MAX: usize = 256;

pub(super) enum Next {
    Piece(Piece),
    /// The file whose pieces came last has no more.
    End(FileRead),
}

pub(super) struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Vec<FileStamp>,
    origins: Origins,
    done: Arc<AtomicU64>,
    state: Mutex<State>,
    /// Something was put in.
    news: Condvar,
    /// Something was taken out.
    room: Condvar,
}

#[derive(Default)]
struct State {
    /// The file whose turn it is, and the next that a thread begins.
    turn: usize,
    begin: usize,
    waiting: BTreeMap<usize, VecDeque<Next>>,
    bytes: usize,
    stopped: bool,
}

impl Ahead {
    pub fn start(files: Vec<FileStamp>, origins: Origins, jobs: usize, done: Arc<AtomicU64>) -> io::Result<Ahead> {
        let threads = jobs.clamp(1, files.len().max(1));
        let shared = Arc::new(Shared {
            files,
            origins,
            done,
            state: Mutex::default(),
            news: Condvar::new(),
            room: Condvar::new(),
        });
        let mut ahead = Ahead { shared: shared.clone(), threads: Vec::new() };
        for number in 0..threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("read-{number}")).spawn(move || shared.read())?;
            ahead.threads.push(thread);
        }
        Ok(ahead)
    }

    /// Waits for what comes next; `None` when all files are done.
    pub fn next(&self) -> Option<Next> {
        let shared = &*self.shared;
        let mut state = shared.state();
        loop {
            let turn = state.turn;
            if turn == shared.files.len() {
                return None;
            }
            if let Some(next) = state.waiting.get_mut(&turn).and_then(VecDeque::pop_front) {
                match &next {
                    Next::Piece(piece) => state.bytes -= piece.bytes,
                    Next::End(_) => {
                        state.waiting.remove(&turn);
                        state.turn += 1;
                    }
                }
                shared.room.notify_all();
                return Some(next);
            }
            state = shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn at_end(&self) -> bool {
        self.shared.state().turn == self.shared.files.len()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one file after the other until there are none left.
    fn read(&self) {
        while let Some(number) = self.begin() {
            let file = self.files[number].clone();
            let mut put = |piece: Piece| self.put(number, piece);
            let read = || read_file(file.clone(), &self.origins, &self.done, &mut put);
            let read = std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| FileRead {
                topic: "".into(),
                sha256: "".into(),
                messages: 0,
                errors: vec!["reading it panicked; this is a bug".to_owned()],
                notes: Vec::new(),
                file,
            });
            self.state().waiting.entry(number).or_default().push_back(Next::End(read));
            self.news.notify_one();
        }
    }

    fn begin(&self) -> Option<usize> {
        let mut state = self.state();
        while !state.stopped && state.begin < self.files.len() {
            if state.begin < state.turn + FILES_AHEAD_MAX {
                state.begin += 1;
                return Some(state.begin - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Waits for room; false: nobody wants more.
    fn put(&self, number: usize, piece: Piece) -> bool {
        let mut state = self.state();
        loop {
            if state.stopped {
                return false;
            }
            let starving = state.turn == number && state.waiting.get(&number).is_none_or(VecDeque::is_empty);
            if state.bytes + piece.bytes <= AHEAD_BYTES_MAX || starving {
                break;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += piece.bytes;
        state.waiting.entry(number).or_default().push_back(Next::Piece(piece));
        self.news.notify_one();
        true
    }
}
