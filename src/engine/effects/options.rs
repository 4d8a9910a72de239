//! What can be set about effects and channels, and the performers that come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::named::LOG;
use super::performers::{self, Email, Links, Messages, Outgoing, WebhookPort, Worker};
use super::registry::Registry;
use super::templates::Templates;
use super::{BreakerSettings, Error, Limits, Settings, Sharing};
use crate::channels::mail::Sender;
use crate::channels::outbox::Outbox;
use crate::channels::smtp::{self, Security, Smtp};
use crate::channels::webhook::{Secret, Webhook};
use crate::domain::Namespace;
use crate::env::Clock;
use crate::env::fs::Fs;
use crate::workflow::Performer;

/// `[effects]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    pub enabled: bool,
    pub in_flight_per_tenant: u32,
    pub agents: Limits,
    pub channels: Limits,
    pub webhooks: Limits,
    pub workers: BTreeMap<String, WorkerOptions>,
    pub breaker: BreakerSettings,
    pub threads: usize,
    pub notify: String,
    pub drain_ms: u64,
    pub request_bytes_max: usize,
    pub flush_age_ms_max: u64,
    pub flush_bytes_max: usize,
}

/// `[effects.workers.NAME]`: performs the agent NAME.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerOptions {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
}

/// `[channels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelOptions {
    pub templates: Folder,
    /// A list in place of the shipped one.
    pub bots: File,
    pub email: EmailOptions,
    pub webhooks: BTreeMap<String, WebhookOptions>,
}

/// Empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct File(pub PathBuf);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Folder(pub PathBuf);

impl Default for Folder {
    fn default() -> Self {
        Self("templates".into())
    }
}

/// `[channels.email]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmailOptions {
    pub from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// May hold `{key}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounces: Option<String>,
    /// Opens and clicks are told.
    pub track: bool,
    /// Purposes of messages that nobody can unsubscribe from.
    pub without_unsubscribe: BTreeSet<String>,
    /// The outbox folder; empty is one in the data folder.
    pub outbox: PathBuf,
    /// Instead of the outbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpOptions>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpOptions {
    pub host: String,
    pub port: u16,
    #[serde(default)]
    pub security: SmtpSecurity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How this server introduces itself; the sender's domain if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// A certificate in PEM that is trusted besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    Tls,
    #[default]
    StartTls,
    Plain,
}

/// `[channels.webhooks.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookOptions {
    pub url: String,
    /// `whsec_...`; while one is replaced, the new and the old.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// May reach addresses in private networks.
    #[serde(default)]
    pub private: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            in_flight_per_tenant: 1_024,
            agents: Limits { concurrency: 256, per_second: 0 },
            channels: Limits { concurrency: 16, per_second: 0 },
            webhooks: Limits { concurrency: 32, per_second: 0 },
            workers: BTreeMap::new(),
            breaker: BreakerSettings::default(),
            threads: 1,
            notify: String::new(),
            drain_ms: 10_000,
            request_bytes_max: 64 << 20,
            flush_age_ms_max: 5_000,
            flush_bytes_max: 64 << 20,
        }
    }
}

impl Default for EmailOptions {
    fn default() -> Self {
        Self {
            from: "Flywheel <flywheel@localhost.localdomain>".into(),
            reply_to: None,
            bounces: None,
            track: true,
            without_unsubscribe: BTreeSet::from(["transactional".to_owned()]),
            outbox: PathBuf::new(),
            smtp: None,
        }
    }
}

/// What performers stand on.
pub struct Surroundings<'a> {
    pub namespace: &'a Namespace,
    pub clock: &'a Arc<dyn Clock>,
    pub fs: &'a Arc<dyn Fs>,
    /// The namespace's outbox, where none is configured.
    pub outbox: &'a Path,
    pub links: Links,
}

impl Options {
    pub fn settings(&self) -> Settings {
        let (agents, channels, webhooks, workers) = (self.agents, self.channels, self.webhooks, self.workers.clone());
        let limits = move |by: Performer, target: &str| match by {
            Performer::Agent => workers.get(target).map_or(agents, |worker| Limits {
                concurrency: worker.concurrency.unwrap_or(agents.concurrency),
                per_second: worker.per_second.unwrap_or(agents.per_second),
            }),
            Performer::Channel => channels,
            Performer::Webhook => webhooks,
        };
        Settings {
            schedule: Sharing { in_flight_per_tenant: self.in_flight_per_tenant, breaker: self.breaker },
            limits: Box::new(limits),
            request_bytes_max: self.request_bytes_max,
            flush_age: Duration::from_millis(self.flush_age_ms_max),
            flush_bytes_max: self.flush_bytes_max,
            threads: self.threads,
            notify: self.notify.clone(),
            drain: Duration::from_millis(self.drain_ms),
        }
    }

    /// Everyone who performs something: the scripted agents, workers in their place where there are any, and the channels.
    pub fn registry(&self, channels: &ChannelOptions, around: Surroundings<'_>) -> Result<Registry, Error> {
        let mut registry = Registry::default().inline(Performer::Webhook, LOG, performers::log_line);
        for (name, agent) in crate::agents::AGENTS {
            registry = registry.inline(Performer::Agent, name, performers::agent(agent));
        }
        for (name, worker) in &self.workers {
            let worker = Worker::new(&worker.url, worker.token.clone()).map_err(|why| wrong(format!("effects.workers.{name}"), why))?;
            registry = registry.remote(Performer::Agent, name, worker);
        }
        for (name, options) in &channels.webhooks {
            let at = || format!("channels.webhooks.{name}");
            let secrets: Result<Vec<Secret>, _> = options.secrets.iter().map(|secret| Secret::parse(secret)).collect();
            let secrets = secrets.map_err(|error| wrong(at(), error.to_string()))?;
            let webhook = Webhook::reaching(&options.url, secrets, options.private).map_err(|error| wrong(at(), error.to_string()))?;
            registry = registry.remote(Performer::Webhook, name, WebhookPort { webhook, clock: Arc::clone(around.clock) });
        }
        if !self.notify.is_empty() && !channels.webhooks.contains_key(&self.notify) {
            let known: Vec<&str> = channels.webhooks.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
            let why = format!("there is no webhook {:?} in channels.webhooks: {known}", self.notify);
            return Err(wrong("effects.notify".to_owned(), why));
        }
        Ok(registry.remote(Performer::Channel, "email", channels.email(around)?))
    }
}

impl ChannelOptions {
    pub fn email(&self, around: Surroundings<'_>) -> Result<Email, Error> {
        let options = &self.email;
        let at = |key: &str| format!("channels.email.{key}");
        let sender = Sender::new(&options.from, options.reply_to.as_deref(), options.bounces.as_deref());
        let sender = sender.map_err(|error| wrong(at("from"), error.to_string()))?;
        let templates = Templates::load(&self.templates.0).and_then(Templates::all_sound);
        let templates = templates.map_err(|error| wrong("channels.templates".to_owned(), error.to_string()))?;
        let domain = options.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain.trim_end_matches('>')).to_owned();
        let outgoing = match &options.smtp {
            Some(server) => {
                let settings = smtp::Settings {
                    host: server.host.clone(),
                    port: server.port,
                    security: match server.security {
                        SmtpSecurity::Tls => Security::Tls,
                        SmtpSecurity::StartTls => Security::StartTls,
                        SmtpSecurity::Plain => Security::Plain,
                    },
                    login: server.user.clone().zip(server.password.clone()),
                    hello: server.hello.clone().unwrap_or_else(|| domain.clone()),
                    ca_pem: server.ca_pem.clone(),
                };
                Outgoing::Smtp(Arc::new(Smtp::new(settings).map_err(|error| wrong(at("smtp"), error.to_string()))?))
            }
            None => {
                let configured = !options.outbox.as_os_str().is_empty();
                let folder = if configured { options.outbox.join(around.namespace.as_str()) } else { around.outbox.to_owned() };
                let outbox = Outbox::open(Arc::clone(around.fs), &folder);
                Outgoing::Outbox(Arc::new(outbox.map_err(|error| wrong(at("outbox"), format!("{}: {error}", folder.display())))?))
            }
        };
        let messages = Messages {
            namespace: around.namespace.clone(),
            sender,
            domain,
            templates: Arc::new(templates),
            links: around.links,
            clock: Arc::clone(around.clock),
            tracks: options.track,
            without_unsubscribe: options.without_unsubscribe.clone(),
        };
        Ok(Email { messages, outgoing })
    }
}

fn wrong(key: String, why: String) -> Error {
    Error::Options { key, why }
}
