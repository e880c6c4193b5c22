//! Is a row with these bytes held already? Unsealed rows answer from their hash sets. Segments answer from sorted
//! fingerprints in memory, made of the column `row_hash` when first asked; a fingerprint that fits is confirmed by the exact
//! hash (just the pages of the rows in question), so that nobody can have an event dropped by finding a collision.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use event::{RowHash, RowKey, Seen, SeenError, column, tables};

use crate::segment::{Segment, hashes};
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
            let likely: Vec<usize> =
                open.into_iter().filter(|i| prints.rows_like(&keys[*i].hash).next().is_some()).collect();
            if likely.is_empty() {
                continue;
            }
            let mut rows: Vec<usize> = likely.iter().flat_map(|i| prints.rows_like(&keys[*i].hash)).collect();
            rows.sort_unstable();
            rows.dedup();
            let present: HashSet<RowHash> = segment.row_hashes(rows.into_iter())?.into_iter().collect();
            likely.into_iter().filter(|i| present.contains(&keys[*i].hash)).for_each(|i| held[i] = true);
        }
        Ok(held)
    }
}

/// The rows of a segment by row hash: one sorted number each, of which the lowest bits are the row and the others the first
/// bits of its hash. Of a million rows 44 bits are left of a hash: one lookup in sixteen million reads a page for nothing.
struct Prints {
    sorted: Vec<u64>,
    row_mask: u64,
}

impl Prints {
    fn new(rows: usize, hashes: impl Iterator<Item = RowHash>) -> Prints {
        let row_mask = (rows as u64).next_power_of_two() - 1;
        let mut sorted = Vec::with_capacity(rows);
        sorted.extend(hashes.zip(0u64..).map(|(hash, row)| head(&hash) & !row_mask | row));
        sorted.sort_unstable();
        Prints { sorted, row_mask }
    }

    fn read(segment: &Arc<Segment>) -> Result<Prints, StoreError> {
        let mut all: Vec<RowHash> = Vec::with_capacity(segment.rows());
        for batch in segment.data()?.read(&[column::ROW_HASH], 0..segment.rows())? {
            all.extend(hashes(&batch?));
        }
        Ok(Prints::new(segment.rows(), all.into_iter()))
    }

    /// Rows whose hash begins like this one, almost always none or the one.
    fn rows_like(&self, hash: &RowHash) -> impl Iterator<Item = usize> {
        let print = head(hash) & !self.row_mask;
        let first = self.sorted.partition_point(|p| *p < print);
        let like = self.sorted[first..].iter().take_while(move |p| **p & !self.row_mask == print);
        like.map(|p| (p & self.row_mask) as usize)
    }

    fn bytes(&self) -> usize {
        self.sorted.len() * 8
    }
}

fn head(hash: &RowHash) -> u64 {
    u64::from_be_bytes(hash[..8].try_into().expect("eight of sixteen bytes"))
}

/// Fingerprints by segment, least recently used out first.
#[derive(Default)]
pub(crate) struct Fingerprints {
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    loaded: HashMap<String, (Arc<Prints>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Fingerprints {
    fn of(&self, segment: &Arc<Segment>) -> Result<Arc<Prints>, StoreError> {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        cache.clock += 1;
        let now = cache.clock;
        if let Some((prints, used)) = cache.loaded.get_mut(&segment.meta.ulid) {
            *used = now;
            return Ok(prints.clone());
        }
        // A segment that a merge replaces meanwhile may come back here once: it goes as the least recently used.
        let prints = Arc::new(Prints::read(segment)?);
        cache.bytes += prints.bytes();
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
                cache.bytes -= prints.bytes();
            }
        }
    }
}

impl Cache {
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.loaded.len() > 1 {
            let oldest = self.loaded.iter().min_by_key(|(_, (_, used))| *used).map(|(ulid, _)| ulid.clone());
            if let Some((prints, _)) = oldest.and_then(|ulid| self.loaded.remove(&ulid)) {
                self.bytes -= prints.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_hashes() {
        let hash = |n: u64| -> RowHash { blake3::hash(&n.to_le_bytes()).as_bytes()[..16].try_into().unwrap() };
        for rows in [0, 1, 2, 3, 1000, 1024, 1025] {
            let prints = Prints::new(rows, (0..rows as u64).map(hash));
            for row in 0..rows {
                assert_eq!(prints.rows_like(&hash(row as u64)).collect::<Vec<_>>(), [row], "of {rows}");
            }
            assert_eq!(prints.rows_like(&hash(u64::MAX)).count(), 0, "of {rows}");
        }
        let same = Prints::new(5, [hash(1), hash(2), hash(1), [0; 16], [255; 16]].into_iter());
        let of = |hash| same.rows_like(&hash).collect::<Vec<_>>();
        assert_eq!((of(hash(1)), of([0; 16]), of([255; 16])), (vec![0, 2], vec![3], vec![4]));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::default();
        for (ulid, used) in [("a", 3), ("b", 1), ("c", 2)] {
            cache.loaded.insert(ulid.into(), (Arc::new(Prints::new(10, (0..10).map(|_| [7; 16]))), used));
            cache.bytes += 80;
        }
        cache.shrink(160);
        assert_eq!((cache.bytes, cache.loaded.contains_key("b")), (160, false));
    }
}
