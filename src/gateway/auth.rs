//! Whom a request speaks for: write keys for sending, API keys for reading and for importers.
//!
//! Write keys are public and are looked up as they are; API keys are secret and are compared by digest only, and neither is ever logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::Mutex;

use super::options::{Access, Source, Sources};
use super::reply::Refusal;
use crate::domain::{Digest, Namespace};
use crate::log::{LogReader, TopicId, TopicName};

/// Padding is optional: some clients leave it out.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

const UNKNOWN_KEY_WARNING_EVERY: Duration = Duration::from_secs(1);

/// A source with what the hot path needs of it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub source: Source,
    pub intake: Intake,
}

/// A namespace's intake topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intake {
    pub topic: TopicId,
    pub partitions: u32,
}

/// The keys, resolved against the log's topics.
#[derive(Debug)]
pub(super) struct Keys {
    by_write_key: HashMap<Box<str>, Arc<Resolved>>,
    by_api_key: HashMap<Digest, Access>,
    intakes: HashMap<Namespace, Intake>,
    owner: Option<(Digest, IpAddr)>,
    /// Where a keyless request from the machine itself reads, if at all.
    local: Option<Access>,
    unknown: Mutex<Unknown>,
}

/// Requests with keys that nobody has, since the last line about them.
#[derive(Debug, Default)]
struct Unknown {
    warned_at: Option<Instant>,
    since_warning: u64,
}

impl Keys {
    pub(super) fn resolve(sources: &Sources, log: &dyn LogReader) -> Result<Self, super::Error> {
        let topics = log.topics()?;
        let mut intakes = HashMap::new();
        for namespace in sources.namespaces.keys() {
            let name = TopicName::new(namespace, "intake");
            let info = topics.iter().find(|topic| topic.spec.name == name).ok_or(super::Error::NoIntake(name))?;
            intakes.insert(namespace.clone(), Intake { topic: info.id, partitions: info.spec.partitions });
        }
        let mut by_write_key = HashMap::new();
        for (key, source) in &sources.write_keys {
            let intake = *intakes.get(&source.namespace).ok_or_else(|| super::Error::NoNamespace(source.namespace.clone()))?;
            by_write_key.insert(key.as_str().into(), Arc::new(Resolved { source: source.clone(), intake }));
        }
        let by_api_key: HashMap<Digest, Access> =
            sources.api_keys.iter().map(|(key, access)| (Digest::of(key.as_bytes()), access.clone())).collect();
        let local = sources.keyless.clone().filter(|_| by_api_key.is_empty());
        let owner = sources.owner.as_ref().map(|owner| (Digest::of(owner.token.as_bytes()), owner.listening));
        Ok(Self { by_write_key, by_api_key, intakes, owner, local, unknown: Mutex::default() })
    }

    pub(super) fn source(&self, write_key: &str) -> Result<&Arc<Resolved>, Refusal> {
        let Some(resolved) = self.by_write_key.get(write_key) else {
            self.warn_of_unknown(write_key);
            return Err(Refusal::InvalidWriteKey);
        };
        if resolved.source.disabled { Err(Refusal::SourceDisabled) } else { Ok(resolved) }
    }

    /// Whether a key that was not asked for yet is somebody's.
    pub(super) fn is_known(&self, write_key: &str) -> bool {
        self.by_write_key.get(write_key).is_some_and(|resolved| !resolved.source.disabled)
    }

    /// Loud, because clients answer a 401 by throwing their events away, some by ending their process; but not once per request.
    fn warn_of_unknown(&self, write_key: &str) {
        let mut unknown = self.unknown.lock();
        unknown.since_warning += 1;
        if unknown.warned_at.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_WARNING_EVERY) {
            return;
        }
        tracing::warn!(
            write_key_start = %start_of(write_key),
            requests = unknown.since_warning,
            "events refused for good: unknown write key"
        );
        *unknown = Unknown { warned_at: Some(Instant::now()), since_warning: 0 };
    }

    pub(super) fn intake(&self, namespace: &Namespace) -> Option<Intake> {
        self.intakes.get(namespace).copied()
    }

    /// Who reads: by API key or, where neither keys nor sources are configured, the machine itself, unless a browser or a proxy speaks through it.
    pub(super) fn reader(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Access, Refusal> {
        self.reader_by(api_key(headers).as_deref(), headers, peer)
    }

    /// The same with the key that was found, wherever it was.
    pub(super) fn reader_by(&self, key: Option<&str>, headers: &HeaderMap, peer: IpAddr) -> Result<Access, Refusal> {
        if let Some(key) = key {
            return self.by_api_key.get(&Digest::of(key.as_bytes())).cloned().ok_or(Refusal::InvalidApiKey);
        }
        let is_relayed = headers.contains_key(header::ORIGIN) || headers.contains_key("x-forwarded-for") || !has_local_host(headers);
        if !peer.to_canonical().is_loopback() || is_relayed {
            return Err(Refusal::InvalidApiKey);
        }
        self.local.clone().ok_or(Refusal::InvalidApiKey)
    }

    /// Whether this is the token of the data folder's owner, from the folder's machine.
    pub(super) fn is_owner(&self, key: Option<&str>, peer: IpAddr) -> bool {
        let Some(((token, listening), key)) = self.owner.as_ref().zip(key) else { return false };
        let peer = peer.to_canonical();
        (peer.is_loopback() || peer == listening.to_canonical()) && *token == Digest::of(key.as_bytes())
    }

    /// Whether a reader may name its tenant and namespace itself: only the machine's own user, who can read the files anyway.
    pub(super) fn is_open(&self) -> bool {
        self.local.is_some() && self.by_api_key.is_empty()
    }
}

/// The write key of a single or batch request by its headers: the Basic user, with or without the colon after it.
pub(super) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let encoded = scheme(headers, "basic")?;
    let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let user = decoded.split(':').next()?;
    if user.is_empty() { None } else { Some(user.to_owned()) }
}

/// The API key that a request's headers carry.
pub(super) fn api_key(headers: &HeaderMap) -> Option<String> {
    basic_user(headers).or_else(|| bearer(headers)).or_else(|| x_api_key(headers))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    scheme(headers, "bearer").map(str::to_owned)
}

/// The design document's client library sends its key so.
pub(super) fn x_api_key(headers: &HeaderMap) -> Option<String> {
    headers.get("x-api-key")?.to_str().ok().filter(|key| !key.is_empty()).map(str::to_owned)
}

fn scheme<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (name, rest) = value.split_once(' ')?;
    if name.eq_ignore_ascii_case(scheme) { Some(rest.trim()) } else { None }
}

/// A page of another site that had its name point at this machine still sends its own name.
fn has_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or(host).trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or(host)
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn start_of(key: &str) -> String {
    key.chars().take(4).chain("..".chars()).collect()
}
