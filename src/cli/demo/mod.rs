//! `flywheel demo`: a real history through the whole product, over HTTP, with what came of it held against the file.
//!
//! `dataset` is the history, `load` sends it, `show` says what came of it. The namespace runs on event time and its clock stays where the
//! history ends. Run again, it shows the same result; cut short, it sends everything once more and deduplication takes care of the rest.

mod dataset;
mod load;
mod show;

use anyhow::Context;

use super::args::{self, Dataset};
use super::output::grouped;
use crate::app::{Engine, Folder, Plan};
use crate::config::{ApiKey, Config, Source};
use crate::domain::{Namespace, SourceId, TenantId};
use crate::projections::Reader;
use crate::stream::{NamespaceClock, Partitions, topology};

/// What a data set needs besides itself.
#[derive(Debug, Clone)]
pub struct Scene {
    pub dataset: Dataset,
    pub namespace: Namespace,
    pub tenant: TenantId,
    pub write_key: String,
    pub topology: &'static str,
}

impl Scene {
    fn of(dataset: Dataset) -> Self {
        let (name, topology) = match dataset {
            Dataset::Cdnow => ("demo", "spine"),
            Dataset::Clickstream => ("clickstream", "clickstream"),
        };
        Self {
            dataset,
            namespace: Namespace::new(name).expect("a slug"),
            tenant: TenantId::new("default").expect("a slug"),
            // Never leaves this process: the demonstration's server is on loopback, for as long as it takes.
            write_key: uuid::Uuid::new_v4().simple().to_string(),
            topology,
        }
    }

    fn history(&self) -> anyhow::Result<dataset::History> {
        match self.dataset {
            Dataset::Cdnow => dataset::cdnow(),
            Dataset::Clickstream => dataset::clickstream(),
        }
    }
}

pub async fn run(config: &Config, asked: &args::Demo, json: bool) -> anyhow::Result<()> {
    let scene = Scene::of(asked.dataset);
    let history = scene.history()?;
    let folder = Folder::new(&config.data.dir);
    let reader = Reader::new(&folder.read(), &scene.namespace);
    if is_complete(&reader, &scene, &history).await {
        let root = folder.root().display();
        eprintln!("{root} already holds this history, whole; nothing is sent again (with another --data it is). This is what it holds:");
        return show::run(config, &scene, &history, &reader, None, json).await;
    }
    let mut config = config.clone();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.sources.push(Source {
        name: SourceId::new("demo").expect("a slug"),
        write_key: scene.write_key.clone(),
        tenant: scene.tenant.clone(),
        namespace: scene.namespace.clone(),
        disabled: false,
    });
    // The clock is stated with a key of its own, whatever keys the configuration has.
    config.api_keys.push(ApiKey { api_key: scene.write_key.clone(), tenant: scene.tenant.clone(), namespace: scene.namespace.clone() });
    let plan = Plan {
        namespace: scene.namespace.clone(),
        clock: NamespaceClock::Event,
        topology: topology::load(scene.topology)?,
        partitions: Partitions { intake: config.topology.partitions, events: config.topology.partitions },
    };
    eprintln!("sending {} events over HTTP to a server on {}", grouped(history.truth.events), folder.root().display());
    let starting = config.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::start_with(&starting, Some(plan))).await?;
    let engine = engine.context("the demonstration needs the folder for itself; stop the server on it first, or pass --data")?;
    let loaded = load::run(&config, engine, &scene, &history, asked.batch as usize, &reader).await?;
    show::run(&config, &scene, &history, &reader, Some(&loaded), json).await
}

/// Whether an earlier run got to its end.
async fn is_complete(reader: &Reader, scene: &Scene, history: &dataset::History) -> bool {
    let found = reader.reconciliation(&scene.tenant).await;
    found.is_ok_and(|found| found.events as u64 == history.truth.events)
}
