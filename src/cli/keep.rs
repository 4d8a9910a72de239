//! Commands that look after a folder: dead letters, rebuilds, replay, doctor, backup, restore.

use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args;
use super::exit::Exit;
use super::output::{Rows, grouped, print_json};
use super::run::reader;
use crate::app::Folder;
use crate::config::Config;
use crate::domain::Namespace;
use crate::projections;

pub async fn rebuild(config: &Config, namespace: &str, json: bool) -> anyhow::Result<()> {
    let name = Namespace::new(namespace)?;
    let log = reader(config)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records, {per_sec}").expect("the template is valid"));
    let mut progress = |progress: projections::Progress| {
        bar.set_length(progress.records + progress.left);
        bar.set_position(progress.records);
        ControlFlow::Continue(())
    };
    let dir = Folder::new(&config.data.dir).read();
    let rebuilt = projections::rebuild(log, &dir, &name, &projections::Options::default(), &mut progress).await?;
    bar.finish_and_clear();
    if json {
        print_json(&json!({"records": rebuilt.records, "generation": rebuilt.generation}));
    } else {
        println!("rebuilt {namespace} from {} records; it is in force now (generation {})", grouped(rebuilt.records), rebuilt.generation);
    }
    Ok(())
}
