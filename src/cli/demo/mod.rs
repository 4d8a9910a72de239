//! `flywheel demo`: a real history through the whole product, over HTTP, with what came of it held against the file.
//!
//! `dataset` is the history, `load` sends it, `show` says what came of it. The namespace runs on event time and its clock stays where the
//! history ends. Run again, it shows the same result; cut short, it sends what is missing, or, if nothing is, only says
//! that the history has ended.

mod campaigns;
mod dataset;
mod load;
mod show;

use anyhow::Context;

use super::args::{self, Dataset};
use super::output::{grouped, note};
use super::query;
use super::run::reader as reader_of;
use crate::app::{Engine, Folder, Plan, read_models};
use crate::config::{ApiKey, Config, Source};
use crate::domain::{Millis, Namespace, SourceId, TenantId};
use crate::projections::Reader;
use crate::replay;
use crate::stream::{NamespaceClock, Partitions, Topics, topology};

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
    let reader = Reader::new(read_models(config)?, &scene.namespace);
    let rows = count(config, &scene, "SELECT count(*) FROM events WHERE source <> 'workflow'").await;
    let mut left = Left::of(rows, tokio::task::block_in_place(|| stated(config, &scene))?, &history);
    if left == Left::Everything && count(config, &scene, "SELECT count(*) FROM wf_steps WHERE doing = 'effect'").await > 0 {
        // Cut short among the campaigns: they go on.
        left = Left::AllButTheTime;
    }
    let root = folder.root().display();
    if left == Left::Everything {
        note!("{root} already holds this history, whole; nothing is sent again (with another --data it is). This is what it holds:");
        return show::run(config, &scene, &history, &reader, None, json).await;
    }
    let mut config = config.clone();
    if config.links.base_url.is_empty() && config.gateway.public_url.is_empty() {
        // Where a server on this folder is found afterwards; the demonstration's own address is gone by then.
        config.links.base_url = format!("http://{}", config.server.listen);
    }
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
    let (workflows, policy) = campaigns::definitions(scene.dataset)?;
    let plan = Plan {
        namespace: scene.namespace.clone(),
        clock: NamespaceClock::Event,
        topology: topology::load(scene.topology)?,
        partitions: Partitions { intake: config.topology.partitions, events: config.topology.partitions, inbox: 0 },
        workflows,
        policy,
        performers: Default::default(),
        senders: Default::default(),
    };
    match left {
        Left::AllButTheTime => note!("{root} already holds every event of this history; what is missing is the word that it has ended"),
        Left::Part if rows > 0 => note!("{root} holds {} events of an earlier run; sending the rest over HTTP", grouped(rows)),
        _ => note!("sending {} events over HTTP to a server on {root}", grouped(history.truth.events)),
    }
    let starting = config.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::start_with(&starting, Some(plan))).await?;
    let engine = engine.context("the demonstration needs the folder for itself; stop the server on it first, or pass --data")?;
    let loaded = match left {
        Left::AllButTheTime => {
            load::end(&config, engine, &scene, &history).await?;
            None
        }
        _ => Some(load::run(&config, engine, &scene, &history, asked.batch as usize, &reader).await?),
    };
    show::run(&config, &scene, &history, &reader, loaded.as_ref(), json).await
}

/// How much of the history an earlier run left in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing, or a part of the events.
    Part,
    /// It was cut short before it had stated the end: whoever would lapse in the last days has not.
    AllButTheTime,
    Everything,
}

impl Left {
    fn of(events: u64, stated: Option<Millis>, history: &dataset::History) -> Self {
        match (events == history.truth.events, stated >= Some(history.end)) {
            (true, true) => Left::Everything,
            (true, false) => Left::AllButTheTime,
            (false, _) => Left::Part,
        }
    }
}

/// What SQL counts; nothing where there is no such table yet. What campaigns emitted was not sent from here.
async fn count(config: &Config, scene: &Scene, sql: &str) -> u64 {
    let found = query::rows(config, &scene.namespace, sql).await;
    found.ok().and_then(|found| found.rows.first()?.first()?.as_u64()).unwrap_or(0)
}

/// The time up to which all of intake has said that everything was sent.
fn stated(config: &Config, scene: &Scene) -> anyhow::Result<Option<Millis>> {
    if !Folder::new(&config.data.dir).log().exists() {
        return Ok(None);
    }
    let log = reader_of(config)?;
    let Some(topics) = Topics::find(&*log, &scene.namespace)? else { return Ok(None) };
    Ok(replay::stated(&*log, &topics)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_whole_once_its_end_was_stated_too() {
        let history = dataset::clickstream().unwrap();
        let left = |events, stated| Left::of(events, stated, &history);
        let all = history.truth.events;
        assert_eq!(left(0, None), Left::Part);
        assert_eq!(left(all - 1, Some(history.end)), Left::Part);
        assert_eq!(left(all, None), Left::AllButTheTime);
        assert_eq!(left(all, Some(history.end - 1)), Left::AllButTheTime);
        assert_eq!(left(all, Some(history.end)), Left::Everything);
    }
}
