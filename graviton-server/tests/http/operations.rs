//! Health, metrics, jobs, documents, and shutdown.

use graviton_server::{CODES, openapi_json};
use serde_json::{Value, json as value};
use tokio::io::AsyncWriteExt;

use crate::scene::{Scene, client, damage, json, noise, problem, read_all, status, until};

async fn order(scene: &Scene, what: &str, options: &Value) -> Value {
    let request =
        scene.request("POST", &format!("/api/admin/{what}")).header("content-type", "application/json");
    let response = request.body(options.to_string()).send().await.unwrap();
    status(&response, 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let mut job = json(response).await;
    while job["state"] == "running" {
        job = json(scene.get(&format!("{location}?wait=10")).send().await.unwrap()).await;
    }
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_sums() {
    let scene = Scene::new().await;
    for path in ["/api/health", "/api/ready", "/api/v1/health"] {
        let health = json(scene.get(path).send().await.unwrap()).await;
        assert!(health["status"] == "ok" && health["uptime"].as_u64().is_some(), "{health}");
    }
    scene.put(&noise(1, 100_000)).await;
    let stats = json(scene.get("/api/stats").send().await.unwrap()).await;
    assert_eq!(
        (&stats["blobs"], &stats["logical_bytes"], &stats["stored_bytes"]),
        (&value!(1), &value!(100_000), &value!(100_000))
    );
}

/// Readiness: with and without the blocks, with a database that is a copy, and while another program locks
/// the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_what_it_is_ready_for() {
    let scene = Scene::new().await;
    let ask = async |work: &str| {
        // An answer is reused for 250 ms.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        scene.get(&format!("/api/ready{work}")).send().await.unwrap()
    };
    let refuse = async |work: &str, what: &str| {
        let told = problem(ask(work).await, "backend-unavailable").await;
        assert!(told["detail"].as_str().unwrap().contains(what), "{told}");
    };
    // Before the first put there are no directories, but a put would succeed.
    status(&ask("").await, 200);
    scene.put(b"content").await;
    for work in ["", "?for=reading", "?for=writing"] {
        status(&ask(work).await, 200);
    }
    problem(ask("?for=fun").await, "invalid-argument").await;

    let (blocks, away) = (scene.path("cas/blocks"), scene.path("away"));
    std::fs::rename(&blocks, &away).unwrap();
    for empty in [false, true] {
        if empty {
            // As if a disk were not mounted.
            std::fs::create_dir(&blocks).unwrap();
        }
        refuse("", "for reading and writing").await;
        refuse("?for=reading", "for reading and writing").await;
    }
    std::fs::remove_dir(&blocks).unwrap();
    std::fs::rename(&away, &blocks).unwrap();
    status(&ask("").await, 200);

    // The temporary files of puts have no directory.
    let (temporary, file) = (scene.path("cas/blocks/.tmp"), scene.path("tmp"));
    std::fs::rename(&temporary, &file).unwrap();
    std::os::unix::fs::symlink("/proc/self", &temporary).unwrap();
    refuse("", "for writing; it is for reading").await;
    status(&ask("?for=reading").await, 200);
    std::fs::remove_file(&temporary).unwrap();
    std::fs::rename(&file, &temporary).unwrap();

    // A collection by the database that took over, as another host would see it.
    std::fs::write(scene.path("cas/blocks/generation"), "9223372036854775807\n").unwrap();
    let directory = scene.path("");
    let late = graviton_core::Config::for_directory(&directory).open_async().await.unwrap();
    assert_eq!(late.check_writes().await.unwrap_err().code(), graviton_core::Code::Config);
    late.ping().await.unwrap();
}

/// Only the directory of the blocks or of the packs is missing, empty, or not writable; everything else is
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_without_the_files_of_its_blocks() {
    for (layout, directory) in [("files", "cas/blocks/blake3"), ("packs", "cas/blocks-packs")] {
        let root = tempfile::tempdir().unwrap();
        let config = graviton_core::Config::for_directory(root.path());
        let store = config.set("GRAVITON_BLOCK_LAYOUT", layout).unwrap().open_async().await.unwrap();
        store.put(&b"content"[..]).await.unwrap();
        store.ping().await.unwrap();
        store.check_writes().await.unwrap();
        // Not writable, even for root.
        let (directory, away) = (root.path().join(directory), root.path().join("away"));
        std::fs::rename(&directory, &away).unwrap();
        std::os::unix::fs::symlink("/proc/self", &directory).unwrap();
        store.check_writes().await.unwrap_err();
        std::fs::remove_file(&directory).unwrap();
        std::fs::rename(&away, &directory).unwrap();
        store.check_writes().await.unwrap();
        // One missing block is damage, but does not stop the reading of others.
        if layout == "files" {
            let other = store.put(&b"other"[..]).await.unwrap().id;
            let key = store.manifest(&other, 0, 1).await.unwrap()[0].key;
            std::fs::remove_file(directory.join(key.name())).unwrap();
            store.ping().await.unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
        for empty in [false, true] {
            if empty {
                // As if a disk were not mounted.
                std::fs::create_dir(&directory).unwrap();
            }
            let error = store.ping().await.unwrap_err();
            assert_eq!(error.code(), graviton_core::Code::MissingBlock, "{layout}: {error}");
            // A pack creates its directory.
            assert_eq!(store.check_writes().await.is_err(), layout == "files", "{layout}");
        }
    }
}

/// Not a failure of the server: another database has taken over. The reason goes only to the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_is_a_copy_is_not_available_for_uploads() {
    let directory = tempfile::tempdir().unwrap();
    let store = graviton_core::Config::for_directory(directory.path()).open_async().await.unwrap();
    let id = store.put(&b"content"[..]).await.unwrap().id;
    store.close().await;
    std::fs::write(directory.path().join("cas/blocks/generation"), "9223372036854775807\n").unwrap();
    let scene = Scene::of(directory, &[]).await;
    let refused = scene.request("POST", "/api/blobs").body("new").send().await.unwrap();
    status(&refused, 503);
    let told = problem(refused, "backend-unavailable").await;
    assert!(!told.to_string().contains(scene.path("").to_str().unwrap()), "{told}");
    let path = format!("/api/blobs/{id}");
    let refused = scene.request("DELETE", &path).send().await.unwrap();
    problem(refused, "backend-unavailable").await;
    assert_eq!(scene.get(&path).send().await.unwrap().bytes().await.unwrap(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_leaves_says_so_before_it_goes() {
    let scene = Scene::with(&[("DRAIN_DELAY", "2s")]).await;
    let id = scene.put(b"content").await;
    scene.control.stop();
    until("it says that it leaves", async || {
        scene.get("/api/ready").send().await.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    // New connections and requests are served as before.
    let other = client();
    let got = other.get(scene.url(&format!("/api/blobs/{id}"))).send().await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), "content");
    scene.put(b"later").await;
    assert!(scene.ended().await);
}

/// A client that asks for a dry run must not get the collection of another client.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_other_options_is_not_the_one_that_was_asked_for() {
    let scene = Scene::new().await;
    scene.put(&noise(1, 4_000_000)).await;
    let order = async |options: &Value| {
        let request = scene.request("POST", "/api/admin/verify").header("content-type", "application/json");
        request.body(options.to_string()).send().await.unwrap()
    };
    let slow = value!({ "deep": true, "bytes_per_second": 1 });
    let first = order(&slow).await;
    status(&first, 202);
    let path = first.headers()["location"].to_str().unwrap().to_owned();
    let joined = order(&slow).await;
    status(&joined, 200);
    assert_eq!(joined.headers()["location"], *path);
    let refused = order(&value!({ "deep": true })).await;
    assert_eq!(refused.headers()["location"], *path);
    problem(refused, "conflict").await;
    scene.request("POST", &format!("{path}/cancel")).send().await.unwrap();
    scene.get(&format!("{path}?wait=60")).send().await.unwrap();
    status(&order(&value!({ "deep": true })).await, 202);
}

/// The value of a counter; 0 if it has not counted yet.
async fn counter(scene: &Scene, name: &str) -> u64 {
    let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_were_given_up_are_counted() {
    let scene = Scene::new().await;
    let count = async || counter(&scene, "graviton_http_given_up_requests_total").await;
    let before = count().await;
    scene.put(&noise(1, 4_000_000)).await;
    let slow = scene.request("POST", "/api/admin/verify").header("content-type", "application/json");
    let job = slow.body("{\"deep\":true,\"bytes_per_second\":1}").send().await.unwrap();
    let path = format!("{}?wait=60", job.headers()["location"].to_str().unwrap());
    let mut watching = scene.connect().await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    watching.write_all(head.as_bytes()).await.unwrap();
    // However far the request got: the client is gone and does not come back.
    drop(watching);
    until("it is counted", async || count().await > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_were_given_up_are_counted() {
    let scene = Scene::new().await;
    let count = async || counter(&scene, "graviton_http_given_up_downloads_total").await;
    let content = noise(1, 16_000_000);
    let id = scene.put(&content).await;
    for range in ["", "Range: bytes=10-15000000\r\n", "Range: bytes=0-0, 5-15000000\r\n"] {
        let before = count().await;
        let mut reading = scene.connect().await;
        let head = format!("GET /api/blobs/{id} HTTP/1.1\r\nHost: x\r\n{range}\r\n");
        reading.write_all(head.as_bytes()).await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut reading, &mut [0; 1_000]).await.unwrap();
        drop(reading);
        until("it is counted", async || count().await > before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_done() {
    let scene = Scene::new().await;
    let id = scene.put(&noise(77, 100_000)).await;
    scene.get(&format!("/api/blobs/{id}")).send().await.unwrap().bytes().await.unwrap();
    scene.request("EVIL", "/api/made-up").send().await.unwrap();
    let response = scene.get("/metrics").header("accept-encoding", "gzip").send().await.unwrap();
    assert!(!response.headers().contains_key("content-encoding"));
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let metrics = response.text().await.unwrap();
    for name in [
        "graviton_http_requests_total{route=\"/api/blobs/{id}\",method=\"GET\",status=\"200\"}",
        "graviton_http_request_seconds_bucket",
        "graviton_received_bytes_total",
        "graviton_sent_bytes_total",
        "graviton_put_bytes_total",
        "graviton_put_fresh_bytes_total",
        "graviton_put_blocks_total{kind=\"fresh\"}",
        "graviton_http_connections",
        "graviton_database_connections",
        "graviton_database_connections_max 8",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    // Neither ids nor text from clients become labels.
    assert!(!metrics.contains(&id) && !metrics.contains("made-up") && !metrics.contains("EVIL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_verifications_are_started_and_watched() {
    let scene = Scene::new().await;
    let (gone, kept) = (scene.put(&noise(1, 100_000)).await, scene.put(&noise(2, 100_000)).await);
    status(&scene.request("DELETE", &format!("/api/blobs/{gone}")).send().await.unwrap(), 204);
    let plan = order(&scene, "gc", &value!({ "dry_run": true, "grace_seconds": 0 })).await;
    assert_eq!(
        (&plan["state"], &plan["report"]["bytes"], &plan["report"]["dry_run"]),
        (&value!("done"), &value!(100_000), &value!(true))
    );
    let young = order(&scene, "gc", &value!({})).await;
    assert_eq!(young["report"]["bytes"], 0);
    let collected = order(&scene, "gc", &value!({ "grace_seconds": 0 })).await;
    assert_eq!(
        (&collected["kind"], &collected["report"]["bytes"], &collected["report"]["complete"]),
        (&value!("gc"), &value!(100_000), &value!(true))
    );

    let packed = order(&scene, "repack", &value!({ "to": "packs" })).await;
    assert_eq!(
        (&packed["kind"], &packed["state"], &packed["report"]["bytes"], &packed["report"]["complete"]),
        (&value!("repack"), &value!("done"), &value!(100_000), &value!(true))
    );
    let named = order(&scene, "repack", &value!({ "to": "files" })).await;
    assert_eq!((&named["report"]["bytes"], &named["report"]["remaining"]), (&value!(100_000), &value!(0)));

    let clean = order(&scene, "verify", &value!({ "deep": true })).await;
    assert_eq!((&clean["report"]["clean"], &clean["findings"]), (&value!(true), &value!([])));
    damage(&scene.block_file(&kept, 0).await);
    let found = order(&scene, "verify", &value!({ "deep": true, "ids": [kept] })).await;
    assert_eq!((&found["state"], &found["report"]["corrupt"]), (&value!("done"), &value!(1)));
    assert_eq!(
        (&found["findings"][0]["kind"], &found["findings"][0]["blobs"]),
        (&value!("corrupt"), &value!([kept]))
    );

    let jobs = json(scene.get("/api/admin/jobs").send().await.unwrap()).await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 7);
    problem(scene.get("/api/admin/jobs/99").send().await.unwrap(), "not-found").await;
    problem(scene.get("/api/admin/jobs/x").send().await.unwrap(), "invalid-id").await;
    problem(scene.get("/api/admin/jobs/1?wait=61").send().await.unwrap(), "invalid-argument").await;
    for (what, bad) in [
        ("gc", value!({ "max_blocks": 0 })),
        ("gc", value!({ "evil": 1 })),
        ("verify", value!({ "from": "x" })),
        ("verify", value!({ "ids": vec![&kept; 1_001] })),
        ("verify", value!({ "rebuild": 1 })),
        ("gc", value!([])),
        ("repack", value!({})),
        ("repack", value!({ "to": "boxes" })),
        ("gc", value!([0, true])),
    ] {
        let request =
            scene.request("POST", &format!("/api/admin/{what}")).header("content-type", "application/json");
        problem(request.body(bad.to_string()).send().await.unwrap(), "invalid-argument").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_rebuilds_blocks_from_packs_that_a_restored_database_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let content = noise(9, 10_000);
    let packs =
        || std::fs::read_dir(root.join("cas/blocks-packs")).unwrap().map(|entry| entry.unwrap().path());
    let put = || {
        let config =
            graviton_core::Config::for_directory(&root).set("GRAVITON_BLOCK_LAYOUT", "packs").unwrap();
        let store = config.open().unwrap();
        let id = store.put(&content[..]).unwrap().id;
        store.close();
        id
    };
    let id = tokio::task::block_in_place(|| {
        put();
        let backup = std::fs::read(root.join("manifests.db")).unwrap();
        std::fs::remove_file(packs().next().unwrap()).unwrap();
        let id = put();
        std::fs::write(root.join("manifests.db"), backup).unwrap();
        id
    });
    let scene = Scene::of(directory, &[]).await;
    let order = scene.request("POST", "/api/admin/verify").header("content-type", "application/json");
    let job = json(order.body("{\"rebuild\":true}").send().await.unwrap()).await;
    let path = format!("/api/admin/jobs/{}?wait=60", job["id"]);
    let done = json(scene.get(&path).send().await.unwrap()).await;
    assert_eq!((&done["state"], &done["report"]["rebuilt"]), (&value!("done"), &value!(1)), "{done}");
    assert_eq!(done["findings"][0]["kind"], "pack");
    let read = scene.get(&format!("/api/blobs/{id}")).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == content);
    let stats = json(scene.get("/api/stats").send().await.unwrap()).await;
    assert_eq!((&stats["packs"], &stats["unknown_packs"]), (&value!(1), &value!(1)));
    let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("graviton_pack_bytes{of=\"unknown\"} 10128"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_no_job_that_is_watched() {
    let scene = Scene::with(&[("DRAIN", "60s")]).await;
    scene.put(&noise(1, 4_000_000)).await;
    let order = scene.request("POST", "/api/admin/verify").header("content-type", "application/json");
    let job = order.body("{\"deep\":true,\"bytes_per_second\":1}").send().await.unwrap();
    let path = format!("{}?wait=60", job.headers()["location"].to_str().unwrap());
    let watching = tokio::spawn(scene.get(&path).send());
    // By then the job is most likely being watched; if not, there is less to wait for.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(scene.stop().await, "nothing had to be cut off");
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_and_there_is_one_of_a_kind() {
    let scene = Scene::new().await;
    scene.put(&noise(1, 4_000_000)).await;
    // Slow enough to take a week.
    let slow = || {
        scene
            .request("POST", "/api/admin/verify")
            .header("content-type", "application/json")
            .body("{\"deep\":true,\"bytes_per_second\":1}")
    };
    let first = json(slow().send().await.unwrap()).await;
    let second = slow().send().await.unwrap();
    status(&second, 200);
    let path = format!("/api/admin/jobs/{}", first["id"]);
    assert_eq!(json(second).await["id"], first["id"]);
    status(&scene.request("POST", &format!("{path}/cancel")).send().await.unwrap(), 202);
    until("the job has ended", async || {
        json(scene.get(&path).send().await.unwrap()).await["state"] == "cancelled"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_the_committed_one_and_the_page_needs_nothing_else() {
    let scene = Scene::new().await;
    let served = scene.get("/api/openapi.json").send().await.unwrap().text().await.unwrap();
    assert_eq!(served, openapi_json());
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap();
    assert!(
        served == committed,
        "run: cargo run --bin graviton-server -- openapi > graviton-server/openapi.json"
    );
    let page = scene.get("/docs").send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        !policy.contains("http") && !policy.contains('*') && policy.contains("script-src 'self';"),
        "{policy}"
    );
    let page = page.text().await.unwrap();
    for foreign in ["http://", "https://", "\"//", "url(", "@import", "<script>", "<style"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for (code, _) in CODES {
        assert!(page.contains(&format!("id=\"{code}\"")), "{code}");
    }
    // tests/http/browser.py checks in a browser that the page shows every path.
    let addresses = page.split(['<', '>', ' ']).filter_map(|word| {
        word.strip_prefix("src=\"").or_else(|| word.strip_prefix("href=\""))?.strip_suffix('"')
    });
    let addresses: Vec<&str> = addresses.collect();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for address in addresses {
        // The addresses are relative, so that the page works under any path.
        let address = &format!("/{address}");
        let plain = scene.get(address).send().await.unwrap();
        status(&plain, 200);
        let is_script = address.strip_suffix(".js").is_some();
        let expected = if is_script { "text/javascript" } else { "text/css" };
        assert_eq!(plain.headers()["content-type"], format!("{expected}; charset=utf-8"), "{address}");
        assert_eq!(plain.headers()["x-content-type-options"], "nosniff");
        let plain = plain.bytes().await.unwrap();
        let packed = scene.get(address).header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip", "{address}");
        let packed = packed.bytes().await.unwrap();
        assert!(!plain.is_empty() && packed.len() < plain.len(), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_compressed_and_blobs_are_not() {
    let scene = Scene::new().await;
    for number in 0..50 {
        scene.put(&noise(number, 10)).await;
    }
    let list = scene.get("/api/blobs").header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(list.headers()["content-encoding"], "gzip");
    let id = scene.put(&vec![b'a'; 100_000]).await;
    let blob = scene
        .get(&format!("/api/blobs/{id}?type=application/json"))
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert!(!blob.headers().contains_key("content-encoding"));
    assert_eq!(blob.headers()["content-length"], "100000");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_let_in_only_if_they_are_named() {
    let closed = Scene::new().await;
    let response = closed.get("/api/blobs").header("origin", "https://a.example").send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let open = Scene::with(&[("CORS", "https://a.example")]).await;
    let response = open.get("/api/blobs").header("origin", "https://a.example").send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.example");
    let refused = open.get("/api/blobs/x").header("origin", "https://a.example").send().await.unwrap();
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://a.example");
    let other = open.get("/api/blobs").header("origin", "https://b.example").send().await.unwrap();
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    let preflight = open.request("OPTIONS", "/api/blobs").header("origin", "https://a.example");
    let preflight = preflight
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "range");
    let allowed = preflight.send().await.unwrap();
    status(&allowed, 200);
    let allowed: Vec<&str> =
        allowed.headers()["access-control-allow-headers"].to_str().unwrap().split(',').collect();
    assert!(allowed.contains(&"range"));
    let document: Value = serde_json::from_str(openapi_json()).unwrap();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    for parameter in operations.filter_map(|operation| operation["parameters"].as_array()).flatten() {
        let name = parameter["name"].as_str().unwrap().to_lowercase();
        assert!(
            parameter["in"] != "header" || allowed.contains(&name.as_str()),
            "{name} is not in {allowed:?}"
        );
    }
}

/// A page must see the reason for a refusal, even from code before the routes, and may send a preflight
/// request at any time.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_named_see_why_they_are_refused() {
    let page = "https://a.example";
    let scene = Scene::with(&[("CORS", page), ("RATE", "1"), ("BURST", "1")]).await;
    let ask = |method| scene.request(method, "/api/blobs").header("origin", page);
    until("it comes too often", async || {
        let response = ask("GET").send().await.unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], page, "{response:?}");
        let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("retry-after"), "{exposed}");
        let limited = response.status() == 429;
        if limited {
            problem(response, "rate-limited").await;
        }
        limited
    })
    .await;
    for _ in 0..5 {
        let preflight = ask("OPTIONS").header("access-control-request-method", "GET").send().await.unwrap();
        status(&preflight, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_what_is_under_way() {
    let scene = Scene::new().await;
    let content = noise(1, 2_000_000);
    let mut upload = scene.begin_upload(content.len()).await;
    upload.write_all(&content[..1_000_000]).await.unwrap();
    let mut idle = scene.connect().await;
    let address = scene.address;
    scene.control.stop();
    read_all(&mut idle).await;
    until("nobody is let in any more", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    upload.write_all(&content[1_000_000..]).await.unwrap();
    let answer = read_all(&mut upload).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(scene.ended().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_ever() {
    for twice in [false, true] {
        let scene = Scene::with(&[("DRAIN", if twice { "60s" } else { "1s" })]).await;
        let mut upload = scene.begin_upload(2_000_000).await;
        upload.write_all(b"abc").await.unwrap();
        scene.control.stop();
        if twice {
            scene.control.stop();
        }
        read_all(&mut upload).await;
        assert!(!scene.ended().await, "something had to be cut off");
    }
}

/// Connections that arrive during shutdown are shut down too, or not accepted at all.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_who_came_at_the_last_moment() {
    for twice in [false, true] {
        for _ in 0..5 {
            let scene = Scene::with(&[("DRAIN", "600s"), ("HEADER_TIMEOUT", "600s")]).await;
            let address = scene.address;
            let late: Vec<_> =
                (0..200).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
            // Stops while they arrive.
            let _first = scene.connect().await;
            scene.control.stop();
            if twice {
                scene.control.stop();
            }
            let _held = futures_util::future::join_all(late).await;
            // Otherwise this exceeds the time limit of the test.
            scene.ended().await;
        }
    }
}
