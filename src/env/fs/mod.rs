//! The door to the disk: every file the log touches goes through [`Fs`].
//!
//! The contract is POSIX's worst case: bytes written are durable only after `sync_data` on that file returned; a file's name is durable
//! only after `sync_dir` on its folder returned; a failed sync says nothing about what reached the disk.
//! `real` is the machine's disk, `sim` one that behaves as badly as the contract allows, from a seed.

mod real;
pub mod sim;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use real::RealFs;
pub use sim::SimFs;

#[expect(clippy::len_without_is_empty, reason = "a file's length can fail, and nobody asks whether one is empty")]
/// An open file. Positional reads and writes only, so that no cursor is shared.
pub trait File: Send + Sync {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Fails with `UnexpectedEof` if the file ends within `buf`.
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()>;
    /// Makes the content durable (fdatasync: data and size, not times).
    fn sync_data(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
}

/// Held for as long as this process owns a folder; released on drop and when the process dies.
pub trait Lock: Send + Sync {}

pub trait Fs: Send + Sync {
    /// Creates a new file for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file, for writing too if `write`.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Atomically replaces `to` by `from`; durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The folders made are durable when it returns.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Every file and folder in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    fn exists(&self, path: &Path) -> bool;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Space left for files in `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the lock file at `path` for `holder`, or fails with `WouldBlock` and, as the message, who holds it.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>>;
    /// Who holds the lock file at `path` now, if anyone.
    fn holder(&self, path: &Path) -> io::Result<Option<String>>;
}
