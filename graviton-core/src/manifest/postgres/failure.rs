//! The meaning of PostgreSQL's errors: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::io::ErrorKind;

use super::PostgresAddress;
use crate::error::{Code, Error, root_cause};
use crate::manifest::connection::Problem;
use crate::manifest::upgraded::{is_upgraded, upgraded};

/// The remedy for a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It conflicted with another transaction; run it again on the same connection.
    RunAgain,
    /// The connection is lost; run it again on another one.
    Reconnect,
    /// Nothing that we can do.
    None,
}

pub(super) fn remedy(problem: &Problem) -> Remedy {
    let error = match problem {
        Problem::Postgres(error) => error,
        Problem::Ours(_) | Problem::Sqlite(_) => return Remedy::None,
    };
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // Serialization failure, deadlock, a lock that was not granted in time.
            Some("40001" | "40P01" | "55P03") => Remedy::RunAgain,
            // Another put made the same blob live between our check and our commit.
            Some("23505") if error.constraint() == Some("blob_live") => Remedy::RunAgain,
            // Terminated, shutting down, crashed; time-outs that end the session; read-only since a
            // fail-over.
            Some("57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | "25006") => {
                Remedy::Reconnect
            }
            Some("08P01") if is_of_pooler(error.message()) => Remedy::None,
            Some(code) if code.starts_with("08") => Remedy::Reconnect,
            _ => Remedy::None,
        },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Remedy::Reconnect,
        _ => Remedy::None,
    }
}

/// Whether a pooler reports that it cannot do what we need: it does not know a parameter, or allows no
/// transactions.
fn is_of_pooler(message: &str) -> bool {
    message.contains("startup parameter") || message.contains("transaction blocks not allowed")
}

/// Whether it failed because the server has no more connections, for anybody or for this role.
pub(super) fn has_no_more(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    let Some(sqlx::Error::Database(error)) = source else { return false };
    error.code().as_deref() == Some("53300") || pooler_has_no_more(error.as_ref())
}

/// Whether pgbouncer reports the same; it has no error code of its own for this.
fn pooler_has_no_more(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("08P01") && error.message().contains("no more connections allowed")
}

/// Whether the server does not reveal its address: the role may not ask, the server is not PostgreSQL itself
/// and has no such function, or it is a standby.
pub(in crate::manifest) fn keeps_to_itself(problem: &Problem) -> bool {
    let Problem::Postgres(sqlx::Error::Database(error)) = problem else { return false };
    matches!(error.code().as_deref(), Some("42501" | "42883" | "0A000" | "55000"))
}

/// The error of a step or connection that failed for good. None of its texts contains a secret: PostgreSQL's
/// messages name users and databases, but no passwords.
pub(super) fn failed(address: &PostgresAddress, problem: Problem) -> Error {
    let error = match problem {
        Problem::Ours(error) => return error,
        Problem::Postgres(error) => error,
        Problem::Sqlite(error) => return Error::new(Code::Internal, error.to_string()),
    };
    if let sqlx::Error::Database(error) = &error
        && is_upgraded(error.message())
    {
        return upgraded(address.name());
    }
    let (code, what, advice) = explain(address, &error);
    let why = match &error {
        sqlx::Error::Database(error) => format!("{} ({})", error.message(), error.code().unwrap_or_default()),
        sqlx::Error::Io(error) => root_cause(error),
        sqlx::Error::Tls(error) => root_cause(error.as_ref()),
        error => root_cause(error),
    };
    Error::new(code, format!("the database {} {what}: {why}", address.name()))
        .with_advice(advice)
        .with_source(error)
}

/// The error of a session that we share with other clients.
pub(super) fn pooled(address: &PostgresAddress, why: &str) -> Error {
    let what = format!("the database {} cannot be used through this pooler: {why}", address.name());
    Error::new(Code::Config, what).with_advice(pooled_advice(address))
}

fn pooled_advice(address: &PostgresAddress) -> String {
    format!(
        "connect to PostgreSQL itself; or let the pooler work in session mode, ignore the startup parameter `options`, \
         and set search_path to {} and synchronous_commit to on for the database (ALTER DATABASE … SET …)",
        address.schema()
    )
}

fn explain(address: &PostgresAddress, error: &sqlx::Error) -> (Code, &'static str, String) {
    let variable = address.variable();
    let unavailable = |what| (Code::BackendUnavailable, what, "try again".to_owned());
    let certificate = format!("check sslmode and sslrootcert in {variable}, and the server's certificate");
    match error {
        // TLS reports data that it does not accept in this way.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            (Code::Config, "cannot be trusted", certificate)
        }
        // The error of a file, before anything is sent. A missing socket of the server gives the same error.
        sqlx::Error::Io(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                && address.options().get_socket().is_none() =>
        {
            (Code::Config, "cannot be reached with these certificates", certificate)
        }
        sqlx::Error::Io(_) => {
            let advice =
                format!("check that it runs and that {variable} names its host and port, then try again");
            (Code::BackendUnavailable, "cannot be reached", advice)
        }
        sqlx::Error::Tls(_) => (Code::Config, "cannot be reached over TLS", certificate),
        // A server that is not PostgreSQL ends here too.
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            let advice = format!("try again; if that does not help, check {variable}");
            (Code::BackendUnavailable, "broke the connection off", advice)
        }
        sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
            "28P01" | "28000" => {
                let advice = format!("check {}", address.credentials());
                (Code::Config, "refuses the user or the password", advice)
            }
            "08P01" if is_of_pooler(error.message()) => {
                (Code::Config, "cannot be used through this pooler", pooled_advice(address))
            }
            // A prepared statement already exists, or does not: the session is another client's.
            "42P05" | "26000" => (Code::Config, "cannot be used through this pooler", pooled_advice(address)),
            "3D000" => (Code::Config, "does not exist", format!("make it, or check {variable}")),
            "42501" => (
                Code::Forbidden,
                "does not allow this to its user",
                format!(
                    "grant the user the right to create the schema `{0}`, or to use `{0}` and its tables",
                    address.schema()
                ),
            ),
            "42P01" | "42703" | "3F000" => {
                let advice = "restore the database from a backup, or choose another one".to_owned();
                (Code::Config, "has lost tables of Graviton's", advice)
            }
            "53100" => {
                (Code::NoSpace, "is full", "free some space on the server's disk and try again".to_owned())
            }
            _ if pooler_has_no_more(error.as_ref()) => {
                let advice = "raise max_client_conn of the pooler, or let fewer processes use it at once";
                (Code::BackendUnavailable, "has no more connections to give", advice.to_owned())
            }
            "53300" => {
                let advice = "raise max_connections of the server, or let fewer processes use it at once";
                (Code::BackendUnavailable, "has no more connections to give", advice.to_owned())
            }
            "53200" => unavailable("is out of memory"),
            "57014" => unavailable("stopped a statement"),
            "25006" => unavailable("is read-only, as a standby is"),
            "40001" | "40P01" | "55P03" | "23505" => unavailable("is busy with the same rows"),
            "XX001" | "XX002" => (Code::CorruptDatabase, "is damaged", "restore it from a backup".to_owned()),
            "58030" => unavailable("has trouble with its disk"),
            code if code.starts_with("57P")
                || code.starts_with("08")
                || ["25P03", "25P04"].contains(&code) =>
            {
                unavailable("broke the connection off")
            }
            _ => (Code::Internal, "answered with an unexpected error", "please report this".to_owned()),
        },
        _ => (Code::Internal, "gave an unexpected answer", "please report this".to_owned()),
    }
}
