//! Blocks, for clients that cut streams themselves and upload the missing ones, through one server and
//! through two.

use graviton_core::{Algo, BlobId, BlockKey};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json as value};

use crate::scene::{Scene, damage, json, noise, problem, status, until};

const JSON: (&str, &str) = ("content-type", "application/json");

fn key_of(block: &[u8]) -> String {
    BlockKey::of(Algo::Blake3, block).unwrap().to_string()
}

fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header(JSON.0, JSON.1).body(body.to_string())
}

async fn ask(scene: &Scene, session: Option<&str>, keys: &[String]) -> Response {
    let mut request = with_json(scene.request("POST", "/api/blocks/missing"), &value!({ "keys": keys }));
    if let Some(session) = session {
        request = request.header("graviton-session", session);
    }
    request.send().await.unwrap()
}

async fn commit(scene: &Scene, session: &str, id: &str, keys: &[String]) -> Response {
    let request = with_json(scene.request("POST", "/api/manifests"), &value!({ "id": id, "blocks": keys }));
    request.header("graviton-session", session).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_is_sent_and_any_server_goes_on() {
    let scene = Scene::new().await;
    let other = scene.another(&[]).await;
    let blocks: Vec<Vec<u8>> = (1..=4).map(|seed| noise(seed, 50_000 + seed as usize)).collect();
    // One of the blocks is stored already.
    scene.put(&blocks[1][..1]).await;
    let there = blocks[1][..1].to_vec();
    let content = [&blocks[0][..], &there, &blocks[2], &blocks[0]].concat();
    let id = BlobId::of(Algo::Blake3, &content).to_string();
    let keys = [key_of(&blocks[0]), key_of(&there), key_of(&blocks[2]), key_of(&blocks[0])];

    let answer = json(ask(&scene, None, &keys).await).await;
    assert_eq!(answer["missing"], value!([keys[0], keys[2]]));
    assert!(answer["expires_at"].as_str().unwrap().ends_with('Z'));
    let session = answer["session"].as_str().unwrap();

    let unfinished = problem(commit(&scene, session, &id, &keys).await, "not-found").await;
    assert_eq!(unfinished["missing"], value!([keys[0], keys[2]]));
    scene.assert_blobs(1).await;

    for (block, key) in [(&blocks[0], &keys[0]), (&blocks[2], &keys[2])] {
        for expected in [201, 200] {
            let put = scene
                .client
                .put(format!("http://{other}/api/blocks/{key}"))
                .header("graviton-session", session);
            let response = put.body(block.clone()).send().await.unwrap();
            status(&response, expected);
            assert_eq!(json(response).await, Value::from(key.clone()));
        }
        let got = scene.get(&format!("/api/blocks/{key}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == block[..]);
        for known in [format!("\"{key}\""), format!("\"other\", W/\"{key}\""), "*".to_owned()] {
            let asked = scene.get(&format!("/api/blocks/{key}")).header("if-none-match", &known);
            status(&asked.send().await.unwrap(), 304);
        }
        let head = scene.request("HEAD", &format!("/api/blocks/{key}")).send().await.unwrap();
        assert_eq!(head.headers()["content-length"], block.len().to_string());
    }
    // No collection takes the blocks that a session keeps.
    let grace = graviton_core::GcOptions { grace: Some(std::time::Duration::ZERO), ..Default::default() };
    scene.store.gc(&grace, |_| std::ops::ControlFlow::Continue(())).await.unwrap();
    assert_eq!(json(ask(&scene, Some(session), &keys).await).await["missing"], value!([]));

    let committed = commit(&scene, session, &id, &keys).await;
    status(&committed, 201);
    assert_eq!(json(committed).await, Value::from(id.clone()));
    status(&commit(&scene, session, &id, &keys).await, 200);
    let got = scene.client.get(format!("http://{other}/api/blobs/{id}")).send().await.unwrap();
    assert!(got.bytes().await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_right_is_refused() {
    let scene = Scene::new().await;
    let (block, id) = (b"a block", BlobId::of(Algo::Blake3, b"a block").to_string());
    let key = key_of(block);
    let session = json(ask(&scene, None, &[]).await).await["session"].as_str().unwrap().to_owned();
    let put = |key: &str, body: &'static [u8]| {
        scene.request("PUT", &format!("/api/blocks/{key}")).header("graviton-session", &session).body(body)
    };
    problem(put(&key, b"another").send().await.unwrap(), "digest-mismatch").await;
    problem(put(&key, b"longer than it").send().await.unwrap(), "digest-mismatch").await;
    problem(put("blake3:00:1", block).send().await.unwrap(), "invalid-id").await;
    let endless = reqwest::Body::wrap_stream(futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(vec![0; 1 << 20])
    }));
    let too_large = put(&key, block).body(endless).send().await;
    if let Ok(response) = too_large {
        problem(response, "digest-mismatch").await;
    }
    let no_session =
        scene.request("PUT", &format!("/api/blocks/{key}")).body(&block[..]).send().await.unwrap();
    problem(no_session, "invalid-argument").await;
    for forged in ["x", "1.1.600000.", &session[..session.len() - 1], &session.replacen('1', "2", 1)] {
        problem(ask(&scene, Some(forged), &[]).await, "not-found").await;
    }
    assert!(scene.block_files().is_empty());

    status(&put(&key, block).send().await.unwrap(), 201);
    let other = BlobId::of(Algo::Blake3, b"a bl0ck").to_string();
    problem(commit(&scene, &session, &other, std::slice::from_ref(&key)).await, "digest-mismatch").await;
    problem(commit(&scene, &session, &id, &[key.clone(), key.clone()]).await, "invalid-argument").await;
    problem(commit(&scene, &session, "x", &[]).await, "invalid-id").await;
    problem(commit(&scene, "x", &id, std::slice::from_ref(&key)).await, "not-found").await;
    let question = scene.request("POST", "/api/blocks/missing");
    problem(question.body("{\"keys\":[]}").send().await.unwrap(), "unsupported").await;
    for bad in
        [value!({ "keys": ["x"] }), value!({ "keys": "x" }), value!([]), value!({ "keys": [], "more": 1 })]
    {
        let question = with_json(scene.request("POST", "/api/blocks/missing"), &bad);
        problem(question.send().await.unwrap(), "invalid-argument").await;
    }
    problem(ask(&scene, None, &vec![key.clone(); 10_001]).await, "too-large").await;
    scene.assert_blobs(0).await;

    // A block that was damaged meanwhile counts as missing.
    damage(&scene.block_files()[0]);
    let unfinished =
        problem(commit(&scene, &session, &id, std::slice::from_ref(&key)).await, "not-found").await;
    assert_eq!(unfinished["missing"], value!([key]));
    problem(scene.get(&format!("/api/blocks/{}", key_of(b"never put"))).send().await.unwrap(), "not-found")
        .await;
    status(
        &scene.request("HEAD", &format!("/api/blocks/{}", key_of(b"never put"))).send().await.unwrap(),
        404,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_says_so() {
    let scene = Scene::new().await;
    let session = scene.store.open_session(std::time::Duration::from_secs(1)).await.unwrap().token();
    // The database's clock decides. Each call to a live session extends it, so the loop leaves it alone for a
    // while.
    until("the session is over", async || {
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        let grace = graviton_core::GcOptions::default();
        scene.store.gc(&grace, |_| std::ops::ControlFlow::Continue(())).await.unwrap();
        let response = ask(&scene, Some(&session), &[]).await;
        if response.status() == 200 {
            return false;
        }
        assert!(response.headers().contains_key("retry-after"));
        problem(response, "writer-expired").await;
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_kept_for_it_is_bounded() {
    let scene = Scene::with(&[("MAX_SESSION_BLOCKS", "100"), ("QUOTA", "10MiB")]).await;
    let keys: Vec<String> = (0..150_u8).map(|byte| key_of(&[byte])).collect();
    let first = json(ask(&scene, None, &keys[..100]).await).await;
    let session = first["session"].as_str().unwrap();
    // The same question again adds no blocks.
    for _ in 0..5 {
        status(&ask(&scene, Some(session), &keys[..100]).await, 200);
    }
    let put = scene.request("PUT", &format!("/api/blocks/{}", keys[20])).body(vec![20]);
    status(&put.header("graviton-session", session).send().await.unwrap(), 201);
    status(&ask(&scene, Some(session), &keys[50..]).await, 200);
    problem(ask(&scene, Some(session), &keys[..1]).await, "too-large").await;
    problem(ask(&scene, None, &keys[100..]).await, "overloaded").await;
    let put = scene.request("PUT", &format!("/api/blocks/{}", keys[120])).body(vec![120]);
    problem(put.header("graviton-session", session).send().await.unwrap(), "too-large").await;
}

/// Sessions keep blocks that are never put, but their rows take space in the database.
#[tokio::test(flavor = "multi_thread")]
async fn what_sessions_keep_counts_for_the_quota() {
    let scene = Scene::with(&[("QUOTA", "1MiB")]).await;
    let mut answered = 0;
    for round in 0..20_u32 {
        let keys: Vec<String> = (0..1_000_u32)
            .map(|number| key_of(&[round.to_le_bytes(), number.to_le_bytes()].concat()))
            .collect();
        let answer = ask(&scene, None, &keys).await;
        if answer.status() == 200 {
            answered += 1;
        } else {
            problem(answer, "quota-exceeded").await;
        }
    }
    // A row counts as 100 bytes.
    assert_eq!(answered, 10);
}

/// A manifest that repeats one small block takes much more of the database than of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_and_questions_count_for_the_quota() {
    let scene = Scene::with(&[("QUOTA", "1MiB")]).await;
    let key = key_of(b"x");
    let answer = json(ask(&scene, None, std::slice::from_ref(&key)).await).await;
    let session = answer["session"].as_str().unwrap().to_owned();
    let put = scene.request("PUT", &format!("/api/blocks/{key}")).body("x");
    status(&put.header("graviton-session", &session).send().await.unwrap(), 201);
    let manifest = async |length: usize| {
        let id = BlobId::of(Algo::Blake3, &vec![b'x'; length]).to_string();
        commit(&scene, &session, &id, &vec![key.clone(); length]).await
    };
    status(&manifest(5_000).await, 201);
    status(&manifest(5_001).await, 201);
    problem(manifest(5_002).await, "quota-exceeded").await;
    scene.assert_blobs(2).await;
    problem(
        scene.request("POST", "/api/blobs").body(noise(1, 100_000)).send().await.unwrap(),
        "quota-exceeded",
    )
    .await;
    // Once the quota is used up, even a question is refused, because it writes rows.
    status(&manifest(484).await, 201);
    scene.put(&noise(2, 75)).await;
    problem(ask(&scene, Some(&session), &[key_of(b"y")]).await, "quota-exceeded").await;
}
