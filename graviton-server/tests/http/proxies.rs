//! Behind a proxy: the client that limits count, the accepted host names, and the published path.

use serde_json::Value;

use crate::scene::{Scene, json, problem, status, until};

const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");

async fn stats(scene: &Scene, header: &'static str, client: &str) -> reqwest::Response {
    scene.get("/api/stats").header(header, client).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_behind_a_trusted_proxy_has_its_own_limits() {
    let scene = Scene::with(&[TRUSTED, ("RATE", "1"), ("BURST", "1")]).await;
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        status(&stats(&scene, "x-forwarded-for", client).await, 200);
        problem(stats(&scene, "x-forwarded-for", client).await, "rate-limited").await;
        // Everything before the proxy's own entry is the client's claim.
        let claims = format!("203.0.113.{}, {client}", client.len());
        problem(stats(&scene, "x-forwarded-for", &claims).await, "rate-limited").await;
    }
    // One IPv6 network is one client.
    problem(stats(&scene, "x-forwarded-for", "2001:db8:0:1::2").await, "rate-limited").await;

    // An untrusted proxy is one client, whatever it claims; so is a trusted one that uses the other header.
    for (settings, header) in [
        (vec![("RATE", "1"), ("BURST", "1")], "x-forwarded-for"),
        (vec![TRUSTED, ("RATE", "1"), ("BURST", "1")], "forwarded"),
    ] {
        let scene = Scene::with(&settings).await;
        status(&stats(&scene, header, "for=192.0.2.1").await, 200);
        problem(stats(&scene, header, "for=192.0.2.2").await, "rate-limited").await;
    }
    let scene = Scene::with(&[TRUSTED, ("PROXY_HEADERS", "forwarded"), ("RATE", "1"), ("BURST", "1")]).await;
    for client in ["for=192.0.2.1", "for=\"[2001:db8::1]:80\";proto=https"] {
        status(&stats(&scene, "forwarded", client).await, 200);
        problem(stats(&scene, "forwarded", client).await, "rate-limited").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_connections_of_a_proxy_are_those_of_many_clients() {
    let scene = Scene::with(&[
        TRUSTED,
        ("MAX_UPLOADS_EACH", "1"),
        ("MAX_CONNECTIONS_EACH", "1"),
        ("BODY_TIMEOUT", "3s"),
    ])
    .await;
    // Each upload is large enough to need a slot.
    let mut uploads = Vec::new();
    for client in 1..=3 {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(4);
        let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let request = scene
            .request("POST", "/api/blobs")
            .header("x-forwarded-for", format!("192.0.2.{client}"))
            .body(reqwest::Body::wrap_stream(pieces));
        let upload = tokio::spawn(async move { request.send().await.unwrap().status() });
        sender.send(Ok(crate::scene::noise(client, 1 << 20))).await.unwrap();
        uploads.push((sender, upload));
    }
    until("all of them have a slot", async || {
        let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.contains("graviton_uploads 3")
    })
    .await;
    for (sender, upload) in uploads {
        drop(sender);
        assert_eq!(upload.await.unwrap(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_a_prefix_is_found_there() {
    let scene = Scene::with(&[("PREFIX", "/data/store/")]).await;
    let put = scene.request("POST", "/data/store/api/blobs").body("hello").send().await.unwrap();
    status(&put, 201);
    let location = put.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("/data/store/api/blobs/blake3:"), "{location}");
    // As the client sees it, with a version, and as sent by a proxy that removes the prefix.
    let inside = location.strip_prefix("/data/store").unwrap();
    for path in [location.as_str(), inside, &location.replace("/api/", "/api/v1/")] {
        let got = scene.get(path).send().await.unwrap();
        status(&got, 200);
        assert_eq!(got.text().await.unwrap(), "hello");
    }
    for path in
        ["/data/store", "/data/store/", "/data/storeapi/blobs", "/data/store/data/store/api/blobs", "/data"]
    {
        let missing: Value = json(scene.get(path).send().await.unwrap()).await;
        assert_eq!(
            (&missing["status"], &missing["type"]),
            (&404.into(), &"/data/store/docs#not-found".into()),
            "{path}"
        );
    }
    let document: Value = json(scene.get("/data/store/api/openapi.json").send().await.unwrap()).await;
    assert_eq!(document["servers"][0]["url"], "/data/store");
    // Every address in the page is relative, and is found next to the page.
    let page = scene.get("/data/store/docs").send().await.unwrap().text().await.unwrap();
    let addresses: Vec<&str> =
        page.split(['"']).filter(|piece| piece.starts_with("docs/") && piece.contains('.')).collect();
    assert_eq!(addresses.len(), 4, "{page}");
    for address in addresses {
        assert!(!address.starts_with('/'), "{address}");
        status(&scene.get(&format!("/data/store/{address}")).send().await.unwrap(), 200);
    }
    let job = scene
        .request("POST", "/data/store/api/admin/verify")
        .header("content-type", "application/json")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert!(job.headers()["location"].to_str().unwrap().starts_with("/data/store/api/admin/jobs/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_counts_is_the_one_that_the_client_asked() {
    let ask = async |scene: &Scene, header: &'static str, host: &str| {
        scene.get("/api/stats").header(header, host).send().await.unwrap()
    };
    let scene = Scene::with(&[TRUSTED]).await;
    problem(ask(&scene, "x-forwarded-host", "evil.example").await, "forbidden").await;
    status(&ask(&scene, "x-forwarded-host", "x").await, 200);
    // The page of an attacker whose name resolves to this host comes from the address of the proxy.
    let rebound =
        scene.get("/api/stats").header("host", "evil.example").header("x-forwarded-host", "localhost");
    problem(rebound.send().await.unwrap(), "forbidden").await;
    let plain = Scene::new().await;
    status(&ask(&plain, "x-forwarded-host", "evil.example").await, 200);

    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "k".repeat(32)).unwrap();
    let settings =
        [TRUSTED, ("PREFIX", "/store"), ("HOSTS", "store.example"), ("LINK_KEYS", keys.to_str().unwrap())];
    let scene = Scene::with(&settings).await;
    let id = scene.put(b"hello").await;
    let link = scene
        .request("POST", &format!("/api/blobs/{id}/links"))
        .header("x-forwarded-host", "store.example")
        .header("x-forwarded-proto", "https");
    let link: Value = json(link.send().await.unwrap()).await;
    let url = link["url"].as_str().unwrap();
    let path = url.strip_prefix("https://store.example").unwrap_or_else(|| panic!("{url}"));
    assert!(path.starts_with("/store/api/blobs/"), "{path}");
    status(&scene.get(path).send().await.unwrap(), 200);
}
