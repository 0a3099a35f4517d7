//! An HTTP proxy that causes faults on demand, between a store and a real S3 server.
//!
//! It passes bytes on unchanged, including `Host`, so that signatures stay valid. Each connection of the
//! client has its own connection to the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A fault of a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The answer is this status and this body; the server never gets the request.
    Answer(u16, &'static str),
    /// The connection is reset before an answer; the server never gets the request.
    Reset,
    /// The server has carried the request out, and its answer is lost.
    LostReply,
    /// The answer states its length, and breaks off after this many bytes of its body.
    BrokenOff(usize),
    /// The answer is complete as HTTP, and ends after this many bytes of its body.
    Truncated(usize),
    /// This byte of the answer's body is changed.
    FlippedAnswer(usize),
    /// This byte of the request's body is changed.
    FlippedRequest(usize),
    /// The answer is delayed by this much.
    Slow(Duration),
    /// The answer is passed on when the proxy releases it.
    HeldAnswer,
    /// The server gets the request when the proxy releases it, even if the client has gone by then.
    Held,
    /// The connection is closed at once, and the server gets the request when the proxy releases it.
    Kept,
    /// The connection is closed at once, and the server gets the request this much later.
    Late(Duration),
    /// The server gets the request without its condition.
    Unconditional,
    /// The answer is this status and this body if the request has this header.
    Refused(&'static str, u16, &'static str),
    /// The server is reached under this path, which it never sees.
    Under(&'static str),
    /// There is never an answer.
    Silent,
}

/// An error of S3.
pub(crate) fn error(status: u16, code: &str) -> Fault {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Injected.</Message></Error>");
    Fault::Answer(status, body.leak())
}

/// An error of S3 for requests with this header.
pub(crate) fn refusal(header: &'static str, status: u16, code: &str) -> Fault {
    let Fault::Answer(status, body) = error(status, code) else { unreachable!() };
    Fault::Refused(header, status, body)
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) target: String,
    pub(crate) range: Option<String>,
}

struct Order {
    method: &'static str,
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    server: String,
    seen: Mutex<Vec<Seen>>,
    orders: Mutex<Vec<Order>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    held: AtomicUsize,
    released: watch::Sender<()>,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    /// A proxy in front of the server at this URL.
    pub(crate) async fn to(url: &str) -> Proxy {
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let state = Arc::new(State { server, ..State::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        let listening = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let state = Arc::clone(&shared);
                // Any end of the connection is fine.
                tokio::spawn(async move { drop(state.serve(client).await) });
            }
        });
        Proxy { url, state, listening }
    }

    /// Applies the fault to the next `times` requests of this method (of any, if empty) whose target contains
    /// this part. If several orders fit, the first one with a remaining count applies.
    pub(crate) fn harm(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        let order = Order { method, part: part.to_owned(), times, fault };
        self.state.orders.lock().unwrap().push(order);
    }

    pub(crate) fn heal(&self) {
        self.state.orders.lock().unwrap().clear();
    }

    /// Lets the server carry out what was held so far; returns when it has.
    pub(crate) async fn release(&self) {
        assert!(self.state.held.load(Ordering::SeqCst) > 0, "nothing is held");
        self.state.released.send_replace(());
        while self.state.held.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns once this many requests have been seen.
    pub(crate) async fn seen(&self, count: usize) {
        while self.state.seen.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the requests so far, and forgets them.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.state.seen.lock().unwrap())
    }

    /// Returns the largest number of requests that were in progress at once, and forgets it.
    pub(crate) fn take_most_under_way(&self) -> usize {
        self.state.most_under_way.swap(0, Ordering::SeqCst)
    }
}

/// One message: its head with the empty line, and its body.
#[derive(Clone)]
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    fn whole(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The next message of the stream; `None` at its end. `bodiless` answers have a length and no body.
async fn read(stream: &mut TcpStream, bodiless: bool) -> std::io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let body = bytes.split_off(head_end);
    let mut message = Message { head: String::from_utf8(bytes).unwrap(), body };
    assert!(message.header("transfer-encoding").is_none(), "the proxy knows no chunks: {}", message.head);
    let length = if bodiless {
        0
    } else {
        message.header("content-length").map_or(0, |length| length.parse().unwrap())
    };
    let read = message.body.len();
    message.body.resize(length, 0);
    stream.read_exact(&mut message.body[read..]).await?;
    Ok(Some(message))
}

impl State {
    fn order(&self, seen: &Seen) -> Option<Fault> {
        let mut orders = self.orders.lock().unwrap();
        let order = orders.iter_mut().find(|order| {
            order.times > 0
                && (order.method.is_empty() || order.method == seen.method)
                && seen.target.contains(&order.part)
        })?;
        order.times -= 1;
        Some(order.fault.clone())
    }

    /// Counts something as held from now on; the future returns when it is released.
    fn hold(&self) -> impl Future<Output = ()> + use<> {
        let mut released = self.released.subscribe();
        self.held.fetch_add(1, Ordering::SeqCst);
        async move { released.changed().await.unwrap_or_default() }
    }

    fn let_go(&self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
    }

    async fn send(&self, request: &Message, bodiless: bool) -> std::io::Result<Option<Message>> {
        let mut server = TcpStream::connect(&self.server).await?;
        server.write_all(&request.whole()).await?;
        read(&mut server, bodiless).await
    }

    async fn serve(self: &Arc<State>, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(&self.server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        while let Some(request) = read(&mut client, false).await? {
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
            let goes_on = self.pass_on(request, &mut client, &mut server).await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            if !goes_on? {
                break;
            }
        }
        Ok(())
    }

    /// Passes on one request and its answer; returns whether the connection is still usable.
    async fn pass_on(
        self: &Arc<State>,
        mut request: Message,
        client: &mut TcpStream,
        server: &mut TcpStream,
    ) -> std::io::Result<bool> {
        let mut words = request.head.split(' ');
        let method = words.next().unwrap().to_owned();
        let target = words.next().unwrap().to_owned();
        let range = request.header("range").map(str::to_owned);
        let seen = Seen { method, target, range };
        let bodiless = seen.method == "HEAD";
        let fault = self.order(&seen);
        self.seen.lock().unwrap().push(seen);
        if let Some(fault) = &fault {
            if let Some(usable) = self.answer_instead(fault, &request, bodiless, client).await? {
                return Ok(usable);
            }
            change_request(fault, &mut request);
        }
        server.write_all(&request.whole()).await?;
        let Some(mut answer) = read(server, bodiless).await? else { return Ok(false) };
        match fault {
            Some(Fault::LostReply) => return Ok(false),
            Some(Fault::BrokenOff(length)) => {
                answer.body.truncate(length);
                client.write_all(&answer.whole()).await?;
                return Ok(false);
            }
            Some(Fault::Truncated(length)) => {
                let before = format!("Content-Length: {}", answer.body.len());
                assert!(answer.head.contains(&before), "{}", answer.head);
                answer.head = answer.head.replace(&before, &format!("Content-Length: {length}"));
                answer.body.truncate(length);
            }
            Some(Fault::FlippedAnswer(at)) => answer.body[at] ^= 1,
            Some(Fault::Slow(duration)) => tokio::time::sleep(duration).await,
            Some(Fault::HeldAnswer) => {
                self.hold().await;
                self.let_go();
            }
            _ => {}
        }
        client.write_all(&answer.whole()).await?;
        Ok(true)
    }

    /// Faults for which the request does not go on to the server over this connection. Returns whether the
    /// client's connection is still usable.
    async fn answer_instead(
        self: &Arc<State>,
        fault: &Fault,
        request: &Message,
        bodiless: bool,
        client: &mut TcpStream,
    ) -> std::io::Result<Option<bool>> {
        match fault {
            Fault::Answer(status, body) => {
                let body = if bodiless { "" } else { body };
                client.write_all(injected(*status, body).as_bytes()).await?;
                Ok(Some(true))
            }
            Fault::Refused(header, status, body) if request.header(header).is_some() => {
                client.write_all(injected(*status, body).as_bytes()).await?;
                Ok(Some(true))
            }
            Fault::Reset => {
                client.set_zero_linger()?;
                Ok(Some(false))
            }
            Fault::Silent => {
                // Waits until the client gives up.
                let _ = client.read(&mut [0]).await;
                Ok(Some(false))
            }
            Fault::Held => {
                self.hold().await;
                let answer = self.send(request, bodiless).await;
                self.let_go();
                let Some(answer) = answer? else { return Ok(Some(false)) };
                client.write_all(&answer.whole()).await?;
                Ok(Some(true))
            }
            Fault::Kept => {
                let (state, released, request) = (Arc::clone(self), self.hold(), request.clone());
                tokio::spawn(async move {
                    released.await;
                    let answer = state.send(&request, bodiless).await;
                    state.let_go();
                    answer
                });
                Ok(Some(false))
            }
            Fault::Late(duration) => {
                let (state, duration, request) = (Arc::clone(self), *duration, request.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(duration).await;
                    state.send(&request, bodiless).await
                });
                Ok(Some(false))
            }
            _ => Ok(None),
        }
    }
}

fn injected(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Injected\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Faults for which the server gets another request.
fn change_request(fault: &Fault, request: &mut Message) {
    match fault {
        Fault::Unconditional => {
            let head = request.head.split("\r\n");
            let kept = head.filter(|line| !line.to_ascii_lowercase().starts_with("if-none-match:"));
            request.head = kept.collect::<Vec<_>>().join("\r\n");
        }
        Fault::Under(path) => {
            let (inside, outside) = (format!(" {path}/"), request.head.clone());
            request.head = outside.replacen(&inside, " /", 1);
            assert_ne!(request.head, outside, "it is not under {path}");
        }
        Fault::FlippedRequest(at) => request.body[*at] ^= 1,
        _ => {}
    }
}
