//! The data folder: what lies where, and how another process finds the server that runs on it.
//!
//! ```text
//! DATA/log          the embedded log, the only truth
//! DATA/state        snapshots of the folds; deleted, it is rebuilt
//! DATA/read         one SQLite file per namespace; deleted, it is rebuilt
//! DATA/outbox       messages that went to no mail server, one folder per namespace
//! DATA/server.json  address and admin token of the running server, readable by its owner only
//! DATA/instance     who this process is to others of a cluster
//! DATA/link.key     what links in messages are signed with unless the configuration says, readable by its owner only
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::Namespace;

const LINK_KEY: &str = "link.key";

#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// What the running server tells other processes of its owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contact {
    pub pid: u32,
    pub url: String,
    pub admin_token: String,
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub fn read(&self) -> PathBuf {
        self.0.join("read")
    }

    /// Where a namespace's mail goes if no server is configured.
    pub fn outbox(&self, namespace: &Namespace) -> PathBuf {
        self.0.join("outbox").join(namespace.as_str())
    }

    /// The URL that this process serves on, or would if it did.
    pub fn served(&self, listen: &str) -> String {
        let own = self.contact().filter(|contact| contact.pid == std::process::id());
        own.map_or_else(|| format!("http://{listen}"), |contact| contact.url)
    }

    fn contact_path(&self) -> PathBuf {
        self.0.join("server.json")
    }

    /// What the last server to start here wrote; it may have died since.
    pub fn contact(&self) -> Option<Contact> {
        serde_json::from_reader(File::open(self.contact_path()).ok()?).ok()
    }

    pub fn write_contact(&self, contact: &Contact) -> std::io::Result<()> {
        let temporary = self.0.join("server.json.new");
        // An earlier one that was cut short; it would keep its permissions.
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(serde_json::to_string_pretty(contact).expect("a contact is JSON").as_bytes())?;
        std::fs::rename(temporary, self.contact_path())
    }

    /// Who a process of this folder is to others: as it was set, or a name made once, which outlives it.
    pub fn instance(&self, set: &str) -> std::io::Result<String> {
        if !set.is_empty() {
            return Ok(set.to_owned());
        }
        let path = self.0.join("instance");
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        std::fs::write(&path, &name)?;
        Ok(name)
    }

    /// The key that links are signed with where none is configured; made when first asked for. Lost, every link sent so far is dead.
    pub fn link_key(&self) -> std::io::Result<String> {
        let path = self.0.join(LINK_KEY);
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let key = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        // Whole or not at all, and whoever was first wins.
        let temporary = self.0.join(format!("{LINK_KEY}.{}", uuid::Uuid::new_v4().simple()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(key.as_bytes())?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&temporary, &path);
        std::fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(std::fs::read_to_string(&path)?.trim().to_owned()),
            linked => linked.map(|()| key),
        }
    }

    /// Copies the key beside a backup, or from it into a folder that has none. Says whether there was one.
    pub fn copy_link_key(from: &Path, to: &Path) -> std::io::Result<bool> {
        let [from, to] = [from, to].map(|folder| folder.join(LINK_KEY));
        let key = match std::fs::read(from) {
            Ok(key) => key,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(to) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(true),
            file => file?,
        };
        file.write_all(&key)?;
        file.sync_all().map(|()| true)
    }

    pub fn remove_contact(&self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(self.contact_path());
    }
}
