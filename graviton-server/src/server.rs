//! The server: it listens, accepts, and looks after connections until it is told to end.
//!
//! Each connection has a task. It ends when the client goes, when it was idle or stalled for too long
//! (`connection`), or when the server ends: then requests under way have the time of `GRAVITON_HTTP_DRAIN`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use graviton_core::{AsyncStore, Code, Error, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Shared};
use crate::auth::Auth;
use crate::connection::{Connection, Socket, Verdict};
use crate::front::{Front, fresh_id};
use crate::problem::Problem;
use crate::refusal::{self, Told};
use crate::settings::Settings;
use crate::{metrics_page, tls};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// How often what nobody may have asked for is refreshed: the sums behind a quota, and who was seen by the rate limit.
const REFRESH: Duration = Duration::from_secs(30);

/// For so long nothing is accepted when there are no descriptors left.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// So long closing the store may take after everything has ended.
const CLOSING: Duration = Duration::from_secs(10);

/// A server that listens.
pub struct Server {
    app: Shared,
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    stage: watch::Sender<Stage>,
}

/// Whether a server could start with these settings: `config` if they do not go together, above all if it would serve beyond
/// loopback whoever comes, and was not told to; or if a file that they name cannot be used. To be asked before the store
/// is opened, which makes it if it is not there.
pub fn check(settings: &Settings) -> Result<()> {
    prepare(settings).map(drop)
}

/// What the files that the settings name come to: who may do what, and TLS.
fn prepare(settings: &Settings) -> Result<(Auth, Option<Arc<ServerConfig>>)> {
    let auth = Auth::new(settings)?;
    if !settings.address.ip().is_loopback() && !auth.is_on() && !settings.insecure {
        return Err(Error::new(
            Code::Config,
            format!(
                "cannot listen on {}: everybody who can reach it could read, write and delete",
                settings.address
            ),
        )
        .with_advice(
            "set GRAVITON_HTTP_TOKENS or GRAVITON_HTTP_JWT_KEY, or say --insecure if that is meant",
        ));
    }
    let tls = settings.tls.as_ref().map(|(certificates, key)| tls::read(certificates, key)).transpose()?;
    Ok((auth, tls))
}

/// What a server is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Serving,
    /// Requests under way end, and no more are taken.
    Draining,
    /// Connections are cut off.
    Ended,
}

/// To control a running server from elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    app: Shared,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    stage: watch::Sender<Stage>,
}

impl Server {
    /// Listens, and is ready to [`run`](Server::run). Fails where [`check`] does.
    pub async fn bind(store: AsyncStore, settings: Settings) -> Result<Server> {
        let (auth, tls) = prepare(&settings)?;
        let wanted = settings.address;
        let app = App::new(store, auth, settings).await?;
        metrics_page::install()?;
        let listener =
            listen(wanted).map_err(|error| Error::io(format!("cannot listen on {wanted}"), error))?;
        let address = listener.local_addr().map_err(|error| Error::io("cannot listen", error))?;
        let tls = Arc::new(ArcSwapOption::new(tls));
        Ok(Server { app, listener, address, tls, stage: watch::Sender::new(Stage::Serving) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// To control it while it runs.
    pub fn control(&self) -> Control {
        Control { app: Arc::clone(&self.app), tls: Arc::clone(&self.tls), stage: self.stage.clone() }
    }

    /// Serves until it is told to end, lets requests under way end, and closes the store. False if some had to be cut off.
    pub async fn run(self) -> bool {
        let routers = (crate::app::router(&self.app), crate::app::refusals(&self.app));
        let background =
            [tokio::spawn(metrics_page::keep_up()), tokio::spawn(refresh(Arc::clone(&self.app)))];
        // Each connection holds a clone, and says with it that it was cut off: when all are gone, this one knows.
        let (open, mut endings) = tokio::sync::mpsc::channel::<CutOff>(1);
        let mut stage = self.stage.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage != Stage::Serving) => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.welcome(stream, peer, &routers, open.clone());
                }
                Err(error) => {
                    // The client is gone again, or we are out of descriptors: neither is a reason to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
        drop(self.listener);
        drop(open);
        self.app.drain();
        // Who watches a job is not to hold up the end.
        self.app.jobs().cancel();
        tracing::info!(
            connections = self.app.connections().load(Ordering::Relaxed),
            "ending: no more requests are taken"
        );
        let all_gone = async {
            let mut drained = true;
            while let Some(CutOff) = endings.recv().await {
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
            tracing::warn!("connections were cut off");
        }
        let closing = async {
            self.app.jobs().end().await;
            self.app.store().close().await;
        };
        if tokio::time::timeout(CLOSING, closing).await.is_err() {
            tracing::warn!("the store did not close in time; nothing that was committed is lost");
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
        drained
    }

    /// Serves a new connection in a task of its own, or sends it away.
    fn welcome(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        (router, refusals): &(Router, Router),
        open: tokio::sync::mpsc::Sender<CutOff>,
    ) {
        let app = Arc::clone(&self.app);
        // Answers are written in one piece; waiting for more to send only makes them late.
        let _ = stream.set_nodelay(true);
        if app.connections().load(Ordering::Relaxed) >= app.limits().max_connections {
            // Of very many, not all can be told why.
            let told = Arc::clone(app.refusing()).try_acquire_owned();
            if let Ok(told) = told
                && self.tls.load().is_none()
            {
                tokio::spawn(async move {
                    let _held = (told, open);
                    refuse(stream).await;
                });
            }
            return;
        }
        let counted = Counted::new(&app);
        let connection = Arc::new(Connection::new(peer.ip(), app.leaving()));
        let front = Front {
            app: Arc::clone(&app),
            router: router.clone(),
            refusals: refusals.clone(),
            connection: Arc::clone(&connection),
        };
        let tls = self.tls.load_full();
        let stage = self.stage.subscribe();
        tokio::spawn(async move {
            let _counted = counted;
            let socket = Socket::new(stream, &connection);
            let served = match tls {
                None => serve(socket, front, stage).await,
                Some(config) => {
                    let mut ending = stage.clone();
                    let ending =
                        async move { ending.wait_for(|stage| *stage != Stage::Serving).await.map(drop) };
                    let shaking = TlsAcceptor::from(config).accept(socket);
                    let shaken = tokio::select! {
                        shaken = tokio::time::timeout(app.limits().header_timeout, shaking) => shaken,
                        _ = ending => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => serve(stream, front, stage).await,
                        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS handshake"),
                        Err(_) => return tracing::debug!(%peer, "the TLS handshake took too long"),
                    }
                }
            };
            if let Err(cut_off) = served {
                // If there is no room, another one has said it.
                let _ = open.try_send(cut_off);
            }
        });
    }
}

impl Control {
    /// Lets requests under way end, then the server. Said twice, it cuts them off.
    pub fn stop(&self) {
        self.stage.send_modify(|stage| {
            *stage = if *stage == Stage::Serving { Stage::Draining } else { Stage::Ended };
        });
    }

    /// Reads tokens, keys and certificates again; connections go on with what they have. Where a token file or a key cannot
    /// be used, that is an error and everything stays as it was; where only a certificate cannot, it alone does.
    pub fn reload(&self) -> Result<()> {
        let paths = self.app.settings().tls.as_ref();
        let tls = paths.map(|(certificates, key)| tls::read(certificates, key)).transpose();
        // Who is let in does not depend on the certificates: a token that was taken away is, whatever is wrong with them.
        self.app.auth().reload()?;
        if let Some(tls) = tls? {
            self.tls.store(Some(tls));
        }
        Ok(())
    }
}

/// A connection did not end: the server did.
struct CutOff;

/// A connection, counted while it is open.
struct Counted(Shared);

impl Counted {
    fn new(app: &Shared) -> Counted {
        app.connections().fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(app))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections().fetch_sub(1, Ordering::Relaxed);
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket as RawSocket, Type};
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a server can start again at once on the port that it had.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Refreshes now and then what nobody may have asked for, for ever.
async fn refresh(app: Shared) {
    let mut interval = tokio::time::interval(REFRESH);
    interval.tick().await;
    loop {
        interval.tick().await;
        app.auth().forget_old_rates();
        if app.quota().is_on()
            && let Err(error) = app.quota().refresh(app.store()).await
        {
            tracing::warn!(code = %error.code(), %error, "cannot find out how much is stored; the quota goes by what was known");
        }
    }
}

/// Tells a client over the limit of connections to come back.
async fn refuse(mut stream: TcpStream) {
    metrics::counter!("graviton_http_refused_connections_total").increment(1);
    let problem = Problem::new(Code::Overloaded, "too many connections are open; try again in a moment");
    let answer = refusal::response(&problem, &fresh_id());
    let answering = async {
        // An answer before the question is none.
        stream.peek(&mut [0]).await?;
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answering).await;
}

/// Answers the requests of one connection until it ends, or the server does.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    front: Front,
    mut stage: watch::Receiver<Stage>,
) -> Result<(), CutOff> {
    let (app, connection) = (Arc::clone(&front.app), Arc::clone(&front.connection));
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
    let stream = TokioIo::new(Told::new(stream, Arc::clone(&connection)));
    let mut serving = std::pin::pin!(builder.serve_connection(stream, front));
    let mut look = tokio::time::interval(limits.idle_timeout.min(limits.header_timeout) / 4);
    let mut asked_to_end = false;
    if *stage.borrow() != Stage::Serving {
        // It came at the last moment, and is told so like all others.
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
            _ = look.tick() => match connection.verdict(limits.header_timeout, limits.idle_timeout, app.outgoing().is_short()) {
                Verdict::Fine => {}
                Verdict::Idle if !asked_to_end => {
                    asked_to_end = true;
                    serving.as_mut().graceful_shutdown();
                }
                // It was asked, and did not even take that.
                Verdict::Idle => return Ok(()),
                Verdict::Stalled => {
                    metrics::counter!("graviton_http_stalled_connections_total").increment(1);
                    tracing::info!(peer = %connection.peer(), "cut off: the client does not take what it asked for");
                    return Ok(());
                }
            },
            changed = stage.changed() => {
                let now = if changed.is_ok() { *stage.borrow_and_update() } else { Stage::Ended };
                if now == Stage::Ended {
                    return Err(CutOff);
                }
                asked_to_end = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
