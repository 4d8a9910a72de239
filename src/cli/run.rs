//! Which command leads where, and what all of them need first: the configuration, logging, a runtime.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use serde_json::json;
use tokio::task::block_in_place;
use tracing_subscriber::EnvFilter;

use super::args::{self, Cli, Command};
use super::exit::{self, Exit};
use super::output::{Rows, grouped, note, out, outln, print_json};
use super::writer::Writer;
use super::{demo, keep, mail, people, policy, query, ready, send, suppression, template, time, topic, trace, up, wait, workflow};
use crate::app::{Folder, OpenLog};
use crate::config::{self, Config, Effective};
use crate::domain::Millis;
use crate::log::LogReader;
use crate::stream::topology;
use crate::{bench, stream};

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = || -> anyhow::Result<()> {
        let effective = effective(&cli)?;
        logging(&cli, &effective);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(dispatch(&cli, effective))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn effective(cli: &Cli) -> anyhow::Result<Effective> {
    let mut flags = Vec::new();
    if let Some(data) = &cli.global.data {
        flags.push(("data.dir", data.display().to_string(), "--data"));
    }
    if let Command::Up(args::Up { listen, roles }) = &cli.command {
        flags.extend(listen.iter().map(|listen| ("server.listen", listen.clone(), "--listen")));
        if !roles.is_empty() {
            let roles = toml::Value::try_from(roles).expect("roles are words");
            flags.push(("process.roles", roles.to_string(), "--role"));
        }
    }
    // Variables that are not text are no settings of ours; `std::env::vars` would panic at them.
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(config::load(cli.global.config.as_deref(), variables, &flags)?)
}

/// A server logs what happens; other commands speak for themselves and log only what goes wrong, unless a level was asked for.
fn logging(cli: &Cli, effective: &Effective) {
    let observe = &effective.config.observe;
    let quiet = !matches!(cli.command, Command::Up(_)) && !effective.origins.contains_key("observe.log_level");
    let level = if quiet { "warn" } else { observe.log_level.as_str() };
    // The state store says several lines about each failed write; whoever asked it says what came of it, at a bearable rate.
    let by_default = format!("{level},fjall=off,lsm_tree=off");
    let level = if level.contains("fjall") || level.contains("lsm_tree") { level.to_owned() } else { by_default };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    // Lines that cannot be written are lost. To complain of that on the same full disk would be a panic of whoever wrote the line.
    let builder = builder.log_internal_errors(false);
    if observe.log_json { builder.json().init() } else { builder.init() }
}

async fn dispatch(cli: &Cli, effective: Effective) -> anyhow::Result<()> {
    let json = cli.global.json;
    let config = &effective.config;
    match &cli.command {
        Command::Up(_) => up::run(config).await,
        Command::Ready(asked) => ready::run(&server_url(config, asked.url.as_deref())?, json).await,
        Command::Demo(asked) => demo::run(config, asked, json).await,
        Command::Send(asked) => send::run(asked, server_url(config, asked.url.as_deref())?, asked.namespace.as_deref(), json).await,
        Command::Wait(asked) => wait::run(config, &*reader(config)?, &asked.at.namespace, Duration::from_secs(asked.seconds)).await,
        Command::Trace(asked) => trace::run(config, asked, json).await,
        Command::Topic(asked) => topics(config, asked, json).await,
        Command::Profile(asked) => people::profile(config, asked, json).await,
        Command::Segment(asked) => people::segment(config, asked, json).await,
        Command::Query(asked) => query::run(config, asked, json).await,
        Command::DeadLetter(asked) => keep::dead_letters(config, asked, json).await,
        Command::Projections(args::Projections::Rebuild { at }) => keep::rebuild(config, &at.namespace, json).await,
        // These wait for a log's own threads, which a runtime's thread may do only when it says so.
        Command::Topology(asked) => block_in_place(|| topologies(asked, json)),
        Command::Workflow(asked) => workflow::run(config, effective.file.as_deref(), asked, json).await,
        Command::Policy(asked) => policy::run(config, asked, json).await,
        Command::Suppression(asked) => suppression::run(config, asked, json).await,
        Command::Template(asked) => template::run(config, asked, json).await,
        Command::Mail(asked) => {
            let mail::Mail::Intake { url, .. } = asked;
            mail::run(config, asked, server_url(config, url.as_deref())?, json).await
        }
        Command::Replay(asked) => block_in_place(|| keep::replay(config, asked, json)),
        Command::Doctor(asked) => block_in_place(|| keep::doctor(config, asked, json)),
        Command::Backup(asked) => block_in_place(|| keep::backup(config, &asked.to, json)),
        Command::Restore(asked) => block_in_place(|| keep::restore(config, &asked.from, json)),
        Command::Time(asked) => time::run(config, asked, json).await,
        Command::Bench(asked) => bench::run(config, asked).await,
        Command::Config(args::Config::Show) => {
            show(&effective, json);
            Ok(())
        }
        Command::Completions { shell } => {
            // Written whole first: the generator panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "flywheel", &mut script);
            out!("{}", String::from_utf8(script)?);
            Ok(())
        }
    }
}

/// Reads the log that is configured beside whoever writes it.
pub fn reader(config: &Config) -> anyhow::Result<Arc<dyn LogReader>> {
    let folder = Folder::new(&config.data.dir);
    let reader = block_in_place(|| OpenLog::reader(config, &folder))?;
    reader.ok_or_else(|| Exit::not_found(format!("there is no log in {}; `flywheel up` makes one", folder.root().display())))
}

/// The given URL, or that of the server on the data folder.
fn server_url(config: &Config, given: Option<&str>) -> anyhow::Result<String> {
    if let Some(url) = given {
        return Ok(url.to_owned());
    }
    let contact = Folder::new(&config.data.dir).contact();
    let contact =
        contact.with_context(|| format!("no server runs on {}; start one with `flywheel up`, or pass --url", config.data.dir.display()))?;
    Ok(contact.url)
}

async fn topics(config: &Config, asked: &args::Topic, json: bool) -> anyhow::Result<()> {
    let log = reader(config)?;
    match asked {
        args::Topic::List => {
            topic::list(&*log)?.print(json);
            Ok(())
        }
        args::Topic::Tail { topic: name, last, follow, control } => {
            let wanted = topic::Wanted { last: *last, follow: *follow, control: *control };
            topic::tail(&*log, name, wanted, |line| {
                use std::io::Write;
                writeln!(std::io::stdout(), "{line}")
            })
        }
        args::Topic::Export { topic: name, output, from, to } => {
            let time = |text: &Option<String>| -> anyhow::Result<Option<Millis>> {
                text.as_ref().map(|text| Millis::parse(text).with_context(|| format!("{text:?} is no RFC 3339 time"))).transpose()
            };
            let written = topic::export(&*log, name, output, topic::Range { from: time(from)?, to: time(to)? })?;
            if output != Path::new("-") {
                note!("{} records of {name} in {}", grouped(written), output.display());
            }
            Ok(())
        }
        args::Topic::Import { topic: name, file } => {
            let writer = Writer::open(config, &Folder::new(&config.data.dir))?;
            let target = topic::find(&*log, name)?;
            let bar = indicatif::ProgressBar::new_spinner();
            let handle = tokio::runtime::Handle::current();
            let append = |records| block_in_place(|| handle.block_on(writer.append(&target, records)));
            let imported = topic::import(&target, file, append, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            if json {
                print_json(&json!({"imported": imported}));
            } else {
                outln!("{} records appended to {name}", grouped(imported));
            }
            Ok(())
        }
    }
}

fn topologies(asked: &args::Topology, json: bool) -> anyhow::Result<()> {
    let all = |files: &[String]| -> Vec<String> {
        if files.is_empty() { topology::SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect() } else { files.to_vec() }
    };
    match asked {
        args::Topology::Check { files } => {
            for file in all(files) {
                out!("{}", topology::check(&file).map_err(no_topology)?);
            }
            Ok(())
        }
        args::Topology::Show { file, format } => {
            let drawing = match format {
                args::Drawing::Text => topology::Drawing::Text,
                args::Drawing::Mermaid => topology::Drawing::Mermaid,
            };
            out!("{}", topology::show(file, drawing).map_err(no_topology)?);
            Ok(())
        }
        args::Topology::Test { files } => {
            let mut failed = 0;
            for file in all(files) {
                for report in topology::test(&file, &stream::Simulation).map_err(no_topology)? {
                    failed += report.verdicts.iter().filter(|verdict| !verdict.failures.is_empty()).count();
                    if json {
                        let verdicts = report.verdicts.iter().map(|v| json!({"test": v.test, "line": v.line, "failures": v.failures}));
                        print_json(&json!({"topology": report.topology, "file": report.file, "tests": verdicts.collect::<Vec<_>>()}));
                    } else {
                        out!("{report}");
                    }
                }
            }
            if failed > 0 { Err(Exit::check_failed(format!("{failed} tests failed"))) } else { Ok(()) }
        }
    }
}

/// A file with mistakes is a check that did not pass; a file that is not there was never checked.
fn no_topology(error: topology::Error) -> anyhow::Error {
    match &error {
        topology::Error::Problems(_) => Exit::check_failed(error.to_string()),
        topology::Error::Unknown { .. } | topology::Error::Empty { .. } => Exit::not_found(error.to_string()),
        topology::Error::Read { .. } => error.into(),
    }
}

fn show(effective: &Effective, json: bool) {
    let mut rows = Rows::new(&["key", "value", "from", "meaning"]);
    for (key, value, origin, doc) in effective.rows() {
        rows.push(vec![json!(key), json!(value), json!(origin), json!(doc)]);
    }
    rows.print(json);
}
