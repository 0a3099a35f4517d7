//! Opening a store with wrong settings: an error comes soon, names the setting, says what is wrong, and
//! contains no secret.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::needs_servers;
use crate::support::pair;
use crate::support::pair::{Blocks, Manifests, Pair};
use crate::support::servers::variable;
use graviton_core::{Code, Config, Error};

/// The limit that issue 3 promises.
const SOON: Duration = Duration::from_secs(10);

/// Opens for writing and for reading, and checks that both errors are alike.
fn refused(config: &Config) -> Error {
    let open = |how: fn(&Config) -> graviton_core::Result<graviton_core::Store>| {
        let started = Instant::now();
        let error = how(config).expect_err("it opened");
        let took = started.elapsed();
        println!("{took:?}: {error}");
        assert!(took < SOON, "{took:?}: {error}");
        error
    };
    let (writing, reading) = (open(Config::open), open(Config::open_read_only));
    assert_eq!(writing.code(), reading.code(), "{writing} / {reading}");
    writing
}

/// Checks that the pair with these changes is refused with this code, and that the message or the advice has
/// these words.
#[track_caller]
fn assert_refused(pair: &Pair, changes: &[(&'static str, &str)], code: Code, words: &[&str]) {
    let error = refused(&pair.with(changes).config());
    let text = format!("{error} / {}", error.advice().expect("it says what to do"));
    assert_eq!(error.code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    // Neither there nor in the debug output, which is logged.
    let text = format!("{text} {error:?}");
    for (name, value) in pair.with(changes).settings {
        let secret = match name {
            "MINIO_ROOT_PASSWORD" | "PG_PASSWORD" => Some(value.as_str()),
            "GRAVITON_MANIFEST_URL" => password(&value),
            _ => None,
        };
        assert!(secret.is_none_or(|secret| !text.contains(secret)), "a secret in: {text}");
    }
}

fn password(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split_once('@')?.0.split_once(':').map(|(_, password)| password)
}

/// A listener that does this with every client, and its port.
fn answering(answer: impl Fn(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // The listener is kept, so that no client is disconnected.
        for client in listener.incoming().flatten() {
            answer(client);
        }
    });
    port
}

/// A listener that accepts connections and sends nothing.
fn silent() -> u16 {
    let kept = std::sync::Mutex::new(Vec::new());
    answering(move |client| kept.lock().unwrap().push(client))
}

/// A port without a listener.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn authority(url: &str) -> String {
    url.rsplit(['@', '/']).next().unwrap().to_owned()
}

#[test]
fn a_bucket_or_credentials_that_are_wrong_are_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Sqlite);
    let refused = |name, value, words: &[&str]| assert_refused(&pair, &[(name, value)], Code::Config, words);
    refused("GRAVITON_S3_BLOCK_BUCKET", "no-such-bucket", &["no-such-bucket", "GRAVITON_S3_BLOCK_BUCKET"]);
    refused("MINIO_ROOT_PASSWORD", "not-the-password", &["MINIO_ROOT_PASSWORD"]);
    refused("MINIO_ROOT_USER", "nobody", &["MINIO_ROOT_USER"]);
}

#[test]
fn an_s3_server_that_is_not_there_is_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Sqlite);
    let refused = |port: u16| {
        let (url, named) = (format!("http://127.0.0.1:{port}"), format!("127.0.0.1:{port}"));
        let words = [named.as_str(), "QUASAR_MINIO_URL"];
        assert_refused(&pair, &[("QUASAR_MINIO_URL", &url)], Code::BackendUnavailable, &words);
    };
    refused(nobody());
    refused(silent());
    refused(answering(drop));
}

#[test]
fn something_else_behind_the_url_of_s3_is_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Sqlite);
    let page = |mut client: std::net::TcpStream| {
        let _ = client.read(&mut [0; 4096]);
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>hi</html>";
        let _ = client.write_all(page.as_bytes());
    };
    let url = format!("http://127.0.0.1:{}", answering(page));
    assert_refused(&pair, &[("QUASAR_MINIO_URL", &url)], Code::Config, &[&authority(&url)]);
}

#[test]
fn a_database_or_credentials_that_are_wrong_are_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let server = variable("GRAVITON_TEST_POSTGRES");
    let (secret, at) = (password(&server).unwrap(), authority(&server));
    let refused = |url: &str, code, words: &[&str]| {
        let words = [&["GRAVITON_MANIFEST_URL"], words].concat();
        assert_refused(&pair, &[("GRAVITON_MANIFEST_URL", url)], code, &words);
    };
    refused(&format!("{server}/no_such_database"), Code::Config, &["no_such_database", "does not exist"]);
    let database = authority(pair.setting("GRAVITON_MANIFEST_URL"));
    let wrong = format!("postgres://graviton:not-the-password@{at}/{database}");
    refused(&wrong, Code::Config, &[&at, "password"]);
    refused(&format!("postgres://nobody:{secret}@{at}/{database}"), Code::Config, &["nobody"]);
}

#[test]
fn the_settings_of_a_deployment_that_are_wrong_are_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let server = variable("GRAVITON_TEST_POSTGRES");
    let (secret, at) = (password(&server).unwrap(), authority(&server));
    let mut deployed = pair.with(&[]);
    deployed.settings.retain(|(name, _)| *name != "GRAVITON_MANIFEST_URL");
    let database = authority(pair.setting("GRAVITON_MANIFEST_URL"));
    let jdbc = format!("jdbc:postgresql://{at}/{database}");
    let right = [("PG_JDBC_URL", jdbc.as_str()), ("PG_USERNAME", "graviton"), ("PG_PASSWORD", secret)];
    assert_eq!(deployed.with(&right).open().put(&b"x"[..]).unwrap().blocks, 1);

    let with = |name, value| {
        let mut changes = right.to_vec();
        changes.retain(|(changed, _)| *changed != name);
        changes.push((name, value));
        changes
    };
    assert_refused(&deployed, &with("PG_PASSWORD", "not-the-password"), Code::Config, &["PG_PASSWORD"]);
    assert_refused(&deployed, &with("PG_USERNAME", "nobody"), Code::Config, &["PG_USERNAME"]);
    let missing = format!("jdbc:postgresql://{at}/no_such_database");
    assert_refused(
        &deployed,
        &with("PG_JDBC_URL", &missing),
        Code::Config,
        &["PG_JDBC_URL", "no_such_database"],
    );
    let refused = format!("jdbc:postgresql://127.0.0.1:{}/x", nobody());
    assert_refused(&deployed, &with("PG_JDBC_URL", &refused), Code::BackendUnavailable, &["PG_JDBC_URL"]);
    let url = pair.setting("GRAVITON_MANIFEST_URL");
    let both = [("PG_JDBC_URL", missing.as_str()), ("GRAVITON_MANIFEST_URL", url)];
    assert_refused(&deployed, &both, Code::Config, &["PG_JDBC_URL", "GRAVITON_MANIFEST_URL"]);
}

#[test]
fn a_database_server_that_is_not_there_is_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let refused = |port: u16| {
        let at = format!("127.0.0.1:{port}");
        let url = format!("postgres://graviton:a-password@{at}/graviton");
        let words = [at.as_str(), "GRAVITON_MANIFEST_URL"];
        assert_refused(&pair, &[("GRAVITON_MANIFEST_URL", &url)], Code::BackendUnavailable, &words);
    };
    refused(nobody());
    refused(silent());
    refused(answering(drop));
}

#[test]
fn servers_that_are_both_silent_do_not_add_up() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Postgres);
    let s3 = format!("http://127.0.0.1:{}", silent());
    let postgres = format!("postgres://graviton:a-password@127.0.0.1:{}/graviton", silent());
    let both = [("QUASAR_MINIO_URL", s3.as_str()), ("GRAVITON_MANIFEST_URL", postgres.as_str())];
    assert_refused(&pair, &both, Code::BackendUnavailable, &["127.0.0.1"]);
}

#[test]
fn tls_that_is_required_or_not_to_be_trusted_is_named() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let url = pair.setting("GRAVITON_MANIFEST_URL");
    let ca = variable("GRAVITON_TEST_POSTGRES_CA");
    let with = |url: &str, parameters: &str| format!("{url}?{parameters}");
    let refused = |url: &str, words: &[&str]| {
        let words = [&["GRAVITON_MANIFEST_URL"], words].concat();
        assert_refused(&pair, &[("GRAVITON_MANIFEST_URL", url)], Code::Config, &words);
    };
    // The server requires TLS of this user, and the URL disables it.
    let wants = url.replace("graviton:", "tls_only:");
    refused(&with(&wants, "sslmode=disable"), &["encryption"]);
    // We verify the certificate, and do not know the authority.
    refused(&with(url, "sslmode=verify-full"), &["sslrootcert"]);
    refused(&with(url, &format!("sslmode=verify-full&sslrootcert={ca}.missing")), &["sslrootcert"]);
    // We require TLS, and the server does not have it: it answers N to the request.
    let without = answering(|mut client| {
        let _ = client.read(&mut [0; 8]);
        let _ = client.write_all(b"N");
    });
    let plain = format!("postgres://graviton:a-password@127.0.0.1:{without}/graviton?sslmode=require");
    refused(&plain, &["sslmode"]);

    for right in ["sslmode=require".to_owned(), format!("sslmode=verify-full&sslrootcert={ca}")] {
        let changed = pair.with(&[("GRAVITON_MANIFEST_URL", &with(url, &right))]);
        let store = changed.config().open_read_only();
        // Nothing has been put, so the store is not found; that answer came over TLS.
        assert_eq!(store.unwrap_err().code(), Code::NotFound, "{right}");
    }
}

#[test]
fn a_user_who_may_not_make_tables_is_told_so() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let url = pair.setting("GRAVITON_MANIFEST_URL").replace("graviton:", "tls_only:");
    let error = pair.with(&[("GRAVITON_MANIFEST_URL", &url)]).config().open().unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    assert!(error.advice().unwrap().contains("grant"), "{error}");
}

#[test]
fn credentials_that_may_only_read_are_told_so_when_they_write() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Postgres);
    let id = pair.open().put(&b"to be read"[..]).unwrap().id;
    let reader = format!("{}-reader", pair.setting("MINIO_ROOT_USER"));
    let reading = pair.with(&[("MINIO_ROOT_USER", &reader)]);
    let store = reading.config().open_read_only().unwrap();
    assert_eq!(store.read_range(&id, 0..100).unwrap(), &b"to be read"[..]);
    let error = reading.open().put(&b"to be written"[..]).unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    let text = format!("{error} {:?}", error.advice());
    assert!(text.contains("PutObject") && text.contains(pair::BUCKET), "{text}");
}
