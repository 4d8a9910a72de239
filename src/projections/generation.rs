//! The generations of a namespace's read model, numbered from 1: each is whole in itself, one is in force, and a rebuild fills the next one
//! beside it. Putting one in force is a single step: readers see the old or the new one and never half of one.

use super::sqlite::files::{self, Files};
use super::store::Store;
use super::{Error, Place, sqlite};
use crate::domain::Namespace;

/// Every namespace that has a read model in `place`, by name.
pub async fn namespaces(place: impl Into<Place>) -> Result<Vec<Namespace>, Error> {
    match place.into() {
        Place::Folder(dir) => files::namespaces(&dir),
        #[cfg(feature = "postgres")]
        Place::Postgres(postgres) => super::postgres::schemas::namespaces(&postgres).await,
    }
}

#[derive(Clone)]
pub enum Generations {
    Files(Files),
    #[cfg(feature = "postgres")]
    Schemas(super::postgres::schemas::Schemas),
}

/// Held while a namespace is rebuilt: a second rebuild would remove the first one's generation.
pub enum RebuildLock {
    File(#[expect(dead_code, reason = "the lock is held until it is dropped")] std::fs::File),
    #[cfg(feature = "postgres")]
    Session(#[expect(dead_code, reason = "the lock is held until it is dropped")] Box<sqlx::PgConnection>),
}

impl Generations {
    pub fn new(place: &Place, namespace: &Namespace) -> Self {
        match place {
            Place::Folder(dir) => Generations::Files(Files::new(dir, namespace)),
            #[cfg(feature = "postgres")]
            Place::Postgres(postgres) => Generations::Schemas(super::postgres::schemas::Schemas::new(postgres, namespace)),
        }
    }

    pub fn namespace(&self) -> &Namespace {
        match self {
            Generations::Files(files) => files.namespace(),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.namespace(),
        }
    }

    /// The generation in force, if there is one.
    pub async fn current(&self) -> Result<Option<u64>, Error> {
        match self {
            Generations::Files(files) => files.current(),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.current().await,
        }
    }

    /// Whether the generation that `store` writes is still the one in force, as far as was looked lately.
    pub async fn is_in_force(&self, generation: u64, store: &mut Store) -> Result<bool, Error> {
        match (self, store) {
            #[cfg(feature = "postgres")]
            (Generations::Schemas(_), Store::Postgres(store)) => store.is_in_force(generation).await,
            _ => Ok(self.current().await? == Some(generation)),
        }
    }

    /// A number no generation has had.
    pub async fn next(&self) -> Result<u64, Error> {
        match self {
            Generations::Files(files) => files.next(),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.next().await,
        }
    }

    /// Makes a generation with the whole schema and nothing in it.
    pub async fn create(&self, generation: u64) -> Result<Store, Error> {
        match self {
            Generations::Files(files) => sqlite::Store::create(&files.db(generation)).await.map(Store::Sqlite),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.create(generation).await.map(Box::new).map(Store::Postgres),
        }
    }

    /// Opens a generation for writing, bringing its schema up to this build's; refuses one whose rows another version made.
    pub async fn open(&self, generation: u64) -> Result<Store, Error> {
        match self {
            Generations::Files(files) => sqlite::Store::open(&files.db(generation), files.namespace().as_str()).await.map(Store::Sqlite),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.open(generation).await.map(Box::new).map(Store::Postgres),
        }
    }

    /// Puts a generation in force. It must hold everything already.
    pub async fn switch_to(&self, generation: u64) -> Result<(), Error> {
        match self {
            Generations::Files(files) => files.switch_to(generation),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.switch_to(generation).await,
        }
    }

    /// Removes every generation but the one in force: what a swap replaced, and what an interrupted rebuild left.
    pub async fn remove_others(&self) -> Result<(), Error> {
        match self {
            Generations::Files(files) => files.remove_others(),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.remove_others().await,
        }
    }

    pub async fn remove(&self, generation: u64) -> Result<(), Error> {
        match self {
            Generations::Files(files) => files.remove(generation),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.remove(generation).await,
        }
    }

    /// One rebuild of a namespace at a time, over all processes.
    pub async fn lock(&self) -> Result<RebuildLock, Error> {
        match self {
            Generations::Files(files) => files.lock().map(RebuildLock::File),
            #[cfg(feature = "postgres")]
            Generations::Schemas(schemas) => schemas.lock().await.map(Box::new).map(RebuildLock::Session),
        }
    }
}
