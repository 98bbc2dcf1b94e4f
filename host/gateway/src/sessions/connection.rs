//! One connection of a provider that speaks over a byte stream: the socket, the component that says what is written to
//! it, and its clock. Reading and writing do not wait for each other.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use crate::failure::no_answer;
use crate::result::DeliveryResult;
use pushlet_credential::Credential;
use pushlet_model::contract::session::{Chunk, Event, Step, Submission};
use pushlet_model::contract::{Context, Notification, unix_milliseconds};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairPermit;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{Instances, ProviderError, Session, SessionInput};
use pushlet_transport::{ByteStream, SendError, StreamPeer, Transport};

/// Bytes of one read.
const READ: usize = 16 << 10;
/// Reads in a row that may delay everything else.
const MOST_READS: u32 = 100;
/// Bytes that may wait to be written. A peer that reads nothing, and has ever more answered, is cut off.
const MOST_UNWRITTEN: usize = 1 << 20;
/// How long one write may take, and the orderly end of a connection.
const STALL: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(2);
/// The least time between two ticks, however often a component wants to be woken.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// Where the connections of an application go, and what runs on them.
pub(crate) struct SessionPeer {
    pub peer: StreamPeer,
    pub transport: Transport,
    pub instances: Arc<Instances>,
    pub application: Arc<RegisteredApplication>,
    pub endpoint: &'static str,
    /// The names of the secrets that the component may have written, and their lengths.
    pub secrets: Vec<(String, u32)>,
    /// Most submissions in one call.
    pub batch: usize,
}

/// Why there is no connection.
pub(super) enum OpenFailure {
    Unreached(SendError),
    Provider(ProviderError),
}

impl OpenFailure {
    /// Returns the result of what waited for the connection.
    pub fn result(&self) -> DeliveryResult {
        match self {
            Self::Unreached(error) => no_answer(error, false),
            Self::Provider(error) => DeliveryResult::Failed(error.clone().into()),
        }
    }

    pub fn error(&self) -> Error {
        match self.result() {
            DeliveryResult::Failed(error) => error,
            // What was never sent has no other result.
            _ => Error::internal("a connection failed in an unknown way"),
        }
    }
}

/// An input that a call on another thread may own.
enum OwnedInput {
    Start,
    Submit(Arc<Notification>, Vec<Submission>),
    Written,
    Received(Vec<u8>),
    Tick,
    Finish,
    Closed,
}

impl OwnedInput {
    fn borrowed(&self) -> SessionInput<'_> {
        match self {
            Self::Start => SessionInput::Start,
            Self::Submit(notification, submissions) => SessionInput::Submit(notification, submissions),
            Self::Written => SessionInput::Written,
            Self::Received(bytes) => SessionInput::Received(bytes),
            Self::Tick => SessionInput::Tick,
            Self::Finish => SessionInput::Finish,
            Self::Closed => SessionInput::Closed,
        }
    }
}

/// What happened on a connection.
pub(super) enum Happened {
    Read(Vec<u8>),
    /// The peer has closed it, or it broke.
    Ended,
    /// Bytes were handed to the network; none: the writer has failed.
    Flushed(bool),
    Due,
}

/// An open connection.
pub(super) struct Connection {
    peer: Arc<SessionPeer>,
    /// None: the component failed.
    session: Option<Session>,
    reader: ReadHalf<ByteStream>,
    buffer: Vec<u8>,
    /// Reads since something else happened.
    reads: u32,
    writer: Writer,
    /// Events that were not looked at yet.
    pub events: Vec<Event>,
    /// How many more submissions it takes.
    pub window: usize,
    has_submitted: bool,
    wake: Option<Instant>,
    state: ConnectionState,
    _permit: FairPermit<TenantId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Open,
    /// What is unwritten is written until then, and nothing more is read.
    Closing(Instant),
    /// It could not be written to: what the peer has said before is read until then.
    Draining(Instant),
    Over,
}

impl Connection {
    /// Connects, and has the component write the first bytes. `permit`: the tenant's share of all connections.
    pub async fn open(peer: &Arc<SessionPeer>, permit: FairPermit<TenantId>) -> Result<Self, OpenFailure> {
        let stream = peer.transport.connect(&peer.peer).await.map_err(OpenFailure::Unreached)?;
        let (reader, writer) = split(stream);
        let opened = peer.clone();
        let open = move |instances: &Instances| {
            let context = Context::at(SystemTime::now(), Vec::new());
            let SessionPeer { application, endpoint, secrets, .. } = &*opened;
            instances.open_session(&context, &application.record, endpoint, secrets)
        };
        let session = peer.instances.run(open).await.map_err(OpenFailure::Provider)?;
        let mut connection = Self {
            peer: peer.clone(),
            session: Some(session),
            reader,
            buffer: vec![0; READ],
            reads: 0,
            writer: Writer::start(writer),
            events: Vec::new(),
            window: 0,
            has_submitted: false,
            wake: None,
            state: ConnectionState::Open,
            _permit: permit,
        };
        connection.step(OwnedInput::Start).await.map_err(OpenFailure::Provider)?;
        Ok(connection)
    }

    /// Returns true once nothing more happens on it.
    pub fn is_over(&self) -> bool {
        self.state == ConnectionState::Over
    }

    /// Returns true if the component may be given submissions: what it wrote before has been handed to the network, so
    /// that a slow peer slows its callers down. The first do not wait: only with them can it say what a refused greeting
    /// means for them.
    pub fn takes_submissions(&self) -> bool {
        let is_written = !self.has_submitted || self.writer.unwritten() == 0;
        self.state == ConnectionState::Open && self.window > 0 && is_written
    }

    /// Hands submissions to the component. `Err`: it failed, and nothing of them was written.
    pub async fn submit(
        &mut self,
        notification: Arc<Notification>,
        submissions: Vec<Submission>,
    ) -> Result<(), ProviderError> {
        self.has_submitted = true;
        self.step(OwnedInput::Submit(notification, submissions)).await
    }

    /// No more submissions come.
    pub async fn finish(&mut self) -> Result<(), ProviderError> {
        match self.state {
            ConnectionState::Open => self.step(OwnedInput::Finish).await,
            _ => Ok(()),
        }
    }

    /// Waits until something happens, and tells the component. Dropping the future while it waits loses nothing: see
    /// [`Connection::wait`].
    pub async fn advance(&mut self) -> Result<(), ProviderError> {
        let happened = self.wait().await;
        self.handle(happened).await
    }

    /// Waits until something happens that [`Connection::handle`] is told of. May be dropped.
    pub async fn wait(&mut self) -> Happened {
        let reads = !matches!(self.state, ConnectionState::Closing(_));
        let until = match self.state {
            ConnectionState::Closing(until) | ConnectionState::Draining(until) => Some(until),
            // Time passes for the component only once what it wrote has left.
            _ if self.writer.unwritten() > 0 => None,
            _ => self.wake,
        };
        if self.reads >= MOST_READS || !matches!(self.state, ConnectionState::Open) {
            self.reads = 0;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Happened::Due;
            }
        }
        tokio::select! {
            // What the peer has said counts before what its silence would mean.
            biased;
            read = self.reader.read(&mut self.buffer), if reads => match read {
                Ok(count) if count > 0 => {
                    self.reads += 1;
                    Happened::Read(self.buffer.get(..count).unwrap_or_default().to_vec())
                }
                _ => Happened::Ended,
            },
            alive = self.writer.flushed(), if self.writer.unwritten() > 0 => Happened::Flushed(alive),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => Happened::Due,
        }
    }

    pub async fn handle(&mut self, happened: Happened) -> Result<(), ProviderError> {
        match (happened, self.state) {
            (Happened::Read(bytes), _) => self.step(OwnedInput::Received(bytes)).await,
            (Happened::Ended, _) => self.end().await,
            (Happened::Flushed(true), ConnectionState::Closing(_)) if self.writer.unwritten() == 0 => {
                self.end().await
            }
            (Happened::Flushed(true), _) if self.writer.unwritten() > 0 => Ok(()),
            (Happened::Flushed(true), _) => self.step(OwnedInput::Written).await,
            (Happened::Flushed(false), ConnectionState::Open) => {
                self.writer.give_up();
                self.state = ConnectionState::Draining(Instant::now() + GOODBYE);
                Ok(())
            }
            (Happened::Flushed(false), _) => self.end().await,
            (Happened::Due, ConnectionState::Open) => self.step(OwnedInput::Tick).await,
            (Happened::Due, _) => self.end().await,
        }
    }

    /// The connection has ended: the component says what that means.
    pub async fn end(&mut self) -> Result<(), ProviderError> {
        if self.state == ConnectionState::Over {
            return Ok(());
        }
        self.state = ConnectionState::Over;
        self.step(OwnedInput::Closed).await
    }

    /// Tells the component something, and does what it says. After an error the connection is over.
    async fn step(&mut self, input: OwnedInput) -> Result<(), ProviderError> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        let context = Context::at(SystemTime::now(), Vec::new());
        let call = move |instances: &Instances| {
            let step = instances.step(&mut session, &context, &input.borrowed())?;
            Ok((session, step))
        };
        match self.peer.instances.run(call).await {
            Ok((session, step)) => {
                self.session = Some(session);
                self.apply(step);
                Ok(())
            }
            Err(error) => {
                self.state = ConnectionState::Over;
                Err(error)
            }
        }
    }

    fn apply(&mut self, step: Step) {
        let Step { write, events, window, wake, close } = step;
        self.events.extend(events);
        self.window = window as usize;
        self.wake = wake.map(|wake| {
            let wait = wake.saturating_sub(unix_milliseconds(SystemTime::now()));
            Instant::now() + Duration::from_millis(wait.min(86_400_000)).max(LEAST_PAUSE)
        });
        let writes = matches!(self.state, ConnectionState::Open);
        if writes && !write.is_empty() {
            self.writer.write(self.assemble(write));
        }
        if self.state == ConnectionState::Open && self.writer.unwritten() > MOST_UNWRITTEN {
            self.state = ConnectionState::Draining(Instant::now());
        } else if close && self.state != ConnectionState::Over {
            self.state = ConnectionState::Closing(match self.writer.unwritten() {
                0 => Instant::now(),
                _ => Instant::now() + GOODBYE,
            });
        }
    }

    /// Returns the bytes to be written, with the secrets in their places.
    fn assemble(&self, chunks: Vec<Chunk>) -> Zeroizing<Vec<u8>> {
        let texts = || self.peer.application.credential.iter().flat_map(Credential::texts);
        let secret = |name: &str| texts().find(|(known, _)| *known == name).map_or(&[][..], |(_, text)| text);
        let part = |chunk: &Chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Secret(name) => secret(name).len(),
        };
        // As large as it gets: growing would leave a copy of a secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(chunks.iter().map(part).sum()));
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(part) => bytes.extend_from_slice(&part),
                Chunk::Secret(name) => bytes.extend_from_slice(secret(&name)),
            }
        }
        bytes
    }
}

/// The writing side, a task of its own.
struct Writer {
    queue: mpsc::UnboundedSender<Zeroizing<Vec<u8>>>,
    /// How many bytes were handed to the network.
    done: watch::Receiver<usize>,
    written: usize,
    /// How many bytes the component knows to be written.
    known: usize,
}

impl Writer {
    fn start(half: WriteHalf<ByteStream>) -> Self {
        // Bounded by `MOST_UNWRITTEN`, which ends the connection.
        let (queue, waiting) = mpsc::unbounded_channel();
        let (counter, done) = watch::channel(0);
        tokio::spawn(write_all(half, waiting, counter));
        Self { queue, done, written: 0, known: 0 }
    }

    fn write(&mut self, bytes: Zeroizing<Vec<u8>>) {
        self.written += bytes.len();
        // A writer that has failed says so by `flushed`.
        let _ = self.queue.send(bytes);
    }

    /// Returns how many bytes the component does not know to be written.
    fn unwritten(&self) -> usize {
        self.written - self.known
    }

    /// Waits until more was written. Returns false if nothing will be.
    async fn flushed(&mut self) -> bool {
        loop {
            let is_over = self.done.has_changed().is_err();
            let done = *self.done.borrow_and_update();
            if done > self.known {
                self.known = done;
                return true;
            }
            if is_over || self.done.changed().await.is_err() {
                // What was written just before the writer ended is seen in the next turn.
                if *self.done.borrow() == self.known {
                    return false;
                }
            }
        }
    }

    /// Nothing more can be written.
    fn give_up(&mut self) {
        self.written = self.known;
    }
}

/// Writes until the connection is dropped or does not take any more; then ends its side.
async fn write_all(
    mut half: WriteHalf<ByteStream>,
    mut waiting: mpsc::UnboundedReceiver<Zeroizing<Vec<u8>>>,
    done: watch::Sender<usize>,
) {
    while let Some(bytes) = waiting.recv().await {
        let write = async {
            half.write_all(&bytes).await?;
            half.flush().await
        };
        match timeout(STALL, write).await {
            Ok(Ok(())) => done.send_modify(|count| *count += bytes.len()),
            _ => return,
        }
    }
    // The peer need not be there any more.
    let _ = timeout(GOODBYE, half.shutdown()).await;
}
