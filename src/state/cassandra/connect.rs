//! From settings to a session on a keyspace that is ours: every refusal names the key to change, within ten seconds; making the
//! keyspace and its tables, once in its life, may take longer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::{Consistency, SerialConsistency, Statement};

use super::statements::{self, Statements, VERSION};
use super::{cell, errors};
use crate::state::{CassandraOptions, Error};

/// Reaching a node, login, a first answer.
const PATIENCE: Duration = Duration::from_secs(9);
/// Making the keyspace and its tables, once in its life: a cluster agrees on each for a while.
const MAKING_PATIENCE: Duration = Duration::from_secs(120);
/// Of each statement on the way.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(30);
const CONNECTION_PATIENCE: Duration = Duration::from_secs(3);
/// A connection that answers nothing for about this long is given up and opened again.
const KEEPALIVE: Duration = Duration::from_secs(5);

pub(super) struct Connected {
    pub(super) session: Arc<Session>,
    pub(super) statements: Arc<Statements>,
    /// The last one whose write timestamps the server takes.
    pub(super) incarnation_max: u32,
}

pub(super) async fn connect(options: &CassandraOptions) -> Result<Connected, Error> {
    check(options)?;
    let (session, has_keyspace) = within(PATIENCE, options, async {
        let session = Arc::new(session(options).await?);
        let has_keyspace = has_keyspace(&session, &options.keyspace).await?;
        Ok((session, has_keyspace))
    })
    .await?;
    within(MAKING_PATIENCE, options, async {
        if !has_keyspace {
            make_keyspace(&session, options).await?;
        }
        make_tables(&session, options).await?;
        check_version(&session, &options.keyspace).await?;
        let incarnation_max = check_timestamps(&session, &options.keyspace).await?;
        let statements = Statements::prepare(&session, &options.keyspace).await?;
        Ok(Connected { session: Arc::clone(&session), statements, incarnation_max })
    })
    .await
}

async fn within<T>(patience: Duration, options: &CassandraOptions, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let nodes = options.nodes.join(", ");
    match tokio::time::timeout(patience, call).await {
        Ok(Err(Error::Unavailable(detail))) => Err(refused("cassandra.nodes", format!("{nodes}: {detail}"))),
        Ok(done) => done,
        Err(_) => Err(refused("cassandra.nodes", format!("no answer from {nodes} within {} s", patience.as_secs()))),
    }
}

fn refused(key: &'static str, detail: impl Into<String>) -> Error {
    Error::Refused { key, detail: detail.into() }
}

/// A statement that is sent once, at the start.
fn patient(text: impl Into<String>) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(STATEMENT_PATIENCE));
    statement.set_is_idempotent(true);
    statement
}

fn check(options: &CassandraOptions) -> Result<(), Error> {
    if options.nodes.iter().all(|node| node.trim().is_empty()) {
        return Err(refused("cassandra.nodes", "names no node; give one or more as host:port"));
    }
    let is_name = |name: &str| name.len() <= 48 && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_name(&options.keyspace) || !options.keyspace.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Err(refused("cassandra.keyspace", format!("{:?} is not up to 48 of a-z, 0-9 and _, a letter first", options.keyspace)));
    }
    if options.datacenter.contains(['\'', '\\']) {
        return Err(refused("cassandra.datacenter", "a datacenter's name has no quotes"));
    }
    if options.replication_factor == 0 {
        return Err(refused("cassandra.replication_factor", "is 0; one copy of each state is the least"));
    }
    Ok(())
}

async fn session(options: &CassandraOptions) -> Result<Session, Error> {
    let balancing = DefaultPolicy::builder().token_aware(true);
    let balancing = match options.datacenter.as_str() {
        "" => balancing,
        name => balancing.prefer_datacenter(name.to_owned()),
    };
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::Quorum)
        .serial_consistency(Some(SerialConsistency::Serial))
        .request_timeout(Some(Duration::from_millis(options.request_timeout_ms.max(1))))
        .load_balancing_policy(balancing.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(options.nodes.iter().map(|node| node.trim()))
        .connection_timeout(CONNECTION_PATIENCE)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .default_execution_profile_handle(profile.into_handle());
    if !options.user.is_empty() {
        builder = builder.user(&options.user, &options.password);
    }
    if !options.tls_ca.as_os_str().is_empty() {
        builder = builder.tls_context(Some(tls(options)?));
    }
    builder.build().await.map_err(|error| errors::refused(&error))
}

fn tls(options: &CassandraOptions) -> Result<Arc<rustls::ClientConfig>, Error> {
    let bad = |error: &dyn std::fmt::Display| refused("cassandra.tls_ca", format!("{}: {error}", options.tls_ca.display()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&options.tls_ca).map_err(|error| bad(&error))? {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() {
        return Err(bad(&"holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| bad(&error))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn has_keyspace(session: &Session, keyspace: &str) -> Result<bool, Error> {
    let text = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    Ok(!first_texts(session, text, (keyspace,)).await?.is_empty())
}

/// The first column of all rows.
async fn first_texts(session: &Session, text: &str, values: impl scylla::serialize::row::SerializeRow) -> Result<Vec<String>, Error> {
    let rows =
        session.query_unpaged(patient(text), values).await.map_err(errors::failed)?.into_rows_result().map_err(errors::unreadable)?;
    let texts = rows.rows::<(String,)>().map_err(errors::unreadable)?;
    texts.map(|row| row.map(|(text,)| text).map_err(errors::unreadable)).collect()
}

async fn make_keyspace(session: &Session, options: &CassandraOptions) -> Result<(), Error> {
    let name = &options.keyspace;
    if !options.create_keyspace {
        return Err(refused("cassandra.keyspace", format!("there is no keyspace {name}, and `cassandra.create_keyspace` is off")));
    }
    let copies = options.replication_factor;
    let replication = match options.datacenter.as_str() {
        "" => format!("{{'class': 'SimpleStrategy', 'replication_factor': {copies}}}"),
        datacenter => format!("{{'class': 'NetworkTopologyStrategy', '{datacenter}': {copies}}}"),
    };
    let text = format!("CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {replication}");
    session.query_unpaged(patient(text), ()).await.map_err(|error| errors::unmade("the keyspace", error))?;
    tracing::info!(keyspace = %name, replication, "the keyspace for states was made");
    Ok(())
}

async fn make_tables(session: &Session, options: &CassandraOptions) -> Result<(), Error> {
    let name = &options.keyspace;
    let there = first_texts(session, "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", (name,)).await?;
    let all = statements::tables(name);
    let missing: Vec<_> = all.iter().filter(|(table, _)| !there.iter().any(|name| name == table)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !there.is_empty() && !there.iter().any(|name| name == "meta") {
        return Err(refused("cassandra.keyspace", format!("{name} holds tables of something else: name a keyspace of its own")));
    }
    if !options.create_keyspace {
        let (first, _) = missing[0];
        let detail = format!("{name} has no table {first}, and `cassandra.create_keyspace` is off");
        return Err(refused("cassandra.keyspace", detail));
    }
    for (_, text) in missing {
        session.query_unpaged(patient(text.as_str()), ()).await.map_err(|error| errors::unmade("its tables", error))?;
    }
    Ok(())
}

async fn check_version(session: &Session, keyspace: &str) -> Result<(), Error> {
    let read = format!("SELECT value FROM {keyspace}.meta WHERE name = 'version'");
    let mut found = first_texts(session, &read, ()).await?;
    if found.is_empty() {
        let text = format!("INSERT INTO {keyspace}.meta (name, value) VALUES ('version', '{VERSION}') IF NOT EXISTS");
        session.query_unpaged(patient(text), ()).await.map_err(|error| errors::unmade("the keyspace's version", error))?;
        found = first_texts(session, &read, ()).await?;
    }
    match found.first().map(String::as_str) {
        Some(VERSION) => Ok(()),
        other => {
            let found = other.unwrap_or("unknown");
            let detail = format!(
                "{keyspace} is of schema version {found}, this build knows {VERSION}: name another keyspace, and states are built again from the log"
            );
            Err(refused("cassandra.keyspace", detail))
        }
    }
}

/// The server takes write timestamps of the log's positions: none in its future, and none too old for its taste.
async fn check_timestamps(session: &Session, keyspace: &str) -> Result<u32, Error> {
    let rows = session.query_unpaged(patient("SELECT toUnixTimestamp(now()) FROM system.local"), ()).await.map_err(errors::failed)?;
    let rows = rows.into_rows_result().map_err(errors::unreadable)?;
    let (now,) = rows.first_row::<(i64,)>().map_err(errors::unreadable)?;
    let incarnation_max = cell::incarnation_max(now);
    if incarnation_max == 0 {
        return Err(refused("cassandra.nodes", "the server's clock stands in 1970; positions as write timestamps would be in its future"));
    }
    let text =
        format!("UPDATE {keyspace}.meta USING TIMESTAMP {} SET value = 'taken' WHERE name = 'timestamps'", 1_i64 << cell::OFFSET_BITS);
    match session.query_unpaged(patient(text), ()).await.map_err(errors::failed) {
        Err(Error::Shared(detail)) => {
            Err(refused("cassandra.nodes", format!("write timestamps are positions of the log, and the cluster refuses them: {detail}")))
        }
        done => done.map(|_| incarnation_max),
    }
}
