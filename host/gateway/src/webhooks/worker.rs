//! Sends the messages of one webhook, one after the other: each until it has arrived, or has failed for too long.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::hmac;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use url::Url;

use super::queue::{Message, WebhookAttempt, WebhookQueue};
use crate::gateway::{Gateway, Inner};
use crate::result::utc;
use pushlet_model::contract::unix_milliseconds;
use pushlet_registry::WebhookRecord;
use pushlet_transport::{ClientIdentity, Origin, Protocol, Request};

/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3600);
/// How many times as long each wait is.
const FACTOR: u32 = 4;
const GONE: u16 = 410;

/// What is left to do after an attempt.
enum Next {
    Arrived,
    /// Again after this time.
    Wait(Duration),
    /// The webhook wants no more, or failed for too long.
    Disable,
}

/// Starts to send the messages of a queue, for as long as the gateway exists and the task is not aborted.
pub(super) fn begin(gateway: &Gateway, queue: Arc<WebhookQueue>, record: WebhookRecord) -> AbortHandle {
    let gateway = Arc::downgrade(&gateway.0);
    tokio::spawn(async move {
        if record.disabled.is_none() {
            run(&gateway, &queue, &record).await;
        }
    })
    .abort_handle()
}

async fn run(gateway: &Weak<Inner>, queue: &Arc<WebhookQueue>, record: &WebhookRecord) {
    loop {
        let Some(message) = queue.first() else {
            queue.added.notified().await;
            continue;
        };
        let Some(gateway) = gateway.upgrade().map(Gateway) else { return };
        match gateway.attempt(queue, record, &message).await {
            Next::Arrived => queue.arrived(message.number).await,
            Next::Wait(wait) => {
                // Not held while it waits.
                drop(gateway);
                sleep(wait).await;
            }
            Next::Disable => return gateway.disable_webhook(&queue.tenant, &queue.id).await,
        }
    }
}

impl Gateway {
    /// Sends a message once.
    async fn attempt(&self, queue: &Arc<WebhookQueue>, record: &WebhookRecord, message: &Message) -> Next {
        let began = SystemTime::now();
        let clock = Instant::now();
        let result = self.post(queue, record, message, began).await;
        let tries = message.tries.saturating_add(1);
        let (status, error) = match &result {
            Ok(status) => (Some(*status), None),
            Err(reason) => (None, Some(reason.clone())),
        };
        queue.record(WebhookAttempt {
            at: utc(began).to_string(),
            message: message.id.clone(),
            event: message.kind.clone(),
            attempt: tries,
            status,
            error: error.clone(),
            milliseconds: u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let arrived = status.is_some_and(|status| (200..300).contains(&status));
        self.0.webhooks.count(arrived);
        if arrived {
            return Next::Arrived;
        }
        let (tenant, webhook) = (&queue.tenant, &queue.id);
        tracing::debug!(%tenant, webhook, message = message.id, status, error, tries, "a webhook's message failed");
        let now = unix_milliseconds(began);
        let first = message.first_try.unwrap_or(now);
        let settings = &self.0.webhook_settings;
        let failing = Duration::from_millis(now.saturating_sub(first));
        if status == Some(GONE) || failing >= settings.give_up {
            return Next::Disable;
        }
        queue.failed(Message { tries, first_try: Some(first), ..message.clone() }).await;
        Next::Wait(wait(settings.first_retry, tries))
    }

    /// Returns the status of the response, or why there is none.
    async fn post(
        &self,
        queue: &WebhookQueue,
        record: &WebhookRecord,
        message: &Message,
        now: SystemTime,
    ) -> Result<u16, String> {
        let url = Url::parse(&record.url).map_err(|error| error.to_string())?;
        let origin = Origin::of(&url).map_err(|error| error.to_string())?;
        let is_private = self.0.webhook_settings.private_hosts.contains(&origin.host());
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let secret = self.0.registry.webhook_secret(&queue.tenant, &queue.id, record);
        let request = Request {
            tenant: queue.tenant.clone(),
            origin,
            protocol: Protocol::Https,
            identity: ClientIdentity::Anonymous,
            method: Method::POST,
            path: PathAndQuery::try_from(path).map_err(|error| error.to_string())?,
            common_headers: Arc::new(HeaderMap::new()),
            headers: headers(&*secret, message, now).map_err(|error| error.to_string())?,
            body: Bytes::from(message.payload.clone()),
            deadline: Instant::now() + DEADLINE,
            guarded: !is_private,
            payer: None,
        };
        let sent = self.0.transport.send(&request).await;
        sent.map(|response| response.status).map_err(|error| error.reason())
    }
}

/// Returns the headers of a message, by the specification: the signature is over id, time and body.
fn headers(
    secret: &[u8],
    message: &Message,
    now: SystemTime,
) -> Result<Vec<(HeaderName, HeaderValue)>, http::header::InvalidHeaderValue> {
    let seconds = unix_milliseconds(now) / 1000;
    let signed = format!("{}.{seconds}.{}", message.id, message.payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(tag.as_ref()));
    Ok(vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (USER_AGENT, HeaderValue::from_static("pushlet-webhooks")),
        (HeaderName::from_static("webhook-id"), HeaderValue::try_from(&message.id)?),
        (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(seconds)),
        (HeaderName::from_static("webhook-signature"), HeaderValue::try_from(signature)?),
    ])
}

/// Returns how long to wait after so many failures: up to a quarter longer than all others wait.
fn wait(first: Duration, tries: u32) -> Duration {
    let factor = FACTOR.saturating_pow(tries.saturating_sub(1));
    let wait = first.saturating_mul(factor).min(LONGEST_WAIT);
    wait + wait.mul_f64(rand::random::<f64>() / 4.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn a_message_is_signed_as_the_specification_says() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = Message {
            number: 0,
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            kind: "test".into(),
            payload: r#"{"test": 2432232314}"#.into(),
            tries: 0,
            first_try: None,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        let headers: HeaderMap = headers(&secret, &message, now).unwrap().into_iter().collect();
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn waits_grow_to_half_a_day() {
        let first = Duration::from_secs(5);
        for (tries, seconds) in [(1, 5), (2, 20), (3, 80), (6, 5120), (40, 12 * 3600)] {
            let least = Duration::from_secs(seconds);
            let wait = wait(first, tries);
            assert!(wait >= least && wait <= least.mul_f64(1.25), "{tries}: {wait:?}");
        }
    }
}
