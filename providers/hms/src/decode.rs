//! Responses to outcomes. What happened stands in `code` of the body, mostly with status 200.

use pushlet_provider::time::retry_after;
use pushlet_provider::{
    Answer, Context, CredentialFault, Disposition, Outcome, Reply, Response, Scope, Target, Throttle, json,
    reply,
};
use serde_json::Value;

/// Some of the tokens failed.
const SOME_FAILED: &str = "80100000";
/// All of them did. It says nothing of any of them: a wrong app id makes every token invalid.
const ALL_FAILED: &str = "80300007";

/// One outcome for each target.
pub fn decode(context: &Context, answer: &Answer) -> Reply {
    let wait = retry_after(&answer.response, context.now);
    let body = json::body(&answer.response);
    let text = |name: &str| body.get(name).map(json::text).filter(|text| !text.is_empty());
    let Some(code) = text("code") else { return without_code(answer, wait) };
    let verdict = Verdict { code: &code, message: text("msg"), id: text("requestId"), wait };
    let outcomes = match code.as_str() {
        "80000000" => vec![reply::delivered(verdict.id.clone()); answer.targets.len()],
        SOME_FAILED => verdict.partial(&answer.targets),
        ALL_FAILED => verdict.total(&answer.targets),
        _ => vec![verdict.whole(answer.response.status); answer.targets.len()],
    };
    Reply { outcomes, native: None }
}

/// What the body says.
struct Verdict<'a> {
    code: &'a str,
    message: Option<String>,
    id: Option<String>,
    wait: Option<u64>,
}

impl Verdict<'_> {
    fn whole(&self, status: u16) -> Outcome {
        let disposition =
            by_code(self.code, self.wait).unwrap_or_else(|| by_family(self.code, status, self.wait));
        reply::failed(disposition, Some(self.code), self.message.clone())
    }

    /// Tokens that the message names failed, all others were accepted.
    fn partial(&self, targets: &[Target]) -> Vec<Outcome> {
        let Some(failures) = self.failures() else {
            let why =
                format!("some of the tokens failed, and the answer does not say which: {}", self.said());
            let unknown = reply::failed(Disposition::Unknown, Some(self.code), Some(why));
            return vec![unknown; targets.len()];
        };
        let is_complete = failures.is_complete(targets);
        let one = |target| match (failures.cause(target), is_complete) {
            (Some(cause), _) => self.failed(cause, failures.successes > 0),
            (None, true) => reply::delivered(self.id.clone()),
            (None, false) => {
                let why = "more tokens failed than the answer names".to_string();
                reply::failed(Disposition::Unknown, Some(self.code), Some(why))
            }
        };
        targets.iter().map(one).collect()
    }

    fn total(&self, targets: &[Target]) -> Vec<Outcome> {
        let failures = self.failures();
        let one = |target| match failures.as_ref().and_then(|failures| failures.cause(target)) {
            Some(cause) => self.failed(cause, false),
            None => self.failed("", false),
        };
        targets.iter().map(one).collect()
    }

    /// The outcome of a token that failed. `others_succeeded`: so the app is the right one, and the token is what is
    /// wrong.
    fn failed(&self, cause: &str, others_succeeded: bool) -> Outcome {
        let disposition = match cause {
            "" | "tokenFormatError" | "noRight" | "tokenPlatformNotSupport" if others_succeeded => {
                Disposition::Unregistered(None)
            }
            "noPushTypeRight"
            | "noRightToSendThisLiveNotificationEvent"
            | "disableSendHuaweiMsgBecauseOfPenalty"
            | "appinfoError" => Disposition::CredentialRejected(CredentialFault::Refused),
            // The message's fault, or a token that must not be dropped for it.
            _ => Disposition::Rejected,
        };
        let code = if cause.is_empty() { self.code } else { cause };
        reply::failed(disposition, Some(code), Some(self.said()))
    }

    fn said(&self) -> String {
        let message = self.message.as_deref().unwrap_or_default();
        reply::excerpt(message.as_bytes()).unwrap_or_else(|| "no reason given".into())
    }

    fn failures(&self) -> Option<Failures> {
        Failures::read(&json::parse(self.message.as_deref()?).ok()?)
    }
}

/// The tokens that failed, each with its cause: the text of JSON within `msg`.
struct Failures {
    /// Token, cause; the API v1 names no causes.
    tokens: Vec<(String, String)>,
    successes: u64,
    /// How many failed, where the answer says it.
    failures: Option<u64>,
}

impl Failures {
    fn read(message: &Value) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut add = |cause: &str, list: &Value| {
            let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
            tokens.extend(texts.map(|token| (token.to_string(), cause.to_string())));
        };
        match message.get("illegal_tokens").or_else(|| message.get("illegalTokens"))? {
            list @ Value::Array(_) => add("", list),
            Value::Object(causes) => causes.iter().for_each(|(cause, list)| add(cause, list)),
            _ => return None,
        }
        // A call has 1,000 targets: each is looked up.
        tokens.sort();
        let number = |name: &str| message.get(name).and_then(Value::as_u64);
        Some(Self { tokens, successes: number("success").unwrap_or(0), failures: number("failure") })
    }

    fn cause(&self, target: &Target) -> Option<&str> {
        let Target::Device(token) = target else { return None };
        let place = self.tokens.partition_point(|(known, _)| known < token);
        let (known, cause) = self.tokens.get(place)?;
        (known == token).then_some(cause.as_str())
    }

    /// Are all that failed named? Only then were the others accepted.
    fn is_complete(&self, targets: &[Target]) -> bool {
        let named = targets.iter().filter(|target| self.cause(target).is_some()).count() as u64;
        self.failures.is_none_or(|failures| failures <= named.max(self.tokens.len() as u64)) && named > 0
    }
}

/// The codes of both APIs.
fn by_code(code: &str, wait: Option<u64>) -> Option<Disposition> {
    Some(match code {
        "80100001" | "80100002" | "80100003" | "80100004" | "80100013" | "80100016" | "80100022"
        | "80300008" | "80300010" | "80300011" | "80300030" => Disposition::Rejected,
        "80100017" | "80300029" => throttled(wait),
        // Huawei's own demo fetches a new token after the first two.
        "80200001" | "80200003" | "80200005" => Disposition::CredentialRejected(CredentialFault::Expired),
        "80300002" | "80300036" | "80300037" => Disposition::CredentialRejected(CredentialFault::Refused),
        "80600003" | "81000001" => Disposition::Unavailable(wait),
        _ => return None,
    })
}

/// A code that is not known: its third and fourth digit say what it is about.
fn by_family(code: &str, status: u16, wait: Option<u64>) -> Disposition {
    let family =
        (code.len() == 8 && code.bytes().all(|byte| byte.is_ascii_digit())).then(|| code.get(..4)).flatten();
    match (family, status) {
        (_, 401 | 429 | 500..=599) => by_status(status, wait),
        (Some("8010" | "8030"), _) => Disposition::Rejected,
        (Some("8020"), _) => Disposition::CredentialRejected(CredentialFault::Refused),
        (Some("8060" | "8100"), _) => Disposition::Unavailable(wait),
        (_, 200..=299) => Disposition::Unknown,
        _ => by_status(status, wait),
    }
}

/// The outcome where the body has no code: it is not Push Kit itself that answered.
fn without_code(answer: &Answer, wait: Option<u64>) -> Reply {
    let Response { status, body, .. } = &answer.response;
    let disposition = match status {
        200..=299 => Disposition::Unknown,
        status => by_status(*status, wait),
    };
    reply::same_for_all(answer.targets.len(), reply::failed(disposition, None, reply::excerpt(body)))
}

fn by_status(status: u16, wait: Option<u64>) -> Disposition {
    match status {
        401 => Disposition::CredentialRejected(CredentialFault::Expired),
        403 => Disposition::CredentialRejected(CredentialFault::Refused),
        // A wrong path, which no message is to blame for.
        404 => Disposition::Unavailable(wait),
        // 503 is Huawei's traffic control.
        429 | 503 => throttled(wait),
        400..=499 => Disposition::Rejected,
        500..=599 => Disposition::Unavailable(wait),
        _ => Disposition::Unknown,
    }
}

fn throttled(retry_after: Option<u64>) -> Disposition {
    Disposition::Throttled(Throttle { scope: Scope::Application, retry_after })
}
