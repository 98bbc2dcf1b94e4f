//! One connection of the peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::answer::{accepted, count};
use super::dice::{Dice, Event, Fate, Manner};
use super::frame::{self, Frame};
use super::hpack::Decoder;
use super::streams::{Opener, Streams, Way};

/// For a write that the other side must take.
const WRITE: Duration = Duration::from_secs(5);
/// How long a dead connection stays open.
const GRAVE: Duration = Duration::from_secs(30);
/// The path of APNs, before the device token.
const DEVICE: &str = "/3/device/";
/// Of the requests to GCM's multicast, this share of targets is told to try again.
const UNAVAILABLE: f64 = 0.02;

type Stream = TlsStream<TcpStream>;

struct Connection {
    peer: Arc<Shared>,
    /// Gone once the connection is cut.
    writer: tokio::sync::Mutex<Option<WriteHalf<Stream>>>,
    state: Mutex<State>,
}

struct State {
    /// Streams above are not processed: a GOAWAY said so.
    bound: u32,
    /// The highest stream whose request came whole, and the highest that was processed or answered.
    received: u32,
    touched: u32,
    streams: Streams,
    cut: bool,
}

/// One request, read whole.
pub(super) struct Request {
    stream: u32,
    /// The pushes, each with whether it is accepted if the request is.
    pub(super) pushes: Vec<(usize, bool)>,
    pub(super) multicast: bool,
}

/// A request that is still coming.
struct Coming {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The reading side, and what it alone needs.
struct Reader {
    stream: ReadHalf<Stream>,
    decoder: Decoder,
    dice: Dice,
    coming: HashMap<u32, Coming>,
    /// Requests until the next event.
    calm: Option<u32>,
    begins_with_one: bool,
}

/// Serves a connection to its end.
pub async fn serve(stream: Stream, peer: Arc<Shared>, number: u64) {
    let mut restart = peer.restart.subscribe();
    let mut dice = Dice::new(peer.seed, number, peer.manner);
    let begins_with_one = dice.begins_with_one();
    let limit = if begins_with_one { 1 } else { dice.limit() };
    let (read, write) = split(stream);
    let state = State { bound: u32::MAX, received: 0, touched: 0, streams: Streams::new(limit), cut: false };
    let writer = tokio::sync::Mutex::new(Some(write));
    let connection = Arc::new(Connection { peer, writer, state: Mutex::new(state) });
    let calm = dice.calm();
    let mut reader =
        Reader { stream: read, decoder: Decoder::new(), dice, coming: HashMap::new(), calm, begins_with_one };
    tokio::select! {
        () = reader.run(&connection, limit) => {}
        _ = restart.changed() => {}
    }
    connection.cut().await;
}

impl Reader {
    async fn run(&mut self, connection: &Arc<Connection>, limit: u32) {
        let mut preface = [0; 24];
        if self.stream.read_exact(&mut preface).await.is_err() || preface != *frame::PREFACE {
            return;
        }
        connection.write(&frame::setting(frame::MAX_CONCURRENT_STREAMS, limit)).await;
        while let Some(frame) = Frame::read(&mut self.stream).await {
            connection.state().streams.note(Way::In, &frame.head());
            if self.take(connection, frame).await.is_none() {
                return;
            }
            if self.calm == Some(0) {
                self.calm = self.dice.calm();
                let event = self.dice.event();
                if !self.befall(connection, event).await {
                    return;
                }
            }
        }
    }

    /// None: it is nothing that belongs here.
    async fn take(&mut self, connection: &Arc<Connection>, frame: Frame) -> Option<()> {
        match frame.kind {
            frame::HEADERS => {
                if !frame.has(frame::END_HEADERS) {
                    connection.peer.ledger.violation("a head in several frames".to_owned());
                    return None;
                }
                let fields = self.decoder.decode(frame.content()?)?;
                connection.opened(frame.stream, &fields);
                self.coming.insert(frame.stream, Coming { fields, body: Vec::new() });
            }
            frame::DATA => {
                let length = u32::try_from(frame.payload.len()).unwrap_or_default();
                if length > 0 {
                    let stream = frame::window_update(frame.stream, length);
                    connection.write(&[frame::window_update(0, length), stream].concat()).await;
                }
                if let Some(coming) = self.coming.get_mut(&frame.stream) {
                    coming.body.extend_from_slice(frame.content()?);
                }
            }
            frame::RST_STREAM => {
                self.coming.remove(&frame.stream);
                connection.state().streams.ended(frame.stream);
            }
            frame::SETTINGS if frame.has(frame::ACK) => connection.state().streams.acknowledged(),
            frame::SETTINGS => connection.write(&frame::frame(frame::SETTINGS, frame::ACK, 0, &[])).await,
            frame::PING if !frame.has(frame::ACK) => {
                connection.write(&frame::frame(frame::PING, frame::ACK, 0, &frame.payload)).await;
            }
            frame::CONTINUATION => return None,
            _ => {}
        }
        let ends = matches!(frame.kind, frame::HEADERS | frame::DATA) && frame.has(frame::END_STREAM);
        if ends && connection.peer.manner == Manner::Refusing {
            let reason = br#"{"reason":"InvalidProviderToken"}"#;
            connection.write(&frame::goaway(0, frame::NO_ERROR, reason)).await;
            // The other side closes: a socket that is closed before all was read may take the frame with it.
            return Some(());
        }
        if ends && let Some(coming) = self.coming.remove(&frame.stream) {
            self.request(connection, frame.stream, coming)?;
        }
        Some(())
    }

    /// A request is whole: throws the dice for it.
    fn request(&mut self, connection: &Arc<Connection>, stream: u32, coming: Coming) -> Option<()> {
        let request = self.read(connection, stream, coming)?;
        let (fate, delay) = (self.dice.fate(), self.dice.delay());
        let fate = match connection.peer.manner {
            Manner::Mute => fate,
            _ => dead(&request).unwrap_or(fate),
        };
        {
            let mut state = connection.state();
            state.received = state.received.max(stream);
        }
        if fate == (Fate::Accept { early: true }) {
            connection.process(&request);
        }
        self.calm = self.calm.map(|calm| calm.saturating_sub(1));
        let raise = self.begins_with_one.then(|| self.dice.limit());
        self.begins_with_one = false;
        let connection = connection.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            connection.settle(request, fate).await;
            if let Some(limit) = raise {
                connection.limit(limit).await;
            }
        });
        Some(())
    }

    /// Which pushes the request is about: the device in the path, or the registration ids in the body.
    fn read(&mut self, connection: &Connection, stream: u32, coming: Coming) -> Option<Request> {
        let field = |name: &str| {
            coming.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        if let Some(token) = field(":path")?.strip_prefix(DEVICE) {
            let push = usize::from_str_radix(token, 16).ok()?;
            if let Some(id) = field("apns-id") {
                connection.peer.ledger.identify(push, id);
            }
            return Some(Request { stream, pushes: vec![(push, true)], multicast: false });
        }
        let body: Value = serde_json::from_slice(&coming.body).ok()?;
        let one = body.get("to").into_iter();
        let tokens = one.chain(body.get("registration_ids").and_then(Value::as_array).into_iter().flatten());
        let pushes = tokens.map(|token| usize::from_str_radix(token.as_str()?, 16).ok());
        let pushes = pushes.collect::<Option<Vec<_>>>()?;
        let pushes = pushes.into_iter().map(|push| (push, !self.dice.chance(UNAVAILABLE))).collect();
        Some(Request { stream, pushes, multicast: true })
    }

    /// False: the connection has ended.
    async fn befall(&mut self, connection: &Arc<Connection>, event: Event) -> bool {
        let ledger = &connection.peer.ledger;
        match event {
            Event::GoAway { code, first, cut } => {
                ledger.event("goaway");
                if first {
                    connection.write(&frame::goaway(u32::MAX >> 1, frame::NO_ERROR, b"")).await;
                }
                connection.go_away(code, &mut self.dice).await;
                self.calm = None;
                if cut {
                    sleep(Duration::from_millis(self.dice.between(0, 20).into())).await;
                    return false;
                }
            }
            Event::Cut => {
                ledger.event("cut");
                return false;
            }
            Event::Stall(time) => {
                ledger.event("stall");
                let _writer = connection.writer.lock().await;
                sleep(time).await;
            }
            Event::Death => {
                ledger.event("death");
                let _writer = connection.writer.lock().await;
                connection.state().cut = true;
                sleep(GRAVE).await;
                return false;
            }
            Event::Limit(limit) => {
                ledger.event("limit");
                connection.limit(limit).await;
            }
            Event::Closed(time) => {
                ledger.event("limit of 0");
                connection.limit(0).await;
                let (connection, limit) = (connection.clone(), self.dice.limit());
                tokio::spawn(async move {
                    sleep(time).await;
                    connection.limit(limit).await;
                });
            }
            Event::Restart(time) => {
                ledger.event("restart");
                connection.peer.restart.send_replace(time);
                return false;
            }
        }
        true
    }
}

impl Connection {
    /// The client opened a stream; is it allowed to?
    fn opened(&self, stream: u32, fields: &[(String, String)]) {
        // What goes to APNs goes over the gateway's own pool.
        let apns = fields.iter().any(|(name, value)| name == ":path" && value.starts_with(DEVICE));
        let opener = if apns { Opener::Careful } else { Opener::Plain };
        let mut state = self.state();
        if let Err(over) = state.streams.opened(stream, opener) {
            self.peer.ledger.violation(over + &state.streams.transcript());
        }
    }

    /// The pushes take effect, unless a GOAWAY has said that they will not. False: nothing happened.
    fn process(&self, request: &Request) -> bool {
        let mut state = self.state();
        if state.cut || request.stream > state.bound {
            return false;
        }
        state.touched = state.touched.max(request.stream);
        let accepted = request.pushes.iter().filter(|(_, accepted)| *accepted);
        accepted.for_each(|(push, _)| self.peer.ledger.process(*push));
        true
    }

    async fn settle(&self, request: Request, fate: Fate) {
        let stream = request.stream;
        let (answer, processed) = match fate {
            Fate::Accept { early } => (frame::answer(stream, 200, &accepted(&request)), !early),
            Fate::Reject { status, reason } => {
                (frame::answer(stream, status, json!({ "reason": reason }).to_string().as_bytes()), false)
            }
            Fate::Refuse => (frame::reset(stream, frame::REFUSED_STREAM), false),
            Fate::Reset { code, processed } => (frame::reset(stream, code), processed),
            Fate::Torn => {
                let whole = frame::answer(stream, 200, b"{");
                let head = whole.get(..whole.len() - 10).unwrap_or_default();
                ([head, &frame::reset(stream, frame::INTERNAL_ERROR)].concat(), true)
            }
            Fate::Silence { processed } => {
                if processed {
                    self.process(&request);
                }
                return;
            }
        };
        // Held from the decision to the write, so that no GOAWAY comes in between.
        let mut writer = self.writer.lock().await;
        {
            let mut state = self.state();
            if state.cut || stream > state.bound || !state.streams.ended(stream) {
                return;
            }
            state.touched = state.touched.max(stream);
        }
        if processed {
            self.process(&request);
        }
        count(&self.peer.ledger, fate);
        self.put(&mut writer, &answer).await;
    }

    async fn go_away(&self, code: u32, dice: &mut Dice) {
        let mut writer = self.writer.lock().await;
        let last = {
            let mut state = self.state();
            state.bound = dice.between(state.touched, state.received).min(state.bound);
            let bound = state.bound;
            state.streams.go_away(bound);
            bound
        };
        self.put(&mut writer, &frame::goaway(last, code, br#"{"reason":"Shutdown"}"#)).await;
    }

    async fn limit(&self, limit: u32) {
        let mut writer = self.writer.lock().await;
        self.state().streams.limit(limit);
        self.put(&mut writer, &frame::setting(frame::MAX_CONCURRENT_STREAMS, limit)).await;
    }

    async fn write(&self, bytes: &[u8]) {
        self.put(&mut *self.writer.lock().await, bytes).await;
    }

    /// A writer that does not get rid of its bytes is given up.
    async fn put(&self, writer: &mut Option<WriteHalf<Stream>>, bytes: &[u8]) {
        let Some(stream) = writer else { return };
        self.state().streams.note(Way::Out, bytes);
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        if !matches!(timeout(WRITE, written).await, Ok(Ok(()))) {
            *writer = None;
        }
    }

    async fn cut(&self) {
        self.state().cut = true;
        self.writer.lock().await.take();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some tokens are no good, each time that they are tried.
fn dead(request: &Request) -> Option<Fate> {
    match (request.multicast, request.pushes.first()?.0 % 100) {
        (false, 17) => Some(Fate::Reject { status: 410, reason: "Unregistered" }),
        (false, 71) => Some(Fate::Reject { status: 400, reason: "BadDeviceToken" }),
        _ => None,
    }
}
