//! Guest output is hostile input: nothing of it is used before it went through here.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use url::Url;

use super::error::{ProviderError, bad, printable};
use super::headers::HeaderRules;
use pushlet_model::contract::codec::{self, Answer, Encoded, Method, Reply};
use pushlet_model::contract::management;
use pushlet_model::contract::manifest::{Endpoint, Origin, ProviderManifest};
use pushlet_model::contract::{Disposition, Environment, Fault, Outcome, Rejection, Throttle};

const MAX_PATH: usize = 4 << 10;
const MAX_CODE: usize = 128;
/// Faults in a rejection in addition to the first.
const MAX_FAULTS: usize = 20;
const MAX_MESSAGE: usize = 1 << 10;
/// A token or an id that is longer cannot be handed on truthfully.
pub(super) const MAX_TOKEN: usize = 4 << 10;
/// No service asks for more than a day.
const MAX_WAIT: u64 = 24 * 3600 * 1000;

/// What `encode` answered, checked and ready to be sent.
#[derive(Debug)]
pub struct PreparedRequests {
    pub messages: Vec<Message>,
    pub exchanges: Vec<Exchange>,
    /// Indices of targets, and why the provider will not take them.
    pub refusals: Vec<(Vec<u32>, Rejection)>,
}

/// What the requests of many targets have in common.
#[derive(Debug)]
pub struct Message {
    /// Index into the manifest's endpoints.
    pub endpoint: usize,
    pub method: http::Method,
    pub headers: Arc<HeaderMap>,
    pub body: Bytes,
    pub authenticate: bool,
}

/// One request, for some of the targets.
#[derive(Debug)]
pub struct Exchange {
    /// Indices of targets.
    pub covers: Vec<u32>,
    /// Index into the messages.
    pub message: usize,
    /// The target's URL, where the endpoint is any https server.
    pub url: Option<Url>,
    /// Starts with `/`.
    pub path: PathAndQuery,
    /// Beside those of the message, over which they win.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The service recognises a second delivery.
    pub idempotent: bool,
}

/// Checks what `encode` answered for `targets` targets.
pub fn encoded(
    manifest: &ProviderManifest,
    environment: Environment,
    targets: usize,
    encoded: Encoded,
) -> Result<PreparedRequests, ProviderError> {
    let covers = encoded.exchanges.iter().map(|exchange| &exchange.covers);
    cover_once(targets, covers.chain(encoded.refusals.iter().map(|refusal| &refusal.covers)))?;
    if encoded.messages.len() > targets {
        return Err(bad("it has more messages than targets"));
    }
    let mut rules = HeaderRules::new(manifest);
    let messages = encoded
        .messages
        .into_iter()
        .map(|raw| message(&mut rules, environment, raw))
        .collect::<Result<Vec<_>, _>>()?;
    let exchanges = encoded
        .exchanges
        .into_iter()
        .map(|raw| exchange(&mut rules, &messages, raw))
        .collect::<Result<Vec<_>, _>>()?;
    let refusals = encoded.refusals.into_iter().map(|raw| (raw.covers, rejection(raw.rejection))).collect();
    Ok(PreparedRequests { messages, exchanges, refusals })
}

/// Checks what `management.encode` answered.
pub(super) fn request(
    manifest: &ProviderManifest,
    environment: Environment,
    request: management::Request,
) -> Result<(Message, Exchange), ProviderError> {
    let message = codec::Message {
        endpoint: request.endpoint,
        method: match request.method {
            management::Method::Get => Method::Get,
            management::Method::Post => Method::Post,
            management::Method::Put => Method::Put,
            management::Method::Delete => Method::Delete,
        },
        headers: request.headers,
        body: request.body,
        authenticate: request.authenticate,
    };
    let exchange = codec::Exchange {
        covers: vec![0],
        message: 0,
        url: None,
        path: request.path,
        headers: Vec::new(),
        idempotent: false,
    };
    let mut rules = HeaderRules::new(manifest);
    let messages = [self::message(&mut rules, environment, message)?];
    let exchange = self::exchange(&mut rules, &messages, exchange)?;
    let [message] = messages;
    Ok((message, exchange))
}

/// Checks what `decode` answered.
pub fn replies(answers: &[Answer], mut replies: Vec<Reply>) -> Result<Vec<Reply>, ProviderError> {
    if replies.len() != answers.len() {
        return Err(bad(format!("{} replies for {} answers", replies.len(), answers.len())));
    }
    for (answer, reply) in answers.iter().zip(&mut replies) {
        if reply.outcomes.len() != answer.targets.len() {
            let (outcomes, targets) = (reply.outcomes.len(), answer.targets.len());
            return Err(bad(format!("{outcomes} outcomes for {targets} targets")));
        }
        reply.outcomes.iter_mut().try_for_each(outcome)?;
        if let Some(native) = &reply.native {
            serde_json::from_str::<serde_json::Value>(native)
                .map_err(|_| bad("its native answer is not JSON"))?;
        }
    }
    Ok(replies)
}

/// Codes and texts of a rejection, cut to a length that can be handed on.
pub(super) fn rejection(mut rejection: Rejection) -> Rejection {
    shorten(&mut rejection.code, MAX_CODE);
    shorten(&mut rejection.message, MAX_MESSAGE);
    if let Some(field) = &mut rejection.field {
        shorten(field, MAX_CODE);
    }
    rejection.more.truncate(MAX_FAULTS);
    for Fault { code, message, field } in &mut rejection.more {
        shorten(code, MAX_CODE);
        shorten(message, MAX_MESSAGE);
        field.iter_mut().for_each(|field| shorten(field, MAX_CODE));
    }
    rejection
}

fn cover_once<'a>(targets: usize, covers: impl Iterator<Item = &'a Vec<u32>>) -> Result<(), ProviderError> {
    let mut covered = vec![false; targets];
    for covers in covers {
        if covers.is_empty() {
            return Err(bad("an exchange or refusal covers no target"));
        }
        for &index in covers {
            let seen =
                covered.get_mut(index as usize).ok_or_else(|| bad("a target index is out of range"))?;
            if std::mem::replace(seen, true) {
                return Err(bad(format!("target {index} is covered twice")));
            }
        }
    }
    match covered.iter().position(|covered| !covered) {
        Some(index) => Err(bad(format!("target {index} is not covered"))),
        None => Ok(()),
    }
}

fn message(
    rules: &mut HeaderRules<'_>,
    environment: Environment,
    raw: codec::Message,
) -> Result<Message, ProviderError> {
    let named = |endpoint: &Endpoint| endpoint.name == raw.endpoint && endpoint.environment == environment;
    let endpoint = rules.manifest.endpoints.iter().position(named).ok_or_else(|| {
        ProviderError::Refused(format!("endpoint {:?} is not in its manifest", printable(&raw.endpoint)))
    })?;
    let method = match raw.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
    };
    let mut all = HeaderMap::with_capacity(raw.headers.len());
    for (name, value) in rules.checked(raw.headers)? {
        all.append(name, value);
    }
    let headers = Arc::new(all);
    Ok(Message { endpoint, method, headers, body: raw.body.into(), authenticate: raw.authenticate })
}

fn exchange(
    rules: &mut HeaderRules<'_>,
    messages: &[Message],
    raw: codec::Exchange,
) -> Result<Exchange, ProviderError> {
    let manifest = rules.manifest;
    let index = raw.message as usize;
    let message = messages.get(index).ok_or_else(|| bad("a message index is out of range"))?;
    if raw.covers.len() > manifest.targets_per_exchange as usize {
        return Err(bad("an exchange covers more targets than the manifest says"));
    }
    let url = match (&manifest.endpoints[message.endpoint].origin, raw.url) {
        (Origin::Fixed(_) | Origin::Configured, None) => None,
        (Origin::AnyHttps, Some(url)) => Some(destination(&url)?),
        (Origin::Fixed(_) | Origin::Configured, Some(_)) => {
            return Err(ProviderError::Refused("a URL of its own at a fixed endpoint".into()));
        }
        (Origin::AnyHttps, None) => return Err(bad("no URL at an endpoint that needs one")),
    };
    let path = match &url {
        Some(url) => parsed(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())?,
        None => path(raw.path)?,
    };
    let (headers, idempotent) = (rules.checked(raw.headers)?, raw.idempotent);
    Ok(Exchange { covers: raw.covers, message: index, url, path, headers, idempotent })
}

fn path(path: String) -> Result<PathAndQuery, ProviderError> {
    match wrong_path(&path) {
        None => parsed(path),
        Some(rule) => Err(bad(format!("path {:?} is not allowed: {rule}", printable(&path)))),
    }
}

/// Parses a path without copying its bytes.
fn parsed(path: String) -> Result<PathAndQuery, ProviderError> {
    PathAndQuery::from_maybe_shared(Bytes::from(path))
        .map_err(|error| bad(format!("a path is not a path and query of HTTP: {error}")))
}

/// Returns the rule that a path breaks.
fn wrong_path(path: &str) -> Option<&'static str> {
    // Without an early end many bytes are looked at together.
    let has = |[a, b]: [u8; 2]| path.bytes().fold(false, |found, byte| found | (byte == a) | (byte == b));
    let is_graphic = path.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic());
    let breaks = [
        (!path.starts_with('/'), "it must begin with /"),
        (path.starts_with("//"), "it must not begin with //, which would name another server"),
        (path.len() > MAX_PATH, "it is longer than 4096 bytes"),
        (!is_graphic, "spaces, controls and what is not ASCII must be percent-encoded"),
        (has(*b"#\\"), "it must not have # or \\"),
        (has(*b".%") && path.split(['/', '?']).any(dots), "it must not have the segments . and .."),
    ];
    breaks.into_iter().find_map(|(broken, rule)| broken.then_some(rule))
}

/// Returns true for a path segment that climbs (`..`), plain or percent-encoded.
fn dots(segment: &str) -> bool {
    let dot = |rest: &'_ str| match rest.as_bytes() {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    };
    let Some(first) = dot(segment) else { return false };
    let rest = segment.get(first..).unwrap_or_default();
    rest.is_empty() || dot(rest) == Some(rest.len())
}

fn destination(url: &str) -> Result<Url, ProviderError> {
    target_url(url).map_err(|rule| ProviderError::Refused(format!("URL {:?}: {rule}", printable(url))))
}

/// Parses the URL of a target, or returns the rule that it breaks.
pub fn target_url(url: &str) -> Result<Url, &'static str> {
    if url.len() > MAX_PATH {
        return Err("it is longer than 4096 bytes");
    }
    let url = Url::parse(url).map_err(|_| "it is not a URL")?;
    let breaks = [
        (url.scheme() != "https", "it must begin with https://"),
        (!url.has_host(), "it has no host"),
        (
            !url.username().is_empty() || url.password().is_some(),
            "it must not hold a user name or a password",
        ),
    ];
    match breaks.into_iter().find(|(broken, _)| *broken) {
        Some((_, rule)) => Err(rule),
        None => Ok(url),
    }
}

pub(super) fn outcome(outcome: &mut Outcome) -> Result<(), ProviderError> {
    if let Some(code) = &mut outcome.code {
        shorten(code, MAX_CODE);
    }
    if let Some(message) = &mut outcome.message {
        shorten(message, MAX_MESSAGE);
    }
    let too_long = |token: &String| token.len() > MAX_TOKEN;
    if outcome.id.as_ref().is_some_and(too_long) {
        return Err(bad("an id is too long"));
    }
    match &mut outcome.disposition {
        Disposition::Replaced(token) if too_long(token) || token.is_empty() => {
            Err(bad("a new token is empty or too long"))
        }
        Disposition::Throttled(Throttle { retry_after: Some(wait), .. })
        | Disposition::Unavailable(Some(wait)) => {
            *wait = (*wait).min(MAX_WAIT);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
