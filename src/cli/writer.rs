//! Writing to a data folder's log from the command line: through the server that runs on it, or directly when none does.
//!
//! Whether one runs is decided by the log's own lock, not by a file that a killed server left behind.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::app::admin::{self, Append, AppendAnswer, Incoming};
use crate::app::{Contact, Folder, OpenLog};
use crate::config::{Config, LogBackend};
use crate::env::SystemClock;
use crate::env::fs::RealFs;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{self, LogWriter, TopicInfo};

pub enum Writer {
    Log(Arc<dyn LogWriter>),
    Server(reqwest::Client, Contact),
}

impl Writer {
    pub fn open(config: &Config, folder: &Folder) -> anyhow::Result<Self> {
        if config.log.backend == LogBackend::Kafka {
            return Ok(Writer::Log(OpenLog::visitor(config)?));
        }
        if !folder.log().exists() {
            bail!("there is no log in {}; `flywheel up` makes one", folder.root().display());
        }
        match EmbeddedLog::open(Arc::new(RealFs), &folder.log(), Options::default(), Arc::new(SystemClock)) {
            Ok(log) => Ok(Writer::Log(log)),
            Err(log::Error::Locked { holder, .. }) => {
                let contact =
                    folder.contact().with_context(|| format!("the folder is in use by {holder}, which is no server that can be asked"))?;
                Ok(Writer::Server(reqwest::Client::new(), contact))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub async fn append(&self, topic: &TopicInfo, records: Vec<Incoming>) -> anyhow::Result<u64> {
        if records.is_empty() {
            return Ok(0);
        }
        match self {
            Writer::Log(log) => {
                let (transaction, count) = admin::transaction(topic, &records).map_err(anyhow::Error::msg)?;
                log.append(transaction)?.await?;
                Ok(count)
            }
            Writer::Server(http, contact) => {
                let url = format!("{}/admin/v1/append", contact.url);
                let body = Append { topic: topic.spec.name.to_string(), records };
                let answer = http.post(&url).bearer_auth(&contact.admin_token).json(&body).send().await;
                let answer = answer.with_context(|| format!("the server (process {}) does not answer", contact.pid))?;
                if !answer.status().is_success() {
                    bail!("{url} answered {}: {}", answer.status(), answer.text().await.unwrap_or_default());
                }
                Ok(answer.json::<AppendAnswer>().await?.appended)
            }
        }
    }
}
