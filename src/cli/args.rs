//! The command line's grammar. What the commands do is in the files beside this one; every command says in its help what it reads and writes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An event-sourced stream processor with durable workflows for marketing. One binary, an embedded log, no services.
#[derive(Debug, Parser)]
#[command(name = "flywheel", version, max_term_width = 120, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed, and standard error says why; 2 the command line is wrong; 3 what was asked for is not there;
4 a check did not pass (doctor; ready; check, show and test of a topology, workflow or policy file with mistakes; replay --expect; the counts of demo).

Settings come from defaults, then flywheel.toml, then FLYWHEEL_SECTION__KEY variables, then flags: `flywheel config show`.";

#[derive(Debug, Args, Clone)]
pub struct Global {
    /// Configuration file; flywheel.toml in this folder if there is one.
    #[arg(long, global = true, env = "FLYWHEEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder; overrides data.dir.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print JSON for machines instead of tables for people.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: take events over HTTP, fold profiles, keep the read models. With --role only a part of it, beside other processes.
    #[command(visible_alias = "run")]
    Up(Up),
    /// Ask a server whether it is ready: exit code 0 if it is, 4 if it says why not, 1 if nobody answers. For health checks.
    Ready(Ready),
    /// Replay a real purchase history (or a shop's clickstream) through the whole product, and show what came of it.
    Demo(Demo),
    /// Send events from an NDJSON or CSV file to a server.
    Send(Send),
    /// Return once everything acknowledged so far is folded and in the read models.
    Wait(Wait),
    /// Where did my event go: every stage, outcome and position of a message or of a user's events.
    Trace(Trace),
    /// Look at topics, copy them out and in.
    #[command(subcommand)]
    Topic(Topic),
    /// One person's features, scores with reasons, segments, traits and consent.
    Profile(Profile),
    /// Segments: their sizes, their members, their history as a plot.
    #[command(subcommand)]
    Segment(Segment),
    /// Run SQL over the read models, read only.
    Query(Query),
    /// Records that could not be applied: list them, send them again after a fix.
    #[command(subcommand)]
    DeadLetter(DeadLetter),
    /// Read models: rebuild them from the log, beside the live ones.
    #[command(subcommand)]
    Projections(Projections),
    /// Check, draw and test topology files.
    #[command(subcommand)]
    Topology(Topology),
    /// Campaigns and journeys: check, draw and test definitions; what runs do and did, and what came of them.
    #[command(subcommand)]
    Workflow(super::workflow::Workflow),
    /// What may be sent to whom, how often and when, and which approvals need no person: check a policy file, put it in force, show it.
    #[command(subcommand)]
    Policy(super::policy::Policy),
    /// What mail servers send back.
    #[command(subcommand)]
    Mail(super::mail::Mail),
    /// Addresses that nothing is sent to: put on the list, taken off, looked up.
    #[command(subcommand)]
    Suppression(super::suppression::Suppression),
    /// Templates of messages: look at them, send one to yourself.
    #[command(subcommand)]
    Template(super::template::Template),
    /// Digests of what the log holds, to compare two histories by.
    Replay(Replay),
    /// Check every byte of the data folder; declare a hole where bytes are damaged.
    Doctor(Doctor),
    /// Copy the log, consistently, while the server runs.
    Backup(Backup),
    /// Make a data folder from a backup; it begins a new incarnation.
    Restore(Restore),
    /// Time in a namespace: let it pass in a restored folder, state it in place of an intake partition that has stopped.
    #[command(subcommand)]
    Time(Time),
    /// Measure this machine and this build; one JSON line per figure.
    Bench(Bench),
    /// Show the configuration in force.
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct Up {
    /// Address to serve on; overrides server.listen. Port 0 picks a free one.
    #[arg(long)]
    pub listen: Option<String>,
    /// Be only this part of the product; repeat it for several. Overrides process.roles, and needs log.backend = "kafka".
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<crate::config::Role>,
}

#[derive(Debug, Args)]
pub struct Ready {
    /// Whom to ask; the server on this data folder if absent.
    #[arg(long)]
    pub url: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Dataset {
    /// CDNOW: 69,659 purchases of 23,570 customers, 1997-01 to 1998-06.
    Cdnow,
    /// A shop's clickstream: 31,106 events of 600 users.
    Clickstream,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[arg(long, value_enum, default_value = "cdnow")]
    pub dataset: Dataset,
    /// Events per HTTP request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2500))]
    pub batch: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum FileFormat {
    Ndjson,
    Csv,
}

#[derive(Debug, Args)]
pub struct Send {
    /// Events: one JSON object a line, or CSV with a header line; `-` is standard input. A name ending in .gz is unpacked. A row without
    /// a messageId gets one, made of what it says and of how many equal rows came before it: equal rows are all kept, and the same file
    /// sent again within a day is recognised.
    pub file: PathBuf,
    /// Where to send; the server on this data folder if absent.
    #[arg(long)]
    pub url: Option<String>,
    /// Write key; the development one if absent.
    #[arg(long)]
    pub write_key: Option<String>,
    /// API key for --state-time; needed unless the server is on this machine and has none.
    #[arg(long)]
    pub api_key: Option<String>,
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// CSV columns to event fields, such as userId=customer_id, timestamp=date, event='Order Completed', properties.total=dollars.
    /// A value in quotes is constant. Unnamed columns become properties.
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    pub map: Vec<String>,
    /// This is history: it starts no campaign, and waits while the server lags.
    #[arg(long)]
    pub historical: bool,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2500))]
    pub batch: u32,
    /// Requests under way at once; one person's events always go in order through one of them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// After everything is acknowledged, state this time (event-time namespaces): an RFC 3339 instant, or `end` for the newest event's.
    #[arg(long, requires = "namespace")]
    pub state_time: Option<String>,
    /// The namespace whose time is stated: the one that the write key belongs to.
    #[arg(long, short)]
    pub namespace: Option<String>,
}

#[derive(Debug, Args, Clone)]
pub struct InNamespace {
    /// Namespace; `main` if absent.
    #[arg(long, short = 'n', default_value = "main")]
    pub namespace: String,
}

#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    pub at: InNamespace,
    /// Give up after this many seconds, with exit code 1.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
}

#[derive(Debug, Args)]
pub struct Trace {
    /// A message id, a user id, or `u:ID` (user) / `a:ID` (anonymous device).
    pub what: String,
    #[command(flatten)]
    pub at: InNamespace,
    /// Tenant; the only one there is, or `default`, if absent.
    #[arg(long)]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Every topic: partitions, offsets, size, retention.
    List,
    /// Print records as they come.
    Tail {
        /// NAMESPACE.TOPIC, such as main.events.
        topic: String,
        /// Start this many records before the end of each partition.
        #[arg(long, default_value_t = 10)]
        last: u64,
        /// Go on until interrupted.
        #[arg(long, short)]
        follow: bool,
        /// Show control records too: ticks and activations, which belong to no person.
        #[arg(long)]
        control: bool,
    },
    /// Write a topic to a file: NDJSON decoded, or an Avro object container.
    Export {
        topic: String,
        /// The file to write; `-` is standard output. A name ending in .avro makes an Avro object container.
        #[arg(long, short, default_value = "-")]
        output: PathBuf,
        /// From this time on (append time).
        #[arg(long)]
        from: Option<String>,
        /// Before this time (append time).
        #[arg(long)]
        to: Option<String>,
    },
    /// Append an exported file to a topic: keys, timestamps and bodies as they were, at new offsets. Nothing is compared with what is
    /// there: a file imported twice into `events` counts twice. What goes to `intake` is deduplicated as if it were sent.
    Import { topic: String, file: PathBuf },
}

#[derive(Debug, Args)]
pub struct Profile {
    /// A user id, or `u:ID` / `a:ID`.
    pub user: String,
    #[command(flatten)]
    pub at: InNamespace,
    /// Tenant; the only one there is, or `default`, if absent.
    #[arg(long)]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Segment {
    /// Every segment with its present size.
    List {
        #[command(flatten)]
        at: InNamespace,
        /// Tenant; the only one there is, or `default`, if absent.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Who is in it, since when, in order of their ids.
    Members {
        segment: String,
        #[command(flatten)]
        at: InNamespace,
        /// Tenant; the only one there is, or `default`, if absent.
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on behind this subject, the last one of the page before.
        #[arg(long)]
        after: Option<String>,
    },
    /// Its size through time.
    Plot {
        /// All segments if absent.
        segment: Option<String>,
        #[command(flatten)]
        at: InNamespace,
        /// Tenant; the only one there is, or `default`, if absent.
        #[arg(long)]
        tenant: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Format {
    Table,
    Csv,
    Json,
}

#[derive(Debug, Args)]
pub struct Query {
    /// One SQL statement; docs/sql.md lists the tables and views. `-` reads it from standard input.
    pub sql: String,
    #[command(flatten)]
    pub at: InNamespace,
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetter {
    List {
        #[command(flatten)]
        at: InNamespace,
        /// Only this reason.
        #[arg(long)]
        reason: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Append them again to the topic they failed in, `intake` or `events`, marked with the position they had. Nothing goes twice.
    Redrive {
        #[command(flatten)]
        at: InNamespace,
        /// Only those refused for this reason.
        #[arg(long)]
        reason: Option<String>,
        /// Only those of this message.
        #[arg(long)]
        message_id: Option<String>,
        /// Only the one at this place, as TOPIC/PARTITION/OFFSET: its `letter` or its `position` of `dead-letter list`.
        #[arg(long = "at", value_name = "TOPIC/PARTITION/OFFSET")]
        place: Option<String>,
        /// Only say what would be sent again.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Projections {
    /// Build the read models anew from the log, then swap them in.
    Rebuild {
        #[command(flatten)]
        at: InNamespace,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Mermaid,
}

#[derive(Debug, Subcommand)]
pub enum Topology {
    /// Refuse mistakes, with file, line and a hint.
    Check {
        /// Files, or names of shipped ones; all shipped ones if absent.
        files: Vec<String>,
    },
    /// Draw it.
    Show {
        #[arg(default_value = "spine")]
        file: String,
        #[arg(long, value_enum, default_value = "text")]
        format: Drawing,
    },
    /// Run its [[test]] blocks.
    Test { files: Vec<String> },
}

#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    pub at: InNamespace,
    /// The digest of each topic, which is what is printed anyway: equal for equal histories, whatever the batching, threads, restarts and
    /// faults were.
    #[arg(long)]
    pub digest: bool,
    /// Fail with exit code 4 unless the digest is this one.
    #[arg(long)]
    pub expect: Option<String>,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Declare damaged offsets a hole and begin a new incarnation. Needs a folder that no server is using.
    #[arg(long)]
    pub declare_holes: bool,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// A folder that does not exist yet, or is empty.
    pub to: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// A folder that `flywheel backup` wrote. It is copied into the data folder (--data), which must hold no log yet.
    pub from: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Time {
    /// Let time pass in a restored folder, in every wall-clock namespace. Only once the folder it is a copy of is no longer in use: what falls
    /// due happens here as well.
    Release,
    /// State a time in place of an intake partition that has stopped, so that the rest goes on. What it still holds will then be late.
    Override {
        #[command(flatten)]
        at: InNamespace,
        /// The intake partition.
        #[arg(long)]
        partition: u32,
        /// An RFC 3339 instant: in wall time not in the future, in event time not far beyond the newest event.
        #[arg(long)]
        to: String,
        /// Event time: go beyond that. A time once stated is never taken back.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Explain each figure.
    #[arg(long)]
    pub list: bool,
    /// Only figures whose name starts with this.
    #[arg(long)]
    pub only: Option<String>,
    /// Seconds per sustained measurement.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=120))]
    pub seconds: u32,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Every key, its value, where it came from and what it means. Secrets are not shown.
    Show,
}
