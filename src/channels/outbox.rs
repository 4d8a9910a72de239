//! The outbox folder: one `KEY.eml` for each message, the channel that needs nothing else.
//!
//! A file is written beside its name, synced and then renamed, so under its name it is whole, whatever crashes. A message whose name is
//! there was sent: sending it again says so and changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Failure, Sent, check};
use super::mail::Mail;
use crate::env::fs::Fs;
use crate::permit::{EffectKey, SendPermit};

/// What a file is called that is not whole yet.
const PART: &str = "part";

/// One folder of messages. Blocking: call it where blocking is allowed.
pub struct Outbox {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
}

impl Outbox {
    /// Makes the folder if it is not there, and clears away what a crash has left half written. Somebody who is writing meanwhile, into the
    /// same folder, hears that it did not work and writes again.
    pub fn open(fs: Arc<dyn Fs>, folder: &Path) -> io::Result<Self> {
        fs.create_dir_all(folder)?;
        for path in fs.list(folder)?.iter().filter(|path| path.extension().is_some_and(|extension| extension == PART)) {
            fs.remove(path)?;
        }
        Ok(Self { fs, folder: folder.to_owned() })
    }

    pub fn path(&self, key: EffectKey) -> PathBuf {
        self.folder.join(format!("{key}.eml"))
    }

    /// Whether a message was sent, so that it stays so.
    pub fn has(&self, key: EffectKey) -> io::Result<bool> {
        let is_there = self.fs.exists(&self.path(key));
        if is_there {
            self.fs.sync_dir(&self.folder)?;
        }
        Ok(is_there)
    }

    pub fn send(&self, permit: SendPermit, mail: &Mail) -> Result<Sent, Failure> {
        check(&permit, "email", mail.key)?;
        let path = self.path(mail.key);
        if self.fs.exists(&path) {
            // Whoever wrote it may have died before its name was durable.
            self.fs.sync_dir(&self.folder).map_err(|error| Failure::Unknown(error.to_string()))?;
            return Ok(Sent::Before);
        }
        // The executor's own name: two at once, which no permit allows, would still not write into one file.
        let beside = self.folder.join(format!("{}.{}.{PART}", mail.key, permit.executor()));
        self.write(&beside, &mail.bytes).map_err(|error| Failure::Passing(error.to_string()))?;
        self.fs.rename(&beside, &path).map_err(|error| Failure::Passing(error.to_string()))?;
        self.fs.sync_dir(&self.folder).map_err(|error| Failure::Unknown(error.to_string()))?;
        Ok(Sent::Now(path.display().to_string()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.fs.exists(path) {
            self.fs.remove(path)?;
        }
        let file = self.fs.create(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    }
}
