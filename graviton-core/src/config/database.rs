//! The database of the manifests: `GRAVITON_MANIFEST_URL`, or the `PG_*` settings of an existing deployment.

use std::path::{Path, PathBuf};

use super::values::Values;
use crate::error::{Code, Error, Result};
#[cfg(feature = "postgres")]
use crate::manifest::postgres::PostgresAddress;

const URL: &str = "GRAVITON_MANIFEST_URL";
const JDBC: &str = "PG_JDBC_URL";
#[cfg(feature = "postgres")]
const SCHEMA: &str = "GRAVITON_PG_SCHEMA";
pub(super) const CONNECTIONS: &str = "GRAVITON_PG_CONNECTIONS";

/// There is none in this build.
#[cfg(not(feature = "postgres"))]
pub(super) enum PostgresAddress {}

#[cfg(not(feature = "postgres"))]
impl PostgresAddress {
    fn parse(setting: &str, _: &str, _: Option<&str>, _: Option<&str>) -> Result<PostgresAddress> {
        Err(super::values::left_out(&format!("{setting} names a PostgreSQL database"), "postgres"))
    }

    fn name(&self) -> &str {
        match *self {}
    }
}

/// The database of the manifests.
pub(super) enum Manifests {
    Sqlite(PathBuf),
    Postgres(Box<PostgresAddress>),
}

/// Whether the value is possible for `GRAVITON_MANIFEST_URL` by itself.
pub(super) fn check_url(value: &str) -> Result<()> {
    if value.starts_with("postgres:") || value.starts_with("postgresql:") {
        return PostgresAddress::parse(URL, value, None, None).map(drop);
    }
    sqlite_path(value).map(drop)
}

/// Whether the value is possible for `PG_JDBC_URL` by itself.
pub(super) fn check_jdbc(value: &str) -> Result<()> {
    if !value.starts_with("jdbc:") {
        return Err(Error::new(Code::Config, format!("{JDBC} is not a JDBC URL"))
            .with_advice("use the form jdbc:postgresql://host:port/database"));
    }
    PostgresAddress::parse(JDBC, value, None, None).map(drop)
}

/// Whether the value is possible for `GRAVITON_PG_CONNECTIONS` by itself; the number.
pub(super) fn connections(value: &str) -> Result<usize> {
    value.parse().ok().filter(|number| (1..=1_000).contains(number)).ok_or_else(|| {
        Error::new(Code::Config, format!("{CONNECTIONS} cannot be {value:?}"))
            .with_advice("use a whole number from 1 to 1000")
    })
}

/// The database that the settings choose together, with its schema and its number of connections.
pub(super) fn manifests(values: &Values, root: &Path) -> Result<Manifests> {
    match chosen(values, root)? {
        #[cfg(feature = "postgres")]
        Manifests::Postgres(address) => {
            let mut address = *address;
            if let Some(schema) = values.get(SCHEMA) {
                address = address.in_schema(schema)?;
            }
            if let Some(number) = values.get(CONNECTIONS) {
                address = address.with_connections(connections(number)?);
            }
            Ok(Manifests::Postgres(Box::new(address)))
        }
        chosen => Ok(chosen),
    }
}

/// The database that the settings choose together; settings that contradict each other are an error.
fn chosen(values: &Values, root: &Path) -> Result<Manifests> {
    let value = |name| values.get(name);
    let (user, password) = (value("PG_USERNAME"), value("PG_PASSWORD"));
    let jdbc = match value(JDBC) {
        Some(url) => Some(PostgresAddress::parse(JDBC, url, user, password)?),
        None => None,
    };
    let Some(url) = value(URL) else {
        return match (jdbc, user.or(password)) {
            (Some(address), _) => Ok(Manifests::Postgres(Box::new(address))),
            (None, Some(_)) => {
                let name = if user.is_some() { "PG_USERNAME" } else { "PG_PASSWORD" };
                Err(Error::new(Code::Config, format!("{name} is set, and {JDBC} is not")).with_advice(
                    format!(
                        "set {JDBC} to keep manifests in Postgres, or unset {name} to keep them in SQLite"
                    ),
                ))
            }
            (None, None) => Ok(Manifests::Sqlite(root.join("manifests.db"))),
        };
    };
    if url.starts_with("sqlite:") {
        return match jdbc {
            None => Ok(Manifests::Sqlite(sqlite_path(url)?)),
            Some(jdbc) => Err(another(&format!("{URL} names a SQLite database"), &jdbc)),
        };
    }
    let address = PostgresAddress::parse(URL, url, user, password)?;
    match jdbc {
        Some(jdbc) if jdbc.name() != address.name() => {
            Err(another(&format!("{URL} names {}", address.name()), &jdbc))
        }
        _ => Ok(Manifests::Postgres(Box::new(address))),
    }
}

fn another(first: &str, jdbc: &PostgresAddress) -> Error {
    Error::new(Code::Config, format!("{first}, and {JDBC} names {}", jdbc.name()))
        .with_advice("set only the one where the manifests are")
}

/// Whether this is an address, with `//` behind its scheme, or without it one of those that stores have.
pub(super) fn is_address(text: &str) -> bool {
    const STORES: [&str; 10] =
        ["sqlite", "memory", "file", "s3", "s3a", "minio", "postgres", "postgresql", "jdbc", "gs"];
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    let scheme = scheme.to_ascii_lowercase();
    is_scheme && rest.starts_with("//") || STORES.contains(&&*scheme)
}

/// Why this is taken for something else than a path: a file of that name would be made. Such a file
/// is named with `./` before it.
fn is_no_path(path: &str) -> Option<&'static str> {
    if path.starts_with(":memory:") {
        Some("a database in memory would be lost, and a store needs one that stays")
    } else if path.starts_with("file:") || is_address(path) {
        Some("it is an address")
    } else if path.contains('?') {
        Some("it has parameters, which are not taken")
    } else {
        None
    }
}

fn sqlite_path(url: &str) -> Result<PathBuf> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    if let Some(path) = path
        && let Some(what) = is_no_path(path)
    {
        return Err(Error::new(Code::Config, format!("{URL} names no file of SQLite: {what}"))
            .with_advice("use sqlite:PATH, with the path of a file and nothing behind it"));
    }
    match path {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        // Not shown: it may hold a password.
        _ => Err(Error::new(Code::Config, format!("{URL} is neither sqlite:PATH nor postgres://…"))
            .with_advice("use sqlite:PATH, or postgres://user:password@host:port/database")),
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::super::Config;
    use super::*;

    fn chosen(settings: &[(&str, &str)]) -> Result<String> {
        let set = |config: Config, (name, value): &(&str, &str)| config.set(name, value);
        let config = settings.iter().try_fold(Config::new(), set)?;
        Ok(match manifests(&config.values, &config.root())? {
            Manifests::Sqlite(path) => path.display().to_string(),
            Manifests::Postgres(address) => address.name().to_owned(),
        })
    }

    #[test]
    fn the_settings_choose_one_database() {
        let jdbc = ("PG_JDBC_URL", "jdbc:postgresql://h:1/d");
        let user = ("PG_USERNAME", "u");
        assert_eq!(chosen(&[]).unwrap(), "./.graviton/manifests.db");
        assert_eq!(chosen(&[("GRAVITON_MANIFEST_URL", "sqlite:/x.db")]).unwrap(), "/x.db");
        assert_eq!(chosen(&[jdbc, user, ("PG_PASSWORD", "p")]).unwrap(), "postgres://h:1/d");
        let same = ("GRAVITON_MANIFEST_URL", "postgres://u:p@h:1/d?sslmode=disable");
        assert_eq!(chosen(&[jdbc, same]).unwrap(), "postgres://h:1/d");
        assert_eq!(chosen(&[same, ("PG_PASSWORD", "p")]).unwrap(), "postgres://h:1/d");
    }

    #[test]
    fn what_sqlite_takes_for_something_else_is_no_path() {
        for path in
            [":memory:", "//:memory:", "http://x", "q.db?mode=ro", "file:foo", "file:foo?cache=shared"]
        {
            let url = format!("sqlite:{path}");
            let error = chosen(&[("GRAVITON_MANIFEST_URL", &url)]).expect_err(&url);
            assert_eq!(error.code(), Code::Config, "{url}");
            assert!(error.advice().is_some(), "{url}");
        }
        assert_eq!(chosen(&[("GRAVITON_MANIFEST_URL", "sqlite:./file:foo")]).unwrap(), "./file:foo");
    }

    #[test]
    fn contradictions_name_their_settings_and_no_secret() {
        let jdbc = ("PG_JDBC_URL", "jdbc:postgresql://h:1/d?password=secret");
        for (settings, named) in [
            (vec![("PG_USERNAME", "u")], "PG_JDBC_URL"),
            (vec![("PG_PASSWORD", "secret")], "PG_PASSWORD"),
            (vec![jdbc, ("GRAVITON_MANIFEST_URL", "sqlite:x.db")], "PG_JDBC_URL"),
            (vec![jdbc, ("GRAVITON_MANIFEST_URL", "postgres://h:2/d")], "GRAVITON_MANIFEST_URL"),
            (vec![("GRAVITON_MANIFEST_URL", "postgres://u:secret@h/d"), ("PG_USERNAME", "v")], "PG_USERNAME"),
            (vec![jdbc, ("PG_PASSWORD", "other")], "PG_PASSWORD"),
            (vec![("PG_JDBC_URL", "postgres://u:secret@h/d")], "PG_JDBC_URL"),
            (vec![("GRAVITON_MANIFEST_URL", "mysql://u:secret@h/d")], "GRAVITON_MANIFEST_URL"),
        ] {
            let error = chosen(&settings).unwrap_err();
            assert_eq!(error.code(), Code::Config);
            let text = format!("{error:?} {:?}", error.advice());
            assert!(text.contains(named) && !text.contains("secret"), "{text}");
        }
    }
}
