//! `flywheel workflow`: campaigns and journeys. Reading is here: definitions as files or as published, runs and figures from the read
//! models, stories from the journal. Beside a running server or without one.

pub(super) mod act;
pub(super) mod api;
mod figures;
mod files;
mod runs;
mod verify;

use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::args::InNamespace;
use super::people;
use crate::config::Config;
use crate::domain::{Namespace, TenantId};
use crate::projections::Reader;
use crate::projections::runs::STATUSES;

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Mermaid,
}

/// Whose runs.
#[derive(Debug, Args, Clone)]
pub struct Whose {
    #[command(flatten)]
    pub at: InNamespace,
    /// Tenant; the only one there is, or `default`, if absent.
    #[arg(long)]
    pub tenant: Option<String>,
}

#[derive(Debug, Args)]
pub struct List {
    #[arg(long, short)]
    pub workflow: Option<String>,
    /// Those in progress (open, or more closely running, waiting or paused), or those that ended so.
    #[arg(long, short, value_parser = PossibleValuesParser::new(STATUSES))]
    pub status: Option<String>,
    /// A user id, or `u:ID` / `a:ID`.
    #[arg(long)]
    pub subject: Option<String>,
    /// Paused runs whose reason contains this.
    #[arg(long)]
    pub reason: Option<String>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Go on behind this page: the `next` that it ended with.
    #[arg(long)]
    pub after: Option<String>,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Args)]
pub struct Story {
    /// A run's id, a user id, or `u:ID` / `a:ID`.
    pub of: String,
    /// Leave out so many lines.
    #[arg(long, default_value_t = 0)]
    pub skip: u64,
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Args)]
pub struct Funnel {
    pub workflow: String,
    /// Only runs on the definition whose digest begins so.
    #[arg(long)]
    pub digest: Option<String>,
    /// Only runs that began on this day (UTC) or later, such as 2024-03-01, wherever they went since.
    #[arg(long)]
    pub from: Option<String>,
    /// Only runs that began before this day.
    #[arg(long)]
    pub to: Option<String>,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Args)]
pub struct Results {
    pub workflow: String,
    /// Of the version whose digest begins so; of the one that the newest run is on if absent. Versions have weights of their own, and are
    /// never added up.
    #[arg(long, conflicts_with = "all_versions")]
    pub digest: Option<String>,
    /// Each version by itself, the newest first.
    #[arg(long)]
    pub all_versions: bool,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Subcommand)]
pub enum Workflow {
    /// Hold recorded journals against a changed workflow: where would people who are in it have gone another way? Exit code 4 if anyone.
    Verify(verify::Verify),
    /// Runs, newest first.
    List(List),
    /// How many runs each workflow has in each status.
    Status(Whose),
    /// One run: where it is, since when, what it waits for, its effects.
    #[command(alias = "show-run")]
    Get {
        run: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Everything that was decided about a run or a person, line by line, from the journal.
    Story(Story),
    /// Arrivals at and departures from each node, as bars in the order of the definition.
    Funnel(Funnel),
    /// Conversions by arm of each split, with how sure one may be of them.
    Results(Results),
    /// When which version was published and retired, and by whom, the newest first.
    Versions {
        workflow: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// What fires by itself next.
    Timers {
        /// Until then: an RFC 3339 instant, or a length from now such as `1h` or `3d`.
        #[arg(long)]
        until: Option<String>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        whose: Whose,
    },
    #[command(flatten)]
    Act(act::Act),
    /// Refuse mistakes, with file, line, reason and a hint, and say what is hardly meant. Agents, channels, webhooks, purposes and segments
    /// are held against the configuration, its policy file and its topology; without a configuration file, or where it names no policy,
    /// one that is not a shipped one is a warning.
    Check {
        /// Files, folders of them, or names of shipped ones; all shipped ones if absent.
        files: Vec<String>,
        #[command(flatten)]
        at: InNamespace,
    },
    /// Draw a workflow: a file, a shipped one, or one that was published to the namespace.
    Show {
        file: String,
        #[command(flatten)]
        at: InNamespace,
        #[arg(long, value_enum, default_value = "text")]
        format: Drawing,
        /// The same as --format mermaid.
        #[arg(long)]
        mermaid: bool,
    },
    /// Run the [[test]] blocks in virtual time.
    Test {
        /// Files, folders of them, or names of shipped ones; all shipped ones if absent.
        files: Vec<String>,
        /// Print the whole story of each test.
        #[arg(long)]
        stories: bool,
    },
}

/// `file` is the configuration's, if there is one.
pub async fn run(config: &Config, file: Option<&Path>, asked: &Workflow, json: bool) -> anyhow::Result<()> {
    match asked {
        Workflow::Act(asked) => act::run(config, asked, json).await,
        Workflow::Verify(asked) => verify::run(config, asked, json),
        Workflow::List(asked) => runs::list(config, asked, json).await,
        Workflow::Status(whose) => runs::status(config, whose, json).await,
        Workflow::Get { run, whose } => runs::get(config, run, whose, json).await,
        Workflow::Story(asked) => runs::story(config, asked, json).await,
        Workflow::Funnel(asked) => figures::funnel(config, asked, json).await,
        Workflow::Results(asked) => figures::results(config, asked, json).await,
        Workflow::Versions { workflow, whose } => figures::versions(config, workflow, whose, json).await,
        Workflow::Timers { until, limit, whose } => figures::timers(config, until.as_deref(), *limit, whose, json).await,
        Workflow::Check { files, at } => files::check((config, file), files, &at.namespace, json),
        Workflow::Show { file, at, format, mermaid } => {
            let format = if *mermaid { Drawing::Mermaid } else { *format };
            files::show(config, file, &at.namespace, format, json)
        }
        Workflow::Test { files, stories } => files::test(files, *stories, json),
    }
}

/// The read model that is meant, and whose rows of it.
pub(super) async fn readable(config: &Config, whose: &Whose) -> anyhow::Result<(Reader, TenantId)> {
    let namespace = Namespace::new(&whose.at.namespace)?;
    let reader = people::reader(config, namespace.as_str())?;
    let tenant = people::tenant(config, &reader, namespace.as_str(), whose.tenant.as_deref()).await?;
    Ok((reader, tenant))
}
