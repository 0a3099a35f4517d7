//! Blobs: upload, download, deletion.

use graviton_core::{Algo, BlobId};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::scene::{Scene, client_builder, damage, json, noise, problem, status};

fn id_of(content: &[u8]) -> String {
    BlobId::of(Algo::Blake3, content).to_string()
}

/// The body in pieces, without an announced length.
fn chunked(content: &[u8]) -> reqwest::Body {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        content.chunks(70_001).map(|piece| Ok(piece.to_vec())).collect();
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_length_come_back_as_they_were() {
    let scene = Scene::new().await;
    // Sizes around those of pieces, blocks, the first buffer and the pipeline after it.
    for (seed, size) in
        [0, 1, 4_095, 4_097, 65_536, 262_144, 524_288, 524_289, 1 << 20, (4 << 20) + 1, 9_000_000]
            .iter()
            .enumerate()
    {
        let content = noise(seed as u64 + 1, *size);
        let id = id_of(&content);
        let known = scene.request("POST", "/api/blobs").body(content.clone()).send().await.unwrap();
        status(&known, 201);
        assert_eq!(known.headers()["location"], format!("/api/blobs/{id}"));
        assert_eq!(known.headers()["etag"], format!("\"{id}\""));
        assert_eq!(json(known).await, Value::from(id.clone()));
        let again = scene.request("POST", "/api/blobs").body(chunked(&content)).send().await.unwrap();
        status(&again, 200);
        let by_id =
            scene.request("PUT", &format!("/api/blobs/{id}")).body(chunked(&content)).send().await.unwrap();
        status(&by_id, 200);

        let head = scene.request("HEAD", &format!("/api/blobs/{id}")).send().await.unwrap();
        status(&head, 200);
        assert_eq!(head.headers()["content-length"], size.to_string());
        for prefix in ["/api/blobs", "/api/v1/blobs"] {
            let got = scene.get(&format!("{prefix}/{id}")).send().await.unwrap();
            status(&got, 200);
            assert_eq!(got.headers()["content-length"], size.to_string());
            assert_eq!(got.headers()["etag"], format!("\"{id}\""));
            assert_eq!(got.headers()["x-content-type-options"], "nosniff");
            assert_eq!(got.headers()["cache-control"], "public, max-age=31536000, immutable");
            assert!(got.bytes().await.unwrap() == content, "{size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_those_who_prefer_one() {
    let scene = Scene::new().await;
    let put = scene
        .request("POST", "/api/blobs")
        .header("prefer", "respond-async, return=representation")
        .body(noise(1, 200_000));
    let response = put.send().await.unwrap();
    assert_eq!(response.headers()["preference-applied"], "return=representation");
    let receipt = json(response).await;
    assert_eq!((receipt["size"].as_u64(), receipt["created"].as_bool()), (Some(200_000), Some(true)));
    assert!(receipt["blocks"].as_u64() > Some(3) && receipt["blocks"] == receipt["fresh_blocks"]);
    assert_eq!(receipt["fresh_bytes"], 200_000);
    assert_eq!(receipt["fresh_stored_bytes"], 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_under_the_wrong_id_is_refused_and_leaves_nothing() {
    let scene = Scene::new().await;
    let (content, other) = (noise(1, 3_000_000), noise(2, 3_000_000));
    let path = format!("/api/blobs/{}", id_of(&content));
    for body in [
        reqwest::Body::from(other.clone()),
        chunked(&other),
        chunked(&content[1..]),
        content[1..].to_vec().into(),
    ] {
        problem(scene.request("PUT", &path).body(body).send().await.unwrap(), "digest-mismatch").await;
        scene.assert_blobs(0).await;
    }
    let response = scene.request("PUT", &path).body(content).send().await.unwrap();
    status(&response, 201);
}

/// A client that is refused before its content is read is told that the connection ends; another request on
/// it would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_read_to_the_end_of_a_request_says_that_it_closes() {
    let scene = Scene::new().await;
    let put = |length: usize, content: &[u8]| {
        let path = format!("/api/blobs/{}", id_of(b"other"));
        let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), content].concat()
    };
    let early = scene.raw(&put(1_000_000, b"")).await;
    assert!(early.starts_with("HTTP/1.1 4") && early.contains("connection: close\r\n"), "{early}");
    let read = put(5, b"wrong");
    let both = scene
        .raw(&[&read[..], b"GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat())
        .await;
    assert!(both.contains("HTTP/1.1 200"), "{both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_the_content_is_refused() {
    let scene = Scene::new().await;
    let id = id_of(b"content");
    for (header, value, code) in [
        ("content-type", "multipart/form-data; boundary=x", "unsupported"),
        ("content-type", "Multipart/Form-Data; boundary=x", "unsupported"),
        ("content-encoding", "gzip", "unsupported"),
        ("content-encoding", "aws-chunked", "unsupported"),
        ("content-type", "multipart/related; boundary=x", "unsupported"),
        ("content-type", "multipart/mixed; boundary=x", "unsupported"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "unsupported"),
        ("x-amz-decoded-content-length", "7", "unsupported"),
        ("content-range", "bytes 0-6/70", "invalid-argument"),
        ("upload-complete", "?0", "invalid-argument"),
        ("upload-offset", "7", "invalid-argument"),
    ] {
        for (method, path) in [("POST", "/api/blobs".to_owned()), ("PUT", format!("/api/blobs/{id}"))] {
            let sent =
                scene.request(method, &path).header(header, value).body("content").send().await.unwrap();
            problem(sent, code).await;
        }
    }
    scene.assert_blobs(0).await;
    for (header, value) in [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-encoding", "identity"),
        ("upload-complete", "?1"),
    ] {
        let sent =
            scene.request("POST", "/api/blobs").header(header, value).body("content").send().await.unwrap();
        assert!(sent.status().is_success(), "{header}: {value}");
    }
}

/// A second line of a header, and a trailer after the content.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_header_counts_and_trailers_declare_nothing() {
    let scene = Scene::new().await;
    for (lines, expected) in [
        ("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", "415"),
        ("Content-Type: text/plain\r\nContent-Type: multipart/form-data\r\n", "400"),
    ] {
        let head = format!("POST /api/blobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}");
        let answer = scene.raw(format!("{head}Content-Length: 7\r\n\r\ncontent").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{lines}: {answer}");
    }
    // The second one is correct, but the server has not computed it.
    for digest in
        ["2SmKENGwc1g33EvYXaxkGw887yekfl1TpU8vP1svz/o=", "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M="]
    {
        let answer = scene
            .raw(
                format!(
                    "POST /api/blobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                     Trailer: Content-Digest\r\n\r\n7\r\ncontent\r\n0\r\nContent-Digest: sha-256=:{digest}:\r\n\r\n"
                )
                .as_bytes(),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let garbage = scene.request("PUT", &format!("/api/blobs/{}", id_of(b"content")));
    problem(
        garbage.header("if-none-match", "garbage").body("content").send().await.unwrap(),
        "invalid-argument",
    )
    .await;
    scene.assert_blobs(0).await;
}

/// SHA-256 of `content`, and of something else.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_its_headers_declare_is_refused() {
    let scene = Scene::new().await;
    let (right, wrong) =
        ("7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=", "2SmKENGwc1g33EvYXaxkGw887yekfl1TpU8vP1svz/o=");
    let id = id_of(b"content");
    for (header, before, after) in
        [("content-digest", "sha-256=:", ":"), ("repr-digest", "sha-256=:", ":"), ("digest", "SHA-256=", "")]
    {
        for (method, path) in [("POST", "/api/blobs".to_owned()), ("PUT", format!("/api/blobs/{id}"))] {
            let send = async |digest: &str| {
                let request = scene.request(method, &path).header(header, format!("{before}{digest}{after}"));
                request.body(chunked(b"content")).send().await.unwrap()
            };
            problem(send(wrong).await, "digest-mismatch").await;
            problem(send("nonsense").await, "invalid-argument").await;
            scene.assert_blobs(0).await;
            status(&send(right).await, 201);
            status(&scene.request("DELETE", &format!("/api/blobs/{id}")).send().await.unwrap(), 204);
        }
    }
    for (header, value) in [("content-md5", "mgNkuembtIDdJeHwKEyFVQ=="), ("content-digest", "md5=:AAAA:")] {
        let sent = scene.request("POST", "/api/blobs").header(header, value).body("content").send().await;
        problem(sent.unwrap(), "invalid-argument").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_short_leaves_nothing() {
    let scene = Scene::new().await;
    for size in [10, 100_000, 9_000_000] {
        let content = noise(1, size);
        for head in ["Content-Length: 9000001", "Transfer-Encoding: chunked"] {
            let mut stream = scene.connect().await;
            stream
                .write_all(format!("POST /api/blobs HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").as_bytes())
                .await
                .unwrap();
            if head.starts_with('T') {
                stream.write_all(format!("{size:x}\r\n").as_bytes()).await.unwrap();
            }
            stream.write_all(&content).await.unwrap();
            stream.shutdown().await.unwrap();
            let answer = crate::scene::read_all(&mut stream).await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        }
    }
    // The same on HTTP/2, where the stream is reset.
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let broken = futures_util::stream::iter([Ok(noise(1, 3_000_000)), Err(std::io::Error::other("cut"))]);
    let sent = client.post(scene.url("/api/blobs")).body(reqwest::Body::wrap_stream(broken)).send().await;
    assert!(sent.is_err());
    scene.assert_blobs(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    let scene = Scene::new().await;
    let content = noise(1, 300_000);
    let id = scene.put(&content).await;
    let path = format!("/api/blobs/{id}");
    for (range, start, end) in [
        ("0-0", 0, 1),
        ("65000-200000", 65_000, 200_001),
        ("299999-", 299_999, 300_000),
        ("-7", 299_993, 300_000),
        ("1-9999999999999999999999", 1, 300_000),
    ] {
        let got = scene.get(&path).header("range", format!("bytes={range}")).send().await.unwrap();
        status(&got, 206);
        assert_eq!(got.headers()["content-range"], format!("bytes {start}-{}/300000", end - 1));
        assert!(got.bytes().await.unwrap() == content[start..end], "{range}");
    }
    let behind = scene.get(&path).header("range", "bytes=300000-").send().await.unwrap();
    assert_eq!(behind.headers()["content-range"], "bytes */300000");
    problem(behind, "range-not-satisfiable").await;
    for ignored in ["bytes=5-4", "lines=1-2", "nonsense"] {
        let got = scene.get(&path).header("range", ignored).send().await.unwrap();
        status(&got, 200);
        assert!(got.bytes().await.unwrap() == content);
    }
    for (tag, expected) in
        [(format!("\"{id}\""), 206), ("\"other\"".to_owned(), 200), (format!("W/\"{id}\""), 200)]
    {
        let got = scene.get(&path).header("range", "bytes=0-9").header("if-range", tag).send().await.unwrap();
        status(&got, expected);
    }
    // HEAD describes the whole blob.
    let head = scene.request("HEAD", &path).header("range", "bytes=0-9").send().await.unwrap();
    status(&head, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_come_as_parts() {
    let scene = Scene::new().await;
    let content = noise(1, 300_000);
    let id = scene.put(&content).await;
    let got = scene
        .get(&format!("/api/blobs/{id}?type=text/plain"))
        .header("range", "bytes=290000-,0-4,100000-199999")
        .send()
        .await
        .unwrap();
    status(&got, 206);
    let media_type = got.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let length: usize = got.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let body = got.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let mut expected = Vec::new();
    for (start, end) in [(290_000, 300_000), (0, 5), (100_000, 200_000)] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {start}-{}/300000\r\n\r\n",
            end - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(body == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_has_is_not_sent_again() {
    let scene = Scene::new().await;
    let id = scene.put(b"hello").await;
    for method in ["GET", "HEAD"] {
        for tag in [format!("\"{id}\""), "*".to_owned(), format!("\"a\", W/\"{id}\"")] {
            let got = scene
                .request(method, &format!("/api/blobs/{id}"))
                .header("if-none-match", tag)
                .send()
                .await
                .unwrap();
            status(&got, 304);
            assert_eq!(got.headers()["etag"], format!("\"{id}\""));
            assert!(got.bytes().await.unwrap().is_empty());
        }
        let absent = format!("/api/blobs/{}", id_of(b"absent"));
        let got = scene.request(method, &absent).header("if-none-match", "*").send().await.unwrap();
        status(&got, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_do_not_hold_keep_all_as_it_is() {
    let scene = Scene::new().await;
    let id = scene.put(b"conditional").await;
    let path = format!("/api/blobs/{id}");
    let other = id_of(b"other");
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PUT", "conditional")] {
        for tag in [format!("\"{other}\""), format!("W/\"{id}\""), "nonsense".to_owned()] {
            let request = scene.request(method, &path).header("if-match", tag).body(body);
            let refused = request.send().await.unwrap();
            status(&refused, 412);
            assert_eq!(json(refused).await["code"], "conflict", "{method}");
        }
    }
    status(&scene.request("HEAD", &path).header("if-match", "\"x\"").send().await.unwrap(), 412);
    // An invalid request is refused under any condition.
    for method in ["GET", "HEAD"] {
        let senseless = scene.request(method, &format!("{path}?type=AAA")).header("if-match", "\"x\"");
        status(&senseless.send().await.unwrap(), 400);
    }
    let again = scene.request("PUT", &path).header("if-none-match", "*").body("conditional");
    status(&again.send().await.unwrap(), 412);
    for tag in ["*", &format!("\"{id}\"")] {
        let refused = scene.request("DELETE", &path).header("if-none-match", tag).send().await.unwrap();
        status(&refused, 412);
        assert_eq!(json(refused).await["code"], "conflict");
    }
    scene.assert_blobs(1).await;
    let absent = format!("/api/blobs/{other}");
    for (method, body) in [("DELETE", ""), ("PUT", "other")] {
        let refused = scene.request(method, &absent).header("if-match", "*").body(body).send().await.unwrap();
        status(&refused, 412);
    }
    scene.assert_blobs(1).await;
    status(&scene.request("DELETE", &absent).header("if-none-match", "*").send().await.unwrap(), 404);
    let list = format!("\"{other}\", \"{id}\"");
    status(&scene.get(&path).header("if-match", list).send().await.unwrap(), 200);
    status(&scene.request("DELETE", &path).header("if-match", "*").send().await.unwrap(), 204);
    let anew = scene.request("PUT", &path).header("if-none-match", "*").body("conditional");
    status(&anew.send().await.unwrap(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_sent_as_what_is_safe() {
    let scene = Scene::new().await;
    let id = scene.put(b"<script>alert(1)</script>").await;
    let plain = scene.get(&format!("/api/blobs/{id}")).send().await.unwrap();
    assert_eq!(plain.headers()["content-type"], "application/octet-stream");
    assert!(plain.headers()["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    let named =
        scene.get(&format!("/api/blobs/{id}?type=image/png&filename=a%22b.png")).send().await.unwrap();
    assert_eq!(named.headers()["content-type"], "image/png");
    assert_eq!(
        named.headers()["content-disposition"],
        "attachment; filename=\"a_b.png\"; filename*=UTF-8''a%22b.png"
    );
    for bad in [
        "type=text/html",
        "type=image/svg%2Bxml",
        "disposition=evil",
        "filename=a%0d%0aX-Evil:1",
        "filename=..%2F..%2Fetc",
        "filename=",
    ] {
        let refused = scene.get(&format!("/api/blobs/{id}?{bad}")).send().await.unwrap();
        problem(refused, "invalid-argument").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_blob_is_gone_and_can_be_restored() {
    let scene = Scene::new().await;
    let id = scene.put(b"to be deleted").await;
    let path = format!("/api/blobs/{id}");
    let restore = format!("{path}/restore");
    status(&scene.request("DELETE", &path).send().await.unwrap(), 204);
    for (method, path) in [("GET", &path), ("DELETE", &path), ("GET", &format!("{path}/manifest"))] {
        problem(scene.request(method, path).send().await.unwrap(), "not-found").await;
    }
    status(&scene.request("HEAD", &path).send().await.unwrap(), 404);
    scene.assert_blobs(0).await;
    let list = json(scene.get("/api/blobs").send().await.unwrap()).await;
    assert_eq!(list["blobs"], serde_json::json!([]));
    status(&scene.request("POST", &restore).send().await.unwrap(), 204);
    status(&scene.request("POST", &restore).send().await.unwrap(), 204);
    assert_eq!(scene.get(&path).send().await.unwrap().bytes().await.unwrap(), "to be deleted");
    let other = format!("/api/blobs/{}/restore", id_of(b"never put"));
    problem(scene.request("POST", &other).send().await.unwrap(), "not-found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(scene.put(&noise(number, 10)).await);
    }
    ids.sort();
    let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = json(scene.get(&format!("/api/blobs?limit=3{after}")).send().await.unwrap()).await;
        let blobs = page["blobs"].as_array().unwrap();
        assert!(blobs.iter().all(|blob| blob["size"] == 10
            && blob["blocks"] == 1
            && blob["created_at"].as_str().unwrap().ends_with('Z')));
        found.extend(blobs.iter().map(|blob| blob["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!((found, pages), (ids, 3));

    let content = noise(9, 300_000);
    let id = scene.put(&content).await;
    let (mut offset, mut from) = (0, String::new());
    loop {
        let page =
            json(scene.get(&format!("/api/blobs/{id}/manifest?limit=2{from}")).send().await.unwrap()).await;
        for block in page["blocks"].as_array().unwrap() {
            assert_eq!(block["offset"].as_u64(), Some(offset as u64));
            let size = block["size"].as_u64().unwrap() as usize;
            let key = graviton_core::BlockKey::of(Algo::Blake3, &content[offset..offset + size]).unwrap();
            assert_eq!(block["key"], key.to_string());
            offset += size;
        }
        let Some(next) = page["next"].as_u64() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(offset, content.len());
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=99999999999999999999"] {
        problem(scene.get(&format!("/api/blobs?{bad}")).send().await.unwrap(), "invalid-argument").await;
    }
    problem(scene.get("/api/blobs?after=x").send().await.unwrap(), "invalid-id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_never_ends_a_body_cleanly() {
    let scene = Scene::new().await;
    let content = noise(1, 5_000_000);
    let id = scene.put(&content).await;
    let blocks = scene.store.stat(&id.parse().unwrap()).await.unwrap().blocks as usize;
    damage(&scene.block_file(&id, blocks - 1).await);
    let path = format!("/api/blobs/{id}");
    let http2 = client_builder().http2_prior_knowledge().build().unwrap();
    for client in [&scene.client, &http2] {
        let mut got = client.get(scene.url(&path)).send().await.unwrap();
        status(&got, 200);
        let mut received = Vec::new();
        let ended = loop {
            match got.chunk().await {
                Ok(Some(bytes)) => received.extend_from_slice(&bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert!(ended.is_err() && received.len() < content.len() && content.starts_with(&received));
    }
    // Intact ranges can be read; damage to the first byte sent is reported with a status.
    let start = scene.get(&path).header("range", "bytes=0-99").send().await.unwrap();
    assert!(start.bytes().await.unwrap() == content[..100]);
    let end = scene.get(&path).header("range", "bytes=-1").send().await.unwrap();
    let told = problem(end, "corrupt-block").await;
    assert!(!told["detail"].as_str().unwrap().contains("cas/blocks"), "{told}");

    std::fs::remove_file(scene.block_file(&id, 0).await).unwrap();
    problem(scene.get(&path).send().await.unwrap(), "missing-block").await;
    // Putting the content again repairs it.
    assert_eq!(scene.put(&content).await, id);
    assert!(scene.get(&path).send().await.unwrap().bytes().await.unwrap() == content);
}
