//! `flywheel workflow`: campaigns and journeys. Reading is here: definitions as files or as published, runs and figures from the read
//! models, stories from the journal. Beside a running server or without one.

mod act;
mod api;
mod files;
mod verify;

use clap::{Subcommand, ValueEnum};

use super::args::InNamespace;
use crate::config::Config;

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Mermaid,
}

#[derive(Debug, Subcommand)]
pub enum Workflow {
    #[command(flatten)]
    Act(act::Act),
    /// Hold recorded journals against a changed workflow: where would people who are in it have gone another way? Exit code 1 if anyone.
    Verify(verify::Verify),
    /// Refuse mistakes, with file, line, reason and a hint.
    Check {
        /// Files, folders of them, or names of shipped ones; all shipped ones if absent.
        files: Vec<String>,
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

pub async fn run(config: &Config, asked: &Workflow, json: bool) -> anyhow::Result<()> {
    match asked {
        Workflow::Act(asked) => act::run(config, asked, json).await,
        Workflow::Verify(asked) => verify::run(config, asked, json),
        Workflow::Check { files } => files::check(files, json),
        Workflow::Show { file, at, format, mermaid } => {
            let format = if *mermaid { Drawing::Mermaid } else { *format };
            files::show(config, file, &at.namespace, format, json)
        }
        Workflow::Test { files, stories } => files::test(files, *stories, json),
    }
}
