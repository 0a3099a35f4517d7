//! A server on a free port over a store in a temporary directory, and a client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use graviton_core::{AsyncStore, Config};
use graviton_server::settings::Settings;
use graviton_server::{Control, Port, Server};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A client of the test.
pub(crate) fn client() -> Client {
    client_builder().build().unwrap()
}

/// The same client, to be configured further.
pub(crate) fn client_builder() -> ClientBuilder {
    // reqwest uses the process's provider of cryptography, and a test may run before any server has set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

/// Longer than every test takes, but short enough to wait for.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    directory: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) control: Control,
    pub(crate) address: SocketAddr,
    pub(crate) store: AsyncStore,
    running: JoinHandle<bool>,
}

impl Scene {
    pub(crate) async fn new() -> Scene {
        Scene::with(&[]).await
    }

    /// A scene with these settings, named without the prefix.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Scene {
        Scene::of(tempfile::tempdir().unwrap(), settings).await
    }

    pub(crate) async fn of(directory: tempfile::TempDir, settings: &[(&str, &str)]) -> Scene {
        // Small blocks, so that little data has many blocks.
        let config =
            Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", "fastcdc:4096:16384:65536");
        let store = config.unwrap().open_async().await.unwrap();
        let server = start(store.clone(), settings).await;
        let (control, address) = (server.control(), server.address());
        let running = tokio::spawn(server.run());
        Scene { directory, client: client(), control, address, store, running }
    }

    /// A second server over the same store.
    pub(crate) async fn another(&self, settings: &[(&str, &str)]) -> SocketAddr {
        let config = Config::for_directory(self.directory.path());
        let server = start(config.open_async().await.unwrap(), settings).await;
        let address = server.address();
        tokio::spawn(server.run());
        address
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path)).timeout(TOO_LONG)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    /// Puts this content. Returns its id.
    pub(crate) async fn put(&self, content: &[u8]) -> String {
        let response = self.request("POST", "/api/blobs").body(content.to_vec()).send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        json(response).await.as_str().unwrap().to_owned()
    }

    /// Asserts that there are this many blobs.
    #[track_caller]
    pub(crate) fn assert_blobs(&self, count: usize) -> impl Future<Output = ()> {
        let (store, place) = (self.store.clone(), std::panic::Location::caller());
        async move { assert_eq!(store.list(None, 1000).await.unwrap().len(), count, "{place}") }
    }

    /// The block files.
    pub(crate) fn block_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("cas/blocks/blake3"));
        entries.map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }

    /// The file of the block at this index of the blob's manifest.
    pub(crate) async fn block_file(&self, id: &str, place: usize) -> PathBuf {
        let manifest = self.store.manifest(&id.parse().unwrap(), 0, 1000).await.unwrap();
        self.path("cas/blocks/blake3").join(manifest[place].key.name())
    }

    /// Sends these bytes on a new connection, and reads until the server closes it.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await
    }

    /// Begins an upload of this many bytes. Returns when the server waits for them and says so (RFC 9110,
    /// 10.1.1).
    pub(crate) async fn begin_upload(&self, length: usize) -> TcpStream {
        let mut stream = self.connect().await;
        let head = format!(
            "POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 25];
        let reading = tokio::time::timeout(TOO_LONG, stream.read_exact(&mut answer)).await;
        reading.expect("nobody waits for the upload").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Stops the server. Returns whether it finished without aborting requests.
    pub(crate) async fn stop(self) -> bool {
        self.control.stop();
        self.ended().await
    }

    /// Waits for the end. Returns whether the server finished without aborting requests.
    pub(crate) async fn ended(self) -> bool {
        tokio::time::timeout(TOO_LONG, self.running).await.expect("it does not end").unwrap()
    }
}

async fn start(store: AsyncStore, settings: &[(&str, &str)]) -> Server {
    // Raw requests name the host `x`.
    let mut pairs = vec![
        ("GRAVITON_HTTP_PORT".to_owned(), "0".to_owned()),
        ("GRAVITON_HTTP_HOSTS".to_owned(), "x".to_owned()),
    ];
    pairs.extend(settings.iter().map(|(name, value)| (format!("GRAVITON_HTTP_{name}"), (*value).to_owned())));
    serve(store, Settings::new(&pairs).unwrap()).await.unwrap()
}

/// A server on the port of these settings.
pub(crate) async fn serve(store: AsyncStore, settings: Settings) -> graviton_core::Result<Server> {
    Server::new(Port::take(&settings)?, store, settings).await
}

/// Everything until the end of the connection, or until a reset.
pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(TOO_LONG, stream.read_to_end(&mut bytes)).await;
    let _ = reading.expect("the server does not close the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn json(response: Response) -> Value {
    let bytes = response.bytes().await.unwrap();
    serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)))
}

/// Asserts that this is a complete problem document with this code, and returns it.
#[track_caller]
pub(crate) fn problem(response: Response, code: &str) -> impl Future<Output = Value> {
    let place = std::panic::Location::caller();
    let status = response.status();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (media_type, request_id) = (header("content-type"), header("x-request-id"));
    let expected = graviton_core::Code::from_name(code).unwrap();
    async move {
        let problem = json(response).await;
        assert_eq!(status.as_u16(), expected.http_status(), "{place}: {problem}");
        assert_eq!(media_type.as_deref(), Some("application/problem+json"), "{place}");
        assert_eq!(problem["code"], code, "{place}: {problem}");
        assert_eq!(problem["status"], status.as_u16(), "{place}");
        assert_eq!(problem["retryable"], expected.is_retryable(), "{place}");
        assert_eq!(problem["type"], format!("/docs#{code}"), "{place}");
        assert_eq!(problem["request_id"].as_str(), request_id.as_deref(), "{place}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{place}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{place}");
        problem
    }
}

#[track_caller]
pub(crate) fn status(response: &Response, expected: u16) {
    assert_eq!(response.status(), StatusCode::from_u16(expected).unwrap(), "{response:?}");
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TOO_LONG, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Bytes without repetitions, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Changes one byte of a file.
pub(crate) fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Block files are read-only, which stops every user but root.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
