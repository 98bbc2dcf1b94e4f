//! The server's side of HTTP/2 (RFC 9113) as far as a sink needs it: no sockets, no clock of its own.
//!
//! It answers every request alike, so it decodes no header (RFC 7541); all else that a client relies on it
//! does: SETTINGS, PING, flow control in both directions, answers when END_STREAM came.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::answer::Answer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Bytes of one frame's payload, as no client may refuse it.
const LARGEST_FRAME: usize = 16_384;
/// Bytes that a client may have under way to us, on a stream and on the connection.
const WINDOW: u32 = 16 << 20;
const DEFAULT_WINDOW: u32 = 65_535;

/// What the client did wrong; the connection must be closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// One connection.
pub struct Peer {
    answer: Answer,
    latency: Duration,
    input: Vec<u8>,
    output: Vec<u8>,
    preface: bool,
    /// Bodies of streams under way, where the answer depends on them.
    bodies: HashMap<u32, Vec<u8>>,
    /// The stream whose HEADERS go on in CONTINUATION, and whether it ends with them.
    headers: Option<(u32, bool)>,
    /// Requests whose answer is not due yet, in order.
    later: VecDeque<(Instant, u32, Vec<u8>)>,
    /// Bodies of answers that wait for the client's window.
    blocked: VecDeque<Blocked>,
    send_window: i64,
    stream_window: i64,
    /// Bytes that came since the connection's window was opened.
    consumed: u32,
}

struct Blocked {
    stream: u32,
    body: Vec<u8>,
    sent: usize,
    window: i64,
}

impl Peer {
    pub fn new(answer: Answer, latency: Duration, streams: u32) -> Self {
        let mut peer = Peer {
            answer,
            latency,
            input: Vec::with_capacity(64 << 10),
            output: Vec::with_capacity(64 << 10),
            preface: false,
            bodies: HashMap::new(),
            headers: None,
            later: VecDeque::new(),
            blocked: VecDeque::new(),
            send_window: DEFAULT_WINDOW.into(),
            stream_window: DEFAULT_WINDOW.into(),
            consumed: 0,
        };
        let mut settings = Vec::new();
        for (name, value) in [(MAX_CONCURRENT_STREAMS, streams), (INITIAL_WINDOW_SIZE, WINDOW)] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(&mut peer.output, SETTINGS, 0, 0, &settings);
        frame(&mut peer.output, WINDOW_UPDATE, 0, 0, &(WINDOW - DEFAULT_WINDOW).to_be_bytes());
        peer
    }

    /// Where to read into: append to it, then call [`Peer::received`].
    pub fn input(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// What is to be written; the caller clears it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Takes in what was read.
    pub fn received(&mut self, now: Instant) -> Result<(), Broken> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        if !self.preface {
            match rest.split_at_checked(PREFACE.len()) {
                Some((PREFACE, after)) => rest = after,
                Some(_) => return Err(Broken("no HTTP/2 preface")),
                None => {
                    self.input = input;
                    return Ok(());
                }
            }
            self.preface = true;
        }
        while let Some((&[a, b, c, kind, flags, s, t, u, v], after)) = rest.split_first_chunk::<HEADER>() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            self.frame(kind, flags, u32::from_be_bytes([s & 0x7f, t, u, v]), payload, now)?;
            rest = after;
        }
        let left = rest.len();
        let start = input.len() - left;
        self.input = input;
        self.input.copy_within(start.., 0);
        self.input.truncate(left);
        Ok(())
    }

    /// When [`Peer::due`] must be called.
    pub fn due_at(&self) -> Option<Instant> {
        self.later.front().map(|(at, ..)| *at)
    }

    /// Answers what has waited long enough.
    pub fn due(&mut self, now: Instant) {
        while let Some((_, stream, body)) = self.later.pop_front_if(|(at, ..)| *at <= now) {
            self.reply(stream, &body);
        }
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Broken> {
        match kind {
            DATA => self.data(flags, stream, payload, now)?,
            HEADERS if flags & END_HEADERS != 0 && flags & END_STREAM != 0 => self.ended(stream, now),
            // A body follows.
            HEADERS if flags & END_HEADERS != 0 => {}
            HEADERS => self.headers = Some((stream, flags & END_STREAM != 0)),
            CONTINUATION if flags & END_HEADERS != 0 => {
                if let Some((stream, true)) = self.headers.take() {
                    self.ended(stream, now);
                }
            }
            RST_STREAM => {
                self.bodies.remove(&stream);
                self.blocked.retain(|blocked| blocked.stream != stream);
                self.later.retain(|(_, later, _)| *later != stream);
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            PING if flags & ACK == 0 => frame(&mut self.output, PING, ACK, 0, payload),
            WINDOW_UPDATE => self.window_update(stream, payload)?,
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, flags: u8, stream: u32, payload: &[u8], now: Instant) -> Result<(), Broken> {
        let length = u32::try_from(payload.len()).map_err(|_| Broken("a frame is too long"))?;
        self.consumed += length;
        if self.consumed >= WINDOW / 2 {
            frame(&mut self.output, WINDOW_UPDATE, 0, 0, &self.consumed.to_be_bytes());
            self.consumed = 0;
        }
        let ends = flags & END_STREAM != 0;
        if !ends && length > 0 {
            frame(&mut self.output, WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
        }
        if self.answer.reads_body() {
            let content = if flags & PADDED == 0 { payload } else { unpadded(payload)? };
            self.bodies.entry(stream).or_default().extend_from_slice(content);
        }
        if ends {
            self.ended(stream, now);
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Broken> {
        for entry in payload.as_chunks::<6>().0 {
            let [a, b, c, d, e, f] = *entry;
            if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE {
                let window = i64::from(u32::from_be_bytes([c, d, e, f]));
                let change = window - self.stream_window;
                self.stream_window = window;
                self.blocked.iter_mut().for_each(|blocked| blocked.window += change);
            }
        }
        frame(&mut self.output, SETTINGS, ACK, 0, &[]);
        self.unblock();
        Ok(())
    }

    fn window_update(&mut self, stream: u32, payload: &[u8]) -> Result<(), Broken> {
        let bytes = <[u8; 4]>::try_from(payload).map_err(|_| Broken("WINDOW_UPDATE of a wrong length"))?;
        let increment = i64::from(u32::from_be_bytes(bytes) & 0x7fff_ffff);
        if stream == 0 {
            self.send_window += increment;
        } else if let Some(blocked) = self.blocked.iter_mut().find(|blocked| blocked.stream == stream) {
            blocked.window += increment;
        }
        self.unblock();
        Ok(())
    }

    fn ended(&mut self, stream: u32, now: Instant) {
        let body = self.bodies.remove(&stream).unwrap_or_default();
        if self.latency.is_zero() {
            self.reply(stream, &body);
        } else {
            self.later.push_back((now + self.latency, stream, body));
        }
    }

    fn reply(&mut self, stream: u32, request: &[u8]) {
        let (head, body) = self.answer.to(request);
        if body.is_empty() {
            frame(&mut self.output, HEADERS, END_HEADERS | END_STREAM, stream, &head);
            return;
        }
        frame(&mut self.output, HEADERS, END_HEADERS, stream, &head);
        let body = body.into_owned();
        self.blocked.push_back(Blocked { stream, body, sent: 0, window: self.stream_window });
        self.unblock();
    }

    /// Sends what the windows allow.
    fn unblock(&mut self) {
        let (output, connection) = (&mut self.output, &mut self.send_window);
        self.blocked.retain_mut(|blocked| {
            loop {
                let left = blocked.body.get(blocked.sent..).unwrap_or_default();
                let room = usize::try_from(blocked.window.min(*connection)).unwrap_or(0);
                let (piece, after) = left.split_at(left.len().min(room).min(LARGEST_FRAME));
                if piece.is_empty() {
                    return !left.is_empty();
                }
                let flags = if after.is_empty() { END_STREAM } else { 0 };
                frame(output, DATA, flags, blocked.stream, piece);
                blocked.sent += piece.len();
                let sent = i64::try_from(piece.len()).unwrap_or(0);
                blocked.window -= sent;
                *connection -= sent;
            }
        });
    }
}

fn unpadded(payload: &[u8]) -> Result<&[u8], Broken> {
    let (length, content) = payload.split_first().ok_or(Broken("padding without a length"))?;
    let content = content.len().checked_sub(usize::from(*length)).and_then(|end| content.get(..end));
    content.ok_or(Broken("more padding than payload"))
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    output.extend_from_slice(&[a, b, c, kind, flags, s, t, u, v]);
    output.extend_from_slice(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "peer_tests.rs"]
mod tests;
