//! What the driver's errors mean to whoever flushes or reads: that it may be tried again, or that somebody must look.

use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};

use crate::state::Error;

/// An error of a statement of ours, which can be sent again however often.
pub(super) fn failed(error: ExecutionError) -> Error {
    match &error {
        ExecutionError::LastAttemptError(attempt) if !heals(attempt) => Error::Shared(error.to_string()),
        ExecutionError::BadQuery(_) | ExecutionError::UseKeyspaceError(_) => Error::Shared(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

fn heals(attempt: &RequestAttemptError) -> bool {
    match attempt {
        RequestAttemptError::UnableToAllocStreamId | RequestAttemptError::BrokenConnectionError(_) => true,
        RequestAttemptError::DbError(error, _) => matches!(
            error,
            DbError::Unavailable { .. }
                | DbError::Overloaded
                | DbError::IsBootstrapping
                | DbError::TruncateError
                | DbError::ReadTimeout { .. }
                | DbError::WriteTimeout { .. }
                | DbError::ReadFailure { .. }
                | DbError::WriteFailure { .. }
                | DbError::ServerError
                | DbError::RateLimitReached { .. }
        ),
        _ => false,
    }
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::Shared(format!("an answer does not read: {error}"))
}

/// Why no session came to be. The driver names neither user nor password in its errors.
pub(super) fn refused(error: &NewSessionError) -> Error {
    let detail = error.to_string();
    match is_login(&detail) {
        true => Error::Refused { key: "cassandra.user", detail: format!("the cluster refuses this login: {detail}") },
        false => Error::Refused { key: "cassandra.nodes", detail },
    }
}

fn is_login(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    ["credentials", "authentic", "username", "password"].iter().any(|word| detail.contains(word))
}

pub(super) fn unprepared(error: PrepareError) -> Error {
    match &error {
        PrepareError::AllAttemptsFailed { first_attempt } if !heals(first_attempt) => {
            let detail = format!("its tables are not those of this version: {error}");
            Error::Refused { key: "cassandra.keyspace", detail }
        }
        _ => Error::Unavailable(error.to_string()),
    }
}

/// An error while the keyspace and its tables are made.
pub(super) fn unmade(what: &str, error: ExecutionError) -> Error {
    if let ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unauthorized, detail)) = &error {
        return Error::Refused { key: "cassandra.user", detail: format!("it may not make {what}: {detail}") };
    }
    match failed(error) {
        Error::Shared(detail) => Error::Refused { key: "cassandra.keyspace", detail: format!("{what} cannot be made: {detail}") },
        other => other,
    }
}
