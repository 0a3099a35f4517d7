//! The address of a PostgreSQL database: the URL of the configuration, checked. No message contains its
//! secrets.

use std::fmt;

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::error::{Code, Error, Result};

/// Parameters of a URL that have an effect here. Any other is an error, because it may concern security.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// How to reach a database of a Postgres server.
#[derive(Clone)]
pub struct PostgresAddress {
    options: PgConnectOptions,
    name: String,
    variable: &'static str,
    schema: String,
    connections: usize,
}

/// The schema of the tables, unless another one is set.
const SCHEMA: &str = "graviton";

/// The most connections of an open store at once, unless another number is set. By default, a server has 100
/// for all its clients.
const CONNECTIONS: usize = 10;

/// A parameter that the session has if the server itself received it, and no pooler dropped it.
pub(super) const MARK: &str = "graviton.session";

impl PostgresAddress {
    /// The address in `url`, in the form of libpq (`postgres://user:password@host:port/database?sslmode=…`)
    /// or of JDBC (`jdbc:postgresql://host:port/database`). `variable` is the setting that the URL comes
    /// from, for messages.
    ///
    /// `user` and `password` fill in what the URL leaves out. If the URL contradicts them, the error is
    /// `config`.
    pub fn parse(
        variable: &'static str,
        url: &str,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<PostgresAddress> {
        let mut url = match url.strip_prefix("jdbc:") {
            Some(url) => from_jdbc(variable, url)?,
            None => parse(variable, url)?,
        };
        // A password with an unescaped / or ? or # ends up in those parts, and would be shown.
        let behind = [url.path(), url.query().unwrap_or(""), url.fragment().unwrap_or("")];
        if behind.iter().any(|part| part.contains('@')) || url.fragment().is_some() {
            return Err(wrong(variable, "there is an @ or # where none can be")
                .with_advice("write special characters of the password as %XX"));
        }
        for (parameter, value) in url.query_pairs() {
            if ["host", "hostaddr", "port"].contains(&&*parameter) && value.contains(',') {
                return Err(several_hosts(variable));
            }
            if parameter.starts_with("options") && format!("{parameter}={value}").contains("search_path") {
                return Err(other_schema(variable, &parameter));
            }
            if parameter == "target_session_attrs" {
                check_target(variable, &value, &["any", "read-write", "primary"])?;
            } else if !PARAMETERS.contains(&&*parameter) && !parameter.starts_with("options[") {
                let known = PARAMETERS.join(", ");
                return Err(wrong(variable, &format!("{parameter:?} is no parameter of it"))
                    .with_advice(format!("the parameters are {known}")));
            }
        }
        if parameter(&url, "target_session_attrs").is_some() {
            // sqlx does not know this parameter.
            let rest = url.clone();
            let kept = rest.query_pairs().filter(|(name, _)| name != "target_session_attrs");
            url.query_pairs_mut().clear().extend_pairs(kept);
        }
        if let Some(user) = user {
            let said = parameter(&url, "user").unwrap_or_else(|| decoded(url.username()));
            if !said.is_empty() && said != user {
                return Err(wrong(variable, "it names another user than PG_USERNAME")
                    .with_advice("name the user in one place"));
            }
        }
        if let Some(password) = password {
            let said = parameter(&url, "password").or_else(|| url.password().map(decoded));
            if said.is_some_and(|said| said != password) {
                return Err(wrong(variable, "it holds another password than PG_PASSWORD")
                    .with_advice("give the password in one place"));
            }
        }
        if url.host_str().is_none_or(str::is_empty) && parameter(&url, "host").is_none() {
            // sqlx would read PGHOST.
            let _ = url.set_host(Some("localhost"));
        }
        let port = url.port();
        // sqlx's message may repeat a value, and the value may be the password.
        let mut options: PgConnectOptions = url.as_str().parse().map_err(|_| {
            wrong(variable, "a value in it is not possible").with_advice("check its port and its sslmode")
        })?;
        if port.is_none() && parameter(&url, "port").is_none() {
            options = options.port(5432);
        }
        if let Some(user) = user {
            options = options.username(user);
        }
        if let Some(password) = password {
            options = options.password(password);
        }
        let database = options.get_database().unwrap_or(options.get_username()).to_owned();
        options = options.database(&database);
        if options.get_application_name().is_none() {
            options = options.application_name("graviton");
        }
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let name = format!("postgres://{host}:{}/{database}", options.get_port());
        // Without the second one, a crash of the server could undo an acknowledged doom or commit. No column
        // is a floating-point number, and some poolers refuse that parameter.
        let options = options.disable_statement_logging().extra_float_digits(None).options([
            ("search_path", SCHEMA),
            ("synchronous_commit", "on"),
            (MARK, "own"),
        ]);
        let (schema, connections) = (SCHEMA.to_owned(), CONNECTIONS);
        Ok(PostgresAddress { options, name, variable, schema, connections })
    }

    /// The same database, with the tables in this schema. Its name has lower-case letters, digits and
    /// underscores.
    pub fn in_schema(self, schema: &str) -> Result<PostgresAddress> {
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit();
        if schema.is_empty()
            || schema.len() > 63
            || !schema.chars().all(is_plain)
            || schema.starts_with(|first: char| first.is_ascii_digit())
            || schema.starts_with("pg_")
        {
            return Err(Error::new(Code::Config, format!("{schema:?} cannot be the schema of the tables"))
                .with_advice("use small letters, digits and underscores, such as graviton"));
        }
        if schema == self.schema {
            return Ok(self);
        }
        // If a parameter has two values, the server takes the last one.
        let options = self.options.options([("search_path", schema)]);
        let name = format!("{} (schema {schema})", self.name);
        Ok(PostgresAddress { options, name, schema: schema.to_owned(), ..self })
    }

    /// The same database, with at most this many connections of an open store at once, beside the one that
    /// renews its lease.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> PostgresAddress {
        PostgresAddress { connections: connections.max(1), ..self }
    }

    /// The schema of the tables.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Host, port and database, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The setting that the address comes from.
    pub(super) fn variable(&self) -> &'static str {
        self.variable
    }

    /// The settings that user and password come from.
    pub(super) fn credentials(&self) -> &'static str {
        if self.variable == "PG_JDBC_URL" {
            "PG_USERNAME and PG_PASSWORD"
        } else {
            "the user and password in GRAVITON_MANIFEST_URL"
        }
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresAddress").field(&self.name).finish()
    }
}

fn wrong(variable: &str, why: &str) -> Error {
    Error::new(Code::Config, format!("{variable} is not an address of Postgres: {why}"))
}

/// Fails unless the requested kind of server, out of several, may be one that accepts writes. There is only
/// one host here, and a store that cannot write to it reports that.
fn check_target(variable: &'static str, wanted: &str, met: &[&str]) -> Result<()> {
    if met.contains(&wanted) {
        return Ok(());
    }
    Err(wrong(variable, "it asks for another server than one that takes writes")
        .with_advice("name one address, that of the server that takes writes"))
}

fn several_hosts(variable: &str) -> Error {
    wrong(variable, "it names several hosts")
        .with_advice("name one address, that of the server that takes writes")
}

fn other_schema(variable: &str, parameter: &str) -> Error {
    wrong(variable, &format!("{parameter:?} would choose the schema of the tables"))
        .with_advice("choose it with GRAVITON_PG_SCHEMA")
}

fn parse(variable: &'static str, url: &str) -> Result<Url> {
    let form = "postgres://user:password@host:port/database";
    let behind =
        url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    let hosts = behind.rsplit_once('@').map_or(behind, |(_, hosts)| hosts);
    if hosts.contains(',') {
        return Err(several_hosts(variable));
    }
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    parsed.filter(|url| !url.cannot_be_a_base()).ok_or_else(|| {
        wrong(variable, "it is not a URL of that kind").with_advice(format!(
            "use the form {form}, with special characters of the password written as %XX"
        ))
    })
}

/// <https://jdbc.postgresql.org/documentation/use/#connecting-to-the-database>. Properties of the driver that
/// concern speed or names do not matter here; those that concern encryption do.
fn from_jdbc(variable: &'static str, url: &str) -> Result<Url> {
    let rest = url.strip_prefix("postgresql:").ok_or_else(|| {
        wrong(variable, "it is not of the form jdbc:postgresql:…")
            .with_advice("use the form jdbc:postgresql://host:port/database")
    })?;
    let text = match rest.strip_prefix("//") {
        Some(rest) => format!("postgresql://{rest}"),
        None => format!("postgresql://localhost/{}", rest.trim_start_matches('/')),
    };
    let mut url = parse(variable, &text)?;
    let properties: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let mut kept = Vec::new();
    for (name, value) in properties {
        match name.as_str() {
            "user" | "password" | "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {
                kept.push((name, value));
            }
            // The driver's meaning of this property without others.
            "ssl" if value.is_empty() || value == "true" => {
                kept.push(("sslmode".to_owned(), "verify-full".to_owned()));
            }
            "ssl" => {}
            "targetServerType" => {
                check_target(variable, &value, &["any", "primary", "master", "preferPrimary"])?;
            }
            "currentSchema" => return Err(other_schema(variable, &name)),
            "options" if value.contains("search_path") => return Err(other_schema(variable, &name)),
            "options" => kept.push((name, value)),
            "readOnly" if value != "false" => {
                return Err(wrong(variable, "it asks for sessions that only read (readOnly)")
                    .with_advice("leave it out; a store that is opened read-only writes nothing"));
            }
            "loadBalanceHosts" if value != "false" => {
                return Err(wrong(variable, "it asks for one of several hosts (loadBalanceHosts)")
                    .with_advice("name one address, that of the server that takes writes"));
            }
            "ApplicationName" => kept.push(("application_name".to_owned(), value)),
            _ if name.starts_with("ssl") || name.starts_with("gss") || name == "channelBinding" => {
                return Err(wrong(variable, &format!("the property {name:?} is not supported"))
                    .with_advice("use sslmode, sslrootcert, sslcert and sslkey"));
            }
            _ => {}
        }
    }
    if kept.is_empty() {
        url.set_query(None);
    } else {
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    Ok(url)
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> String {
        PostgresAddress::parse("GRAVITON_MANIFEST_URL", url, Some("u"), None).unwrap().name
    }

    #[test]
    fn both_forms_of_a_url_name_the_same_database() {
        for url in [
            "postgres://u:p@db.example:6000/graviton",
            "postgresql://db.example:6000/graviton?sslmode=require",
            "jdbc:postgresql://db.example:6000/graviton?reWriteBatchedInserts=true&ssl=true",
        ] {
            assert_eq!(name(url), "postgres://db.example:6000/graviton");
        }
        assert_eq!(name("jdbc:postgresql:graviton"), "postgres://localhost:5432/graviton");
        assert_eq!(name("postgres://h"), "postgres://h:5432/u");
        assert_eq!(name("postgres://h/d?target_session_attrs=read-write"), "postgres://h:5432/d");
        assert_eq!(name("jdbc:postgresql://h/d?targetServerType=primary"), "postgres://h:5432/d");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for url in [
            "postgres:secret",
            "postgres://u:secret@h/d?sslmode=secret",
            "postgres://u:secret@h/d?sslmodus=disable",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
            "postgres://other:secret@h/d",
            "jdbc:postgresql://h,i/d",
            "jdbc:postgresql://h/d?sslfactory=secret",
            "jdbc:mysql://h/d",
            "postgres://user:/secret@host/db",
            "postgres://u:12?secret@h/d",
            "postgres://u:12#secret@h/d",
            "postgres://u:wrong@h/d",
            "postgres://u:secret@h,i/d",
            "postgres://u:secret@h:1,i:2/d?target_session_attrs=read-write",
            "postgres://u:secret@/d?host=h1,h2",
            "postgres://u:secret@h/d?port=1,2",
            "postgres://u:secret@h/d?hostaddr=10.0.0.1,10.0.0.2",
            "postgres://u:secret@h/d?options=-c%20search_path%3Dother",
            "postgres://u:secret@h/d?options[search_path]=other",
            "jdbc:postgresql://h/d?currentSchema=other&password=secret",
            "jdbc:postgresql://h/d?options=-c%20search_path%3Dother",
            "jdbc:postgresql://h/d?readOnly=true",
            "jdbc:postgresql://h/d?loadBalanceHosts=true",
            "postgres://u:secret@h/d?target_session_attrs=prefer-standby",
            "jdbc:postgresql://h/d?targetServerType=secondary&password=secret",
        ] {
            let error = PostgresAddress::parse("GRAVITON_MANIFEST_URL", url, Some("u"), Some("secret"));
            let error = error.expect_err(url);
            assert_eq!(error.code(), Code::Config, "{url}");
            assert!(error.advice().is_some(), "{url}");
            let text = format!("{error:?} {:?}", error.advice());
            assert!(!text.contains("secret") && text.contains("GRAVITON_MANIFEST_URL"), "{text}");
        }
    }

    #[test]
    fn a_password_may_have_any_characters() {
        let url = "postgres://u:p%40%2F%25x+y@h/d";
        let address =
            PostgresAddress::parse("GRAVITON_MANIFEST_URL", url, Some("u"), Some("p@/%x+y")).unwrap();
        assert!(!format!("{address:?}").contains("x+y"));
    }
}
