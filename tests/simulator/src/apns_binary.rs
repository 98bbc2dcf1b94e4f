//! Apple's binary provider protocol, and its feedback service.
//!
//! Source: "Binary Provider API" and "Legacy Notification Format" of Apple's Local and Remote Notification Programming
//! Guide (2018). A gateway accepts without a word. The first notification that it does not accept it names in an error
//! packet; whatever follows on the connection is thrown away.
//!
//! A device token that begins with `bad0` and two decimal digits asks for the error with that status: `bad008…` for an
//! invalid token. `bad010…` makes the gateway shut down: the packet names the last notification that was accepted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::StartError;
use crate::listen::accept_loop;
use crate::{Simulator, bind, tls};

/// Largest frame of command 2 that is read: two of the largest items.
const LARGEST_FRAME: usize = 8 << 10;
const LARGEST_PAYLOAD: usize = 2048;
const TOKEN: usize = 32;
/// For how long a gateway that has named an error reads on, so that the packet is not lost with the connection.
const LINGER: Duration = Duration::from_secs(1);

/// A notification as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryNotification {
    /// 0, 1 or 2.
    pub command: u8,
    /// Lower-case hex.
    pub token: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// Chosen by the client; 0 in command 0.
    pub identifier: u32,
    /// Seconds since the epoch, if it was given.
    pub expiry: Option<u32>,
    /// 10 or 5, if it was given.
    pub priority: Option<u8>,
    /// Counts from 1.
    pub connection: u64,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct BinaryTraffic {
    /// In the order in which they were accepted.
    pub accepted: Vec<BinaryNotification>,
    /// Status and identifier of each error packet.
    pub errors: Vec<(u8, u32)>,
    /// Connections to the gateway.
    pub connections: u64,
    /// How often the feedback service was read.
    pub feedback_reads: u64,
}

#[derive(Default)]
struct State {
    traffic: BinaryTraffic,
    /// Time and token of each device that is gone.
    feedback: Vec<(u32, [u8; TOKEN])>,
}

/// A running gateway with its feedback service. It ends when it is dropped.
pub struct ApnsBinary {
    gateway: SocketAddr,
    feedback: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts a gateway and a feedback service on free ports, with the simulator's certificates. A client certificate
    /// is required.
    ///
    /// # Errors
    /// A port cannot be bound.
    pub async fn start_apns_binary(&self) -> Result<ApnsBinary, StartError> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (gateway, gateway_address) = bind("apns-binary", loopback).await?;
        let (feedback, feedback_address) = bind("apns-feedback", loopback).await?;
        let acceptor = tls::stream_config(&self.shared.material, true)?;
        let state = Arc::<Mutex<State>>::default();
        let mut tasks = JoinSet::new();
        let (shared, tls) = (state.clone(), acceptor.clone());
        tasks.spawn(accept_loop(gateway, move |socket| serve_gateway(socket, tls.clone(), shared.clone())));
        let shared = state.clone();
        tasks.spawn(accept_loop(feedback, move |socket| {
            serve_feedback(socket, acceptor.clone(), shared.clone())
        }));
        Ok(ApnsBinary { gateway: gateway_address, feedback: feedback_address, state, _tasks: tasks })
    }
}

impl ApnsBinary {
    /// `https://127.0.0.1:PORT` of the gateway, as Pushlet's configuration writes it.
    pub fn gateway_url(&self) -> String {
        format!("https://{}", self.gateway)
    }

    /// The same of the feedback service.
    pub fn feedback_url(&self) -> String {
        format!("https://{}", self.feedback)
    }

    /// What happened since the start.
    pub fn traffic(&self) -> BinaryTraffic {
        lock(&self.state).traffic.clone()
    }

    /// Adds a device that is gone, which the feedback service lists once.
    pub fn add_feedback(&self, seconds: u32, token: [u8; TOKEN]) {
        lock(&self.state).feedback.push((seconds, token));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_feedback(socket: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Some(mut tls) = tls::handshake(&acceptor, socket).await else { return };
    let list = {
        let mut state = lock(&state);
        state.traffic.feedback_reads += 1;
        std::mem::take(&mut state.feedback)
    };
    for (seconds, token) in list {
        let tuple = [&seconds.to_be_bytes()[..], &[0, 32], &token].concat();
        if tls.write_all(&tuple).await.is_err() {
            return;
        }
    }
    let _ = tls.shutdown().await;
}

async fn serve_gateway(socket: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Some(mut tls) = tls::handshake(&acceptor, socket).await else { return };
    let connection = {
        let mut state = lock(&state);
        state.traffic.connections += 1;
        state.traffic.connections
    };
    let mut last = 0;
    // An end in the middle of a notification is one like any other.
    while let Ok(read) = read_notification(&mut tls, connection).await {
        let (notification, fault) = match read {
            Ok(notification) => {
                let fault = asked_for(&notification.token);
                (Some(notification), fault)
            }
            Err((status, identifier)) => return end(&mut tls, &state, status, identifier).await,
        };
        let Some(notification) = notification else { return };
        match fault {
            Some(10) => return end(&mut tls, &state, 10, last).await,
            Some(status) => return end(&mut tls, &state, status, notification.identifier).await,
            None => {
                last = notification.identifier;
                lock(&state).traffic.accepted.push(notification);
            }
        }
    }
}

async fn end(tls: &mut TlsStream<TcpStream>, state: &Mutex<State>, status: u8, identifier: u32) {
    lock(state).traffic.errors.push((status, identifier));
    let packet = [&[8, status][..], &identifier.to_be_bytes()].concat();
    if tls.write_all(&packet).await.is_ok() && tls.shutdown().await.is_ok() {
        let discard = async {
            let mut buffer = [0; 4096];
            while matches!(tls.read(&mut buffer).await, Ok(count) if count > 0) {}
        };
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
}

/// The status that a token asks for.
fn asked_for(token: &str) -> Option<u8> {
    token.strip_prefix("bad0")?.get(..2)?.parse().ok()
}

/// Status and identifier of an error.
type Fault = (u8, u32);

/// Reads one notification. `Ok(Err(_))`: it is not accepted.
async fn read_notification(
    tls: &mut TlsStream<TcpStream>,
    connection: u64,
) -> std::io::Result<Result<BinaryNotification, Fault>> {
    let command = tls.read_u8().await?;
    let mut found = Items::default();
    match command {
        0 | 1 => {
            if command == 1 {
                found.identifier = tls.read_u32().await?;
                found.expiry = Some(tls.read_u32().await?);
            }
            found.token = Some(read_counted(tls).await?);
            found.payload = Some(read_counted(tls).await?);
        }
        2 => {
            let length = tls.read_u32().await? as usize;
            if length > LARGEST_FRAME {
                return Ok(Err((7, 0)));
            }
            let mut frame = vec![0; length];
            tls.read_exact(&mut frame).await?;
            if found.read(&frame).is_none() {
                return Ok(Err((128, found.identifier)));
            }
        }
        _ => return Ok(Err((128, 0))),
    }
    Ok(found.checked(command, connection))
}

async fn read_counted(tls: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0; tls.read_u16().await?.into()];
    tls.read_exact(&mut data).await?;
    Ok(data)
}

#[derive(Default)]
struct Items {
    token: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    identifier: u32,
    expiry: Option<u32>,
    priority: Option<u8>,
}

impl Items {
    /// Reads the items of a frame; `None`: they cannot be read.
    fn read(&mut self, mut frame: &[u8]) -> Option<()> {
        while let Some((&[kind, high, low], rest)) = frame.split_first_chunk() {
            let (data, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            frame = rest;
            match kind {
                1 if self.token.is_none() => self.token = Some(data.to_vec()),
                2 if self.payload.is_none() => self.payload = Some(data.to_vec()),
                3 => self.identifier = u32::from_be_bytes(data.try_into().ok()?),
                4 => self.expiry = Some(u32::from_be_bytes(data.try_into().ok()?)),
                5 => self.priority = Some(*data.first().filter(|priority| matches!(priority, 5 | 10))?),
                _ => return None,
            }
        }
        frame.is_empty().then_some(())
    }

    fn checked(self, command: u8, connection: u64) -> Result<BinaryNotification, Fault> {
        let Self { token, payload, identifier, expiry, priority } = self;
        let fault = |status| (status, identifier);
        let token = token.filter(|token| !token.is_empty()).ok_or(fault(2))?;
        let payload = payload.filter(|payload| !payload.is_empty()).ok_or(fault(4))?;
        if token.len() != TOKEN {
            return Err(fault(5));
        }
        if payload.len() > LARGEST_PAYLOAD {
            return Err(fault(7));
        }
        if !serde_json::from_slice::<serde_json::Value>(&payload).is_ok_and(|payload| payload.is_object()) {
            return Err(fault(1));
        }
        let token = hex::encode(token);
        Ok(BinaryNotification { command, token, payload, identifier, expiry, priority, connection })
    }
}
