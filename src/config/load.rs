//! Layering: defaults, then the file, then `FLYWHEEL_SECTION__KEY` variables, then flags; each value remembers who set it.
//!
//! An unknown key is an error with the nearest known one, in the file and in the environment alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, KEYS, LogBackend};
use crate::projections::Backend;
use crate::stream::{NamespaceClock, inbox};

const ENV_PREFIX: &str = "FLYWHEEL_";

/// Variables with the prefix that are not settings: where scripts keep builds and caches, and what tests are told.
const ENV_NOT_SETTINGS: &[&str] = &["FLYWHEEL_CONFIG", "FLYWHEEL_TARGET", "FLYWHEEL_CACHE", "FLYWHEEL_BIN", "FLYWHEEL_UPDATE_DOCS"];
const ENV_NOT_SETTINGS_PREFIXES: &[&str] = &["FLYWHEEL_SIM_", "FLYWHEEL_TEST_"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "env {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration {path}: {message}")]
    Unreadable { path: PathBuf, message: String },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
    #[error("{origin}: there is no key {key:?}{hint}")]
    UnknownKey { origin: String, key: String, hint: String },
    #[error("{origin}: {message}")]
    Value { origin: Origin, message: String },
    #[error("{0}")]
    Conflict(String),
}

/// The configuration in force and who set each value.
#[derive(Debug, Clone)]
pub struct Effective {
    pub config: Config,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    pub origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// (key, value, origin, doc) for every key, secrets replaced.
    pub fn rows(&self) -> Vec<(&'static str, String, String, &'static str)> {
        let table = Table::try_from(&self.config).expect("a config is a table");
        KEYS.iter()
            .map(|key| {
                let value = lookup(&table, key.path).cloned().unwrap_or(Value::Array(Vec::new()));
                let origin = self.origins.get(key.path).unwrap_or(&Origin::Default);
                (key.path, shown(key.path, value).to_string(), origin.to_string(), key.doc)
            })
            .collect()
    }
}

/// Loads `file` if given (it must exist), else `flywheel.toml` if there is one, then `env`, then `flags` (key path, value, flag's name).
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(&str, String, &str)],
) -> Result<Effective, Error> {
    let mut table = Table::try_from(Config::default()).expect("defaults are a table");
    let mut origins = BTreeMap::new();
    let path = file.map(Path::to_owned).or_else(|| Some(PathBuf::from("flywheel.toml")).filter(|path| path.exists()));
    if let Some(path) = &path {
        merge_file(&mut table, &mut origins, path)?;
    }
    for (name, text) in env {
        let Some(key) = key_of_variable(&name)? else { continue };
        set(&mut table, key, &text, Origin::Environment(name)).map(|origin| origins.insert(key.to_owned(), origin))?;
    }
    for (key, text, flag) in flags {
        set(&mut table, key, text, Origin::Flag((*flag).to_owned())).map(|origin| origins.insert((*key).to_owned(), origin))?;
    }
    let config: Config = table.try_into().map_err(|error| Error::Conflict(error.to_string()))?;
    validate(&config)?;
    Ok(Effective { config, file: path, origins })
}

fn merge_file(table: &mut Table, origins: &mut BTreeMap<String, Origin>, path: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::Unreadable { path: path.to_owned(), message: error.to_string() })?;
    let given: Table = text.parse().map_err(|error: toml::de::Error| invalid(path, &error))?;
    // The typed pass finds unknown keys and wrong types with their line.
    let _: Config = toml::from_str(&text).map_err(|error| invalid(path, &error))?;
    for key in KEYS {
        if let Some(value) = lookup(&given, key.path) {
            put(table, key.path, value.clone());
            origins.insert(key.path.to_owned(), Origin::File(path.to_owned()));
        }
    }
    Ok(())
}

fn invalid(path: &Path, error: &toml::de::Error) -> Error {
    Error::Invalid { path: path.to_owned(), message: error.to_string() }
}

fn key_of_variable(name: &str) -> Result<Option<&'static str>, Error> {
    let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return Ok(None) };
    if ENV_NOT_SETTINGS.contains(&name) || ENV_NOT_SETTINGS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(None);
    }
    let wanted = rest.to_lowercase().replace("__", ".");
    match KEYS.iter().find(|key| key.path == wanted) {
        Some(key) => Ok(Some(key.path)),
        None => Err(Error::UnknownKey { origin: format!("env {name}"), hint: nearest(&wanted), key: wanted }),
    }
}

fn nearest(wanted: &str) -> String {
    let distance = |path: &str| {
        let shared = path.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
        path.len() + wanted.len() - 2 * shared
    };
    let best = KEYS.iter().min_by_key(|key| distance(key.path)).expect("there are keys");
    let variable = format!("{ENV_PREFIX}{}", best.path.to_uppercase().replace('.', "__"));
    format!("; did you mean {} ({variable})? `flywheel config show` lists them all", best.path)
}

/// Sets `key` from text, read as the type its default has (as TOML where that is a list).
fn set(table: &mut Table, key: &str, text: &str, origin: Origin) -> Result<Origin, Error> {
    let default = lookup(table, key).cloned();
    // Lists hold keys, which are secret: only plain values are repeated.
    let got = if matches!(default, Some(Value::Array(_) | Value::Table(_)) | None) { String::new() } else { format!(", got {text:?}") };
    let wrong = |want: &str| Error::Value { origin: origin.clone(), message: format!("{key} wants {want}{got}") };
    let value = match default {
        Some(Value::Integer(_)) => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
        Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
        Some(Value::Array(_) | Value::Table(_)) | None => {
            let want = if matches!(default, Some(Value::Table(_))) { "a TOML table" } else { "a TOML list" };
            let list: Table = format!("value = {text}").parse().map_err(|_| wrong(want))?;
            list["value"].clone()
        }
        _ => Value::String(text.to_owned()),
    };
    put(table, key, value);
    Ok(origin)
}

fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((section, key)) => table.get(section)?.as_table()?.get(key),
        None => table.get(path),
    }
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            section.as_table_mut().expect("sections are tables").insert(key.to_owned(), value);
        }
        None => drop(table.insert(path.to_owned(), value)),
    }
}

const SECRETS: [&str; 6] = ["write_key", "api_key", "key", "token", "password", "secrets"];

/// A key's value with what is secret in it replaced.
fn shown(path: &str, value: Value) -> Value {
    let (_, name) = path.rsplit_once('.').unwrap_or(("", path));
    let is_given = value.as_str().is_none_or(|text| !text.is_empty());
    if SECRETS.contains(&name) && is_given { Value::String("***".into()) } else { without_secrets(value) }
}

fn without_secrets(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(without_secrets).collect()),
        Value::String(text) => Value::String(without_password(text)),
        Value::Table(table) => {
            let hide = |(key, value): (String, Value)| {
                // Also those of librdkafka: sasl.password, ssl.key.password, sasl.oauthbearer.client.secret, ssl.key.pem.
                let last = key.rsplit('.').next().unwrap_or_default();
                let is_secret = SECRETS.contains(&key.as_str()) || ["password", "secret", "pem"].contains(&last);
                let shown = if is_secret { Value::String("***".into()) } else { without_secrets(value) };
                (key, shown)
            };
            Value::Table(table.into_iter().map(hide).collect())
        }
        other => other,
    }
}

/// A URL without the password in it; any other text as it is.
fn without_password(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let shown = match authority.rsplit_once('@') {
        Some((login, host)) => format!("{}:***@{host}", login.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    // Drivers also take it as a parameter.
    let tail = tail.split_inclusive(['?', '&']).map(|part| match part.split_once('=') {
        Some((name, _)) if name.contains("password") => format!("{name}=***{}", if part.ends_with('&') { "&" } else { "" }),
        _ => part.to_owned(),
    });
    format!("{scheme}://{shown}{}", tail.collect::<String>())
}

fn validate(config: &Config) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::Conflict(message));
    if config.topology.partitions == 0 || config.topology.partitions > 256 {
        return refuse(format!("topology.partitions is {}, it takes 1 to 256", config.topology.partitions));
    }
    if !config.process.roles.is_empty() && config.log.backend == LogBackend::Embedded {
        return refuse(
            "process.roles splits the work over processes, which log.backend = \"embedded\" has only one of; set it to \"kafka\"".into(),
        );
    }
    let mut names = BTreeSet::new();
    for namespace in &config.namespaces {
        if !names.insert(&namespace.name) {
            return refuse(format!("namespace {} is configured twice", namespace.name));
        }
        if namespace.inbox.is_some() && namespace.clock == NamespaceClock::Event {
            return refuse(format!("namespace {}: an event-time namespace has no inbox; leave `inbox` away", namespace.name));
        }
        check_inbox(&format!("namespace {}: ", namespace.name), &namespace.inbox_options(&config.inbox))?;
        if let Some(partitions) = namespace.partitions.filter(|partitions| !(1..=256).contains(partitions)) {
            return refuse(format!("namespace {}: partitions is {partitions}, it takes 1 to 256", namespace.name));
        }
    }
    check_inbox("", &config.inbox)?;
    config.registry.check().map_err(Error::Conflict)?;
    if config.read.backend == Backend::Postgres && config.postgres.url.is_empty() {
        return refuse("read.backend is postgres, and postgres.url is empty: postgres://user:password@host:5432/database".to_owned());
    }
    config.gateway.check().map_err(|error| Error::Conflict(error.to_string()))?;
    let mut seen = BTreeMap::new();
    for source in &config.sources {
        if let Some(other) = seen.insert(&source.write_key, &source.name) {
            return refuse(format!("sources {other} and {} have the same write_key; each needs its own", source.name));
        }
        if source.write_key.is_empty() || source.write_key.contains(':') {
            return refuse(format!("source {}: a write_key is not empty and holds no ':' (it travels as a user name)", source.name));
        }
    }
    Ok(())
}

fn check_inbox(of: &str, inbox: &inbox::Options) -> Result<(), Error> {
    if inbox.partitions > 256 {
        return Err(Error::Conflict(format!("{of}inbox.partitions is {}, it takes 0 to 256", inbox.partitions)));
    }
    inbox::Senders::default().with_options(inbox).map(drop).map_err(|message| Error::Conflict(format!("{of}{message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Effective, Error> {
        load(Some(Path::new("/dev/null")), pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), &[])
    }

    #[test]
    fn every_default_has_a_doc_line_and_every_doc_line_a_default() {
        let table = Table::try_from(Config::default()).unwrap();
        let mut paths = Vec::new();
        for (section, value) in &table {
            match value.as_table() {
                Some(keys) => paths.extend(keys.keys().map(|key| format!("{section}.{key}"))),
                None => paths.push(section.clone()),
            }
        }
        let mut documented: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        paths.sort();
        documented.sort();
        assert_eq!(paths, documented);
    }

    #[test]
    fn flags_beat_the_environment_which_beats_defaults() {
        let env = [
            ("FLYWHEEL_SERVER__LISTEN".to_owned(), "127.0.0.1:1".to_owned()),
            ("FLYWHEEL_TOPOLOGY__PARTITIONS".to_owned(), "8".to_owned()),
        ];
        let effective = load(Some(Path::new("/dev/null")), env, &[("server.listen", "127.0.0.1:2".into(), "--listen")]).unwrap();
        assert_eq!(effective.config.server.listen, "127.0.0.1:2");
        assert_eq!(effective.config.topology.partitions, 8);
        assert_eq!(effective.origins["server.listen"], Origin::Flag("--listen".into()));
        assert_eq!(effective.origins["topology.partitions"], Origin::Environment("FLYWHEEL_TOPOLOGY__PARTITIONS".into()));
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("FLYWHEEL_SERVER__LISTN", "x")], "did you mean server.listen (FLYWHEEL_SERVER__LISTEN)?"),
            (&[("FLYWHEEL_TOPOLOGY__PARTITIONS", "many")], "topology.partitions wants a whole number, got \"many\""),
            (&[("FLYWHEEL_TOPOLOGY__PARTITIONS", "0")], "it takes 1 to 256"),
            (&[("FLYWHEEL_GATEWAY__CONNECTIONS_MAX", "0")], "at least 1"),
            (&[("FLYWHEEL_NAMESPACES", r#"[{name="a",clock="wall"},{name="a",clock="event"}]"#)], "a is configured twice"),
            (&[("FLYWHEEL_NAMESPACES", r#"[{name="a",clock="wall",partitions=0}]"#)], "it takes 1 to 256"),
            (&[("FLYWHEEL_INBOX__PARTITIONS", "257")], "inbox.partitions is 257, it takes 0 to 256"),
            (&[("FLYWHEEL_REGISTRY__URL", "registry:8081")], "registry.url"),
            (&[("FLYWHEEL_REGISTRY__URL", "https://u:sesame@registry")], "put them into registry.user and registry.password"),
            (&[("FLYWHEEL_INBOX__TENANT", "No Slug")], "inbox.tenant: "),
            (&[("FLYWHEEL_INBOX__FORMAT", "xml")], "xml"),
            (&[("FLYWHEEL_NAMESPACES", r#"[{name="a",clock="wall",inbox={source="A B"}}]"#)], "namespace a: inbox.source: "),
            (&[("FLYWHEEL_NAMESPACES", r#"[{name="a",clock="event",inbox={partitions=1}}]"#)], "has no inbox"),
        ];
        for (env, expected) in cases {
            let message = from_env(env).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let broken = from_env(&[("FLYWHEEL_API_KEYS", "[{api_key = sesame}]")]).unwrap_err().to_string();
        assert!(broken.contains("a TOML list") && !broken.contains("sesame"), "{broken}");
    }

    #[test]
    fn passwords_in_urls_are_never_shown() {
        let urls = [
            ("postgres://flywheel:hunter2@db:5432/marketing?sslmode=require", "postgres://flywheel:***@db:5432/marketing?sslmode=require"),
            (
                "postgres://db/marketing?user=flywheel&password=hunter2&sslmode=require",
                "postgres://db/marketing?user=flywheel&password=***&sslmode=require",
            ),
            ("postgres://db/marketing", "postgres://db/marketing"),
        ];
        for (url, expected) in urls {
            let effective = from_env(&[("FLYWHEEL_POSTGRES__URL", url)]).unwrap();
            let shown = effective.rows().into_iter().find(|row| row.0 == "postgres.url").unwrap().1;
            assert_eq!(shown, format!("{expected:?}"));
        }
    }

    #[test]
    fn write_keys_are_never_shown() {
        let sources = r#"[{name = "web", write_key = "hunter2", tenant = "acme", namespace = "main"}]"#;
        let effective = from_env(&[("FLYWHEEL_SOURCES", sources)]).unwrap();
        let shown = format!("{:?}", effective.rows());
        assert!(shown.contains("acme") && !shown.contains("hunter2"), "{shown}");
        let shown = format!("{:?}", from_env(&[("FLYWHEEL_REGISTRY__PASSWORD", "hunter2")]).unwrap().rows());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
