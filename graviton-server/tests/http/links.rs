//! Links: a link permits reading this blob until it expires, and nothing else.

use reqwest::Response;
use serde_json::Value;

use crate::scene::{Scene, json, problem, status};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A server with tokens and links; a token that may read and one that may only write.
async fn scene(settings: &[(&str, &str)]) -> (Scene, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (tokens, keys) = (path("tokens"), path("keys"));
    let made =
        ["read", "write"].map(|scope| graviton_server::auth::tokens::make("somebody", scope, None).unwrap());
    std::fs::write(&tokens, made.each_ref().map(|(_, line)| line.as_str()).join("\n")).unwrap();
    std::fs::write(&keys, KEY).unwrap();
    let mut all = vec![("TOKENS", tokens.as_str()), ("LINK_KEYS", keys.as_str())];
    all.extend_from_slice(settings);
    let scene = Scene::of(directory, &all).await;
    let [(reader, _), (writer, _)] = made;
    (scene, reader, writer)
}

async fn make(scene: &Scene, token: &str, id: &str, query: &str) -> Response {
    let request = scene.request("POST", &format!("/api/blobs/{id}/links{query}"));
    request.bearer_auth(token).send().await.unwrap()
}

/// A new link, as the path and query that the server sees.
async fn link(scene: &Scene, token: &str, id: &str, query: &str) -> String {
    let made = make(scene, token, id, query).await;
    status(&made, 201);
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let link: Value = json(made).await;
    assert_eq!(link["url"], scene.url(&location));
    location
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_link_reads_the_blob_as_it_says() {
    let (scene, token, _) = scene(&[]).await;
    let content = b"a picture";
    let id = scene.store.put(&content[..]).await.unwrap().id.to_string();
    let path = link(&scene, &token, &id, "?type=image/png&filename=a%20b%26c.png&disposition=inline").await;
    for method in ["GET", "HEAD"] {
        let got = scene.request(method, &path).send().await.unwrap();
        status(&got, 200);
        assert_eq!(got.headers()["content-type"], "image/png");
        assert!(got.headers()["content-disposition"].to_str().unwrap().contains("a b&c.png"));
        // A page of any origin may show it.
        assert_eq!(got.headers()["cross-origin-resource-policy"], "cross-origin");
        if method == "GET" {
            assert_eq!(got.bytes().await.unwrap(), &content[..]);
        }
    }
    let part = scene.get(&path).header("range", "bytes=2-4").send().await.unwrap();
    status(&part, 206);
    assert_eq!(part.bytes().await.unwrap(), &b"pic"[..]);
    let versioned = scene.get(&path.replace("/api/", "/api/v1/")).send().await.unwrap();
    status(&versioned, 200);
    // A browser that shows the blob in a page of another site says so, and is allowed.
    let shown = scene.get(&path).header("sec-fetch-site", "cross-site").header("sec-fetch-dest", "image");
    status(&shown.send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_nothing_else() {
    let (scene, token, writer) = scene(&[]).await;
    let id = scene.store.put(&b"one"[..]).await.unwrap().id.to_string();
    let other = scene.store.put(&b"two"[..]).await.unwrap().id.to_string();
    let path = link(&scene, &token, &id, "").await;
    status(&scene.get(&path).send().await.unwrap(), 200);
    let query = path.split_once('?').unwrap().1;
    for (method, path, code) in [
        ("GET", path.replace(&id, &other), "unauthorized"),
        ("GET", format!("{path}&type=text/plain"), "unauthorized"),
        ("GET", path.replace("expires=", "expires=1"), "unauthorized"),
        ("GET", format!("/api/blobs/{id}?signature=x"), "unauthorized"),
        ("GET", format!("/api/blobs/{id}"), "unauthorized"),
        ("GET", format!("/api/blobs/{id}/manifest?{query}"), "unauthorized"),
        ("GET", format!("/api/blobs?{query}"), "unauthorized"),
        ("PUT", path.clone(), "unauthorized"),
        ("DELETE", path.clone(), "unauthorized"),
        ("POST", format!("/api/blobs/{id}/links?{query}"), "unauthorized"),
    ] {
        problem(scene.request(method, &path).send().await.unwrap(), code).await;
    }
    // An invalid link is refused even together with a valid token: otherwise nobody would notice.
    let spoilt = scene.get(&format!("{path}x")).bearer_auth(&token).send().await.unwrap();
    problem(spoilt, "unauthorized").await;
    problem(make(&scene, &writer, &id, "").await, "forbidden").await;
    problem(make(&scene, &token, &other.replace(":3", ":4"), "").await, "not-found").await;
    let half = scene.get(&format!("/api/blobs/{id}?expires=1")).bearer_auth(&token).send().await.unwrap();
    problem(half, "invalid-argument").await;
    for wrong in ["?expires_in=0", "?expires_in=604801", "?type=text/html", "?expires=5", "?filename=a/b"] {
        problem(make(&scene, &token, &id, wrong).await, "invalid-argument").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_its_time_and_with_its_key() {
    let (scene, token, _) = scene(&[]).await;
    let id = scene.store.put(&b"one"[..]).await.unwrap().id.to_string();
    let (short, long) = (
        link(&scene, &token, &id, "?expires_in=1").await,
        link(&scene, &token, &id, "?expires_in=604800").await,
    );
    crate::scene::until("the link has expired", async || {
        scene.get(&short).send().await.unwrap().status() == 401
    })
    .await;
    status(&scene.get(&long).send().await.unwrap(), 200);
    // A new key beside the old one, then alone.
    std::fs::write(scene.path("keys"), format!("{}\n{KEY}\n", KEY.to_uppercase())).unwrap();
    scene.control.reload().unwrap();
    status(&scene.get(&long).send().await.unwrap(), 200);
    std::fs::write(scene.path("keys"), "").unwrap();
    assert!(scene.control.reload().is_err(), "a file without a key");
    status(&scene.get(&long).send().await.unwrap(), 200);
    std::fs::write(scene.path("keys"), KEY.to_uppercase()).unwrap();
    scene.control.reload().unwrap();
    problem(scene.get(&long).send().await.unwrap(), "unauthorized").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_keys_says_so() {
    let scene = Scene::new().await;
    let id = scene.put(b"one").await;
    let refused = problem(make(&scene, "x", &id, "").await, "not-found").await;
    assert!(refused["detail"].as_str().unwrap().contains("GRAVITON_HTTP_LINK_KEYS"), "{refused}");
    problem(
        scene.get(&format!("/api/blobs/{id}?expires=1&signature=x")).send().await.unwrap(),
        "unauthorized",
    )
    .await;
}
