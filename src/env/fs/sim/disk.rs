//! The simulated disk: what the page cache shows, what the platter holds, and what a crash makes of the difference.
//!
//! Content is tracked per sector with every version written since the last sync, so that a crash may leave any of them, or a mixture.
//! Names are tracked as operations since the folder's last sync, any subset of which a crash may leave. Nothing here draws its own
//! chances: the caller's generator decides, so that a seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What a disk writes as a whole in the good case; the bad case tears within it.
pub(super) const SECTOR: usize = 512;

/// How the machine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: the page cache survives, synced or not, and may still be lost at a later power cut.
    Process,
    /// Power cut: everything that was not synced is kept, lost or torn, sector by sector and name by name.
    Power,
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    cache: Vec<u8>,
    /// What survives; may reach beyond `disk_len` where data was written before the size.
    disk: Vec<u8>,
    disk_len: usize,
    /// Every version of each sector written since the last sync, oldest first.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Every size since the last sync, oldest first.
    lens: Vec<usize>,
    /// Which sectors take up space; a hole takes none until it is written.
    allocated: Vec<bool>,
}

/// How a crash treats one file or one folder. Mixed is the worst case; the plain ones are what disks mostly do and reach deeper states.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    /// Everything up to a point in time or place, nothing after it.
    Prefix,
    Mixed,
}

impl Fate {
    fn draw(rng: &mut ChaCha8Rng) -> Fate {
        match rng.random_range(0..6) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            2 => Fate::Prefix,
            _ => Fate::Mixed,
        }
    }
}

fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
    from / SECTOR..to.div_ceil(SECTOR)
}

fn sector_of(bytes: &[u8], sector: usize) -> Vec<u8> {
    let start = (sector * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    let mut copy = bytes[start..end].to_vec();
    copy.resize(SECTOR, 0);
    copy
}

impl Inode {
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn read(&self, at: usize, len: usize) -> &[u8] {
        let start = at.min(self.cache.len());
        let end = at.saturating_add(len).min(self.cache.len());
        &self.cache[start..end]
    }

    /// The bytes of new space a write needs.
    pub(super) fn space_needed(&self, at: usize, len: usize) -> usize {
        sectors(at, at + len).filter(|sector| self.allocated.get(*sector) != Some(&true)).count() * SECTOR
    }

    fn space_used(&self) -> usize {
        self.allocated.iter().filter(|taken| **taken).count() * SECTOR
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.lens.push(end);
        }
        self.cache[at..end].copy_from_slice(bytes);
        self.touch(at, end);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let old = self.cache.len();
        if len < old {
            self.cache[len..].fill(0);
            self.touch(len, old);
            self.allocated.truncate(len.div_ceil(SECTOR));
        }
        self.cache.resize(len, 0);
        self.lens.push(len);
    }

    fn touch(&mut self, from: usize, to: usize) {
        let end = to.div_ceil(SECTOR);
        if self.allocated.len() < end {
            self.allocated.resize(end, false);
        }
        for sector in sectors(from, to) {
            self.dirty.entry(sector).or_default().push(sector_of(&self.cache, sector));
            self.allocated[sector] = true;
        }
    }

    fn put_on_disk(&mut self, sector: usize, content: &[u8]) {
        let start = sector * SECTOR;
        if self.disk.len() < start + SECTOR {
            self.disk.resize(start + SECTOR, 0);
        }
        self.disk[start..start + SECTOR].copy_from_slice(content);
    }

    /// Only dirty sectors are written: one that a failed sync dropped stays lost, however often it is synced again.
    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let content = sector_of(&self.cache, sector);
            self.put_on_disk(sector, &content);
        }
        self.set_disk_len(self.cache.len());
        self.lens.clear();
    }

    /// What Linux does when writing back fails: the pages are marked clean whether or not they reached the disk, some of them are evicted
    /// and read back as they were before, and the next sync succeeds.
    pub(super) fn fail_sync(&mut self, rng: &mut ChaCha8Rng) {
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            match rng.random_range(0..4) {
                0 | 1 => self.put_on_disk(sector, versions.last().expect("a dirty sector has a version")),
                2 => {}
                _ => self.evict(sector),
            }
        }
    }

    fn evict(&mut self, sector: usize) {
        let on_disk = sector_of(&self.disk, sector);
        let start = (sector * SECTOR).min(self.cache.len());
        let end = (start + SECTOR).min(self.cache.len());
        self.cache[start..end].copy_from_slice(&on_disk[..end - start]);
    }

    fn set_disk_len(&mut self, len: usize) {
        let cut = len.min(self.disk.len());
        self.disk.truncate(cut);
        self.disk_len = len;
    }

    pub(super) fn lose_power(&mut self, rng: &mut ChaCha8Rng) {
        let fate = Fate::draw(rng);
        let dirty = std::mem::take(&mut self.dirty);
        let cut = rng.random_range(0..=dirty.len());
        for (index, (sector, versions)) in dirty.into_iter().enumerate() {
            let survived = match fate {
                Fate::Kept => versions.last().cloned(),
                Fate::Lost => None,
                Fate::Prefix if index < cut => versions.last().cloned(),
                Fate::Prefix if index == cut => Some(self.torn(sector, &versions, rng)),
                Fate::Prefix => None,
                Fate::Mixed => match rng.random_range(0..8) {
                    0..4 => versions.last().cloned(),
                    4 | 5 => None,
                    6 => Some(versions[rng.random_range(0..versions.len())].clone()),
                    _ => Some(self.torn(sector, &versions, rng)),
                },
            };
            if let Some(content) = survived {
                self.put_on_disk(sector, &content);
            }
        }
        let sizes = std::mem::take(&mut self.lens);
        let len = match (fate, sizes.last()) {
            (_, None) | (Fate::Lost, _) => self.disk_len,
            (Fate::Kept, Some(last)) => *last,
            (Fate::Prefix | Fate::Mixed, Some(_)) => *sizes.get(rng.random_range(0..sizes.len() * 2)).or(sizes.last()).expect("not empty"),
        };
        self.set_disk_len(len);
        self.cache = self.disk.clone();
        self.cache.resize(len, 0);
        self.allocated.truncate(len.div_ceil(SECTOR));
    }

    /// The front of one version and the back of the one before it.
    fn torn(&self, sector: usize, versions: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
        let newer = rng.random_range(0..versions.len());
        let older = if newer == 0 { sector_of(&self.disk, sector) } else { versions[newer - 1].clone() };
        let at = rng.random_range(0..SECTOR);
        let mut content = versions[newer][..at].to_vec();
        content.extend_from_slice(&older[at..]);
        content
    }

    /// Rot: one bit of what was synced is read differently from now on.
    pub(super) fn flip(&mut self, at: usize, bit: u8) {
        for copy in [&mut self.cache, &mut self.disk] {
            if let Some(byte) = copy.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    pub(super) fn synced_len(&self) -> usize {
        self.disk_len
    }
}

/// One change of a folder: atomic, and durable once the folder is synced.
#[derive(Debug)]
struct NameChange {
    folder: PathBuf,
    sets: Vec<(PathBuf, Option<u64>)>,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced: Vec<NameChange>,
    next_inode: u64,
}

impl Disk {
    pub(super) fn find(&self, path: &Path) -> Option<u64> {
        self.names.get(path).copied()
    }

    pub(super) fn name_of(&self, inode: u64) -> String {
        let name = self.names.iter().find(|(_, named)| **named == inode);
        name.map_or_else(|| format!("unnamed {inode}"), |(path, _)| path.display().to_string())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, &Inode)> {
        self.names.iter().map(|(path, inode)| (path, &self.inodes[inode]))
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.change(path, vec![(path.to_owned(), Some(self.next_inode))]);
        self.next_inode
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(path, vec![(path.to_owned(), None)]);
    }

    pub(super) fn rename(&mut self, inode: u64, from: &Path, to: &Path) {
        self.change(to, vec![(to.to_owned(), Some(inode)), (from.to_owned(), None)]);
    }

    fn change(&mut self, path: &Path, sets: Vec<(PathBuf, Option<u64>)>) {
        apply(&mut self.names, &sets);
        self.unsynced.push(NameChange { folder: parent(path).to_owned(), sets });
    }

    pub(super) fn sync_folder(&mut self, folder: &Path) {
        for change in std::mem::take(&mut self.unsynced) {
            if change.folder == folder {
                apply(&mut self.durable_names, &change.sets);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    pub(super) fn space_used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[inode].space_used()).sum()
    }

    pub(super) fn lose_power(&mut self, rng: &mut ChaCha8Rng) {
        let fate = Fate::draw(rng);
        let changes = std::mem::take(&mut self.unsynced);
        let cut = rng.random_range(0..=changes.len());
        for (index, change) in changes.into_iter().enumerate() {
            let survived = match fate {
                Fate::Kept => true,
                Fate::Lost => false,
                Fate::Prefix => index < cut,
                Fate::Mixed => rng.random_bool(0.5),
            };
            if survived {
                apply(&mut self.durable_names, &change.sets);
            }
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        for inode in self.inodes.values_mut() {
            inode.lose_power(rng);
        }
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, sets: &[(PathBuf, Option<u64>)]) {
    for (path, inode) in sets {
        match inode {
            Some(inode) => names.insert(path.clone(), *inode),
            None => names.remove(path),
        };
    }
}
