//! Values of the contract's types, made of chosen bytes.

use arbitrary::{Result, Unstructured};
use pushlet_model::contract::codec::{self, Answer, Encoded, Method, Refusal, Reply, Response};
use pushlet_model::contract::{
    Alert, Application, ConnectionHint, Context, CredentialFault, Disposition, Environment, Fault,
    Notification, Outcome, Priority, Recipient, Rejection, Scope, Sound, Target, Throttle,
};

/// Up to `most` values.
pub fn some<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    make: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|_| make(u)).collect()
}

pub fn perhaps<T>(
    u: &mut Unstructured<'_>,
    make: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if u.arbitrary()? { make(u).map(Some) } else { Ok(None) }
}

/// Free text, or one of the texts that mean something somewhere.
pub fn text(u: &mut Unstructured<'_>) -> Result<String> {
    const KNOWN: &[&str] = &[
        "",
        "push",
        "open",
        "/3/device/aa",
        "/..",
        "/%2e%2e/",
        "//x",
        "https://push.example",
        "https://push.example/a?b#c",
        "http://x",
        "authorization",
        "host",
        "x-header",
        ":path",
        "a\r\nb: c",
        "{}",
        "[1,2]",
        "\"text\"",
        "topic",
        "key",
        "apns_topic",
        "com.example.app",
    ];
    if u.arbitrary()? { u.choose(KNOWN).map(|text| text.to_string()) } else { u.arbitrary() }
}

pub fn pairs(u: &mut Unstructured<'_>) -> Result<Vec<(String, String)>> {
    some(u, 6, |u| Ok((text(u)?, text(u)?)))
}

pub fn environment(u: &mut Unstructured<'_>) -> Result<Environment> {
    Ok(*u.choose(&[Environment::Production, Environment::Development])?)
}

pub fn target(u: &mut Unstructured<'_>) -> Result<Target> {
    let text = text(u)?;
    Ok(match u.int_in_range(0..=4)? {
        0 => Target::Device(text),
        1 => Target::Topic(text),
        2 => Target::Condition(text),
        3 => Target::Channel(text),
        _ => Target::Url(text),
    })
}

pub fn recipient(u: &mut Unstructured<'_>) -> Result<Recipient> {
    Ok(Recipient { target: target(u)?, options: some(u, 2, |u| Ok((text(u)?, json(u)?)))? })
}

pub fn context(u: &mut Unstructured<'_>) -> Result<Context> {
    Ok(Context { now: u.arbitrary()?, entropy: u.arbitrary()? })
}

pub fn application(u: &mut Unstructured<'_>) -> Result<Application> {
    Ok(Application {
        id: text(u)?,
        environment: environment(u)?,
        settings: pairs(u)?,
        credential: perhaps(u, text)?,
    })
}

/// JSON, as the host hands it to a provider: always well-formed.
fn json(u: &mut Unstructured<'_>) -> Result<String> {
    let text = text(u)?;
    let sound = serde_json::from_str::<serde_json::Value>(&text).is_ok();
    Ok(if sound { text } else { serde_json::Value::from(text).to_string() })
}

pub fn notification(u: &mut Unstructured<'_>) -> Result<Notification> {
    let alert = |u: &mut Unstructured<'_>| {
        Ok(Alert {
            title: perhaps(u, text)?,
            body: perhaps(u, text)?,
            image: perhaps(u, text)?,
            ..Alert::default()
        })
    };
    Ok(Notification {
        alert: perhaps(u, alert)?,
        badge: u.arbitrary()?,
        sound: perhaps(u, |u| text(u).map(Sound::Named))?,
        category: perhaps(u, text)?,
        thread: perhaps(u, text)?,
        data: perhaps(u, json)?,
        collapse_key: perhaps(u, text)?,
        time_to_live: u.arbitrary()?,
        priority: perhaps(u, |u| Ok(*u.choose(&[Priority::High, Priority::Normal])?))?,
        identifier: perhaps(u, text)?,
        options: some(u, 4, |u| Ok((text(u)?, json(u)?)))?,
        native: perhaps(u, json)?,
    })
}

pub fn answer(u: &mut Unstructured<'_>) -> Result<Answer> {
    let body = if u.arbitrary()? { u.arbitrary()? } else { text(u)?.into_bytes() };
    let response = Response { status: u.arbitrary()?, headers: pairs(u)?, body };
    Ok(Answer { targets: some(u, 4, target)?, response })
}

pub fn rejection(u: &mut Unstructured<'_>) -> Result<Rejection> {
    Ok(Rejection {
        code: text(u)?,
        message: text(u)?,
        field: perhaps(u, text)?,
        more: some(u, 2, |u| Ok(Fault { code: text(u)?, message: text(u)?, field: perhaps(u, text)? }))?,
    })
}

fn index(u: &mut Unstructured<'_>) -> Result<u32> {
    if u.ratio(9, 10)? { u.int_in_range(0..=4) } else { u.arbitrary() }
}

pub fn encoded(u: &mut Unstructured<'_>) -> Result<Encoded> {
    let message = |u: &mut Unstructured<'_>| {
        Ok(codec::Message {
            endpoint: text(u)?,
            method: *u.choose(&[Method::Get, Method::Post, Method::Put, Method::Delete])?,
            headers: pairs(u)?,
            body: u.arbitrary()?,
            authenticate: u.arbitrary()?,
        })
    };
    let exchange = |u: &mut Unstructured<'_>| {
        Ok(codec::Exchange {
            covers: some(u, 4, index)?,
            message: index(u)?,
            url: perhaps(u, text)?,
            path: text(u)?,
            headers: pairs(u)?,
            idempotent: u.arbitrary()?,
        })
    };
    let refusal =
        |u: &mut Unstructured<'_>| Ok(Refusal { covers: some(u, 4, index)?, rejection: rejection(u)? });
    Ok(Encoded {
        messages: some(u, 3, message)?,
        exchanges: some(u, 4, exchange)?,
        refusals: some(u, 2, refusal)?,
    })
}

fn disposition(u: &mut Unstructured<'_>) -> Result<Disposition> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Disposition::Delivered,
        1 => Disposition::Unregistered(u.arbitrary()?),
        2 => Disposition::Replaced(text(u)?),
        3 => Disposition::Rejected,
        4 => {
            Disposition::CredentialRejected(*u.choose(&[CredentialFault::Expired, CredentialFault::Refused])?)
        }
        5 => {
            let scope = *u.choose(&[Scope::Target, Scope::Application, Scope::Provider])?;
            Disposition::Throttled(Throttle { scope, retry_after: u.arbitrary()? })
        }
        6 => Disposition::Unavailable(u.arbitrary()?),
        _ => Disposition::Unknown,
    })
}

pub fn reply(u: &mut Unstructured<'_>) -> Result<Reply> {
    let outcome = |u: &mut Unstructured<'_>| {
        Ok(Outcome {
            disposition: disposition(u)?,
            id: perhaps(u, text)?,
            code: perhaps(u, text)?,
            message: perhaps(u, text)?,
            connection: *u.choose(&[ConnectionHint::Keep, ConnectionHint::Close])?,
        })
    };
    Ok(Reply { outcomes: some(u, 4, outcome)?, native: perhaps(u, text)? })
}
