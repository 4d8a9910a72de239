//! The machine's disk, through `std::fs`.
//!
//! Owns nothing but the translation: positional I/O, `fdatasync` for files, `fsync` for folders, `flock` for the writer's lock.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{File, Fs, Lock};

/// Tries, a millisecond apart, before the lock counts as held.
const LOCK_TRIES: usize = 10;

#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

struct RealFile(fs::File);

/// The lock ends with the open file: on drop, and when the process dies.
struct RealLock {
    _file: fs::File,
}

impl Lock for RealLock {}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(buf, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Fs for RealFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
        fs::create_dir_all(path)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            self.sync_dir(parent)?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: statvfs reads a string that ends with zero and fills the struct it is given.
        let stat = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            if libc::statvfs(path.as_ptr(), &mut stat) != 0 {
                return Err(io::Error::last_os_error());
            }
            stat
        };
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        // The file stays when the lock goes: unlinking it would let two processes lock two files of the same name.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut held_by = String::new();
                file.read_to_string(&mut held_by)?;
                return Err(io::Error::new(io::ErrorKind::WouldBlock, held_by));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(holder.as_bytes())?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        let mut file = match OpenOptions::new().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut held_by = String::new();
                file.read_to_string(&mut held_by)?;
                Ok(Some(held_by))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Someone who asks for the holder has the lock for a moment, shared: that must not keep a writer out.
fn try_lock(file: &fs::File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(Duration::from_millis(1)),
            result => return result,
        }
    }
    file.try_lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_with_its_holders_name_and_freed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = RealFs.lock(&path, "process 7").unwrap();
        assert_eq!(RealFs.holder(&path).unwrap().as_deref(), Some("process 7"));
        let refused = RealFs.lock(&path, "process 8").err().unwrap();
        assert_eq!((refused.kind(), refused.to_string().as_str()), (io::ErrorKind::WouldBlock, "process 7"));
        drop(held);
        assert_eq!(RealFs.holder(&path).unwrap(), None);
        RealFs.lock(&path, "process 8").unwrap();
    }

    #[test]
    fn files_are_read_and_written_by_position() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        RealFs.create_dir_all(&deep).unwrap();
        let path = deep.join("file");
        let file = RealFs.create(&path).unwrap();
        file.write_all_at(b"world", 6).unwrap();
        file.write_all_at(b"hello ", 0).unwrap();
        file.sync_data().unwrap();
        let mut content = [0; 11];
        RealFs.open(&path, false).unwrap().read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"hello world");
        assert_eq!(file.read_exact_at(&mut content, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(RealFs.create(&path).is_err(), "creating what exists fails");
        assert_eq!(RealFs.list(&deep).unwrap(), [path]);
    }
}
