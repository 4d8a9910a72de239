//! `flywheel query` and what other commands ask of the read models: SQL in, rows out.

use std::io::Read;

use base64::Engine as _;
use serde_json::{Value, json};

use super::args;
use super::exit::Exit;
use super::output::{Rows, grouped, note, out, print_json};
use super::wait;
use crate::app::read_models;
use crate::config::Config;
use crate::domain::Namespace;
use crate::projections::{self, Limits};

/// Runs one statement on a namespace's read model.
pub async fn rows(config: &Config, namespace: &Namespace, sql: &str) -> anyhow::Result<Rows> {
    let limits = Limits { time_ms_max: config.read.query_timeout_ms, rows_max: config.read.query_rows_max };
    let place = read_models(config)?;
    let found = match projections::query(&place, namespace, sql, limits).await {
        Err(error @ projections::Error::Missing(_)) => {
            let there = projections::namespaces(&place).await.unwrap_or_default();
            let there = there.iter().map(Namespace::as_str).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() { there } else { format!("; there are: {there} (--namespace)") };
            return Err(Exit::not_found(format!("{error}{there}")));
        }
        found => found?,
    };
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

/// What was probably meant where a table or column is not there.
async fn hint(config: &Config, namespace: &Namespace, error: &str) -> String {
    let tables = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE '\\_%' ESCAPE '\\'";
    let columns = "SELECT DISTINCT c.name FROM sqlite_schema AS s JOIN pragma_table_info(s.name) AS c WHERE s.type IN ('table', 'view')";
    // In Postgres's words, and by its catalogue.
    let relations = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()";
    let fields = "SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema = current_schema()";
    let mistakes = [("no such table: ", tables), ("no such column: ", columns), ("relation \"", relations), ("column ", fields)];
    for (said, sql) in mistakes {
        let Some(at) = error.find(said) else { continue };
        let wrong = error[at + said.len()..].split_whitespace().next().unwrap_or_default();
        let wrong = wrong.rsplit('.').next().unwrap_or(wrong).trim_matches('"');
        let Ok(place) = read_models(config) else { break };
        let found = projections::query(&place, namespace, sql, Limits::default()).await;
        let names = found.map(|found| found.rows.into_iter().filter_map(|row| row.into_iter().next())).into_iter().flatten();
        let names: Vec<String> =
            names.filter_map(|name| if let projections::Value::Text(name) = name { Some(name) } else { None }).collect();
        let nearest = crate::segments::did_you_mean(wrong, names.iter().map(String::as_str));
        let nearest = nearest.map_or_else(String::new, |name| format!("did you mean {name}? "));
        return format!("{nearest}docs/sql.md has the tables and views");
    }
    String::new()
}

/// Says why an answer may be less than one expects: the data is in other namespaces, or not in SQL yet. No answer fails over it.
async fn caveats(config: &Config, namespace: &Namespace) {
    let Ok(place) = read_models(config) else { return };
    let limits = Limits { rows_max: 1, ..Limits::default() };
    let has_data = async |one: &Namespace| {
        let found = projections::query(&place, one, "SELECT 1 FROM events LIMIT 1", limits).await;
        found.is_ok_and(|found| !found.rows.is_empty())
    };
    if !has_data(namespace).await {
        let mut others = Vec::new();
        for one in projections::namespaces(&place).await.unwrap_or_default() {
            if one != *namespace && has_data(&one).await {
                others.push(one.to_string());
            }
        }
        if !others.is_empty() {
            note!("namespace {namespace} has no events; data is in: {} (--namespace)", others.join(", "));
        }
    }
    if let Ok(behind @ 1..) = wait::behind(config, namespace).await {
        note!("{} records are not in SQL yet: flywheel wait -n {namespace}", grouped(behind));
    }
}

pub async fn run(config: &Config, query: &args::Query, json: bool) -> anyhow::Result<()> {
    let mut sql = query.sql.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin().read_to_string(&mut sql)?;
    }
    let namespace = Namespace::new(&query.at.namespace)?;
    let rows = match rows(config, &namespace, &sql).await {
        Ok(rows) => rows,
        Err(error) => {
            let hint = hint(config, &namespace, &error.to_string()).await;
            return Err(if hint.is_empty() { error } else { error.context(hint) });
        }
    };
    caveats(config, &namespace).await;
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
