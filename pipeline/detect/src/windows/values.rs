//! Values kept once, however many groups have them. As bytes they compare as the values do ([`crate::codec`]).

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashSet;

pub type Value = Arc<[u8]>;

/// Values that nobody holds are looked for when so many more have come.
const SWEEP_MIN: usize = 1_024;

pub struct Values {
    all: HashSet<Value, RandomState>,
    sweep_at: usize,
    bytes: usize,
}

impl Default for Values {
    fn default() -> Self {
        Values { all: HashSet::with_hasher(RandomState::new()), sweep_at: SWEEP_MIN, bytes: 0 }
    }
}

impl Values {
    pub fn intern(&mut self, bytes: &[u8]) -> Value {
        if let Some(value) = self.all.get(bytes) {
            return value.clone();
        }
        if self.all.len() >= self.sweep_at {
            self.sweep();
        }
        let value: Value = bytes.into();
        self.bytes += bytes.len();
        self.all.insert(value.clone());
        value
    }

    /// Forgets what nobody holds.
    pub fn sweep(&mut self) {
        self.all.retain(|value| Arc::strong_count(value) > 1);
        self.bytes = self.all.iter().map(|value| value.len()).sum();
        self.sweep_at = (2 * self.all.len()).max(SWEEP_MIN);
        if self.all.capacity() > 4 * self.sweep_at {
            self.all.shrink_to(self.sweep_at);
        }
    }

    /// Two counts and an allocator's head beside the bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.all.len() * 24 + self.all.capacity() * (size_of::<Value>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut values = Values::default();
        let held = values.intern(b"held");
        for n in 0..10 * SWEEP_MIN {
            values.intern(&n.to_le_bytes());
        }
        assert!(values.all.len() <= 2 * SWEEP_MIN && values.bytes < 20 * SWEEP_MIN);
        assert!(Arc::ptr_eq(&held, &values.intern(b"held")));
        values.sweep();
        assert_eq!((values.all.len(), values.bytes), (1, 4));
    }
}
