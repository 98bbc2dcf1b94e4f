//! One request and its answer: authorised, sent, decoded; and what a failure on the way means for the caller.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use url::Url;

use crate::authorization::{self, RequestAuthorization, RequestParts};
use crate::capture::{CapturedAnswer, CapturedExchange};
use crate::delivery::{Batch, Delivery, EncodedRequest, shown};
use crate::failure::no_answer;
use crate::result::{DeliveryResult, ExchangeResult};
use pushlet_credential::{self as credential, ClockReading, TokenHandle, TokenTrust};
use pushlet_model::contract::{ConnectionHint, Disposition, Outcome, Target, unix_milliseconds};
use pushlet_model::error::{Error, Kind};
use pushlet_sandbox::{Exchange, Message};
use pushlet_transport::{self as transport, FailureCause};

/// Stands for a status where the service closed the connection with a reason and without an answer.
const NO_STATUS: u16 = 0;
/// When to try again after a refusal for too many tokens: tokens stay for up to 20 minutes.
const TOKENS_PAUSE: Duration = Duration::from_secs(60);

/// What a request came to.
pub(crate) enum RawExchange {
    Answered(transport::Response, Option<TokenHandle>),
    Unanswered(transport::SendError, Option<TokenHandle>),
    /// A dry run: the request was not sent.
    Withheld,
}

impl Delivery {
    /// Makes one try. A failure of the exchange is the result of all its targets.
    pub(crate) async fn attempt(&self, batch: &Batch, work: &EncodedRequest) -> ExchangeResult {
        match self.exchange(batch, work).await {
            Ok(attempt) => attempt,
            Err(result) => {
                ExchangeResult { results: vec![*result; work.covers.len()], native: None, new_token: false }
            }
        }
    }

    /// Sends one request and decodes its answer. An error is the result of all targets.
    pub(crate) async fn exchange(
        &self,
        batch: &Batch,
        work: &EncodedRequest,
    ) -> Result<ExchangeResult, Box<DeliveryResult>> {
        let Some((message, exchange)) = &work.exchange else { return Ok(self.submit(batch, work).await) };
        self.capture_request(batch, work, message, exchange);
        let (response, token) = match self.wire(message, exchange, batch.deadline).await? {
            RawExchange::Answered(response, token) => (response, token),
            RawExchange::Unanswered(error, token) => {
                let turned_away = self.turned_away(batch, work, &error, token).await;
                self.warn_if_unreached(&error);
                let by_target = exchange.url.is_some();
                return turned_away.ok_or_else(|| Box::new(no_answer(&error, by_target)));
            }
            RawExchange::Withheld => {
                let results = vec![DeliveryResult::Valid; work.covers.len()];
                return Ok(ExchangeResult { results, native: None, new_token: false });
            }
        };
        let transport::Response { status, headers, body, connection, .. } = response;
        for capture in &batch.captures.all {
            let now = unix_milliseconds(SystemTime::now());
            let headers = shown(&headers, self.provider.manifest());
            capture.answered(&batch.covered(work), CapturedAnswer::new(status, headers, &body, now));
        }
        let reply = self.decode(batch, work, status, &headers, body.into()).await;
        for capture in &batch.captures.all {
            capture.decoded(&batch.covered(work), &reply);
        }
        // The service has answered, so the push may have been delivered: this is not a failure that allows a
        // retry.
        let reply = reply.map_err(|error| Box::new(DeliveryResult::Lost(error)))?;
        if reply.outcomes.iter().any(|outcome| outcome.connection == ConnectionHint::Close) {
            connection.close_after_use();
        }
        let new_token = self.record_refusal(&reply.outcomes, token);
        Ok(ExchangeResult {
            results: reply.outcomes.into_iter().map(|outcome| batch.result(outcome)).collect(),
            native: reply.native,
            new_token,
        })
    }

    /// Records a token that the service reported dead, for `application_feedback`.
    pub(crate) fn report_if_dead(&self, target: &Target, result: &DeliveryResult) {
        if let (Target::Device(token) | Target::Url(token), DeliveryResult::Settled(outcome)) =
            (target, result)
            && let Disposition::Unregistered(since) = &outcome.disposition
        {
            let since = since.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
            self.application.feedback.report(
                token,
                // GCM and FCM do not say since when a token is dead.
                since.unwrap_or_else(SystemTime::now),
                Some(&self.purpose.payer),
            );
        }
    }

    /// Authorises one request and sends it.
    pub(crate) async fn wire(
        &self,
        message: &Message,
        exchange: &Exchange,
        deadline: Instant,
    ) -> Result<RawExchange, Box<DeliveryResult>> {
        let failed = |error: Error| Box::new(DeliveryResult::Failed(error));
        let destinations = &self.gateway.0.destinations;
        let destination = destinations.of(&self.tenant, self.owner(), &self.provider, message, exchange);
        let destination = destination.map_err(failed)?;
        // Tokens name the target's own service also where the operator redirects the request.
        let audience = destination.audience.as_ref().unwrap_or(&destination.origin);
        if self.purpose.validate_only {
            // A dry run signs nothing, and asks no token endpoint and no name server.
            self.check_authorization(message, exchange, audience).map_err(failed)?;
            return Ok(RawExchange::Withheld);
        }
        let RequestAuthorization { identity, header, texts, token } =
            self.authorize(message, exchange, audience, deadline).await.map_err(failed)?;
        let headers = exchange.headers.iter().cloned().chain(header).collect();
        let mut parts = RequestParts { path: destination.path, headers, body: message.body.clone() };
        parts.place(texts).map_err(failed)?;
        let request = transport::Request {
            tenant: self.tenant.clone(),
            origin: destination.origin,
            protocol: destination.protocol,
            identity,
            method: message.method.clone(),
            path: parts.path,
            common_headers: message.headers.clone(),
            headers: parts.headers,
            body: parts.body,
            deadline,
            guarded: destination.guarded,
            payer: Some(self.purpose.payer.clone()),
        };
        let start = Instant::now();
        Ok(match self.gateway.0.transport.send(&request).await {
            Ok(response) => {
                self.counters.answered(start.elapsed(), response.waited);
                RawExchange::Answered(response, token)
            }
            Err(error) => RawExchange::Unanswered(error, token),
        })
    }

    /// Keeps a request for those that want to see it; the credential is not in it yet.
    fn capture_request(&self, batch: &Batch, work: &EncodedRequest, message: &Message, exchange: &Exchange) {
        if batch.captures.all.is_empty() {
            return;
        }
        let destinations = &self.gateway.0.destinations;
        let destination = destinations.of(&self.tenant, self.owner(), &self.provider, message, exchange);
        // Otherwise it fails for the same reason right after this.
        let Ok(destination) = destination else { return };
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            message.headers.iter().chain(exchange.headers.iter().map(|(name, value)| (name, value)));
        let captured = CapturedExchange {
            targets: batch.covered(work),
            method: message.method.to_string(),
            url: format!("{}{}", destination.origin.as_str(), destination.path),
            path: exchange.path.to_string(),
            headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: message.body.clone(),
            credential: self.application.record.credential.clone().filter(|_| message.authenticate),
            answer: None,
            outcomes: None,
        };
        batch.captures.all.iter().for_each(|capture| capture.requested(captured.clone()));
    }

    /// Logs a failure to reach the push service with the application: the transport's own log lines do not
    /// name it.
    fn warn_if_unreached(&self, error: &transport::SendError) {
        if error.is_unreached()
            && let Some(repeated) = self.application.unreached.due(std::time::Instant::now())
        {
            let (application, provider) = (&self.application.record.id, &self.application.provider);
            let cause = error.to_string();
            tracing::warn!(tenant = %self.tenant, application, provider, cause, repeated, "the push service could not be reached");
        }
    }

    /// Decodes the reason of a GOAWAY, with which a service may refuse the credential. Only the provider
    /// understands the service's words.
    async fn turned_away(
        &self,
        batch: &Batch,
        work: &EncodedRequest,
        error: &transport::SendError,
        token: Option<TokenHandle>,
    ) -> Option<ExchangeResult> {
        let FailureCause::GoAway { reason: Some(reason), .. } = &error.cause else { return None };
        // If the service may have processed the request, the result stays unknown whatever its reason says.
        if error.delivery != transport::RequestState::NotSent {
            return None;
        }
        let body = serde_json::json!({ "reason": reason }).to_string().into_bytes();
        let reply = self.decode(batch, work, NO_STATUS, &HeaderMap::new(), body).await.ok()?;
        // Only a refused credential counts: a request that was not processed cannot have another outcome.
        let refused = |outcome: &Outcome| matches!(outcome.disposition, Disposition::CredentialRejected(_));
        reply.outcomes.iter().all(refused).then(|| ExchangeResult {
            new_token: self.record_refusal(&reply.outcomes, token),
            results: reply.outcomes.into_iter().map(DeliveryResult::Settled).collect(),
            native: None,
        })
    }

    async fn authorize(
        &self,
        message: &Message,
        exchange: &Exchange,
        origin: &transport::Origin,
        deadline: Instant,
    ) -> Result<RequestAuthorization, Error> {
        let Some(exchange) = self.credential_exchange(message, exchange, origin) else {
            return Ok(RequestAuthorization::anonymous());
        };
        let deadline = deadline.into_std();
        let authorization =
            self.gateway.0.authorizer.authorize(exchange, &ClockReading::now(), deadline).await;
        let authorization = authorization.map_err(|error| {
            self.warn_of_token_endpoint(&error);
            not_authorized(error)
        })?;
        Ok(RequestAuthorization::new(authorization, &self.tenant, &self.application, exchange.kind))
    }

    fn check_authorization(
        &self,
        message: &Message,
        exchange: &Exchange,
        origin: &transport::Origin,
    ) -> Result<(), Error> {
        let Some(exchange) = self.credential_exchange(message, exchange, origin) else { return Ok(()) };
        self.gateway.0.authorizer.check(exchange).map_err(not_authorized)
    }

    /// Returns what is to be authenticated, or None if nothing is.
    fn credential_exchange<'a>(
        &'a self,
        message: &'a Message,
        exchange: &'a Exchange,
        origin: &'a transport::Origin,
    ) -> Option<credential::AuthorizeRequest<'a>> {
        if !message.authenticate {
            return None;
        }
        let kind = authorization::kind_of(self.provider.manifest(), &self.application)?;
        let credential = self.application.credential.as_ref()?;
        let settings = &self.application.record.settings;
        let request = Some(credential::ComposedRequest {
            path: exchange.path.as_str(),
            body: &message.body,
            common: &message.headers,
            own: &exchange.headers,
        });
        let (tenant, origin, token_trust) = (&self.tenant, origin.as_str(), self);
        Some(credential::AuthorizeRequest {
            tenant,
            credential,
            kind,
            settings,
            origin,
            token_trust,
            request,
        })
    }

    fn warn_of_token_endpoint(&self, error: &credential::AuthorizeError) {
        use credential::AuthorizeError::{Forbidden, Malformed, Refused, Unavailable};
        let detail = match error {
            Unavailable { detail, .. } | Forbidden { detail, .. } => detail.as_str(),
            Refused { .. } | Malformed(_) => "",
            _ => return,
        };
        if let Some(repeated) = self.application.unreached.due(std::time::Instant::now()) {
            let (application, provider) = (&self.application.record.id, &self.application.provider);
            tracing::warn!(tenant = %self.tenant, application, provider, %error, detail, repeated, "no token could be fetched");
        }
    }

    /// Reports a refused token to the authorizer. Returns true if a new token can be had.
    pub(crate) fn record_refusal(&self, outcomes: &[Outcome], token: Option<TokenHandle>) -> bool {
        let fault = outcomes.iter().find_map(|outcome| match outcome.disposition {
            Disposition::CredentialRejected(fault) => Some(fault),
            _ => None,
        });
        match (fault, token) {
            (Some(fault), Some(token)) => {
                self.gateway.0.authorizer.refused(&token, fault, &ClockReading::now())
            }
            // A certificate or a key that a provider calls "expired" cannot be renewed, so there is no second
            // try.
            _ => false,
        }
    }
}

impl TokenTrust for Delivery {
    fn trusts(&self, url: &Url) -> bool {
        self.gateway.0.destinations.trusts_token_url(self.owner(), &self.provider.manifest().name, url)
    }

    fn redirected(&self, url: &Url) -> Option<Url> {
        let environment = self.application.record.environment;
        self.gateway.0.destinations.redirected_token_url(
            self.owner(),
            self.provider.manifest(),
            environment,
            url,
        )
    }
}

/// Returns the error for an exchange that could not be authenticated.
fn not_authorized(error: credential::AuthorizeError) -> Error {
    let inner = format!("{error:?}");
    let (kind, code) = match &error {
        credential::AuthorizeError::NoCapacity(error) => return error.clone(),
        credential::AuthorizeError::MissingSetting(_) => (Kind::Invalid, "missing_setting"),
        credential::AuthorizeError::Manifest(_) => (Kind::Provider, "provider_bad_manifest"),
        credential::AuthorizeError::Refused { .. } => (Kind::CredentialRejected, "invalid_credentials"),
        credential::AuthorizeError::Forbidden { .. } => (Kind::Invalid, "token_endpoint_forbidden"),
        credential::AuthorizeError::Unavailable { .. } | credential::AuthorizeError::Malformed(_) => {
            (Kind::Unreachable, "token_endpoint_unavailable")
        }
        credential::AuthorizeError::DeadlineExceeded => (Kind::TimedOut, "deadline_exceeded"),
        credential::AuthorizeError::TooManyTokens => {
            let message = error.to_string();
            return Error::new(Kind::Throttled, "limit_tokens", message).after(TOKENS_PAUSE);
        }
        credential::AuthorizeError::Signing => return Error::internal(inner),
    };
    let retry_after = match &error {
        credential::AuthorizeError::Unavailable { retry_after, .. } => *retry_after,
        _ => None,
    };
    Error::new(kind, code, error.to_string()).after(retry_after).caused_by(inner)
}
