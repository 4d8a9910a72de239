//! States in memory, bounded by bytes: one hash per look-up, then plain indexes; the second-chance clock decides who goes.
//!
//! Keys come from outside, so the hash is seeded per process. Nothing iterates in hash order: no output may depend on it.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where an entry is; valid until it is evicted, which happens only in [`Cache::evict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

const NONE: u32 = u32::MAX;

/// What an entry costs beside its state: key, slot and index.
const ENTRY_BYTES: usize = 160;

struct Entry<V> {
    key: Bytes,
    hash: u64,
    /// The next entry whose key has the same hash.
    next: u32,
    bytes: usize,
    is_recent: bool,
    value: Option<V>,
}

/// The keys are hashes already.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed here");
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub struct Cache<V> {
    index: HashMap<u64, u32, BuildHasherDefault<Already>>,
    entries: Vec<Entry<V>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    seed: u64,
}

impl<V> Cache<V> {
    pub fn new(bytes_max: usize) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { index: HashMap::default(), entries: Vec::new(), free: Vec::new(), hand: 0, bytes: 0, bytes_max, seed }
    }

    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.free.clear();
        (self.hand, self.bytes) = (0, 0);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&mut self, key: &[u8]) -> Option<Slot> {
        let mut at = *self.index.get(&xxh3_64_with_seed(key, self.seed))?;
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            if entry.key == key {
                entry.is_recent = true;
                return Some(Slot(at));
            }
            at = entry.next;
        }
        None
    }

    /// Adds a key that [`find`](Cache::find) did not find.
    pub fn insert(&mut self, key: Bytes, value: V, bytes: usize) -> Slot {
        let hash = xxh3_64_with_seed(&key, self.seed);
        let bytes = bytes + key.len() + ENTRY_BYTES;
        self.bytes += bytes;
        let next = self.index.get(&hash).copied().unwrap_or(NONE);
        let entry = Entry { key, hash, next, bytes, is_recent: true, value: Some(value) };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.index.insert(hash, at);
        Slot(at)
    }

    pub fn key(&self, slot: Slot) -> &Bytes {
        &self.entries[slot.0 as usize].key
    }

    pub fn get(&self, slot: Slot) -> &V {
        self.entries[slot.0 as usize].value.as_ref().expect("slots in use are not evicted")
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut V {
        self.entries[slot.0 as usize].value.as_mut().expect("slots in use are not evicted")
    }

    /// What the state has grown to.
    pub fn set_bytes(&mut self, slot: Slot, bytes: usize) {
        let entry = &mut self.entries[slot.0 as usize];
        let bytes = bytes + entry.key.len() + ENTRY_BYTES;
        self.bytes = self.bytes + bytes - entry.bytes;
        entry.bytes = bytes;
    }

    /// Drops what was not used lately until the bound holds or nothing more may go. Invalidates the slots of what it drops.
    pub fn evict(&mut self, may_go: impl Fn(&V) -> bool) {
        let mut looks = self.entries.len() * 2;
        while self.bytes > self.bytes_max && looks > 0 {
            looks -= 1;
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[self.hand];
            if !entry.value.as_ref().is_some_and(&may_go) {
                continue;
            }
            if entry.is_recent {
                entry.is_recent = false;
                continue;
            }
            self.remove(self.hand as u32);
        }
    }

    fn remove(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        let (hash, next) = (entry.hash, entry.next);
        self.bytes -= entry.bytes;
        entry.value = None;
        entry.key = Bytes::new();
        self.free.push(at);
        let first = self.index[&hash];
        if first == at {
            if next == NONE {
                self.index.remove(&hash)
            } else {
                self.index.insert(hash, next)
            };
            return;
        }
        let mut before = first;
        while self.entries[before as usize].next != at {
            before = self.entries[before as usize].next;
        }
        self.entries[before as usize].next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Bytes {
        Bytes::from(n.to_le_bytes().to_vec())
    }

    #[test]
    fn keeps_within_its_bound_what_was_used_last_and_what_may_not_go() {
        let mut cache = Cache::new(100 * (ENTRY_BYTES + 4 + 100));
        for n in 0..100 {
            cache.insert(key(n), n, 100);
        }
        cache.evict(|_| true);
        assert_eq!(cache.len(), 100);
        for n in 100..300 {
            cache.insert(key(n), n, 100);
            // One that is asked for all the time, one that is dirty.
            assert!(cache.find(&key(7)).is_some());
            cache.evict(|value| *value != 8);
        }
        assert!(cache.len() <= 100 && cache.bytes() <= cache.bytes_max);
        assert!(cache.find(&key(8)).is_some());
        let found: Vec<u32> = (0..300).filter(|n| cache.find(&key(*n)).is_some_and(|slot| *cache.get(slot) == *n)).collect();
        assert_eq!(found.len(), cache.len());
    }

    #[test]
    fn keys_with_the_same_hash_do_not_meet() {
        let mut cache: Cache<u32> = Cache::new(usize::MAX);
        let (a, b, c) = (cache.insert(key(1), 1, 0), cache.insert(key(2), 2, 0), cache.insert(key(3), 3, 0));
        // Chain all three under the first one's hash, as a collision would.
        for (slot, next) in [(a, NONE), (b, a.0), (c, b.0)] {
            let old = cache.entries[slot.0 as usize].hash;
            cache.index.remove(&old);
            cache.entries[slot.0 as usize].hash = 42;
            cache.entries[slot.0 as usize].next = next;
        }
        cache.index.insert(42, c.0);
        cache.remove(b.0);
        assert_eq!(cache.index[&42], c.0);
        assert_eq!(cache.entries[c.0 as usize].next, a.0);
        cache.remove(c.0);
        assert_eq!(cache.index[&42], a.0);
        cache.remove(a.0);
        assert!(cache.index.is_empty());
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_state_that_grows_counts_as_much_as_it_is() {
        let mut cache = Cache::new(1000);
        let slot = cache.insert(key(1), 1, 10);
        let before = cache.bytes();
        cache.set_bytes(slot, 30);
        assert_eq!(cache.bytes(), before + 20);
    }
}
