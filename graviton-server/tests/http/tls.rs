//! TLS, HTTP/2, and new certificates.

use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Certificate, Client, Version};
use tokio::io::AsyncWriteExt;

use crate::scene::{Scene, client_builder, noise, read_all, status};

/// Writes a new certificate and key. Returns the certificate.
fn certify(directory: &Path) -> Certificate {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
    Certificate::from_pem(cert.pem().as_bytes()).unwrap()
}

async fn scene() -> (Scene, Certificate) {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let (chain, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let settings = [("TLS_CERT", chain.to_str().unwrap()), ("TLS_KEY", key.to_str().unwrap())];
    (Scene::of(directory, &settings).await, certificate)
}

fn trusting(certificate: &Certificate, http1: bool) -> Client {
    let client = client_builder().tls_certs_only([certificate.clone()]);
    if http1 { client.http1_only() } else { client }.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_over_tls_and_new_certificates_without_a_restart() {
    let (scene, certificate) = scene().await;
    let url = |path: &str| format!("https://localhost:{}{path}", scene.address.port());
    let content = noise(1, 3_000_000);
    for (http1, version) in [(true, Version::HTTP_11), (false, Version::HTTP_2)] {
        let client = trusting(&certificate, http1);
        let put = client.post(url("/api/blobs")).body(content.clone()).send().await.unwrap();
        assert_eq!(put.version(), version);
        let path = put.headers()["location"].to_str().unwrap().to_owned();
        let got = client.get(url(&path)).send().await.unwrap();
        assert_eq!(got.version(), version);
        assert!(got.bytes().await.unwrap() == content);
    }

    // A file that is not a certificate changes nothing.
    let good = std::fs::read(scene.path("cert.pem")).unwrap();
    std::fs::write(scene.path("cert.pem"), "nonsense").unwrap();
    assert!(scene.control.reload().is_err());
    std::fs::write(scene.path("cert.pem"), good).unwrap();
    status(&trusting(&certificate, true).get(url("/api/health")).send().await.unwrap(), 200);

    let long_lived = trusting(&certificate, true);
    status(&long_lived.get(url("/api/health")).send().await.unwrap(), 200);
    let renewed = certify(&scene.path(""));
    scene.control.reload().unwrap();
    assert!(trusting(&certificate, true).get(url("/api/health")).send().await.is_err());
    status(&trusting(&renewed, true).get(url("/api/health")).send().await.unwrap(), 200);
    // An open connection continues.
    status(&long_lived.get(url("/api/health")).send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_port_speaks_nothing_else() {
    let (scene, _) = scene().await;
    let answer = scene.raw(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https://"), "{answer}");
    let mut half = scene.connect().await;
    half.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    assert!(scene.stop().await, "a handshake that hangs holds up the end");
    read_all(&mut half).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_on_one_plain_http2_connection() {
    let scene = Scene::new().await;
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let id = scene.put(&noise(1, 1_000_000)).await;
    let url = scene.url(&format!("/api/blobs/{id}"));
    let requests =
        (0..50).map(|_| async { client.get(&url).send().await.unwrap().bytes().await.unwrap().len() });
    let lengths = futures_util::future::join_all(requests).await;
    assert!(lengths.iter().all(|length| *length == 1_000_000));
    let version = client.get(&url).send().await.unwrap().version();
    assert_eq!(version, Version::HTTP_2);
}
