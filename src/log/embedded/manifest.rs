//! The manifest: what the folder's files mean. One small text file, replaced atomically, never edited.
//!
//! First line `flywheel-log 1 CRC LENGTH` (CRC-32C of the body as eight hex digits, length of the body in bytes), then the body as JSON.
//! It is true as of `sorted_through`: frames after that sequence are in write-ahead files from `wal_first` on.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Duration, Incarnation, Millis, Offset, PartitionId};
use crate::env::fs::Fs;
use crate::log::{Cleanup, Committed, Error, Retention, TopicId, TopicInfo, TopicName, TopicPartition, TopicSpec};

pub(super) const NAME: &str = "MANIFEST";
const SCRATCH_NAME: &str = "MANIFEST.new";
const FIRST_WORD: &str = "flywheel-log";
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Rises with every replacement.
    pub generation: u64,
    pub incarnation: u32,
    /// Rises with every opening for writing.
    pub epoch: u64,
    /// The mark of the folder that this manifest belongs to; empty in a backup.
    pub instance: String,
    /// Frames up to this sequence are in segments.
    pub sorted_through: u64,
    /// Write-ahead files below this number are done with.
    pub wal_first: u64,
    /// Files get numbers from here on.
    pub next_file: u64,
    pub last_append_ms: i64,
    pub topics: Vec<Topic>,
    pub partitions: Vec<Partition>,
    pub groups: Vec<GroupProgress>,
    pub pins: Vec<Pin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Topic {
    pub id: u32,
    pub name: String,
    pub partitions: u32,
    /// None: forever.
    pub retention_ms: Option<u64>,
    pub compact: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partition {
    pub topic: u32,
    pub partition: u32,
    pub start: u64,
    /// The end of what is in segments.
    pub end: u64,
    pub segments: Vec<SegmentMeta>,
    pub holes: Vec<Hole>,
}

impl Partition {
    pub(super) fn id(&self) -> TopicPartition {
        TopicPartition { topic: TopicId(self.topic), partition: PartitionId(self.partition) }
    }
}

/// One immutable file of records of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentMeta {
    pub file: u64,
    /// It answers for offsets in `[base, end)`, whether they hold a record or not.
    pub base: u64,
    pub end: u64,
    pub bytes: u64,
    pub records: u64,
    pub first_append_ms: i64,
    pub last_append_ms: i64,
    pub compacted: bool,
}

/// Offsets whose records were acknowledged and are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hole {
    pub from: u64,
    pub to: u64,
    /// An operator took note of it, as a new incarnation: readers pass over it.
    pub declared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupProgress {
    pub group: String,
    pub topic: u32,
    pub partition: u32,
    pub epoch: u64,
    /// The frame it was committed in: older frames do not take it back.
    pub sequence: u64,
    pub offset: Option<u64>,
    /// Base64.
    pub metadata: String,
}

impl GroupProgress {
    pub(super) fn committed(&self) -> Option<Committed> {
        let metadata = BASE64.decode(&self.metadata).unwrap_or_default();
        self.offset.map(|offset| Committed { offset: Offset(offset), metadata: Bytes::from(metadata) })
    }

    pub(super) fn encode_metadata(metadata: &[u8]) -> String {
        BASE64.encode(metadata)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    pub name: String,
    pub topic: u32,
    pub partition: u32,
    pub offset: u64,
}

impl Topic {
    pub(super) fn new(id: TopicId, spec: &TopicSpec) -> Topic {
        let retention_ms = match spec.retention {
            Retention::Forever => None,
            Retention::Age(age) => Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        };
        Topic {
            id: id.0,
            name: spec.name.as_str().to_owned(),
            partitions: spec.partitions,
            retention_ms,
            compact: spec.cleanup == Cleanup::Compact,
        }
    }

    pub(super) fn info(&self, incarnation: u32) -> Result<TopicInfo, Error> {
        let name = TopicName::parse(&self.name).ok_or_else(|| Error::Corrupt(format!("the manifest has a topic named {:?}", self.name)))?;
        let retention = self.retention_ms.map_or(Retention::Forever, |ms| Retention::Age(Duration::from_millis(ms)));
        let cleanup = if self.compact { Cleanup::Compact } else { Cleanup::Delete };
        let spec = TopicSpec { name, partitions: self.partitions, retention, cleanup };
        Ok(TopicInfo { id: TopicId(self.id), spec, incarnation: Incarnation(incarnation) })
    }
}

impl Manifest {
    pub(super) fn new(created: Millis) -> Manifest {
        Manifest {
            generation: 0,
            incarnation: 1,
            epoch: 0,
            instance: String::new(),
            sorted_through: 0,
            wal_first: 1,
            next_file: 1,
            last_append_ms: created.0,
            topics: Vec::new(),
            partitions: Vec::new(),
            groups: Vec::new(),
            pins: Vec::new(),
        }
    }

    pub(super) fn partition_mut(&mut self, id: TopicPartition) -> Option<&mut Partition> {
        self.partitions.iter_mut().find(|partition| partition.id() == id)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("a manifest has only numbers and text");
        let mut out = format!("{FIRST_WORD} {VERSION} {:08x} {}\n", crc32c::crc32c(&body), body.len()).into_bytes();
        out.extend_from_slice(&body);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let line_end = bytes.iter().take(80).position(|byte| *byte == b'\n').ok_or("its first line is missing")?;
        let line = std::str::from_utf8(&bytes[..line_end]).map_err(|_| "its first line is not text")?;
        let words: Vec<&str> = line.split(' ').collect();
        let [FIRST_WORD, version, crc, len] = words[..] else { return Err("its first line is not a manifest's".into()) };
        if version != VERSION.to_string() {
            return Err(format!("it has version {version}, this build reads version {VERSION}"));
        }
        let body = &bytes[line_end + 1..];
        if len != body.len().to_string() || crc != format!("{:08x}", crc32c::crc32c(body)) {
            return Err("its checksum does not match".into());
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    /// The manifest of a folder; `None` if the folder has none.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Manifest>, Error> {
        let path = dir.join(NAME);
        let bytes = match read_whole(fs, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()), &error)),
        };
        let manifest = Manifest::decode(&bytes).map_err(|why| Error::Corrupt(format!("{} cannot be read: {why}", path.display())))?;
        Ok(Some(manifest))
    }

    /// Replaces the folder's manifest. After a failure either of the two may be found, so nothing that the old one names may go.
    pub(super) fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
        let (scratch, path) = (dir.join(SCRATCH_NAME), dir.join(NAME));
        let failed = |error: std::io::Error| super::io_error("writing", &path, &error);
        if fs.exists(&scratch) {
            fs.remove(&scratch).map_err(failed)?;
        }
        let file = fs.create(&scratch).map_err(failed)?;
        file.write_all_at(&self.encode(), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        fs.rename(&scratch, &path).map_err(failed)?;
        fs.sync_dir(dir).map_err(failed)
    }
}

pub(super) fn read_whole(fs: &dyn Fs, path: &Path) -> std::io::Result<Vec<u8>> {
    let file = fs.open(path, false)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_damage_is_named() {
        let mut manifest = Manifest::new(Millis(3));
        manifest.pins.push(Pin { name: "backtest".into(), topic: 1, partition: 2, offset: 3 });
        let mut bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert_eq!(Manifest::decode(&bytes), Err("its checksum does not match".into()));
        let newer = b"flywheel-log 2 00000000 0\n";
        assert_eq!(Manifest::decode(newer), Err("it has version 2, this build reads version 1".into()));
    }
}
