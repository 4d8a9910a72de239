//! `flywheel mail intake`: hands what a mail server got back to the server that runs, such as from a pipe in an aliases file.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;

use super::exit::Exit;
use super::output::{outln, print_json};
use crate::app::takes_development_key;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub enum Mail {
    /// Make events of a bounce (RFC 3464) or a complaint (RFC 5965). What is neither changes nothing.
    Intake {
        /// The received mail as a file; `-` is standard input.
        file: PathBuf,
        /// Where to; the server on this data folder if absent.
        #[arg(long)]
        url: Option<String>,
        /// Write key; the development one if absent.
        #[arg(long)]
        write_key: Option<String>,
    },
}

pub async fn run(config: &Config, asked: &Mail, url: String, json: bool) -> anyhow::Result<()> {
    let Mail::Intake { file, write_key, .. } = asked;
    let mut mail = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut mail).context("cannot read standard input")?;
    } else {
        mail = std::fs::read(file).map_err(|error| Exit::not_found(format!("cannot read {}: {error}", file.display())))?;
    }
    let key = write_key.as_deref().or_else(|| takes_development_key(config));
    let Some(key) = key else { bail!("this server has sources of its own: pass --write-key with that of one of them") };
    let request =
        reqwest::Client::new().post(format!("{url}/m/inbound")).basic_auth(key, Some("")).header("content-type", "message/rfc822");
    let answer = request.body(mail).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let body: serde_json::Value = answer.json().await.with_context(|| format!("{url} answered {status}"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {}", body["message"].as_str().unwrap_or_default());
    }
    if json {
        print_json(&body);
        return Ok(());
    }
    let why = body["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
    outln!("{}, {} events{why}", body["kind"].as_str().unwrap_or_default(), body["events"]);
    Ok(())
}
