//! `flywheel suppression add|remove|list`: addresses that nothing is sent to. Changes go through the server that runs; the list is read from
//! the read model, which has addresses by their hashes only.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::exit::Exit;
use super::output::{Rows, note, outln, print_json};
use super::workflow::api::{Api, told};
use super::workflow::{Whose, act, readable};
use crate::config::Config;
use crate::projections::runs::SuppressionQuery;
use crate::workflow::{address_channel, address_written};

/// Addresses of one request to the server.
const PER_REQUEST: usize = 500;
/// How long it is waited for the decision.
const WAIT_S: u64 = 10;

#[derive(Debug, Args)]
pub struct Which {
    /// The addresses, such as ada@example.com.
    pub addresses: Vec<String>,
    /// More of them from a file, one a line, such as another provider's list; `-` is standard input.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// What kind of address: email, phone (for messages and calls alike), push, or another channel's name.
    #[arg(long, default_value = "email")]
    pub channel: String,
    #[command(flatten)]
    pub whose: act::Whose,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Reason {
    Manual,
    HardBounce,
    Complaint,
}

#[derive(Debug, Subcommand)]
pub enum Suppression {
    /// Send nothing to these addresses any more, whoever has them: not what is under way either, unless it was permitted already.
    Add {
        #[command(flatten)]
        which: Which,
        /// As the list that they come from has it.
        #[arg(long, value_enum, default_value = "manual")]
        reason: Reason,
        /// An RFC 3339 time; for good if absent.
        #[arg(long)]
        until: Option<String>,
    },
    /// Let messages go to these addresses again. What the people themselves said stands.
    Remove {
        #[command(flatten)]
        which: Which,
    },
    /// Is an address on the list, and why? Without one: how many there are, and all of them by their hashes.
    List {
        address: Option<String>,
        /// Of the address.
        #[arg(long, default_value = "email")]
        channel: String,
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Go on behind this page: the `next` that it ended with.
        #[arg(long)]
        after: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
}

pub async fn run(config: &Config, asked: &Suppression, json: bool) -> anyhow::Result<()> {
    match asked {
        Suppression::Add { which, reason, until } => {
            let reason = match reason {
                Reason::Manual => "manual",
                Reason::HardBounce => "hard_bounce",
                Reason::Complaint => "complaint",
            };
            let body = json!({ "channel": which.channel, "reason": reason, "until": until, "by": act::by(&which.whose) });
            say(config, which, "/api/v1/suppressions", body, "suppressed", json).await
        }
        Suppression::Remove { which } => {
            let body = json!({ "channel": which.channel, "by": act::by(&which.whose) });
            say(config, which, "/api/v1/suppressions/remove", body, "no longer suppressed", json).await
        }
        Suppression::List { address, channel, limit, after, whose } => {
            let (reader, tenant) = readable(config, whose).await?;
            let channel = address_channel(channel);
            let key = address.as_ref().map(|address| {
                let key = address_written(&channel, address);
                key.ok_or_else(|| anyhow!("{address:?} is no {channel} address"))
            });
            let key = key.transpose()?;
            let query = SuppressionQuery { address: key.map(|key| key.to_string()), after: after.clone(), limit: *limit };
            let page = reader.suppressions(&tenant, &query).await?;
            if json {
                print_json(&json!(page));
            } else {
                let mut rows = Rows::new(&["address", "channel", "reason", "since", "until", "by"]);
                for one in &page.suppressions {
                    let until = one.until.map(|until| until.to_string());
                    rows.push(vec![
                        json!(one.address),
                        json!(one.channel),
                        json!(one.reason),
                        json!(one.since.to_string()),
                        json!(until),
                        json!(one.by),
                    ]);
                }
                rows.print(false);
                if let Some(next) = &page.next {
                    note!("there are more: --after {next}");
                }
            }
            match (address, key) {
                (Some(address), Some(key)) if page.suppressions.is_empty() => {
                    Err(Exit::not_found(format!("{address} ({key}) is not on the list, or not in the read model yet")))
                }
                _ => Ok(()),
            }
        }
    }
}

async fn say(config: &Config, which: &Which, path: &str, body: Value, word: &str, json: bool) -> anyhow::Result<()> {
    let addresses = addresses(which)?;
    let api = Api::of(config, &which.whose.at.namespace, which.whose.tenant.as_deref()).await?;
    let mut hashes: Vec<Value> = Vec::new();
    for some in addresses.chunks(PER_REQUEST) {
        let mut body = body.clone();
        body["addresses"] = json!(some);
        let answer = api.post(path, &[("wait", WAIT_S.to_string())], &body).await.map_err(told)?;
        hashes.extend(answer["addresses"].as_array().cloned().unwrap_or_default());
        if answer["status"] != "decided" {
            note!("durable, and not decided within {WAIT_S} s");
        }
    }
    if json {
        print_json(&json!({ "addresses": hashes }));
        return Ok(());
    }
    outln!("{} addresses {word}", hashes.len());
    Ok(())
}

fn addresses(which: &Which) -> anyhow::Result<Vec<String>> {
    let channel = address_channel(&which.channel);
    let check = |address: &str, place: &str| match address_written(&channel, address) {
        Some(_) => Ok(address.to_owned()),
        None => {
            let hint = if place.is_empty() { "" } else { ": bare addresses, one a line, no quotes, no names and no other columns" };
            Err(anyhow!("{place}{address:?} is no {channel} address{hint}; none was taken"))
        }
    };
    // Before any is sent: a list that is half taken would have to be compared by hand.
    let mut addresses = which.addresses.iter().map(|address| check(address, "")).collect::<anyhow::Result<Vec<String>>>()?;
    if let Some(file) = &which.file {
        let text = if file == Path::new("-") {
            std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
        } else {
            std::fs::read_to_string(file).map_err(|error| Exit::not_found(format!("cannot read {}: {error}", file.display())))?
        };
        // Some programs begin a text with a mark of its encoding.
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        for (at, line) in lines {
            addresses.push(check(line, &format!("line {} of {}: ", at + 1, file.display()))?);
        }
    }
    if addresses.is_empty() {
        bail!("name at least one address, or a --file with one a line");
    }
    Ok(addresses)
}
