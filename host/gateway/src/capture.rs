//! What a send did: what its provider was given, what went over the wire or would, and what came back. For a caller that
//! asked for it, and for a tenant that switched it on. No secret is in it: credentials are added to requests after this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use pushlet_model::contract::codec::Reply;
use pushlet_model::contract::{Application, Context, Notification, Outcome, Recipient, Target};
use pushlet_model::error::Error;
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse};

/// Calls, and exchanges, that are kept of one send: retries have no bound but the time.
const MOST: usize = 32;
/// Bytes of requests and answers that are kept of a send, and of a line of a stream: a component chooses how large they
/// are.
const MOST_BYTES: usize = 512 << 10;
const MOST_BYTES_OF_LINE: usize = 64 << 10;
/// Bytes of an answer that are kept.
const LONGEST_ANSWER: usize = 64 << 10;
/// Most targets of one record: requests may be far larger than what the caller sent.
pub(crate) const MOST_CAPTURED_TARGETS: usize = 10;

/// What one send did.
#[derive(Debug, Clone)]
pub struct CapturedSend {
    pub sender: Arc<CapturedSender>,
    /// As the provider saw it.
    pub notification: Arc<Notification>,
    /// The calls of `encode`.
    pub calls: Vec<CapturedCall>,
    pub exchanges: Vec<CapturedExchange>,
}

/// Who sent it.
#[derive(Debug)]
pub struct CapturedSender {
    pub provider: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// As the provider saw it.
    pub application: Application,
    /// Of the HTTP request.
    pub request_id: Option<Arc<str>>,
}

/// What a call of `encode` was given, beside the application and the notification.
#[derive(Debug, Clone)]
pub struct CapturedCall {
    pub recipients: Vec<Recipient>,
    pub context: Context,
}

/// A request, and what came back.
#[derive(Debug, Clone)]
pub struct CapturedExchange {
    /// Those that it is for.
    pub targets: Vec<Target>,
    pub method: String,
    /// Where it is sent.
    pub url: String,
    /// As the provider wrote it.
    pub path: String,
    /// In lower case; of one that stands there twice, the second.
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
    /// The kind of credential that is added, if one is.
    pub credential: Option<String>,
    /// None: it was not sent, or not answered.
    pub answer: Option<CapturedAnswer>,
    /// What the provider made of the answer, or why it could not.
    pub outcomes: Option<Result<Vec<Outcome>, String>>,
}

/// An answer, as the provider saw it.
#[derive(Debug, Clone)]
pub struct CapturedAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Its beginning, if it is longer than 64 KiB.
    pub body: Bytes,
    /// When it came, in milliseconds since the Unix epoch.
    pub now: u64,
}

/// Collects what a send does.
pub(crate) struct Capture {
    sender: Arc<CapturedSender>,
    notification: Arc<Notification>,
    captured: Mutex<Captured>,
    /// It is of one line of a stream, for the caller; otherwise of a whole send, or of a batch.
    pub is_of_line: bool,
}

/// Lines of one stream that are captured.
const MOST_LINES: usize = 100;

/// The lines of a stream that are captured, the first ones, with the memory that they may take.
pub(crate) struct LineCaptures {
    left: AtomicUsize,
    _reserved: MemoryReservation,
}

impl LineCaptures {
    pub fn new(account: &Arc<Account>) -> Result<Self, Error> {
        let reserved = account.reserve(MemoryUse::Captures, MOST_LINES * MOST_BYTES_OF_LINE)?;
        Ok(Self { left: AtomicUsize::new(MOST_LINES), _reserved: reserved })
    }

    pub fn are_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Returns true if one more line is captured.
    pub fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[derive(Default)]
struct Captured {
    calls: Vec<CapturedCall>,
    exchanges: Vec<CapturedExchange>,
    /// Bytes of the exchanges that may still be kept.
    room: usize,
}

impl CapturedAnswer {
    pub(crate) fn new(status: u16, headers: Vec<(String, String)>, body: &Bytes, now: u64) -> Self {
        // A copy, so that a long body is not kept for its beginning.
        let body = Bytes::copy_from_slice(&body[..body.len().min(LONGEST_ANSWER)]);
        Self { status, headers, body, now }
    }

    fn size(&self) -> usize {
        self.body.len() + self.headers.iter().map(|(_, value)| value.len()).sum::<usize>()
    }
}

impl CapturedExchange {
    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.url.len() + self.path.len() + self.body.len() + headers
    }
}

impl Captured {
    /// Returns true if there is room for so many bytes more, which then count.
    fn admits(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// Returns the last request for these targets.
    fn last(&mut self, targets: &[Target]) -> Option<&mut CapturedExchange> {
        self.exchanges.iter_mut().rfind(|exchange| exchange.targets == targets)
    }
}

impl Capture {
    pub fn new(is_of_line: bool, sender: Arc<CapturedSender>, notification: Arc<Notification>) -> Self {
        let room = if is_of_line { MOST_BYTES_OF_LINE } else { MOST_BYTES };
        let captured = Mutex::new(Captured { room, ..Captured::default() });
        Self { sender, notification, captured, is_of_line }
    }

    pub fn called(&self, recipients: Vec<Recipient>, context: Context) {
        let mut captured = self.captured.lock();
        if captured.calls.len() < MOST {
            captured.calls.push(CapturedCall { recipients, context });
        }
    }

    pub fn requested(&self, exchange: CapturedExchange) {
        let mut captured = self.captured.lock();
        if captured.exchanges.len() < MOST && captured.admits(exchange.size()) {
            captured.exchanges.push(exchange);
        }
    }

    /// The last request for these targets was answered.
    pub fn answered(&self, targets: &[Target], answer: CapturedAnswer) {
        let mut captured = self.captured.lock();
        if captured.admits(answer.size())
            && let Some(exchange) = captured.last(targets).filter(|exchange| exchange.answer.is_none())
        {
            exchange.answer = Some(answer);
        }
    }

    /// The answer to the last request for these targets was decoded.
    pub fn decoded(&self, targets: &[Target], reply: &Result<Reply, Error>) {
        let mut captured = self.captured.lock();
        if let Some(exchange) = captured.last(targets).filter(|exchange| exchange.outcomes.is_none()) {
            let outcomes = reply.as_ref().map(|reply| reply.outcomes.clone());
            exchange.outcomes = Some(outcomes.map_err(|error| error.message.to_string()));
        }
    }

    /// Returns what was captured.
    pub fn take(&self) -> CapturedSend {
        let Captured { calls, exchanges, .. } = std::mem::take(&mut *self.captured.lock());
        CapturedSend {
            sender: self.sender.clone(),
            notification: self.notification.clone(),
            calls,
            exchanges,
        }
    }
}

impl CapturedSend {
    /// Returns about how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let recipient = |recipient: &Recipient| {
            let (Target::Device(text)
            | Target::Topic(text)
            | Target::Condition(text)
            | Target::Channel(text)
            | Target::Url(text)) = &recipient.target;
            text.len() + recipient.options.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let call = |call: &CapturedCall| {
            call.context.entropy.len() + call.recipients.iter().map(recipient).sum::<usize>()
        };
        let exchange = |exchange: &CapturedExchange| {
            exchange.size() + exchange.answer.as_ref().map_or(0, CapturedAnswer::size)
        };
        let notification = &self.notification;
        let texts = [&notification.data, &notification.native].into_iter().flatten().map(String::len);
        let options = notification.options.iter().map(|(name, value)| name.len() + value.len());
        let sums: [usize; 3] = [
            self.calls.iter().map(call).sum(),
            self.exchanges.iter().map(exchange).sum(),
            texts.chain(options).sum(),
        ];
        1024 + sums.iter().sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(target: &str, body: usize) -> CapturedExchange {
        CapturedExchange {
            targets: vec![Target::Device(target.into())],
            method: "POST".into(),
            url: String::new(),
            path: String::new(),
            headers: BTreeMap::new(),
            body: vec![b'x'; body].into(),
            credential: None,
            answer: None,
            outcomes: None,
        }
    }

    fn new_capture() -> Capture {
        let application = Application {
            id: String::new(),
            environment: pushlet_model::contract::Environment::Production,
            settings: Vec::new(),
            credential: None,
        };
        let (provider, digest) = (String::new(), String::new());
        let sender = CapturedSender { provider, digest, application, request_id: None };
        Capture::new(false, Arc::new(sender), Arc::default())
    }

    fn finished(capture: &Capture) -> Vec<CapturedExchange> {
        capture.take().exchanges
    }

    #[test]
    fn number_and_size_are_bounded() {
        let capture = new_capture();
        (0..2 * MOST).for_each(|_| capture.requested(request("a", 1)));
        assert_eq!(finished(&capture).len(), MOST);
        let capture = new_capture();
        capture.requested(request("a", MOST_BYTES - 10));
        capture.requested(request("b", 11));
        capture.requested(request("c", 10));
        let exchanges = finished(&capture);
        assert_eq!(exchanges.iter().map(|one| one.body.len()).collect::<Vec<_>>(), [MOST_BYTES - 10, 10]);
    }

    #[test]
    fn an_answer_belongs_to_the_last_request_for_its_targets() {
        let capture = new_capture();
        capture.requested(request("a", 1));
        capture.requested(request("b", 1));
        capture.requested(request("a", 2));
        let long = Bytes::from(vec![b'y'; 2 * LONGEST_ANSWER]);
        let target = [Target::Device("a".into())];
        capture.answered(&target, CapturedAnswer::new(503, Vec::new(), &long, 1));
        let exchanges = finished(&capture);
        assert!(exchanges[0].answer.is_none() && exchanges[1].answer.is_none());
        let answer = exchanges[2].answer.as_ref().unwrap();
        assert_eq!((answer.status, answer.body.len()), (503, LONGEST_ANSWER));
    }
}
