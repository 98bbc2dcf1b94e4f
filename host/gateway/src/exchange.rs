//! One request and its answer: authorised, sent, decoded; and what a failure on the way means for the caller.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use crate::authorization::{self, RequestAuthorization};
use crate::delivery::{Batch, Delivery, EncodedRequest, ExchangeResult};
use crate::result::{DeliveryResult, deadline_exceeded, unknown};
use pushlet_credential::{self as credential, ClockReading, TokenHandle, TokenTrust};
use pushlet_model::contract::{ConnectionHint, Disposition, Outcome};
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
        let (response, token) = match self.wire(&work.message, &work.exchange, batch.deadline).await? {
            RawExchange::Answered(response, token) => (response, token),
            RawExchange::Unanswered(error, token) => {
                let turned_away = self.turned_away(batch, work, &error, token).await;
                self.warn_if_unreached(&error);
                let by_target = work.exchange.url.is_some();
                return turned_away.ok_or_else(|| Box::new(no_answer(&error, by_target)));
            }
            RawExchange::Withheld => {
                let results = vec![DeliveryResult::Valid; work.covers.len()];
                return Ok(ExchangeResult { results, native: None, new_token: false });
            }
        };
        let transport::Response { status, headers, body, connection, .. } = response;
        let reply = self.decode(batch, work, status, &headers, body.into()).await;
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
            self.check_authorization(message, audience).map_err(failed)?;
            return Ok(RawExchange::Withheld);
        }
        let RequestAuthorization { identity, header, token } =
            self.authorize(message, audience, deadline).await.map_err(failed)?;
        let headers = exchange.headers.iter().cloned().chain(header).collect();
        let request = transport::Request {
            tenant: self.tenant.clone(),
            origin: destination.origin,
            protocol: destination.protocol,
            identity,
            method: message.method.clone(),
            path: destination.path,
            common_headers: message.headers.clone(),
            headers,
            body: message.body.clone(),
            deadline,
            guarded: destination.guarded,
            payer: Some(self.purpose.payer.clone()),
        };
        let start = Instant::now();
        Ok(match self.gateway.0.transport.send(request).await {
            Ok(response) => {
                self.counters.answered(start.elapsed(), response.waited);
                RawExchange::Answered(response, token)
            }
            Err(error) => RawExchange::Unanswered(error, token),
        })
    }

    /// Logs a failure to reach the push service with the application: the transport's own log lines do not
    /// name it.
    fn warn_if_unreached(&self, error: &transport::SendError) {
        if error.is_unreached()
            && let Some(repeated) = self.application.unreached.due(std::time::Instant::now())
        {
            let (application, provider) = (&self.application.record.id, &self.application.provider);
            let cause = error.to_string();
            tracing::warn!(application, provider, cause, repeated, "the push service could not be reached");
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
        origin: &transport::Origin,
        deadline: Instant,
    ) -> Result<RequestAuthorization, Error> {
        let Some(exchange) = self.credential_exchange(message, origin) else {
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

    fn check_authorization(&self, message: &Message, origin: &transport::Origin) -> Result<(), Error> {
        let Some(exchange) = self.credential_exchange(message, origin) else { return Ok(()) };
        self.gateway.0.authorizer.check(exchange).map_err(not_authorized)
    }

    /// Returns what is to be authenticated, or None if nothing is.
    fn credential_exchange<'a>(
        &'a self,
        message: &Message,
        origin: &'a transport::Origin,
    ) -> Option<credential::AuthorizeRequest<'a>> {
        if !message.authenticate {
            return None;
        }
        let kind = authorization::kind_of(self.provider.manifest(), &self.application)?;
        let credential = self.application.credential.as_ref()?;
        let settings = &self.application.record.settings;
        let (tenant, origin) = (&self.tenant, origin.as_str());
        Some(credential::AuthorizeRequest { tenant, credential, kind, settings, origin, token_trust: self })
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
            tracing::warn!(application, provider, %error, detail, repeated, "no token could be fetched");
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
}

/// Returns the result of a request that got no answer. `by_target`: the target chose the host, not the
/// provider.
pub(crate) fn no_answer(error: &transport::SendError, by_target: bool) -> DeliveryResult {
    let inner = error.to_string();
    if error.delivery == transport::RequestState::Unknown {
        // Whatever the cause, a request that was sent without an answer is neither delivered nor failed.
        tracing::info!(cause = inner, "outcome unknown");
        return DeliveryResult::Settled(unknown(match error.cause {
            FailureCause::OutOfMemory => {
                "there is no memory left for the response (limit memory_bytes); it may or may not have been delivered"
            }
            FailureCause::TooLarge => "the response is too large; it may or may not have been delivered",
            _ => "the push service did not answer; it may or may not have been delivered",
        }));
    }
    let unreached =
        |when: &str| format!("the push service could not be reached{when}: {}", error.reason()).into();
    let (kind, code, message): (_, _, Cow<'static, str>) = match error.cause {
        FailureCause::Overloaded => {
            (Kind::Overloaded, "overloaded", "too many pushes are waiting for the push service".into())
        }
        FailureCause::TooManyPeers => (
            Kind::Throttled,
            "limit_peers",
            "this tenant sends to as many servers and credentials at the same time as its share of this server \
             allows (limit peers)"
                .into(),
        ),
        FailureCause::ShuttingDown => (Kind::Overloaded, "shutting_down", "the server is shutting down".into()),
        FailureCause::PeerDown => (Kind::Unavailable, "vendor_unreachable", unreached(" lately")),
        FailureCause::Deadline if error.is_unreached() => {
            let message = format!("it could not be sent in time: {}", error.reason());
            (Kind::TimedOut, "deadline_exceeded", message.into())
        }
        FailureCause::Deadline => {
            return DeliveryResult::Failed(deadline_exceeded().after(error.retry_after).caused_by(inner));
        }
        FailureCause::ForbiddenAddress if by_target => {
            (Kind::Invalid, "forbidden_address", "the target is not on the public internet".into())
        }
        FailureCause::ForbiddenAddress => {
            let message = "the provider's endpoint is not on the public internet; \
                           only an endpoint that the operator configured may have a private address";
            (Kind::Provider, "provider_forbidden_address", message.into())
        }
        FailureCause::InvalidRequest => return DeliveryResult::Failed(Error::internal(inner)),
        _ => (Kind::Unreachable, "vendor_unreachable", unreached("")),
    };
    DeliveryResult::Failed(Error::new(kind, code, message).after(error.retry_after).caused_by(inner))
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

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
