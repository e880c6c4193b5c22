//! How much of a topic lies beyond an offset: what the line has not committed yet.

use super::{Log, segment_path, segments};
use crate::SourceError;

impl Log {
    /// Bytes of the segments that hold records from `offset` on; at most one segment more than the records alone.
    pub(crate) fn bytes_from(&self, offset: i64) -> Result<u64, SourceError> {
        if offset >= self.next {
            return Ok(0);
        }
        let measuring = || SourceError::io(format!("measure {}", self.topic.dir.display()));
        let firsts = segments(&*self.files, &self.topic.dir)?;
        let holding = firsts.partition_point(|first| *first <= offset).saturating_sub(1);
        firsts[holding..].iter().try_fold(0, |bytes, first| {
            let path = segment_path(&self.topic.dir, *first);
            let size = self.files.open(&path).and_then(|file| file.size()).map_err(measuring())?;
            Ok(bytes + size)
        })
    }
}
