//! Is a row with these bytes held already? Unsealed rows answer from their hash sets. Segments answer from sorted
//! fingerprints in memory; a fingerprint that fits is confirmed by the exact hash in Parquet (just the pages of the rows
//! in question), so that nobody can have an event dropped by finding a 64-bit collision.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use event::{RowHash, RowKey, Seen, SeenError, tables};

use crate::segment::{Segment, fingerprint};
use crate::{Store, StoreError};

/// Memory for fingerprints, eight bytes a row: 32 million rows. Beyond it the least recently used are read again.
const FINGERPRINT_BYTES_MAX: usize = 256 << 20;

impl Seen for Store {
    fn seen(&self, table: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError> {
        self.held(table, keys).map_err(|error| SeenError(error.to_string()))
    }
}

impl Store {
    fn held(&self, table: &str, keys: &[RowKey]) -> Result<Vec<bool>, StoreError> {
        let (segments, mut held) = self.inner.unsealed_seen(table, keys)?;
        for segment in segments.iter().filter(|segment| segment.meta.table == table) {
            // The time of an unparsed row is when it was read, which differs between deliveries.
            let asked = |key: &RowKey| table == tables::UNPARSED || segment.meta.time.contains(key.time);
            let open: Vec<usize> = (0..keys.len()).filter(|i| !held[*i] && asked(&keys[*i])).collect();
            if open.is_empty() {
                continue;
            }
            let prints = self.inner.fingerprints.of(segment)?;
            let places = |i: &usize| places(&prints, fingerprint(&keys[*i].hash));
            let likely: Vec<usize> = open.into_iter().filter(|i| !places(i).is_empty()).collect();
            if likely.is_empty() {
                continue;
            }
            let places: Vec<usize> = likely.iter().flat_map(places).collect();
            let rows = segment.rows_of_fingerprints(&places)?;
            let present: HashSet<RowHash> = segment.row_hashes(rows.into_iter())?.into_iter().collect();
            likely.into_iter().filter(|i| present.contains(&keys[*i].hash)).for_each(|i| held[i] = true);
        }
        Ok(held)
    }
}

/// Where the fingerprint stands among the sorted ones.
fn places(prints: &[u64], print: u64) -> std::ops::Range<usize> {
    let first = prints.partition_point(|p| *p < print);
    let len = prints[first..].iter().take_while(|p| **p == print).count();
    first..first + len
}

/// Fingerprints by segment, least recently used out first.
#[derive(Default)]
pub(crate) struct Fingerprints {
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    loaded: HashMap<String, (Arc<Vec<u64>>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Fingerprints {
    fn of(&self, segment: &Segment) -> Result<Arc<Vec<u64>>, StoreError> {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        cache.clock += 1;
        let now = cache.clock;
        if let Some((prints, used)) = cache.loaded.get_mut(&segment.meta.ulid) {
            *used = now;
            return Ok(prints.clone());
        }
        // A segment that a merge replaces meanwhile may come back here once: it goes as the least recently used.
        let prints = Arc::new(segment.fingerprints()?);
        cache.bytes += prints.len() * 8;
        cache.loaded.insert(segment.meta.ulid.clone(), (prints.clone(), now));
        cache.shrink(FINGERPRINT_BYTES_MAX);
        Ok(prints)
    }
}

impl Fingerprints {
    /// Of segments that are gone.
    pub(crate) fn forget(&self, ulids: &HashSet<&str>) {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for ulid in ulids {
            if let Some((prints, _)) = cache.loaded.remove(*ulid) {
                cache.bytes -= prints.len() * 8;
            }
        }
    }
}

impl Cache {
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.loaded.len() > 1 {
            let oldest = self.loaded.iter().min_by_key(|(_, (_, used))| *used).map(|(ulid, _)| ulid.clone());
            if let Some((prints, _)) = oldest.and_then(|ulid| self.loaded.remove(&ulid)) {
                self.bytes -= prints.len() * 8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::default();
        for (ulid, used) in [("a", 3), ("b", 1), ("c", 2)] {
            cache.loaded.insert(ulid.into(), (Arc::new(vec![0; 10]), used));
            cache.bytes += 80;
        }
        cache.shrink(160);
        assert_eq!((cache.bytes, cache.loaded.contains_key("b")), (160, false));
    }
}
