//! Exit codes that mean something, and the errors that carry them.

use std::process::ExitCode;

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
    pub fn not_found(message: impl Into<String>) -> anyhow::Error {
        Exit { code: NOT_FOUND, message: message.into() }.into()
    }

    pub fn check_failed(message: impl Into<String>) -> anyhow::Error {
        Exit { code: CHECK_FAILED, message: message.into() }.into()
    }
}

/// Prints the error to standard error and says how to leave.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // A reader that went away (`flywheel topic tail | head`) is no failure.
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    ExitCode::from(error.downcast_ref::<Exit>().map_or(FAILED, |exit| exit.code))
}
