//! What a send did, for a caller that asked for it: what its provider was given, what went over the wire or would, and
//! what came back. No secret is in it: credentials are added to requests after this.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use pushlet_model::contract::codec::Reply;
use pushlet_model::contract::{Application, Context, Outcome, Recipient, Target};
use pushlet_model::error::Error;

/// Calls, and exchanges, that are kept of one send: retries have no bound but the time.
const MOST: usize = 32;
/// Bytes of requests and answers that are kept: a component chooses how large they are.
const MOST_BYTES: usize = 512 << 10;
/// Bytes of an answer that are kept.
const LONGEST_ANSWER: usize = 64 << 10;

/// What one send did.
#[derive(Debug, Clone)]
pub struct CapturedSend {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// As the provider saw it.
    pub application: Application,
    /// The calls of `encode`.
    pub calls: Vec<CapturedCall>,
    pub exchanges: Vec<CapturedExchange>,
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
#[derive(Default)]
pub(crate) struct Capture(Mutex<Captured>);

#[derive(Default)]
struct Captured {
    calls: Vec<CapturedCall>,
    exchanges: Vec<CapturedExchange>,
    /// Bytes of the exchanges.
    size: usize,
}

impl CapturedAnswer {
    pub(crate) fn new(status: u16, headers: Vec<(String, String)>, body: &Bytes, now: u64) -> Self {
        // A copy, so that a long body is not kept for its beginning.
        let body = Bytes::copy_from_slice(&body[..body.len().min(LONGEST_ANSWER)]);
        Self { status, headers, body, now }
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
        let size = self.size.saturating_add(bytes);
        if size > MOST_BYTES {
            return false;
        }
        self.size = size;
        true
    }

    /// Returns the last request for these targets.
    fn last(&mut self, targets: &[Target]) -> Option<&mut CapturedExchange> {
        self.exchanges.iter_mut().rfind(|exchange| exchange.targets == targets)
    }
}

impl Capture {
    pub fn called(&self, recipients: Vec<Recipient>, context: Context) {
        let mut captured = self.0.lock();
        if captured.calls.len() < MOST {
            captured.calls.push(CapturedCall { recipients, context });
        }
    }

    pub fn requested(&self, exchange: CapturedExchange) {
        let mut captured = self.0.lock();
        if captured.exchanges.len() < MOST && captured.admits(exchange.size()) {
            captured.exchanges.push(exchange);
        }
    }

    /// The last request for these targets was answered.
    pub fn answered(&self, targets: &[Target], answer: CapturedAnswer) {
        let mut captured = self.0.lock();
        let size = answer.body.len() + answer.headers.iter().map(|(_, value)| value.len()).sum::<usize>();
        if captured.admits(size)
            && let Some(exchange) = captured.last(targets).filter(|exchange| exchange.answer.is_none())
        {
            exchange.answer = Some(answer);
        }
    }

    /// The answer to the last request for these targets was decoded.
    pub fn decoded(&self, targets: &[Target], reply: &Result<Reply, Error>) {
        let mut captured = self.0.lock();
        if let Some(exchange) = captured.last(targets).filter(|exchange| exchange.outcomes.is_none()) {
            let outcomes = reply.as_ref().map(|reply| reply.outcomes.clone());
            exchange.outcomes = Some(outcomes.map_err(|error| error.message.to_string()));
        }
    }

    pub fn finish(self, digest: &str, application: &Application) -> CapturedSend {
        let Captured { calls, exchanges, .. } = self.0.into_inner();
        CapturedSend { digest: digest.to_owned(), application: application.clone(), calls, exchanges }
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

    fn finished(capture: Capture) -> Vec<CapturedExchange> {
        let application = Application {
            id: String::new(),
            environment: pushlet_model::contract::Environment::Production,
            settings: Vec::new(),
            credential: None,
        };
        capture.finish("", &application).exchanges
    }

    #[test]
    fn number_and_size_are_bounded() {
        let capture = Capture::default();
        (0..2 * MOST).for_each(|_| capture.requested(request("a", 1)));
        assert_eq!(finished(capture).len(), MOST);
        let capture = Capture::default();
        capture.requested(request("a", MOST_BYTES - 10));
        capture.requested(request("b", 11));
        capture.requested(request("c", 10));
        let exchanges = finished(capture);
        assert_eq!(exchanges.iter().map(|one| one.body.len()).collect::<Vec<_>>(), [MOST_BYTES - 10, 10]);
    }

    #[test]
    fn an_answer_belongs_to_the_last_request_for_its_targets() {
        let capture = Capture::default();
        capture.requested(request("a", 1));
        capture.requested(request("b", 1));
        capture.requested(request("a", 2));
        let long = Bytes::from(vec![b'y'; 2 * LONGEST_ANSWER]);
        let target = [Target::Device("a".into())];
        capture.answered(&target, CapturedAnswer::new(503, Vec::new(), &long, 1));
        let exchanges = finished(capture);
        assert!(exchanges[0].answer.is_none() && exchanges[1].answer.is_none());
        let answer = exchanges[2].answer.as_ref().unwrap();
        assert_eq!((answer.status, answer.body.len()), (503, LONGEST_ANSWER));
    }
}
