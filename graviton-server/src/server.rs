//! The server: it listens, accepts connections and supervises them until it is told to stop.
//!
//! Each connection has a task. The task ends when the client disconnects, when the connection was idle or
//! stalled for too long (`connection`), or when the server stops. The server stops in stages: for
//! `GRAVITON_HTTP_DRAIN_DELAY` it only reports that it is not ready, and then running requests have
//! `GRAVITON_HTTP_DRAIN` to finish.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use graviton_core::{AsyncStore, Code, Error, NEARLY_FULL_DIRECTORY, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::app::{App, Shared};
use crate::auth::Auth;
use crate::client::is_trusted;
use crate::connection::{Connection, Socket, Verdict};
use crate::not_http::{self, Explained};
use crate::problem::Problem;
use crate::service::ConnectionService;
use crate::settings::Settings;
use crate::{request_id, routes, tls};

/// The most connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// How often the server refreshes the quota and forgets old clients of the rate limit.
const REFRESH: Duration = Duration::from_secs(30);

/// How long the server stops accepting after a failed accept; the usual cause is that no descriptors are
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long closing the store may take after all connections have ended.
const CLOSING: Duration = Duration::from_secs(10);

/// A port that the server holds. It is taken before the store is opened, so that a server whose port is in
/// use creates no database.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// A listening server.
pub struct Server {
    app: Shared,
    port: Port,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    stage: watch::Sender<Stage>,
}

/// Checks whether a server could start with these settings, without opening the store, which would create it.
/// Fails with `config` if the settings contradict each other or name an unusable file, and if the server
/// would be open to everyone beyond loopback although no setting allows it.
pub fn check(settings: &Settings) -> Result<()> {
    prepare(settings).map(drop)
}

/// Authentication and TLS, from the files that the settings name.
fn prepare(settings: &Settings) -> Result<(Auth, Option<Arc<ServerConfig>>)> {
    let auth = Auth::new(settings)?;
    if !settings.address.ip().is_loopback() && !auth.is_on() && !settings.insecure {
        return Err(Error::new(
            Code::Config,
            format!(
                "cannot listen on {} without authentication: everyone who can reach it could read, write and delete",
                settings.address
            ),
        )
        .with_advice(
            "set GRAVITON_HTTP_TOKENS or GRAVITON_HTTP_JWT_KEY, or use --insecure if that is intended",
        ));
    }
    let tls = settings.tls.as_ref().map(|(certificates, key)| tls::read(certificates, key)).transpose()?;
    Ok((auth, tls))
}

/// The stage of a server's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Serving,
    /// As before, but the server says that it is not ready.
    Leaving,
    /// Running requests finish; no more are accepted.
    Draining,
    /// Connections are aborted.
    Ended,
}

/// Controls a running server. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    app: Shared,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    stage: watch::Sender<Stage>,
}

impl Port {
    /// The port of these settings. Fails where [`check`] fails. Must be called in a tokio runtime.
    pub fn take(settings: &Settings) -> Result<Port> {
        check(settings)?;
        let wanted = settings.address;
        let listener = listen(wanted).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => {
                    "end the program that listens there, or choose another GRAVITON_HTTP_PORT"
                }
                ErrorKind::AddrNotAvailable => "choose an address of this machine (GRAVITON_HTTP_ADDR)",
                ErrorKind::PermissionDenied => {
                    "choose a port from 1024 on (GRAVITON_HTTP_PORT), or allow the program to use lower ones"
                }
                _ => "check GRAVITON_HTTP_ADDR and GRAVITON_HTTP_PORT",
            };
            Error::io(format!("cannot listen on {wanted}"), error).with_advice(advice)
        })?;
        let address = listener.local_addr().map_err(|error| Error::io("cannot listen", error))?;
        Ok(Port { listener, address })
    }
}

impl Server {
    /// A server of this store, ready to [`run`](Server::run). Fails where [`check`] fails.
    pub async fn new(port: Port, store: AsyncStore, settings: Settings) -> Result<Server> {
        let (auth, tls) = prepare(&settings)?;
        let app = App::new(store, auth, settings).await?;
        crate::metrics::install()?;
        let tls = Arc::new(ArcSwapOption::new(tls));
        Ok(Server { app, port, tls, stage: watch::Sender::new(Stage::Serving) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The control of this server while it runs.
    pub fn control(&self) -> Control {
        Control { app: Arc::clone(&self.app), tls: Arc::clone(&self.tls), stage: self.stage.clone() }
    }

    /// Serves until told to stop, lets running requests finish, and closes the store. Returns false if it
    /// aborted requests.
    pub async fn run(self) -> bool {
        let routers = (routes::router(&self.app), routes::refusals(&self.app));
        let background = [
            tokio::spawn(crate::metrics::keep_up()),
            tokio::spawn(refresh(Arc::clone(&self.app))),
            tokio::spawn(leave(Arc::clone(&self.app), self.stage.clone())),
        ];
        // Each connection holds a clone of the sender, and sends if it was aborted: the channel closes with
        // the last connection.
        let (open, mut endings) = tokio::sync::mpsc::channel::<Aborted>(1);
        let mut draining = std::pin::pin!(reached(self.stage.subscribe(), Stage::Draining));
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut draining => break,
                accepted = self.port.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.welcome(stream, peer, &routers, open.clone());
                }
                Err(error) => {
                    // The client has disconnected, or there are no descriptors left: neither is a reason to
                    // stop.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.port.listener);
        drop(open);
        self.app.drain();
        // A client that watches a job must not delay the shutdown.
        self.app.jobs().cancel();
        tracing::info!(
            connections = self.app.connections().taken(),
            "shutting down: no more requests are accepted"
        );
        let all_gone = async {
            let mut drained = true;
            while let Some(Aborted) = endings.recv().await {
                drained = false;
            }
            drained
        };
        let mut all_gone = std::pin::pin!(all_gone);
        let drained = tokio::select! {
            drained = &mut all_gone => drained,
            () = tokio::time::sleep(self.app.limits().drain) => {
                self.stage.send_replace(Stage::Ended);
                all_gone.await
            }
        };
        if !drained {
            tracing::warn!("connections were aborted");
        }
        let closing = async {
            self.app.jobs().end().await;
            self.app.store().close().await;
        };
        if tokio::time::timeout(CLOSING, closing).await.is_err() {
            tracing::warn!("the store did not close in time; committed data is safe");
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
        drained
    }

    /// Serves a new connection in its own task, or refuses it.
    fn welcome(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        (router, refusals): &(Router, Router),
        open: tokio::sync::mpsc::Sender<Aborted>,
    ) {
        let app = Arc::clone(&self.app);
        // Responses are written in one piece; Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let is_client = !is_trusted(&app.settings().trusted_proxies, peer.ip());
        let slot = match app.connections().take(is_client.then_some(peer.ip())) {
            Ok(slot) => slot,
            Err(problem) => {
                metrics::counter!("graviton_http_refused_connections_total").increment(1);
                // With very many refusals, some connections are closed without an explanation.
                let told = Arc::clone(app.refusing()).try_acquire_owned();
                if let Ok(told) = told
                    && self.tls.load().is_none()
                {
                    tokio::spawn(async move {
                        let _held = (told, open);
                        refuse(stream, &problem, &app.settings().prefix).await;
                    });
                }
                return;
            }
        };
        let connection = Arc::new(Connection::new(peer.ip(), app.leaving()));
        let service = ConnectionService {
            app: Arc::clone(&app),
            router: router.clone(),
            refusals: refusals.clone(),
            connection: Arc::clone(&connection),
        };
        let tls = self.tls.load_full();
        let stage = self.stage.subscribe();
        tokio::spawn(async move {
            let _slot = slot;
            let served = if let Some(config) = tls {
                let begun = begin_tls(stream, config, &connection, &app, &stage).await;
                let Some(stream) = begun else { return };
                serve(stream, service, stage).await
            } else {
                serve(Socket::new(stream, &connection), service, stage).await
            };
            if let Err(aborted) = served {
                // If the channel is full, another connection has already reported it.
                let _ = open.try_send(aborted);
            }
        });
    }
}

/// The connection in TLS; `None` if it does not come to that before the server drains, in the time that a
/// client has for its headers.
async fn begin_tls(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    connection: &Arc<Connection>,
    app: &App,
    stage: &watch::Receiver<Stage>,
) -> Option<TlsStream<Socket>> {
    let (peer, limit) = (connection.peer(), app.limits().header_timeout);
    let too_slow = |_| tracing::debug!(%peer, "the TLS handshake took too long");
    let is_plain = tokio::select! {
        is_plain = tokio::time::timeout(limit, not_http::is_plain(&stream)) => is_plain,
        () = reached(stage.clone(), Stage::Draining) => return None,
    };
    if is_plain.map_err(too_slow).ok()? {
        let why = "this port speaks TLS; use https:// in the address";
        refuse(stream, &Problem::new(Code::InvalidArgument, why), &app.settings().prefix).await;
        return None;
    }
    let shaking = TlsAcceptor::from(config).accept(Socket::new(stream, connection));
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(limit, shaking) => shaken,
        () = reached(stage.clone(), Stage::Draining) => return None,
    };
    let failed = |error| tracing::debug!(%peer, %error, "the TLS handshake failed");
    shaken.map_err(too_slow).ok()?.map_err(failed).ok()
}

impl Control {
    /// Stops the server after running requests have finished. A second call aborts them.
    pub fn stop(&self) {
        self.stage.send_modify(|stage| {
            *stage = if *stage == Stage::Serving { Stage::Leaving } else { Stage::Ended };
        });
    }

    /// Reloads tokens, keys and certificates; open connections keep their certificate. If a token file or a
    /// key is unusable, nothing changes. If only a certificate is unusable, the tokens and keys change and
    /// the certificate stays.
    pub fn reload(&self) -> Result<()> {
        let paths = self.app.settings().tls.as_ref();
        let tls = paths.map(|(certificates, key)| tls::read(certificates, key)).transpose();
        // Authentication does not depend on the certificates: a revoked token stays revoked even if they are
        // unusable.
        self.app.auth().reload()?;
        if let Some(tls) = tls? {
            self.tls.store(Some(tls));
        }
        Ok(())
    }
}

/// A connection was aborted because the server ended.
struct Aborted;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket as RawSocket, Type};
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server can use the same port at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Refreshes the quota and the rate limit, and checks the directories of blocks, periodically; never returns.
async fn refresh(app: Shared) {
    let mut interval = tokio::time::interval(REFRESH);
    let mut was_nearly_full = false;
    loop {
        interval.tick().await;
        app.auth().forget_old_rates();
        app.sessions().forget_old();
        if app.quota().is_on()
            && let Err(error) = app.quota().refresh(app.store()).await
        {
            tracing::warn!(code = %error.code(), %error, "cannot read the stored bytes; the quota uses the last known number");
        }
        // If the share cannot be read, puts report it.
        let share = app.store().directory_share().await.unwrap_or_default();
        metrics::gauge!("graviton_directory_share").set(share);
        let is_nearly_full = share >= NEARLY_FULL_DIRECTORY;
        if is_nearly_full && !was_nearly_full {
            tracing::warn!(share, "a directory of blocks is nearly full, however much space is free");
        }
        was_nearly_full = is_nearly_full;
    }
}

/// Once the server is told to stop: reports for a while that it is not ready, then starts draining.
async fn leave(app: Shared, stage: watch::Sender<Stage>) {
    reached(stage.subscribe(), Stage::Leaving).await;
    app.drain();
    let delay = app.limits().drain_delay;
    if !delay.is_zero() {
        tracing::info!(seconds = delay.as_secs_f64(), "shutting down: /api/ready says so for a while");
        tokio::time::sleep(delay).await;
    }
    stage.send_if_modified(|stage| {
        let is_leaving = *stage == Stage::Leaving;
        if is_leaving {
            *stage = Stage::Draining;
        }
        is_leaving
    });
}

/// Waits until the server has reached this stage.
async fn reached(mut stage: watch::Receiver<Stage>, wanted: Stage) {
    let _ = stage.wait_for(|stage| *stage >= wanted).await;
}

/// Refuses a connection with the problem as the answer.
async fn refuse(mut stream: TcpStream, problem: &Problem, prefix: &str) {
    let answer = not_http::response(problem, prefix, &request_id::fresh());
    let answering = async {
        // Wait for the request: a client may not expect an answer before it.
        stream.peek(&mut [0]).await?;
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answering).await;
}

/// Answers the requests of one connection until the connection or the server ends.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: ConnectionService,
    mut stage: watch::Receiver<Stage>,
) -> Result<(), Aborted> {
    let (app, connection) = (Arc::clone(&service.app), Arc::clone(&service.connection));
    let limits = app.limits();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_headers.max(128 << 10))
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_headers as u32)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(64 << 10)
        .max_send_buf_size(512 << 10)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    let stream = TokioIo::new(Explained::new(stream, Arc::clone(&connection), app.settings().prefix.clone()));
    let mut serving = std::pin::pin!(builder.serve_connection(stream, service));
    let mut check = tokio::time::interval(limits.idle_timeout.min(limits.header_timeout) / 4);
    let mut asked_to_end = false;
    if *stage.borrow() >= Stage::Draining {
        // The connection was accepted at the last moment, and must see the stage like all others.
        stage.mark_changed();
    }
    loop {
        tokio::select! {
            biased;
            served = &mut serving => {
                if let Err(error) = served {
                    tracing::debug!(peer = %connection.peer(), %error, "a connection ended early");
                }
                return Ok(());
            }
            _ = check.tick() => match connection.verdict(limits.header_timeout, limits.idle_timeout, app.outgoing().is_short()) {
                Verdict::Fine => {}
                Verdict::Idle if !asked_to_end => {
                    asked_to_end = true;
                    serving.as_mut().graceful_shutdown();
                }
                // The client did not react to the graceful shutdown either.
                Verdict::Idle => return Ok(()),
                Verdict::Stalled => {
                    metrics::counter!("graviton_http_stalled_connections_total").increment(1);
                    tracing::info!(peer = %connection.peer(), "cut off: the client does not take what it asked for");
                    return Ok(());
                }
            },
            changed = stage.changed() => {
                let now = if changed.is_ok() { *stage.borrow_and_update() } else { Stage::Ended };
                if now < Stage::Draining {
                    continue;
                }
                if now == Stage::Ended {
                    return Err(Aborted);
                }
                asked_to_end = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
