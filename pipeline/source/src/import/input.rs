//! A buffered input to which bytes can be given back. An error ends it, and is kept until what was read before it has
//! been dealt with.

use std::io::{self, BufRead};

pub(super) struct Input<R> {
    inner: R,
    back: Vec<u8>,
    /// How much of `back` was read again.
    at: usize,
    failure: Option<io::Error>,
    ended: bool,
}

impl<R: BufRead> Input<R> {
    pub fn new(inner: R) -> Self {
        Input { inner, back: Vec::new(), at: 0, failure: None, ended: false }
    }

    /// What is at hand; empty at the end.
    pub fn chunk(&mut self) -> &[u8] {
        if self.at < self.back.len() {
            return &self.back[self.at..];
        }
        while !self.ended {
            match self.inner.fill_buf() {
                // The second call returns what the first one found: a loop cannot return a borrow.
                Ok(_) => return self.inner.fill_buf().unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => (self.failure, self.ended) = (Some(error), true),
            }
        }
        &[]
    }

    pub fn consume(&mut self, bytes: usize) {
        if self.at == self.back.len() {
            return self.inner.consume(bytes);
        }
        self.at += bytes;
        if self.at == self.back.len() {
            (self.back, self.at) = (Vec::new(), 0);
        }
    }

    /// These bytes come next.
    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(&self.back[self.at..]);
        (self.back, self.at) = (bytes, 0);
    }

    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}
