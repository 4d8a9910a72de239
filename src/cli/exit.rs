//! Exit codes that mean something, and the errors that carry them.

use std::io;
use std::process::ExitCode;

use super::output::note;
use crate::{log, projections};

/// The command line is wrong.
const USAGE: u8 = 2;
/// What was asked for is not there.
pub const NOT_FOUND: u8 = 3;
/// A check did not pass.
pub const CHECK_FAILED: u8 = 4;
/// Anything else that failed.
const FAILED: u8 = 1;

/// An error with an exit code of its own; `main` prints it and leaves with the code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    pub code: u8,
    pub message: String,
}

impl Exit {
    /// The command line does not say what is meant.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Exit { code: USAGE, message: message.into() }.into()
    }

    pub fn not_found(message: impl Into<String>) -> anyhow::Error {
        Exit { code: NOT_FOUND, message: message.into() }.into()
    }

    pub fn check_failed(message: impl Into<String>) -> anyhow::Error {
        Exit { code: CHECK_FAILED, message: message.into() }.into()
    }
}

/// Prints the error to standard error and says how to leave.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_reader_gone(error) {
        return ExitCode::SUCCESS;
    }
    note!("error: {}", text(error));
    ExitCode::from(code(error))
}

/// A reader that went away (`flywheel topic tail | head`) is no failure. A server that went away is one, whatever its socket calls it.
fn is_reader_gone(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind))
    };
    let is_over_a_socket = error.chain().any(|cause| cause.is::<reqwest::Error>());
    !is_over_a_socket && error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.code;
    }
    let is_not_there = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(projections::Error::Missing(_)))
            || matches!(cause.downcast_ref(), Some(log::Error::UnknownTopic(_)))
    };
    if error.chain().any(is_not_there) { NOT_FOUND } else { FAILED }
}

/// The error and its causes, but none that the text before it already says.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("no such table: nope").context("read model: no such table: nope").context("query");
        assert_eq!(text(&error), "query: read model: no such table: nope");
    }

    #[test]
    fn what_is_not_there_has_a_code_of_its_own() {
        let missing = || anyhow::Error::from(projections::Error::Missing("main".to_owned()));
        assert_eq!([code(&missing()), code(&missing().context("profile")), code(&anyhow!("else"))], [NOT_FOUND, NOT_FOUND, FAILED]);
        assert_eq!(code(&Err::<(), _>(Exit::check_failed("no")).context("doctor").unwrap_err()), CHECK_FAILED);
    }
}
