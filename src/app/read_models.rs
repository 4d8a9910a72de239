//! Where the configuration says that the read models are.

use super::Folder;
use crate::config::Config;
use crate::projections::{Backend, Error, Place};

/// The data folder's own, or the database of `postgres.url`. Nothing is connected to yet.
pub fn read_models(config: &Config) -> Result<Place, Error> {
    match config.read.backend {
        Backend::Sqlite => Ok(Folder::new(&config.data.dir).read().into()),
        Backend::Postgres => Place::postgres(&config.postgres),
    }
}

/// Asks, before anything is opened, whether read models can be there: what no waiting would heal ends the start. What may be there later is
/// said; until then projectors try again and health says why SQL stands still, while events are taken and folded.
pub async fn check_read_models(config: &Config) -> Result<(), Error> {
    match read_models(config)?.check().await {
        Err(error @ Error::Unreachable { .. }) => {
            tracing::warn!(%error, "the read models' database is not there; SQL stands still until it is");
            Ok(())
        }
        checked => checked,
    }
}
