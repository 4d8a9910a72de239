//! `flywheel query` and what other commands ask of the read models: SQL in, rows out.

use std::io::Read;

use base64::Engine as _;
use serde_json::{Value, json};

use super::args;
use super::exit::Exit;
use super::output::{Rows, note, out, print_json};
use crate::app::Folder;
use crate::config::Config;
use crate::domain::Namespace;
use crate::projections::{self, Limits};

/// Runs one statement on a namespace's read model.
pub async fn rows(config: &Config, namespace: &Namespace, sql: &str) -> anyhow::Result<Rows> {
    let limits = Limits { time_ms_max: config.read.query_timeout_ms, rows_max: config.read.query_rows_max };
    let found = projections::query(&Folder::new(&config.data.dir).read(), namespace, sql, limits).await;
    let found = found.map_err(|error| match error {
        projections::Error::Missing(_) => Exit::not_found(error.to_string()),
        error => error.into(),
    })?;
    if found.truncated {
        note!("only the first {} rows are shown; raise read.query_rows_max or narrow the query", limits.rows_max);
    }
    let columns = found.columns.into_iter().map(|column| column.name).collect();
    let rows = found.rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect();
    Ok(Rows { columns, rows })
}

fn value(value: projections::Value) -> Value {
    match value {
        projections::Value::Null => Value::Null,
        projections::Value::Int(number) => json!(number),
        projections::Value::Float(number) => json!(number),
        projections::Value::Text(text) => json!(text),
        projections::Value::Blob(bytes) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

pub async fn run(config: &Config, query: &args::Query, json: bool) -> anyhow::Result<()> {
    let mut sql = query.sql.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin().read_to_string(&mut sql)?;
    }
    let rows = rows(config, &Namespace::new(&query.at.namespace)?, &sql).await?;
    match query.format {
        args::Format::Csv => out!("{}", rows.to_csv()?),
        args::Format::Json => print_json(&rows.to_json()),
        args::Format::Table => rows.print(json),
    }
    Ok(())
}

/// `text` as an SQL string literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
