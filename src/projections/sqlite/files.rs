//! The files of a namespace's read model: `NS-<generation>.db`, and `NS.current`, the pointer that says which one is in force.
//!
//! A rebuild fills the next generation beside the current one; replacing the pointer is the swap. The pointer is replaced by rename, so
//! a reader sees the old or the new number and never half of one.

use std::fs::TryLockError;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::domain::Namespace;
use crate::projections::Error;

/// Every namespace that has a read model in `dir`, by name.
pub fn namespaces(dir: &Path) -> Result<Vec<Namespace>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(dir))?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".current"));
        found.extend(name.and_then(|name| Namespace::new(name).ok()));
    }
    found.sort();
    Ok(found)
}

/// Where a namespace's read model lives.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    namespace: Namespace,
}

impl Files {
    pub fn new(dir: &Path, namespace: &Namespace) -> Self {
        Self { dir: dir.to_owned(), namespace: namespace.clone() }
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn db(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("{}-{generation}.db", self.namespace))
    }

    /// The generation in force, if there is one.
    pub fn current(&self) -> Result<Option<u64>, Error> {
        let path = self.pointer();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// A number no file has been named with.
    pub fn next(&self) -> Result<u64, Error> {
        std::fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir))?;
        let newest = self.existing()?.into_iter().max().unwrap_or(0);
        Ok(newest.max(self.current()?.unwrap_or(0)) + 1)
    }

    /// Puts a generation in force. The file must hold everything already.
    pub fn switch_to(&self, generation: u64) -> Result<(), Error> {
        let (path, draft) = (self.pointer(), self.dir.join(format!("{}.current.new", self.namespace)));
        let mut file = std::fs::File::create(&draft).map_err(Error::io(&draft))?;
        writeln!(file, "{generation}").and_then(|()| file.sync_all()).map_err(Error::io(&draft))?;
        std::fs::rename(&draft, &path).map_err(Error::io(&path))?;
        std::fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Error::io(&self.dir))
    }

    /// Removes every file but the one in force: what a swap replaced, and what an interrupted rebuild left.
    pub fn remove_others(&self) -> Result<(), Error> {
        let current = self.current()?;
        for generation in self.existing()? {
            if Some(generation) != current {
                self.remove(generation)?;
            }
        }
        Ok(())
    }

    pub fn remove(&self, generation: u64) -> Result<(), Error> {
        let db = self.db(generation);
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = db.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// One rebuild at a time: the second would remove the first one's file.
    pub fn lock(&self) -> Result<std::fs::File, Error> {
        std::fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir))?;
        let path = self.dir.join(format!("{}.rebuild.lock", self.namespace));
        let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::RebuildRuns(self.namespace.to_string())),
            Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
        }
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join(format!("{}.current", self.namespace))
    }

    fn existing(&self) -> Result<Vec<u64>, Error> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(&self.dir)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(&self.dir))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".db"));
            let Some((namespace, generation)) = stem.and_then(|stem| stem.rsplit_once('-')) else { continue };
            if namespace == self.namespace.as_str() {
                found.extend(generation.parse::<u64>().ok());
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_names_the_generation_in_force_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let shop = Files::new(dir.path(), &Namespace::new("shop").unwrap());
        let shop_2 = Files::new(dir.path(), &Namespace::new("shop-2").unwrap());
        assert_eq!(shop.current().unwrap(), None);
        for generation in [1, 2, 3] {
            std::fs::write(shop.db(generation), "").unwrap();
        }
        std::fs::write(shop_2.db(9), "").unwrap();
        assert_eq!(shop.next().unwrap(), 4);
        shop.switch_to(2).unwrap();
        shop.remove_others().unwrap();
        assert_eq!((shop.current().unwrap(), shop.existing().unwrap()), (Some(2), vec![2]));
        assert_eq!(shop_2.existing().unwrap(), vec![9], "another namespace's files are not touched");
    }
}
