//! A disk that fails as disks are allowed to, the same way for the same seed: the proof of what the log promises.
//!
//! Owns when a call fails: scripted, by chance, for want of space, or because the power went; `disk` owns what a failure leaves behind.
//! Reads and writes are linear and single-threaded runs are reproducible; with several threads only the promises hold, not the order.

mod disk;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::disk::{Disk, parent};
use super::{File, Fs, Lock};
pub use disk::Crash;

/// What can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Read,
    Write,
    Sync,
    /// Create, rename, remove.
    Name,
    SyncFolder,
}

/// The chance in a thousand that a call fails by itself with EIO.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub read: u32,
    /// A read that returns fewer bytes than asked for, which is no error.
    pub short_read: u32,
    /// Some of the bytes are written all the same.
    pub write: u32,
    /// Some of the bytes are durable all the same, and the next sync succeeds without them.
    pub sync: u32,
    pub name: u32,
    pub sync_folder: u32,
}

impl Faults {
    fn of(&self, call: Call) -> u32 {
        match call {
            Call::Read => self.read,
            Call::Write => self.write,
            Call::Sync => self.sync,
            Call::Name => self.name,
            Call::SyncFolder => self.sync_folder,
        }
    }
}

/// A handle on a simulated disk; clones share it.
#[derive(Clone)]
pub struct SimFs {
    machine: Arc<Mutex<Machine>>,
}

struct Machine {
    disk: Disk,
    rng: ChaCha8Rng,
    faults: Faults,
    scripted: BTreeMap<Call, u32>,
    capacity: Option<usize>,
    copies_on_write: bool,
    locks: BTreeMap<PathBuf, String>,
    /// Changes until the power goes.
    changes_left: Option<u64>,
    changes: u64,
    off: bool,
    /// What was called and what came of it, if somebody wants to know.
    story: Option<Vec<String>>,
}

struct SimFile {
    machine: Arc<Mutex<Machine>>,
    inode: u64,
    writable: bool,
}

struct SimLock {
    machine: Arc<Mutex<Machine>>,
    path: PathBuf,
}

impl SimFs {
    pub fn new(seed: u64) -> Self {
        Self::on(Disk::default(), seed)
    }

    fn on(disk: Disk, seed: u64) -> Self {
        let machine = Machine {
            disk,
            rng: ChaCha8Rng::seed_from_u64(seed),
            faults: Faults::default(),
            scripted: BTreeMap::new(),
            capacity: None,
            copies_on_write: false,
            locks: BTreeMap::new(),
            changes_left: None,
            changes: 0,
            off: false,
            story: None,
        };
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    /// Replaces every chance, and takes back what was scripted.
    pub fn set_faults(&self, faults: Faults) {
        let mut machine = self.machine.lock();
        machine.faults = faults;
        machine.scripted.clear();
    }

    /// The next `times` calls of this kind fail with EIO.
    pub fn fail_next(&self, call: Call, times: u32) {
        self.machine.lock().scripted.insert(call, times);
    }

    /// Writes that need more space than this in total fail with ENOSPC.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.machine.lock().capacity = bytes;
    }

    /// As on btrfs or ZFS: writing over what is there needs space too.
    pub fn set_copies_on_write(&self, copies: bool) {
        self.machine.lock().copies_on_write = copies;
    }

    pub fn space_used(&self) -> usize {
        self.machine.lock().disk.space_used()
    }

    /// Cuts the power after this many more changes (writes, syncs, names): every call after that fails.
    pub fn power_off_after(&self, changes: u64) {
        self.machine.lock().changes_left = Some(changes);
    }

    /// How many changes were made so far.
    pub fn changes(&self) -> u64 {
        self.machine.lock().changes
    }

    pub fn is_off(&self) -> bool {
        self.machine.lock().off
    }

    /// Keeps a line for every change from now on, for whoever looks for the reason of a failure.
    pub fn keep_story(&self) {
        self.machine.lock().story = Some(Vec::new());
    }

    /// The lines kept since the last call.
    pub fn take_story(&self) -> Vec<String> {
        self.machine.lock().story.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Stops the machine and starts it again: the disk as `crash` and `seed` leave it, without faults. Handles of before are dead.
    pub fn crash(&self, crash: Crash, seed: u64) -> SimFs {
        let mut machine = self.machine.lock();
        machine.off = true;
        machine.locks.clear();
        let next = SimFs::on(std::mem::take(&mut machine.disk), seed);
        next.machine.lock().story = machine.story.as_ref().map(|_| Vec::new());
        if crash == Crash::Power {
            let Machine { disk, rng, .. } = &mut *next.machine.lock();
            disk.lose_power(rng);
        }
        next
    }

    /// Every file with its synced length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let machine = self.machine.lock();
        machine.disk.files().map(|(path, inode)| (path.clone(), inode.synced_len() as u64)).collect()
    }

    /// Rot: flips one bit of a file, on the disk and in the cache.
    pub fn flip_bit(&self, path: &Path, at: u64, bit: u8) {
        let disk = &mut self.machine.lock().disk;
        let inode = disk.find(path).expect("a file to damage");
        disk.inodes.get_mut(&inode).expect("a named inode exists").flip(at as usize, bit);
    }

    fn change(&self, call: Call) -> io::Result<MutexGuard<'_, Machine>> {
        change(&self.machine, call)
    }
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn powered(machine: &Mutex<Machine>) -> io::Result<MutexGuard<'_, Machine>> {
    let machine = machine.lock();
    if machine.off { Err(io::Error::other("the power is off")) } else { Ok(machine) }
}

/// Enters a call that changes something, which is where the power may go.
fn change(machine: &Mutex<Machine>, call: Call) -> io::Result<MutexGuard<'_, Machine>> {
    let mut machine = powered(machine)?;
    if machine.changes_left == Some(0) {
        machine.off = true;
        machine.tell(|_| format!("the power went off at {call:?}"));
        return Err(io::Error::other("the power went off"));
    }
    machine.changes_left = machine.changes_left.map(|left| left - 1);
    machine.changes += 1;
    // Writes and syncs leave something behind when they fail, so they ask for themselves.
    if !matches!(call, Call::Write | Call::Sync) && machine.fails(call) {
        return Err(io_error());
    }
    Ok(machine)
}

impl Machine {
    fn fails(&mut self, call: Call) -> bool {
        if let Some(times) = self.scripted.get_mut(&call).filter(|times| **times > 0) {
            *times -= 1;
            return true;
        }
        let chance = self.faults.of(call);
        chance > 0 && self.rng.random_range(0..1000) < chance
    }

    fn tell(&mut self, line: impl FnOnce(&Disk) -> String) {
        if let Some(story) = &mut self.story {
            story.push(line(&self.disk));
        }
    }

    fn space_needed(&mut self, inode: u64, at: usize, len: usize) -> io::Result<usize> {
        if self.copies_on_write {
            return Ok(len.next_multiple_of(disk::SECTOR));
        }
        Ok(self.inode(inode)?.space_needed(at, len))
    }

    fn space_left(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.disk.space_used()))
    }

    fn inode(&mut self, inode: u64) -> io::Result<&mut disk::Inode> {
        self.disk.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn folder_exists(&self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || self.disk.folders.contains(folder) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut machine = powered(&self.machine)?;
        if machine.fails(Call::Read) {
            return Err(io_error());
        }
        let mut wanted = buf.len();
        let short_read = machine.faults.short_read;
        if wanted > 1 && short_read > 0 && machine.rng.random_range(0..1000) < short_read {
            wanted = machine.rng.random_range(1..wanted);
        }
        let content = machine.inode(self.inode)?.read(at as usize, wanted);
        buf[..content.len()].copy_from_slice(content);
        Ok(content.len())
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut machine = change(&self.machine, Call::Write)?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let at = at as usize;
        let failure = if machine.fails(Call::Write) {
            Some(io_error())
        } else if machine.space_needed(self.inode, at, buf.len())? > machine.space_left() {
            Some(no_space())
        } else {
            None
        };
        let inode = self.inode;
        machine.tell(|disk| format!("write {} bytes at {at} of {}: {failure:?}", buf.len(), disk.name_of(inode)));
        let Some(failure) = failure else {
            machine.inode(self.inode)?.write(at, buf);
            return Ok(());
        };
        let mut written = machine.rng.random_range(0..=buf.len());
        while machine.space_needed(self.inode, at, written)? > machine.space_left() {
            written /= 2;
        }
        machine.inode(self.inode)?.write(at, &buf[..written]);
        Err(failure)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = change(&self.machine, Call::Sync)?;
        let failed = machine.fails(Call::Sync);
        machine.tell(|disk| format!("sync {}, failed: {failed}", disk.name_of(self.inode)));
        let Machine { disk, rng, .. } = &mut *machine;
        let inode = disk.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        if failed {
            inode.fail_sync(rng);
            return Err(io_error());
        }
        inode.sync();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = change(&self.machine, Call::Write)?;
        if machine.fails(Call::Write) {
            return Err(io_error());
        }
        machine.tell(|disk| format!("set the length of {} to {len}", disk.name_of(self.inode)));
        machine.inode(self.inode)?.set_len(len as usize);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(powered(&self.machine)?.inode(self.inode)?.len() as u64)
    }
}

impl Fs for SimFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut machine = self.change(Call::Name)?;
        machine.folder_exists(parent(path))?;
        if machine.disk.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if machine.space_left() < disk::SECTOR {
            return Err(no_space());
        }
        machine.tell(|_| format!("create {}", path.display()));
        let inode = machine.disk.create(path);
        Ok(Arc::new(SimFile { machine: Arc::clone(&self.machine), inode, writable: true }))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        let inode = powered(&self.machine)?.disk.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { machine: Arc::clone(&self.machine), inode, writable: write }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.change(Call::Name)?;
        machine.disk.find(path).ok_or(io::ErrorKind::NotFound)?;
        machine.tell(|_| format!("remove {}", path.display()));
        machine.disk.remove(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.change(Call::Name)?;
        assert_eq!(parent(from), parent(to), "a rename between folders has two folders to sync; this disk knows one");
        let inode = machine.disk.find(from).ok_or(io::ErrorKind::NotFound)?;
        machine.tell(|_| format!("rename {} to {}", from.display(), to.display()));
        machine.disk.rename(inode, from, to);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.change(Call::Name)?;
        machine.disk.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let machine = powered(&self.machine)?;
        machine.folder_exists(dir)?;
        let files = machine.disk.files().map(|(path, _)| path);
        let inside: BTreeSet<&PathBuf> =
            files.chain(&machine.disk.folders).filter(|path| parent(path) == dir && path.as_path() != dir).collect();
        Ok(inside.into_iter().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let machine = self.machine.lock();
        machine.disk.find(path).is_some() || machine.disk.folders.contains(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.change(Call::SyncFolder)?;
        machine.folder_exists(dir)?;
        machine.tell(|_| format!("sync folder {}", dir.display()));
        machine.disk.sync_folder(dir);
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(powered(&self.machine)?.space_left() as u64)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let mut machine = self.change(Call::Name)?;
        if let Some(held_by) = machine.locks.get(path) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, held_by.clone()));
        }
        machine.folder_exists(parent(path))?;
        if machine.disk.find(path).is_none() {
            machine.disk.create(path);
        }
        machine.locks.insert(path.to_owned(), holder.to_owned());
        Ok(Box::new(SimLock { machine: Arc::clone(&self.machine), path: path.to_owned() }))
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.machine.lock().locks.get(path).cloned())
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.machine.lock().locks.remove(&self.path);
    }
}
