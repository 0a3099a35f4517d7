//! Requests that are refused or cut off: the status, and no harm to other clients.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scene::{Scene, TOO_LONG, client_builder, noise, problem, read_all, status, until};

async fn begin(scene: &Scene, head: &str) -> TcpStream {
    let mut stream = scene.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The head of the next response on this connection.
async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(TOO_LONG, reading).await.expect("no answer");
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_the_answer_arrives() {
    let scene = Scene::with(&[("MAX_BODY", "1MiB")]).await;
    let allowed = scene.request("POST", "/api/blobs").body(noise(1, 1 << 20)).send().await.unwrap();
    status(&allowed, 201);
    // The client sends everything before it reads the answer.
    for round in 0..20 {
        let mut stream =
            begin(&scene, "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n").await;
        let _ = stream.write_all(&noise(2, 8 << 20)).await;
        let head = head_of(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 413"), "round {round}: {head}");
    }
    let pieces = (0..64).map(|seed| Ok::<_, std::io::Error>(noise(seed, 65_536)));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let response = scene.request("POST", "/api/blobs").body(chunked).send().await.unwrap();
    problem(response, "too-large").await;
    scene.assert_blobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_permission_gets_it_or_not() {
    let scene = Scene::with(&[("MAX_BODY", "1MiB")]).await;
    let mut allowed = begin(
        &scene,
        "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert!(head_of(&mut allowed).await.starts_with("HTTP/1.1 100"));
    allowed.write_all(b"hello").await.unwrap();
    assert!(head_of(&mut allowed).await.starts_with("HTTP/1.1 201"));
    let mut refused = begin(
        &scene,
        "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert!(head_of(&mut refused).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_size_and_a_time() {
    let scene = Scene::with(&[("MAX_HEADERS", "8KiB"), ("HEADER_TIMEOUT", "1s")]).await;
    let large = format!("GET /api/health HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "a".repeat(300_000));
    let mut stream = begin(&scene, "").await;
    let _ = stream.write_all(large.as_bytes()).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET /api/health HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert!(scene.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // The server does not wait for clients that send nothing or never finish.
    for begun in ["", "GET /api/health HTTP/1.1\r\nX-Slow: ", "PRI * HTTP/2.0\r\n"] {
        let mut stream = begin(&scene, begun).await;
        let answer = read_all(&mut stream).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
}

/// Sends a byte now and then, until the server ends the connection.
async fn drip_until_it_ends(mut slow: TcpStream) {
    let (mut reading, mut writing) = slow.split();
    let drip = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    let all = async {
        let _ = reading.read_to_end(&mut answer).await;
    };
    tokio::select! {
        () = drip => {}
        ended = tokio::time::timeout(TOO_LONG, all) => ended.expect("it is waited for"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let scene = Scene::with(&[("BODY_TIMEOUT", "1s"), ("BODY_RATE", "1MiB")]).await;
    let head = "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    let mut silent = begin(&scene, &format!("{head}abc")).await;
    let answer = read_all(&mut silent).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"timeout\""), "{answer}");
    // A byte now and then is too slow.
    let slow = begin(&scene, head).await;
    drip_until_it_ends(slow).await;
    scene.assert_blobs(0).await;
}

/// A fast start does not permit a slow rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_fast_is_not_waited_for() {
    let scene = Scene::with(&[("BODY_TIMEOUT", "1s"), ("BODY_RATE", "1KiB")]).await;
    let mut slow = scene.begin_upload(2_000_000).await;
    slow.write_all(&noise(1, 1_000_000)).await.unwrap();
    drip_until_it_ends(slow).await;
    scene.assert_blobs(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_stalled_connections_are_closed() {
    let scene = Scene::with(&[("IDLE_TIMEOUT", "1s")]).await;
    let mut idle = begin(&scene, "GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(read_all(&mut idle).await.starts_with("HTTP/1.1 200"));
    // More than the buffers of two sockets hold.
    let id = scene.put(&noise(1, 64 << 20)).await;
    let stalled = begin(&scene, &format!("GET /api/blobs/{id} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    until("the download that nobody takes is cut off", async || {
        let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "graviton_downloads 0")
    })
    .await;
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so() {
    let scene = Scene::with(&[("MAX_CONNECTIONS", "3")]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = begin(&scene, "GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let refused = scene.get("/api/health").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    status(&refused, 503);
    drop(held);
    until("there is room again", async || {
        scene.get("/api/health").send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_connections_to_others() {
    let scene = Scene::with(&[("MAX_CONNECTIONS", "3"), ("MAX_CONNECTIONS_EACH", "2")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = begin(&scene, "GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let refused = problem(scene.get("/api/health").send().await.unwrap(), "overloaded").await;
    assert!(refused["detail"].as_str().unwrap().contains("from this address"), "{refused}");
    let other = client_builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    status(&other.get(scene.url("/api/health")).send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_upload_too_many_waits_and_is_told_so() {
    let scene = Scene::with(&[("MAX_UPLOADS", "1"), ("BODY_TIMEOUT", "2s"), ("BODY_RATE", "1")]).await;
    let mut first =
        begin(&scene, "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n").await;
    first.write_all(&noise(1, 1_000_000)).await.unwrap();
    until("the first one has its place", async || {
        let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "graviton_uploads 1")
    })
    .await;
    // It is kept alive while the other one waits.
    let keeper = tokio::spawn(async move {
        for byte in &noise(1, 1_000_100)[1_000_000..] {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            if first.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    });
    let second = scene.request("POST", "/api/blobs").body(noise(2, 2_000_000)).send().await.unwrap();
    assert_eq!(second.headers()["retry-after"], "1");
    problem(second, "overloaded").await;
    // Small uploads continue.
    scene.put(&noise(3, 100_000)).await;
    keeper.abort();
    until("there is room again", async || {
        let again = scene.request("POST", "/api/blobs").body(noise(2, 2_000_000)).send().await;
        again.is_ok_and(|response| response.status() == 201)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_the_rate_are_told_when_to_come_back() {
    let scene = Scene::with(&[("RATE", "1"), ("BURST", "5")]).await;
    let mut limited = None;
    for _ in 0..50 {
        let response = scene.get("/api/blobs").send().await.unwrap();
        if response.status() == 429 {
            limited = Some(response);
            break;
        }
        status(&response, 200);
    }
    let limited = limited.expect("nothing was limited");
    let seconds: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds));
    problem(limited, "rate-limited").await;
    // Health checks are not limited.
    status(&scene.get("/api/health").send().await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_stored_than_the_quota() {
    let scene = Scene::with(&[("QUOTA", "1MiB")]).await;
    let id = scene.put(&noise(1, 700_000)).await;
    let response = scene.request("POST", "/api/blobs").body(noise(2, 700_000)).send().await.unwrap();
    problem(response, "quota-exceeded").await;
    scene.assert_blobs(1).await;
    // A blob that fits is stored, and reading and deleting continue.
    scene.put(&noise(3, 100_000)).await;
    status(&scene.get(&format!("/api/blobs/{id}")).send().await.unwrap(), 200);
    status(&scene.request("DELETE", &format!("/api/blobs/{id}")).send().await.unwrap(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_do_not_hurt_the_others() {
    // Both ends of each connection are in this process.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    // On a busy machine the usual ones would end the slow clients before the others are done.
    let long = [("HEADER_TIMEOUT", "600s"), ("BODY_TIMEOUT", "600s"), ("IDLE_TIMEOUT", "600s")];
    let scene = Scene::with(&long).await;
    let content = noise(1, 2_000_000);
    let id = scene.put(&content).await;
    let mut slow = Vec::new();
    for number in 0..1_000 {
        let begun = match number % 4 {
            0 => "GET /api/health HTTP/1.1\r\nX-Slow: ".to_owned(),
            1 => "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nabc".to_owned(),
            2 => format!("GET /api/blobs/{id} HTTP/1.1\r\nHost: x\r\n\r\n"),
            _ => "PRI * HTTP/2.0\r\n\r\nSM".to_owned(),
        };
        slow.push(begin(&scene, &begun).await);
    }
    for _ in 0..20 {
        let got = scene.get(&format!("/api/blobs/{id}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == content);
        scene.put(&content).await;
    }
    // The slow clients are still connected, so all of this happened beside them.
    let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
    let open: f64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("graviton_http_connections "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(open > 900.0, "{open}");
    drop(slow);
}
