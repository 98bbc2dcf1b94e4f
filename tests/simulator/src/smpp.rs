//! A message centre that speaks SMPP 3.4 over TLS.
//!
//! Source: SMPP Protocol Specification v3.4, issue 1.2. The account is `pushlet` with the password `secret`. A number
//! that begins with `999` and three decimal digits asks for that status: `999011…` for an invalid number (0x0B),
//! `999088…` for "too many" (0x58).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::StartError;
use crate::listen::accept_loop;
use crate::{Simulator, bind, tls};

const SYSTEM_ID: &str = "pushlet";
const PASSWORD: &str = "secret";
const HEADER: usize = 16;
const LARGEST: usize = 70_000;
const ANSWER: u32 = 0x8000_0000;

/// A `submit_sm` that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortMessage {
    /// Type of number, numbering plan, address.
    pub source: (u8, u8, String),
    /// The same of the phone.
    pub destination: (u8, u8, String),
    /// 0x40: the message begins with a header.
    pub esm_class: u8,
    /// 0: the default alphabet; 8: UCS-2.
    pub data_coding: u8,
    /// As it was written.
    pub validity: String,
    /// `short_message`, or the optional parameter `message_payload`.
    pub message: Vec<u8>,
    /// Counts from 1.
    pub connection: u64,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct SmppTraffic {
    /// In the order in which they were accepted.
    pub accepted: Vec<ShortMessage>,
    /// Connections whose bind was accepted.
    pub binds: u64,
    /// Statuses of bind requests that were refused.
    pub refused_binds: Vec<u32>,
    /// Units by command, requests of the client alone.
    pub commands: HashMap<u32, u64>,
}

/// A running message centre. It ends when it is dropped.
pub struct Smpp {
    address: SocketAddr,
    traffic: Arc<Mutex<SmppTraffic>>,
    _tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts a message centre on a free port, with the simulator's server certificate.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn start_smpp(&self) -> Result<Smpp, StartError> {
        let (listener, address) = bind("smpp", SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let acceptor = tls::stream_config(&self.shared.material, false)?;
        let traffic = Arc::<Mutex<SmppTraffic>>::default();
        let shared = traffic.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_loop(listener, move |socket| serve(socket, acceptor.clone(), shared.clone())));
        Ok(Smpp { address, traffic, _tasks: tasks })
    }
}

impl Smpp {
    /// `https://127.0.0.1:PORT`, as Pushlet's configuration writes it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What happened since the start.
    pub fn traffic(&self) -> SmppTraffic {
        lock(&self.traffic).clone()
    }
}

fn lock(traffic: &Mutex<SmppTraffic>) -> MutexGuard<'_, SmppTraffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Unit {
    command: u32,
    sequence: u32,
    body: Vec<u8>,
}

/// One client.
struct Client {
    tls: TlsStream<TcpStream>,
    traffic: Arc<Mutex<SmppTraffic>>,
    /// Set by the bind.
    connection: Option<u64>,
    messages: u64,
}

async fn serve(socket: TcpStream, acceptor: TlsAcceptor, traffic: Arc<Mutex<SmppTraffic>>) {
    let Some(tls) = tls::handshake(&acceptor, socket).await else { return };
    let mut client = Client { tls, traffic, connection: None, messages: 0 };
    while let Ok(Some(unit)) = client.read().await {
        match client.answer(&unit).await {
            Ok(true) => {}
            _ => break,
        }
    }
    let _ = client.tls.shutdown().await;
}

impl Client {
    /// The next unit; `None`: its length cannot be right.
    async fn read(&mut self) -> std::io::Result<Option<Unit>> {
        let mut words = [0; 4];
        for word in &mut words {
            *word = self.tls.read_u32().await?;
        }
        let [length, command, _, sequence] = words;
        let Some(length) = (length as usize).checked_sub(HEADER).filter(|length| *length <= LARGEST) else {
            self.write(ANSWER, 0x02, sequence, &[]).await?;
            return Ok(None);
        };
        let mut body = vec![0; length];
        self.tls.read_exact(&mut body).await?;
        *lock(&self.traffic).commands.entry(command).or_default() += 1;
        Ok(Some(Unit { command, sequence, body }))
    }

    async fn write(&mut self, command: u32, status: u32, sequence: u32, body: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut unit = Vec::with_capacity(HEADER + body.len());
        for word in [length, command, status, sequence] {
            unit.extend_from_slice(&word.to_be_bytes());
        }
        unit.extend_from_slice(body);
        self.tls.write_all(&unit).await
    }

    /// Returns false if the connection ends.
    async fn answer(&mut self, unit: &Unit) -> std::io::Result<bool> {
        let Unit { command, sequence, body } = unit;
        let answer = command | ANSWER;
        match (*command, self.connection) {
            (0x01 | 0x02 | 0x09, None) => {
                let status = bind_status(body);
                if status == 0 {
                    let mut traffic = lock(&self.traffic);
                    traffic.binds += 1;
                    self.connection = Some(traffic.binds);
                } else {
                    lock(&self.traffic).refused_binds.push(status);
                }
                let body: &[u8] = if status == 0 { b"SMSC\0\x02\x10\0\x01\x34" } else { &[] };
                self.write(answer, status, *sequence, body).await?;
                Ok(status == 0)
            }
            (0x01 | 0x02 | 0x09, Some(_)) => self.write(answer, 0x05, *sequence, &[]).await.map(|()| true),
            (0x15, _) => self.write(answer, 0, *sequence, &[]).await.map(|()| true),
            (0x06, _) => self.write(answer, 0, *sequence, &[]).await.map(|()| false),
            (0x04, None) => self.write(answer, 0x04, *sequence, &[]).await.map(|()| true),
            (0x04, Some(connection)) => self.submit(connection, *sequence, body).await.map(|()| true),
            (command, _) if command & ANSWER != 0 => Ok(true),
            _ => self.write(ANSWER, 0x03, *sequence, &[]).await.map(|()| true),
        }
    }

    async fn submit(&mut self, connection: u64, sequence: u32, body: &[u8]) -> std::io::Result<()> {
        let Some(message) = parse_submit(body, connection) else {
            return self.write(0x04 | ANSWER, 0x01, sequence, &[]).await;
        };
        let number = &message.destination.2;
        let asked = number.strip_prefix("999").and_then(|rest| rest.get(..3)?.parse().ok());
        match asked {
            Some(status) => self.write(0x04 | ANSWER, status, sequence, &[]).await,
            None => {
                lock(&self.traffic).accepted.push(message);
                self.messages += 1;
                let id = format!("{connection:X}-{}\0", self.messages);
                self.write(0x04 | ANSWER, 0, sequence, id.as_bytes()).await
            }
        }
    }
}

fn bind_status(body: &[u8]) -> u32 {
    let mut fields = Fields(body);
    let (Some(system_id), Some(password)) = (fields.text(), fields.text()) else { return 0x02 };
    match (system_id == SYSTEM_ID, password == PASSWORD) {
        (true, true) => 0,
        (true, false) => 0x0e,
        (false, _) => 0x0f,
    }
}

fn parse_submit(body: &[u8], connection: u64) -> Option<ShortMessage> {
    let mut fields = Fields(body);
    fields.text()?;
    let source = (fields.byte()?, fields.byte()?, fields.text()?);
    let destination = (fields.byte()?, fields.byte()?, fields.text()?);
    let esm_class = fields.byte()?;
    let [_protocol, priority] = [fields.byte()?, fields.byte()?];
    let _schedule = fields.text()?;
    let validity = fields.text()?;
    let [_registered, _replace, data_coding, _default] =
        [fields.byte()?, fields.byte()?, fields.byte()?, fields.byte()?];
    let length = fields.byte()?;
    let mut message = fields.take(length.into())?.to_vec();
    while let (Some(high), Some(low)) = (fields.byte(), fields.byte()) {
        let length = u16::from_be_bytes([fields.byte()?, fields.byte()?]);
        let value = fields.take(length.into())?;
        if [high, low] == [0x04, 0x24] {
            message = value.to_vec();
        }
    }
    let is_sound =
        (priority <= 3 && matches!(validity.len(), 0 | 16) && length <= 254) && !destination.2.is_empty();
    is_sound.then_some(ShortMessage {
        source,
        destination,
        esm_class,
        data_coding,
        validity,
        message,
        connection,
    })
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8(self.take(end)?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }
}
