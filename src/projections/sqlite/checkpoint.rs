//! Keeping the write-ahead file small without making commits wait for it.
//!
//! A second connection moves its pages into the database while the tail goes on committing; when it is done, the tail moves the few
//! pages that came meanwhile itself. Only then can SQLite begin the file anew, so this last short step is what bounds its size.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::task::JoinHandle;

use crate::projections::Error;

/// Where a checkpoint begins. Larger costs recovery and cache, smaller moves pages that are about to change again.
const WAL_BYTES_CHECKPOINT: u64 = 48 << 20;

pub struct Checkpoints {
    path: PathBuf,
    wal: PathBuf,
    /// The one in progress.
    running: Option<JoinHandle<Result<SqliteConnection, Error>>>,
    /// The second connection between checkpoints.
    idle: Option<SqliteConnection>,
}

impl Checkpoints {
    pub fn new(path: &Path) -> Self {
        let mut wal = path.to_owned().into_os_string();
        wal.push("-wal");
        Self { path: path.to_owned(), wal: wal.into(), running: None, idle: None }
    }

    /// Called between transactions: begins a checkpoint beside if the file has grown, or completes one that is done.
    pub async fn tend(&mut self, writer: &mut SqliteConnection) -> Result<(), Error> {
        if let Some(running) = &self.running {
            if running.is_finished() {
                self.settle().await?;
                move_pages(writer).await?;
            }
            return Ok(());
        }
        if self.wal_bytes() < WAL_BYTES_CHECKPOINT {
            return Ok(());
        }
        let idle = self.idle.take();
        let path = self.path.clone();
        self.running = Some(tokio::spawn(async move {
            let mut connection = match idle {
                Some(connection) => connection,
                None => super::write_options(&path).connect().await.map_err(Error::sql("open for checkpoints"))?,
            };
            move_pages(&mut connection).await?;
            Ok(connection)
        }));
        Ok(())
    }

    /// Moves everything now, on the writer.
    pub async fn complete(&mut self, writer: &mut SqliteConnection) -> Result<(), Error> {
        self.settle().await?;
        move_pages(writer).await
    }

    /// True if there is enough to be worth a pause of the writer.
    pub fn is_due(&self) -> bool {
        self.wal_bytes() >= WAL_BYTES_CHECKPOINT
    }

    async fn settle(&mut self) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            // A task that was cut off with its runtime gives no connection back; the next checkpoint opens another.
            self.idle = running.await.ok().transpose()?;
        }
        Ok(())
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(&self.wal).map_or(0, |meta| meta.len())
    }
}

async fn move_pages(connection: &mut SqliteConnection) -> Result<(), Error> {
    let passive = sqlx::query(AssertSqlSafe("PRAGMA wal_checkpoint(PASSIVE)"));
    passive.fetch_one(connection).await.map_err(Error::sql("checkpoint")).map(drop)
}
