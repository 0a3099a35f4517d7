//! The form of failures, IDs of requests, and paths that lead nowhere.

use crate::scene::{Scene, client, client_builder, problem, status};

const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

#[tokio::test(flavor = "multi_thread")]
async fn malformed_ids_are_refused_before_anything_is_done() {
    let scene = Scene::new().await;
    for bad in [
        "x".to_owned(),
        format!("blake3:{HEX}"),
        format!("blake2:{HEX}:1"),
        format!("blake3:{}:1", HEX.to_uppercase()),
        format!("blake3:{HEX}:01"),
        format!("blake3:{HEX}:-1"),
        format!("blake3:{HEX}:9223372036854775808"),
        format!("blake3:{HEX}:1%00"),
        format!("blake3:{HEX}:1%0a"),
        format!("blake3:{HEX}:1%20"),
        format!("%20blake3:{HEX}:1"),
        format!("blake3:{}:1", &HEX[1..]),
        "%ff%fe".to_owned(),
        "..%2f..%2fetc%2fpasswd".to_owned(),
        "%2e%2e%2f%2e%2e%2fmanifests.db".to_owned(),
        "..%5c..%5cmanifests.db".to_owned(),
        "%252e%252e%252f".to_owned(),
        "%c0%ae%c0%ae%c0%af".to_owned(),
        "a".repeat(4_000),
    ] {
        for (method, path) in [
            ("GET", format!("/api/blobs/{bad}")),
            ("PUT", format!("/api/blobs/{bad}")),
            ("DELETE", format!("/api/blobs/{bad}")),
            ("GET", format!("/api/blobs/{bad}/manifest")),
            ("POST", format!("/api/blobs/{bad}/restore")),
            ("GET", format!("/api/blocks/{bad}")),
        ] {
            problem(scene.request(method, &path).send().await.unwrap(), "invalid-id").await;
        }
        status(&scene.request("HEAD", &format!("/api/blobs/{bad}")).send().await.unwrap(), 400);
    }
    assert!(scene.block_files().is_empty());
}

/// Sent as raw bytes, because a client would normalise the paths.
#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out_lead_nowhere() {
    let scene = Scene::new().await;
    std::fs::write(scene.path("secret"), "the secret").unwrap();
    for path in [
        "/../secret",
        "/api/../../secret",
        "/api/blobs/../../secret",
        "/api/blobs/..",
        "/api/blobs/",
        "/api//blobs",
        "//api/blobs",
        "/api/v1/../blobs/x",
        "/api/v1/v1/blobs",
        "/api/blobs/./x",
        "/secret",
        "/manifests.db",
        "/cas/blocks/store-id",
        "/api/blobs/x/y",
        "/api/blobs/%2e%2e/secret",
        "/docs/../secret",
        "/api/blobs;x=1",
        "/.git/config",
        "/\\..\\secret",
    ] {
        let answer = scene
            .raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
        assert!(!answer.contains("the secret"), "{path}");
    }
    for (header, value) in [
        ("X-Original-URL", "/../secret"),
        ("X-Rewrite-URL", "/../secret"),
        ("X-Forwarded-Prefix", "/.."),
        ("Host", "../../secret"),
        ("Range", "bytes=../../secret"),
        ("If-None-Match", "../../secret"),
        ("Graviton-Session", "../../secret"),
        ("Prefer", "../../secret"),
    ] {
        let head =
            format!("GET /api/blobs HTTP/1.1\r\nHost: x\r\n{header}: {value}\r\nConnection: close\r\n\r\n");
        let answer = scene.raw(head.as_bytes()).await;
        assert!(!answer.contains("the secret") && !answer.starts_with("HTTP/1.1 5"), "{header}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_ambiguous_or_too_large_are_problems() {
    let scene = Scene::with(&[("MAX_HEADERS", "8KiB")]).await;
    let huge = "a".repeat(200_000);
    let (long, large) = ("b".repeat(9_000), format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n"));
    for (head, status) in [
        ("GET /api/blobs HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "400"),
        ("GET /api/blobs HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n".to_owned(), "400"),
        (
            "POST /api/blobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (
            "POST /api/blobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (format!("GET /api/blobs HTTP/1.1\r\nHost: x\r\nX-A: {long}\r\nConnection: close\r\n\r\n"), "431"),
        (format!("GET /api/blobs HTTP/1.1\r\nHost: x\r\nX-A: {huge}\r\n\r\n"), "431"),
        (large, "4"),
    ] {
        let answer = scene.raw(head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(&head[9..12], problem["status"].to_string(), "{answer}");
        let id = problem["request_id"].as_str().unwrap();
        assert!(head.to_lowercase().contains(&format!("x-request-id: {id}")), "{answer}");
    }
    scene.assert_blobs(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_a_path_does_not_have_are_refused() {
    let scene = Scene::new().await;
    let id = scene.put(b"content").await;
    for (method, path) in [
        ("GET", "/api/blobs?limt=1".to_owned()),
        ("GET", format!("/api/blobs/{id}?range=0-1")),
        ("HEAD", format!("/api/blobs/{id}?range=0-1")),
        ("DELETE", format!("/api/blobs/{id}?force")),
        ("POST", "/api/blobs?name=x".to_owned()),
        // Other methods of the path have this parameter.
        ("POST", "/api/blobs?limit=5".to_owned()),
        ("PUT", format!("/api/blobs/{id}?filename=x")),
        ("DELETE", format!("/api/blobs/{id}?filename=x")),
        ("GET", "/api/v1/stats?verbose=1".to_owned()),
        ("GET", "/api/ready?four=reading".to_owned()),
    ] {
        let refused = scene.request(method, &path).body("").send().await.unwrap();
        status(&refused, 400);
        if method != "HEAD" {
            let told = problem(refused, "invalid-argument").await;
            assert!(told["detail"].as_str().unwrap().starts_with("unknown query parameter"), "{told}");
        }
    }
    for path in ["/api/blobs?%6Cimit=1&after=", "/api/stats?", "/docs/start.js?version=1"] {
        let answer = scene.get(path).send().await.unwrap();
        assert!(answer.status() == 200 || path.contains("after="), "{path}: {answer:?}");
    }
    scene.assert_blobs(1).await;
}

/// Decided by headers of the browser: a page could load a blob as a picture, and so find out that it is
/// stored.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_do_not_find_out_what_is_here() {
    let closed = Scene::new().await;
    let open = Scene::with(&[("CORS", "https://good.example")]).await;
    for (scene, policy) in [(&closed, "same-origin"), (&open, "cross-origin")] {
        let id = scene.put(b"content").await;
        let ask = |site: &str, mode: &str, dest: &str| {
            let request = scene.get(&format!("/api/blobs/{id}")).header("sec-fetch-site", site);
            request.header("sec-fetch-mode", mode).header("sec-fetch-dest", dest)
        };
        for site in ["cross-site", "same-site"] {
            for (mode, dest) in [("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty")] {
                problem(ask(site, mode, dest).send().await.unwrap(), "forbidden").await;
            }
            status(&ask(site, "navigate", "document").send().await.unwrap(), 200);
            let named =
                ask(site, "cors", "empty").header("origin", "https://good.example").send().await.unwrap();
            status(&named, if policy == "same-origin" { 403 } else { 200 });
        }
        for site in ["same-origin", "none"] {
            let answer = ask(site, "no-cors", "image").send().await.unwrap();
            status(&answer, 200);
            assert_eq!(answer.headers()["cross-origin-resource-policy"], policy);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_fails_has_no_content_on_any_http() {
    let scene = Scene::new().await;
    let http2 = client_builder().http2_prior_knowledge().build().unwrap();
    for path in [
        "/nowhere",
        "/api/blobs/x",
        &format!("/api/blobs/blake3:{HEX}:0"),
        &format!("/api/blocks/blake3:{HEX}:1"),
    ] {
        let (one, two) = (
            scene.request("HEAD", path).send().await.unwrap(),
            http2.head(scene.url(path)).send().await.unwrap(),
        );
        assert!(one.status().is_client_error(), "{one:?}");
        assert_eq!(one.status(), two.status());
        assert_eq!(two.headers()["content-type"], "application/problem+json");
        assert!(two.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_change_nothing_and_names_of_others_are_not_answered() {
    let scene = Scene::with(&[("CORS", "https://good.example"), ("HOSTS", "store.example")]).await;
    let post = || scene.request("POST", "/api/blobs").body("x");
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        problem(post().header("origin", origin).send().await.unwrap(), "forbidden").await;
    }
    let ours = scene.url("");
    for origin in ["https://good.example", &ours] {
        assert!(post().header("origin", origin).send().await.unwrap().status().is_success(), "{origin}");
    }
    for (host, allowed) in [
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("localhost", true),
        ("store.example:80", true),
    ] {
        let asked = scene.get("/api/blobs").header("host", host).send().await.unwrap();
        if allowed {
            status(&asked, 200);
        } else {
            problem(asked, "forbidden").await;
        }
    }
    // A health check may use any host name.
    status(&scene.get("/api/health").header("host", "evil.example").send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_methods_that_do_not_apply() {
    let scene = Scene::new().await;
    problem(scene.get("/api/nothing").send().await.unwrap(), "not-found").await;
    problem(scene.get("/").send().await.unwrap(), "not-found").await;
    for (method, path) in [
        ("PATCH", "/api/blobs"),
        ("DELETE", "/api/blobs"),
        ("POST", "/api/health"),
        ("TRACE", "/metrics"),
        ("BREW", "/docs"),
    ] {
        let refused = scene.request(method, path).send().await.unwrap();
        assert!(refused.headers().contains_key("allow"), "{method} {path}");
        problem(refused, "method-not-allowed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_the_id_that_it_came_with_or_one_of_its_own() {
    let scene = Scene::new().await;
    let given = scene.get("/api/blobs/x").header("x-request-id", "mine-1.2_3").send().await.unwrap();
    assert_eq!(problem(given, "invalid-id").await["request_id"], "mine-1.2_3");
    let mut seen = std::collections::HashSet::new();
    for bad in ["a b", "a\"b", "<script>", "", &"x".repeat(65)] {
        let answered = scene.get("/api/health").header("x-request-id", bad).send().await.unwrap();
        let id = answered.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(id != bad && !id.is_empty() && seen.insert(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_closed_is_not_available_and_says_nothing_of_itself() {
    let scene = Scene::new().await;
    let id = scene.put(b"something").await;
    scene.store.close().await;
    for path in ["/api/blobs", &format!("/api/blobs/{id}"), "/api/stats", "/api/ready"] {
        let refused = scene.get(path).send().await.unwrap();
        assert!(refused.headers().contains_key("retry-after"));
        let told = problem(refused, "backend-unavailable").await;
        assert!(!told.to_string().contains(scene.path("").to_str().unwrap()), "{told}");
    }
    // The server still answers.
    status(&scene.get("/api/health").send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_sent_away() {
    let scene = Scene::new().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"HELLO\r\n\r\n",
        b"GET /api/health HTTP/3.0\r\n\r\n",
        b"GET  /api/health HTTP/1.1\r\n\r\n",
        b"POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/blobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, really not one",
    ] {
        let answer = scene.raw(bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"), "{answer}");
        // Bytes that are not even TLS or HTTP/2 may get no answer.
        if answer.starts_with("HTTP/1.1 4") {
            assert!(
                answer.contains("Content-Type: application/problem+json")
                    || answer.contains("content-type: application/problem+json"),
                "{answer}"
            );
            assert!(answer.contains("\"code\":\"invalid-argument\""), "{answer}");
        }
    }
    // Request smuggling uses both lengths at once. The server ignores `Content-Length`, as the RFC requires,
    // and never takes the rest for a request.
    let both = b"POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/stats HTTP/1.1\r\n\r\n";
    let answer = scene.raw(both).await;
    assert!(!answer.contains("logical_bytes"), "{answer}");
    status(&client().get(scene.url("/api/health")).send().await.unwrap(), 200);
}
