//! Random rules over random batches: the scan against each rule's program by itself.

mod differential;
mod paths;
