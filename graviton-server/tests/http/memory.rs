//! Memory held for clients that do not finish an upload or a download: it stays within the settings, and
//! other clients continue.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use graviton_core::{Algo, BlobId, BlockKey};
use reqwest::{Client, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::scene::{Scene, TOO_LONG, client, client_builder, json, noise, problem, status, until};

/// The server as a separate process with its own memory and descriptors.
struct Program {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Program {
    fn new(settings: &[&str], log: Stdio) -> Program {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_graviton-server"));
        command.arg("--root").arg(directory.path()).args(["--set", "GRAVITON_HTTP_PORT=0"]);
        for setting in settings {
            command.args(["--set", &format!("GRAVITON_HTTP_{setting}")]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Program { child, address, _directory: directory }
    }

    /// Its largest resident memory so far, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn put(&self, content: &[u8]) -> String {
        let put = client().post(self.url("/api/blobs")).body(content.to_vec()).send().await.unwrap();
        json(put).await.as_str().unwrap().to_owned()
    }

    /// Begins an upload of 2 MB. It has a slot when this returns.
    async fn begin(&self) -> TcpStream {
        let mut upload = TcpStream::connect(self.address).await.unwrap();
        let head = "POST /api/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n";
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.write_all(&noise(1, 1_000_000)).await.unwrap();
        until("it has its place", async || {
            let metrics = client().get(self.url("/metrics")).send().await.unwrap();
            metrics.text().await.unwrap().lines().any(|line| line == "graviton_uploads 1")
        })
        .await;
        upload
    }

    /// A session of this server.
    async fn session(&self) -> String {
        let question = client().post(self.url("/api/blocks/missing")).body("{\"keys\":[]}");
        let answer = json(question.header("content-type", "application/json").send().await.unwrap()).await;
        answer["session"].as_str().unwrap().to_owned()
    }

    async fn put_block(&self, session: &str, block: &[u8]) -> String {
        let key = BlockKey::of(Algo::Blake3, block).unwrap().to_string();
        let put = client().put(self.url(&format!("/api/blocks/{key}"))).body(block.to_vec());
        status(&put.header("graviton-session", session).send().await.unwrap(), 201);
        key
    }

    async fn commit(&self, session: &str, id: &str, keys: &[String]) -> Response {
        let body = serde_json::json!({ "id": id, "blocks": keys }).to_string();
        let commit = client().post(self.url("/api/manifests")).header("graviton-session", session);
        commit.header("content-type", "application/json").body(body).send().await.unwrap()
    }

    /// Sends a request, and then reads nothing of the answer.
    async fn ask(&self, path: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_do_not_read_hold_no_more_than_the_memory_and_others_go_on() {
    let program = Program::new(&["MEMORY=128MiB", "LOG=warn"], Stdio::null());
    let content = noise(1, 32 << 20);
    let id = program.put(&content).await;
    let mut readers = Vec::new();
    for _ in 0..600 {
        readers.push(program.ask(&format!("/api/blobs/{id}")).await);
    }
    for _ in 0..3 {
        let got = client().get(program.url(&format!("/api/blobs/{id}"))).send().await.unwrap();
        status(&got, 200);
        assert!(got.bytes().await.unwrap() == content);
    }
    // Without a bound, each of them takes more than 2 MB. The allocator keeps some memory that was freed just
    // now.
    let peak = program.peak();
    assert!(peak < 640 << 20, "{} MiB", peak >> 20);
    drop(readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_nobody_takes_hold_no_more_than_the_memory() {
    let program = Program::new(&["MEMORY=128MiB", "LOG=warn"], Stdio::null());
    let (client, block) = (client(), noise(1, 8 << 20));
    let key = program.put_block(&program.session().await, &block).await;
    let path = format!("/api/blocks/{key}");
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(program.ask(&path).await);
    }
    let got = client.get(program.url(&path)).send().await.unwrap();
    assert_eq!(got.headers()["content-length"], block.len().to_string());
    assert!(got.bytes().await.unwrap() == block);
    // Together they have asked for 400 MiB.
    let peak = program.peak();
    assert!(peak < 200 << 20, "{} MiB", peak >> 20);
    drop(readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_or_lingers_has_few_descriptors() {
    let program = Program::new(&["MAX_CONNECTIONS=8", "LOG=error"], Stdio::null());
    let mut streams = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(program.address).await.unwrap();
        let head = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        streams.push(stream);
        // 8 connections, 64 that linger, 64 that are refused, and the process's own descriptors.
        assert!(program.descriptors() < 250);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let program = Program::new(&["LOG=info"], Stdio::piped());
    let client = client();
    for _ in 0..3_000 {
        let get = client.get(program.url("/api/health")).timeout(TOO_LONG);
        status(&get.send().await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_fast_only_at_first_is_cut_off() {
    let scene = Scene::with(&[("BODY_TIMEOUT", "1s"), ("BODY_RATE", "1KiB")]).await;
    let mut stream = scene.connect().await;
    let head = "POST /api/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&noise(1, 4 << 20)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut reading, &mut answer);
    let _ = tokio::time::timeout(TOO_LONG, read).await.expect("it is waited for");
    drip.abort();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    scene.assert_blobs(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_leaves_places_to_others() {
    let settings = ["MAX_UPLOADS=2", "MAX_UPLOADS_EACH=1", "BODY_TIMEOUT=4s", "LOG=warn"];
    let program = Program::new(&settings, Stdio::null());
    let first = program.begin().await;
    let (here, url) = (client(), program.url("/api/blobs"));
    let elsewhere = client_builder().local_address(Some([127, 0, 0, 2].into())).build().unwrap();
    let upload = |client: &Client, seed| client.post(&url).body(noise(seed, 2_000_000));
    status(&upload(&elsewhere, 2).send().await.unwrap(), 201);
    // The upload that only begins delays uploads from the same address, but not for long while they wait.
    let (same, other) = tokio::join!(upload(&here, 3).send(), upload(&elsewhere, 4).send());
    status(&other.unwrap(), 201);
    status(&same.unwrap(), 201);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_blocks_is_an_upload_of_its_size() {
    let settings = ["MAX_BODY=4MiB", "MAX_UPLOADS=1", "BODY_TIMEOUT=4s", "LOG=warn"];
    let program = Program::new(&settings, Stdio::null());
    let session = program.session().await;
    let block = noise(1, 50_000);
    let key = program.put_block(&session, &block).await;
    let of = |times: usize| {
        let id = BlobId::of(Algo::Blake3, &block.repeat(times)).to_string();
        (id, vec![key.clone(); times])
    };
    let (id, keys) = of(100);
    problem(program.commit(&session, &id, &keys).await, "too-large").await;
    let (id, keys) = of(20);
    status(&program.commit(&session, &id, &keys).await, 201);
    let got = client().get(program.url(&format!("/api/blobs/{id}"))).send().await.unwrap();
    assert!(got.bytes().await.unwrap() == block.repeat(20));

    // The only slot is taken. A small blob needs none; a large blob does, even if its manifest is short.
    let mut upload = program.begin().await;
    let keeper = tokio::spawn(async move {
        while upload.write_all(&[0; 1_000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let ((small, small_keys), (large, large_keys)) = (of(3), of(21));
    status(&program.commit(&session, &small, &small_keys).await, 201);
    problem(program.commit(&session, &large, &large_keys).await, "overloaded").await;
    keeper.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_does_not_end_the_others_of_its_connection() {
    let scene = Scene::with(&[("IDLE_TIMEOUT", "1s")]).await;
    let id = scene.put(&noise(1, 64 << 20)).await;
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let unread = client.get(scene.url(&format!("/api/blobs/{id}"))).send().await.unwrap();
    status(&unread, 200);
    let slow = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (sent < 40).then(|| (Ok::<_, std::io::Error>(vec![sent; 1_000]), sent + 1))
    });
    let upload = client.post(scene.url("/api/blobs")).body(reqwest::Body::wrap_stream(slow));
    status(&upload.send().await.unwrap(), 201);
    // With no other request on the connection, the server closes it despite the unread download.
    until("the download that nobody takes is cut off", async || {
        let metrics = scene.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "graviton_downloads 0")
    })
    .await;
    drop(unread);
}
