//! Opening a store whose blocks are in S3: which errors say what is wrong, to whom a place belongs, and the
//! `AWS_*` variables.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use graviton_core::{AsyncStore, Code, Config, Error};
use tempfile::TempDir;

use crate::support::child;
use crate::support::needs_servers;
use crate::support::proxy::{Fault, Proxy, error};
use crate::support::s3;

/// With the configuration and the patience of the product.
async fn opened(directory: &TempDir, changes: &[(&str, &str)]) -> (Result<AsyncStore, Error>, Duration) {
    let root = directory.path().to_str().unwrap();
    let (url, user, password) = (s3::seaweedfs(), s3::user(), s3::password());
    let prefix = s3::new_prefix();
    let mut config = Config::new();
    let settings = [
        ("GRAVITON_BLOB_BACKEND", "minio"),
        ("GRAVITON_FS_ROOT", root),
        ("QUASAR_MINIO_URL", &url),
        ("MINIO_ROOT_USER", &user),
        ("MINIO_ROOT_PASSWORD", &password),
        ("GRAVITON_S3_BLOCK_BUCKET", s3::BUCKET),
        ("GRAVITON_S3_BLOCK_PREFIX", &prefix),
    ];
    for (name, value) in settings.iter().chain(changes) {
        config = config.set(name, value).unwrap();
    }
    let started = Instant::now();
    let store = config.open_async().await;
    (store, started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_says_what_is_wrong_within_ten_seconds() {
    needs_servers!();
    let directory = tempfile::tempdir().unwrap();
    let nobody = {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let tls = s3::seaweedfs().replace("http:", "https:");
    let silent = Proxy::to(&s3::seaweedfs()).await;
    silent.harm("", "", usize::MAX, Fault::Silent);
    // The id is found to be absent late, and then there is silence.
    let slow = Proxy::to(&s3::seaweedfs()).await;
    slow.harm("GET", "store-id", usize::MAX, Fault::Slow(Duration::from_secs(3)));
    slow.harm("", "", usize::MAX, Fault::Silent);
    let console = Proxy::to(&s3::seaweedfs()).await;
    console.harm("", "", usize::MAX, Fault::Answer(200, "<!doctype html><title>A console</title>"));
    let throttled = Proxy::to(&s3::seaweedfs()).await;
    throttled.harm("", "", usize::MAX, error(503, "SlowDown"));
    for (setting, code, named) in [
        (("GRAVITON_S3_BLOCK_BUCKET", "no-such-bucket"), Code::Config, "GRAVITON_S3_BLOCK_BUCKET"),
        (("GRAVITON_S3_BLOCK_BUCKET", "no-such-bucket"), Code::Config, "\"no-such-bucket\" does not exist"),
        (("MINIO_ROOT_USER", "nobody"), Code::Config, "MINIO_ROOT_USER"),
        (("MINIO_ROOT_PASSWORD", "xyzzy"), Code::Config, "MINIO_ROOT_PASSWORD"),
        (("QUASAR_MINIO_URL", &nobody), Code::BackendUnavailable, "connection refused"),
        (("QUASAR_MINIO_URL", &nobody), Code::BackendUnavailable, &nobody),
        (
            ("QUASAR_MINIO_URL", "http://no-such-host.invalid:9"),
            Code::BackendUnavailable,
            "no-such-host.invalid",
        ),
        (("QUASAR_MINIO_URL", &tls), Code::BackendUnavailable, &tls),
        (("QUASAR_MINIO_URL", &silent.url), Code::BackendUnavailable, "no answer within"),
        (("QUASAR_MINIO_URL", &slow.url), Code::BackendUnavailable, "no answer within"),
        (("QUASAR_MINIO_URL", &console.url), Code::Config, "console"),
        (("QUASAR_MINIO_URL", &throttled.url), Code::BackendUnavailable, "SlowDown"),
    ] {
        let (store, elapsed) = opened(&directory, &[setting]).await;
        let error = store.expect_err("that cannot be opened");
        let text = format!("{error}; {}", error.advice().unwrap());
        println!("{elapsed:?}: {} {text}", error.code());
        assert_eq!(error.code(), code, "{text}");
        assert!(text.contains(named), "{text}");
        assert!(!text.contains("xyzzy") && !text.contains(&s3::password()), "{text}");
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?} until {text}");
    }
    let (store, elapsed) = opened(&directory, &[]).await;
    store.unwrap().close().await;
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

/// The server's own refusal, of credentials that may only read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_may_only_read_are_told_what_they_lack() {
    needs_servers!();
    let directory = tempfile::tempdir().unwrap();
    let reader = format!("{}-reader", s3::user());
    let (store, _) = opened(&directory, &[("MINIO_ROOT_USER", &reader)]).await;
    let store = store.unwrap();
    let error = store.put(&b"something"[..]).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden, "{error}");
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    assert_eq!(store.list(None, 1).await.unwrap().len(), 0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_belongs_to_one_database() {
    needs_servers!();
    let prefix = s3::new_prefix();
    let own = [("GRAVITON_S3_BLOCK_PREFIX", &prefix[..])];
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = opened(&one, &own).await.0.unwrap();
    let put = store.put(&b"mine"[..]).await.unwrap();
    store.close().await;
    let error = opened(&two, &own).await.0.unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert!(error.to_string().contains(&format!("{}/{}/{prefix}", s3::seaweedfs(), s3::BUCKET)), "{error}");
    let again = opened(&one, &own).await.0.unwrap();
    assert_eq!(again.reader(&put.id).await.unwrap().next().await.unwrap().unwrap(), &b"mine"[..]);
    again.close().await;
}

/// `s3` without a server of its own is what the `AWS_*` variables say, in a process that has them.
#[test]
fn aws_is_what_its_variables_say() {
    needs_servers!();
    let directory = tempfile::tempdir().unwrap();
    let prefix = s3::new_prefix();
    let with = |changes: &[(&str, &str)]| {
        let output = child::command(module_path!())
            .env("GRAVITON_FS_ROOT", directory.path())
            .env("GRAVITON_BLOB_BACKEND", "s3")
            .env("GRAVITON_S3_BLOCK_BUCKET", s3::BUCKET)
            .env("GRAVITON_S3_BLOCK_PREFIX", &prefix)
            .env("AWS_ENDPOINT_URL", s3::seaweedfs())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", s3::user())
            .env("AWS_SECRET_ACCESS_KEY", s3::password())
            .env("AWS_REGION", "eu-north-1")
            .envs(changes.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let place = format!("opened {}/{}/{prefix};", s3::seaweedfs(), s3::BUCKET);
    for (changes, expected) in [
        (vec![], place.as_str()),
        (vec![("AWS_SECRET_ACCESS_KEY", "xyzzy")], "config: "),
        (vec![("AWS_SECRET_ACCESS_KEY", "xyzzy")], "AWS_SECRET_ACCESS_KEY"),
        (vec![("AWS_ALLOW_HTTP", "false")], "AWS_ALLOW_HTTP"),
        (vec![("AWS_ENDPOINT_URL", "http://127.0.0.1:9")], "backend-unavailable: "),
        // One of the three that mean a server of one's own.
        (vec![("MINIO_ROOT_USER", "somebody")], "QUASAR_MINIO_URL is not set"),
    ] {
        let said = with(&changes);
        assert!(said.contains(expected) && !said.contains("xyzzy"), "{changes:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not a test: what the test above starts as another process"]
async fn child() {
    if std::env::var_os("AWS_ENDPOINT_URL").is_none() {
        return;
    }
    match Config::from_env().unwrap().open_async().await {
        Ok(store) => {
            let put = store.put(&b"through AWS"[..]).await.unwrap();
            let read = store.reader(&put.id).await.unwrap().next().await.unwrap();
            assert_eq!(read.unwrap(), &b"through AWS"[..]);
            println!("opened {};", store_location(&store));
            store.close().await;
        }
        Err(error) => println!("{}: {error}; {:?}", error.code(), error.advice()),
    }
}

/// From the one text that has it.
fn store_location(store: &AsyncStore) -> String {
    let shown = format!("{store:?}");
    shown.split('"').nth(1).unwrap().to_owned()
}

/// Ends TLS, and passes everything on to the server whose port it is told. Says its own port.
const TLS: &str = "
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def pump(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        return
    server = socket.create_connection(('127.0.0.1', int(sys.argv[3])))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_named_and_trusted_when_it_is_told() {
    needs_servers!();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    assert!(openssl.args(["-keyout", &key, "-out", &certificate]).output().unwrap().status.success());
    let (_, port) =
        s3::seaweedfs().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", TLS, &certificate, &key, &port]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Ended(python.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = format!("https://localhost:{}", line.trim());

    let (refused, _) = opened(&directory, &[("QUASAR_MINIO_URL", &url)]).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Config, "{refused}");
    assert!(refused.to_string().contains("cannot be trusted"), "{refused}");
    assert!(refused.advice().unwrap().contains("GRAVITON_S3_CA"), "{refused}");

    let trusting = [("QUASAR_MINIO_URL", &*url), ("GRAVITON_S3_CA", &*certificate)];
    let (store, _) = opened(&directory, &trusting).await;
    let store = store.unwrap();
    let id = store.put(&b"over TLS"[..]).await.unwrap().id;
    assert_eq!(store.read_range(&id, 0..100).await.unwrap(), &b"over TLS"[..]);

    for (file, code) in [(key.as_str(), Code::Config), (&path("missing"), Code::NotFound)] {
        let (refused, _) = opened(&directory, &[("GRAVITON_S3_CA", file)]).await;
        let refused = refused.unwrap_err();
        assert!(refused.code() == code && refused.to_string().contains(file), "{refused}");
    }
}

/// Some gateways have S3 under a path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_be_found_under_a_path() {
    needs_servers!();
    let directory = tempfile::tempdir().unwrap();
    // It does not look at signatures, in which the path is.
    let gateway = Proxy::to(&s3::moto()).await;
    gateway.harm("", "", usize::MAX, Fault::Under("/storage/v1/s3"));
    let url = format!("{}/storage/v1/s3/", gateway.url);
    let (store, _) = opened(&directory, &[("QUASAR_MINIO_URL", &url)]).await;
    let store = store.unwrap();
    let id = store.put(&b"found"[..]).await.unwrap().id;
    assert_eq!(&*store.read_range(&id, 0..5).await.unwrap(), b"found");
    store.delete(&id).await.unwrap();
    let options = graviton_core::GcOptions { grace: Some(Duration::ZERO), ..Default::default() };
    assert_eq!(store.gc(&options, |_| std::ops::ControlFlow::Continue(())).await.unwrap().blocks, 1);
    store.close().await;
    // The bucket is not a part of it.
    for wrong in [format!("{url}{}", s3::BUCKET), format!("{}/{}/", s3::moto(), s3::BUCKET)] {
        let error = opened(&directory, &[("QUASAR_MINIO_URL", &wrong)]).await.0.unwrap_err();
        assert_eq!(error.code(), Code::Config);
        assert!(error.to_string().contains("ends with the bucket"), "{error}");
    }
}
