//! What all listeners share, and the last step of every request: script, delay, record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use crate::Options;
use crate::answer::Answer;
use crate::apns::ApnsState;
use crate::clock::unix_millis;
use crate::connections::{Connection, ConnectionLog};
use crate::credentials::Material;
use crate::google::GoogleState;
use crate::hms::HmsState;
use crate::record::{Received, Recorder, Service};
use crate::script::{Scripted, Scripts};
use crate::webpush::WebPushState;

/// Bodies longer than this are recorded up to here.
const RECORDED_BODY: usize = 64 * 1024;

pub(crate) struct Shared {
    pub material: Material,
    pub recorder: Recorder,
    pub scripts: Scripts,
    pub connections: Arc<ConnectionLog>,
    pub apns: ApnsState,
    pub google: GoogleState,
    pub hms: HmsState,
    pub webpush: WebPushState,
    /// Base URL of the listener for all services but APNs.
    pub google_url: String,
}

/// A request as it arrived.
pub(crate) struct Arrived {
    pub service: Service,
    pub method: http::Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: bytes::Bytes,
    pub stream: Option<u32>,
}

/// What a service made of a request.
pub(crate) struct Verdict {
    pub token: Option<String>,
    pub topic: Option<String>,
    pub scripting: Scripting,
    pub answer: Answer,
}

/// Whether a script may answer.
pub(crate) enum Scripting {
    /// No: a check refused the request, or scripts were looked up already and none matched.
    Never,
    /// Yes, the one that matches the verdict's token and topic.
    ByTarget,
    /// Yes, this one.
    Taken(Scripted),
}

impl Verdict {
    /// A refusal, which no script replaces.
    pub fn refused(answer: Answer) -> Verdict {
        Verdict { token: None, topic: None, scripting: Scripting::Never, answer }
    }

    /// The answer of the checks: `Ok` lets scripts replace it.
    pub fn of(token: Option<String>, topic: Option<String>, checked: Result<Answer, Answer>) -> Verdict {
        let (scripting, answer) = match checked {
            Ok(answer) => (Scripting::ByTarget, answer),
            Err(answer) => (Scripting::Never, answer),
        };
        Verdict { token, topic, scripting, answer }
    }
}

impl Shared {
    pub fn new(options: &Options, material: Material, google_url: String) -> Shared {
        Shared {
            recorder: Recorder::new(options.keep),
            scripts: Scripts::default(),
            connections: Arc::default(),
            apns: ApnsState::new(&material),
            google: GoogleState::new(format!("{google_url}/token"), options.access_token_lifetime),
            hms: HmsState::new(options.access_token_lifetime),
            webpush: WebPushState::new(),
            google_url,
            material,
        }
    }

    /// Makes all access tokens invalid.
    pub fn revoke_access_tokens(&self) {
        self.google.access_tokens.revoke_all();
        self.hms.revoke_all();
    }

    /// Lets a script answer in place of the verdict, waits its delay, and records the request.
    pub async fn finish(&self, arrived: Arrived, verdict: Verdict, connection: &Connection) -> Answer {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        let (token, topic) = (verdict.token, verdict.topic);
        let scripted = match verdict.scripting {
            Scripting::Never => None,
            Scripting::ByTarget => self.scripts.take(arrived.service, token.as_deref(), topic.as_deref()),
            Scripting::Taken(scripted) => Some(scripted),
        };
        let answer = match scripted {
            None => verdict.answer,
            Some(scripted) => {
                tokio::time::sleep(scripted.delay).await;
                scripted.answer(verdict.answer)
            }
        };
        self.recorder.record(arrived.service, answer.status.as_u16(), answer.delivered, || {
            received(&arrived, token, topic, connection, &answer)
        });
        answer
    }
}

fn received(
    arrived: &Arrived,
    token: Option<String>,
    topic: Option<String>,
    connection: &Connection,
    answer: &Answer,
) -> Received {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = arrived.headers.iter();
    Received {
        number: 0,
        at_ms: unix_millis(),
        service: arrived.service,
        method: arrived.method.to_string(),
        path: arrived.path.clone(),
        headers: headers.map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect(),
        body: text(arrived.body.get(..RECORDED_BODY).unwrap_or(&arrived.body)),
        token,
        topic,
        connection: connection.number,
        environment: connection.environment,
        stream: arrived.stream,
        client_certificate: connection.client_certificate.clone(),
        status: 0,
        answer: text(&answer.body),
        delivered: 0,
    }
}
