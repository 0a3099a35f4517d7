//! Permissions: every route with every scope, tokens of all kinds, and invalid tokens.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graviton_core::Config;
use graviton_server::settings::Settings;
use graviton_server::{auth::tokens, openapi_json};
use reqwest::Response;
use serde_json::{Value, json as value};

use crate::scene::{Scene, problem, serve, status};
use crate::signer::Signer;

const SCOPES: [&str; 4] = ["read", "write", "delete", "admin"];

/// A new token, its line added to the file.
fn token(file: &Path, scopes: &str, lifetime: Option<Duration>) -> String {
    let (token, line) = tokens::make("somebody", scopes, lifetime).unwrap();
    let before = std::fs::read_to_string(file).unwrap_or_default();
    std::fs::write(file, format!("{before}{line}\n")).unwrap();
    token
}

async fn with_tokens(scopes: &[&str]) -> (Scene, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let tokens = scopes.iter().map(|scopes| token(&file, scopes, None)).collect();
    (Scene::of(directory, &[("TOKENS", file.to_str().unwrap())]).await, tokens)
}

async fn ask(scene: &Scene, method: &str, path: &str, credential: &str) -> Response {
    scene.request(method, path).header("authorization", credential).send().await.unwrap()
}

/// The scope that each route of the document needs. The test fails for a route that is missing here.
fn needed(method: &str, path: &str) -> Option<&'static str> {
    match (method, path) {
        (_, "/api/health" | "/api/ready" | "/api/openapi.json" | "/docs") => None,
        (_, path) if path.starts_with("/api/admin/") => Some("admin"),
        (
            "get" | "head",
            "/metrics"
            | "/api/stats"
            | "/api/blobs"
            | "/api/blobs/{id}"
            | "/api/blobs/{id}/manifest"
            | "/api/blocks/{key}",
        )
        | ("post", "/api/blobs/{id}/links") => Some("read"),
        ("post", "/api/blobs" | "/api/blocks/missing" | "/api/manifests")
        | ("put", "/api/blobs/{id}" | "/api/blocks/{key}") => Some("write"),
        ("delete", "/api/blobs/{id}") | ("post", "/api/blobs/{id}/restore") => Some("delete"),
        other => panic!("nobody has said what {other:?} needs"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_its_scope_and_for_no_other() {
    let (scene, tokens) = with_tokens(&SCOPES).await;
    let document: Value = serde_json::from_str(openapi_json()).unwrap();
    let key = format!("blake3:{}:1", "0".repeat(64));
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let needed = needed(method, path);
            let path =
                path.replace("{id}", if path.contains("jobs") { "1" } else { &key }).replace("{key}", &key);
            let method = method.to_uppercase();
            let without = scene.request(&method, &path).send().await.unwrap();
            assert_eq!(without.status() == 401, needed.is_some(), "{method} {path}");
            if needed.is_some() && method != "HEAD" {
                assert_eq!(without.headers()["www-authenticate"], "Bearer");
                problem(without, "unauthorized").await;
            }
            for (scope, token) in SCOPES.iter().zip(&tokens) {
                let response = ask(&scene, &method, &path, &format!("Bearer {token}")).await;
                let refused = matches!(response.status().as_u16(), 401 | 403);
                assert_eq!(
                    refused,
                    needed.is_some_and(|needed| needed != *scope),
                    "{method} {path} with {scope}: {response:?}"
                );
                if refused && method != "HEAD" {
                    problem(response, "forbidden").await;
                }
            }
            routes += 1;
        }
    }
    assert!(routes > 20, "{routes}");
    for file in ["swagger-ui.js", "swagger-ui.css", "start.js", "page.css"] {
        status(&scene.get(&format!("/docs/{file}")).send().await.unwrap(), 200);
    }
    problem(scene.get("/docs/other.js").send().await.unwrap(), "unauthorized").await;
    // A shared cache must not keep private content.
    let id = scene.store.put(&b"private"[..]).await.unwrap().id;
    let got = ask(&scene, "GET", &format!("/api/blobs/{id}"), &format!("bearer {}", tokens[0])).await;
    assert_eq!(got.headers()["cache-control"], "private, max-age=31536000, immutable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_opens_nothing() {
    let (scene, tokens) = with_tokens(&["read,write,delete,admin"]).await;
    let token = &tokens[0];
    status(&ask(&scene, "GET", "/api/stats", &format!("Bearer {token}")).await, 200);
    for credential in [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        token.clone(),
        format!("Basic {token}"),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {token}x"),
        format!("Bearer {}", token.to_uppercase()),
        format!("Bearer x {token}"),
        // The hash in the file is not the token.
        format!(
            "Bearer {}",
            std::fs::read_to_string(scene.path("tokens")).unwrap().trim().rsplit(':').next().unwrap()
        ),
    ] {
        problem(ask(&scene, "GET", "/api/stats", &credential).await, "unauthorized").await;
    }
    let twice = scene
        .get("/api/stats")
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", "Bearer x");
    problem(twice.send().await.unwrap(), "unauthorized").await;
    problem(scene.get(&format!("/api/stats?access_token={token}")).send().await.unwrap(), "unauthorized")
        .await;
    // An upload without a token is refused before its content is read.
    let put = scene.request("POST", "/api/blobs").body(vec![0; 5_000_000]).send().await.unwrap();
    problem(put, "unauthorized").await;
    scene.assert_blobs(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_and_go_without_a_restart() {
    let (scene, tokens) = with_tokens(&["read"]).await;
    let first = format!("Bearer {}", tokens[0]);
    let file = scene.path("tokens");
    let expired = format!("Bearer {}", token(&file, "read", Some(Duration::ZERO)));
    let second = format!("Bearer {}", token(&file, "read", None));
    status(&ask(&scene, "GET", "/api/stats", &second).await, 401);
    scene.control.reload().unwrap();
    status(&ask(&scene, "GET", "/api/stats", &second).await, 200);
    status(&ask(&scene, "GET", "/api/stats", &expired).await, 401);
    // A broken file changes nothing.
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "nonsense").unwrap();
    assert!(scene.control.reload().is_err());
    status(&ask(&scene, "GET", "/api/stats", &first).await, 200);
    // A file that has no tokens yet changes nothing either.
    std::fs::write(&file, "# tokens\n").unwrap();
    let refused = scene.control.reload().unwrap_err();
    assert!(refused.to_string().contains("no tokens any more"), "{refused}");
    status(&ask(&scene, "GET", "/api/stats", &first).await, 200);
    std::fs::write(&file, good.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    scene.control.reload().unwrap();
    status(&ask(&scene, "GET", "/api/stats", &first).await, 401);
    status(&ask(&scene, "GET", "/api/stats", &second).await, 200);
}

/// A signer and the server's key for it, for each algorithm.
fn signer(algorithm: &'static str) -> (Signer, Vec<u8>) {
    if algorithm == "HS256" {
        let secret = b"0123456789abcdef0123456789abcdef";
        (Signer::secret("HS256", secret), [&secret[..], b"\n"].concat())
    } else {
        Signer::pair(algorithm)
    }
}

fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn json_web_tokens_of_four_algorithms() {
    for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let (signer, checked_with) = signer(algorithm);
        std::fs::write(&file, &checked_with).unwrap();
        let settings = [
            ("JWT_KEY", file.to_str().unwrap()),
            ("JWT_ALGORITHM", algorithm),
            ("JWT_ISSUER", "us"),
            ("JWT_AUDIENCE", "graviton"),
        ];
        let scene = Scene::of(directory, &settings).await;
        let good = value!({ "sub": "x", "iss": "us", "aud": "graviton", "exp": in_seconds(600), "scope": "openid read" });
        let token_of = |claims: &Value| format!("Bearer {}", signer.token(claims));
        status(&ask(&scene, "GET", "/api/stats", &token_of(&good)).await, 200);
        let several = value!({ "sub": "x", "iss": "us", "aud": ["a", "graviton"], "exp": in_seconds(600), "scope": "read" });
        status(&ask(&scene, "GET", "/api/stats", &token_of(&several)).await, 200);
        problem(ask(&scene, "POST", "/api/blobs", &token_of(&good)).await, "forbidden").await;
        for (field, bad) in [
            ("exp", Some(value!(in_seconds(-600)))),
            ("exp", None),
            ("nbf", Some(value!(in_seconds(600)))),
            ("iss", Some(value!("them"))),
            ("iss", None),
            ("aud", Some(value!("other"))),
            ("aud", None),
        ] {
            let mut claims = good.clone();
            match bad {
                Some(bad) => claims[field] = bad,
                None => drop(claims.as_object_mut().unwrap().remove(field)),
            }
            problem(ask(&scene, "GET", "/api/stats", &token_of(&claims)).await, "unauthorized").await;
        }
        // Signed by another key, with another algorithm, not signed, or changed.
        let forged = [
            format!("Bearer {}", other(algorithm).token(&good)),
            format!("Bearer {}", Signer::secret("HS256", b"guessed").token(&good)),
            format!("Bearer {}", Signer::secret("HS384", &checked_with).token(&good)),
            "Bearer eyJhbGciOiJub25lIn0.eyJzY29wZSI6InJlYWQiLCJleHAiOjk5OTk5OTk5OTk5fQ.".to_owned(),
            token_of(&good).replacen('.', "x.", 1),
            token_of(&good).rsplit_once('.').unwrap().0.to_owned() + ".AAAA",
        ];
        for credential in forged {
            problem(ask(&scene, "GET", "/api/stats", &credential).await, "unauthorized").await;
        }
    }
}

/// A signer whose key the server does not know.
fn other(algorithm: &'static str) -> Signer {
    if algorithm == "HS256" {
        Signer::secret("HS256", b"another secret of 32 bytes or so")
    } else {
        signer(algorithm).0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_may_see_is_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let store = Config::for_directory(directory.path()).open_async().await.unwrap();
    let file = directory.path().join("key");
    let pem = String::from_utf8(Signer::pair("RS256").1).unwrap();
    let bind = async |content: &str| {
        std::fs::write(&file, content).unwrap();
        let settings = [
            ("GRAVITON_HTTP_PORT", "0"),
            ("GRAVITON_HTTP_JWT_KEY", file.to_str().unwrap()),
            ("GRAVITON_HTTP_JWT_ALGORITHM", "HS256"),
        ];
        let settings: Vec<_> = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        serve(store.clone(), Settings::new(&settings).unwrap()).await.err().map(|error| error.code())
    };
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q";
    let jwk =
        r#" {"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtV","e":"AQAB"}"#;
    for public in [&pem, &format!("# ours\n{pem}"), ssh, jwk, "short"] {
        assert_eq!(bind(public).await, Some(graviton_core::Code::Config), "{public}");
    }
    // Only the end of the line is removed from a secret.
    assert_eq!(bind(&format!("{}\t \n", "x".repeat(30))).await, None);
}

/// A server that cannot start creates no store.
#[test]
fn wrong_settings_are_found_before_the_store_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let missing = directory.path().join("missing");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for setting in [
        "GRAVITON_HTTP_ADDR=0.0.0.0".to_owned(),
        format!("GRAVITON_HTTP_TOKENS={}", missing.display()),
        format!("GRAVITON_HTTP_TLS_CERT={0}\nGRAVITON_HTTP_TLS_KEY={0}", missing.display()),
        format!("GRAVITON_HTTP_PORT={}", taken.local_addr().unwrap().port()),
    ] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_graviton-server"));
        program.arg("--root").arg(&place).args(["--set", "GRAVITON_HTTP_PORT=0"]);
        program.args(setting.lines().flat_map(|one| ["--set", one]));
        let done = program.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("help: "), "{said}");
        assert!(!place.exists(), "{setting}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_from_elsewhere_by_accident() {
    let directory = tempfile::tempdir().unwrap();
    let store = Config::for_directory(directory.path()).open_async().await.unwrap();
    let bind = |pairs: &[(&str, &str)]| {
        let mut all = vec![("GRAVITON_HTTP_PORT".to_owned(), "0".to_owned())];
        all.extend(pairs.iter().map(|(name, value)| (format!("GRAVITON_HTTP_{name}"), (*value).to_owned())));
        serve(store.clone(), Settings::new(&all).unwrap())
    };
    for address in ["0.0.0.0", "::"] {
        let refused = bind(&[("ADDR", address)]).await.err().unwrap();
        assert_eq!(refused.code(), graviton_core::Code::Config);
        assert!(refused.advice().unwrap().contains("--insecure"));
    }
    let file = directory.path().join("tokens");
    token(&file, "read", None);
    let file = file.to_str().unwrap();
    for pairs in [vec![("ADDR", "127.0.0.2")], vec![("ADDR", "::1")]] {
        assert!(bind(&pairs).await.is_ok(), "{pairs:?}");
    }
    // The port is bound and released at once, so nobody can connect.
    assert!(bind(&[("ADDR", "0.0.0.0"), ("TOKENS", file)]).await.is_ok());
    assert!(bind(&[("ADDR", "0.0.0.0"), ("INSECURE", "true")]).await.is_ok());
    assert!(bind(&[("TOKENS", "/does/not/exist")]).await.is_err());
}
