//! The gateway with the built-in providers' codecs linked natively, everything else as in the product.
//!
//! The two sides of the contract have types of their own. What goes in is copied from one to the other, which
//! takes the place of lowering it into a component's memory; what comes out is moved.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::process::ExitCode;

use pushlet_bench::linked::NATIVELY;
use pushlet_model::contract::{self, codec};
use pushlet_provider as sdk;
use pushlet_sandbox::native::{self, LinkedCodecs, NativeCodec};

/// The providers whose codecs are called in place of their components.
const LINKED: LinkedCodecs = &[
    ("apns", &Native::<pushlet_apns_native::Apns>::NEW),
    ("fcm", &Native::<pushlet_fcm_native::Fcm>::NEW),
    ("gcm", &Native::<pushlet_gcm_native::Gcm>::NEW),
];

/// The program `pushlet` with the rest of these words as its command line.
pub fn gateway(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    if words.next().is_some_and(|how| how == NATIVELY) {
        native::link(LINKED);
    }
    pushlet::cli::main(std::iter::once(OsString::from("pushlet")).chain(words))
}

/// A provider behind the host's types.
pub struct Native<P>(PhantomData<fn() -> P>);

impl<P> Native<P> {
    pub const NEW: Self = Self(PhantomData);
}

impl<P: sdk::Provider> NativeCodec for Native<P> {
    fn encode(
        &self,
        context: &contract::Context,
        application: &contract::Application,
        notification: &contract::Notification,
        recipients: &[contract::Recipient],
    ) -> codec::Encoded {
        let targets: Vec<_> = recipients.iter().map(recipient).collect();
        let (context, application) = (self::context(context), self::application(application));
        encoded(
            P::encode(&context, &application, &self::notification(notification), &targets)
                .unwrap_or_else(|rejection| sdk::reply::refuse_all(targets.len(), rejection)),
        )
    }

    fn decode(
        &self,
        context: &contract::Context,
        application: &contract::Application,
        answers: &[codec::Answer],
        native: bool,
    ) -> Vec<codec::Reply> {
        let (context, application) = (self::context(context), self::application(application));
        let answers = answers.iter().map(answer);
        answers.map(|answer| reply(P::decode(&context, &application, &answer, native))).collect()
    }
}

fn context(context: &contract::Context) -> sdk::Context {
    sdk::Context { now: context.now, entropy: context.entropy.clone() }
}

pub(crate) fn application(application: &contract::Application) -> sdk::Application {
    sdk::Application {
        id: application.id.clone(),
        environment: match application.environment {
            contract::Environment::Production => sdk::Environment::Production,
            contract::Environment::Development => sdk::Environment::Development,
        },
        settings: application.settings.clone(),
        credential: application.credential.clone(),
    }
}

pub(crate) fn notification(notification: &contract::Notification) -> sdk::Notification {
    sdk::Notification {
        alert: notification.alert.as_ref().map(alert),
        badge: notification.badge,
        sound: notification.sound.as_ref().map(|sound| match sound {
            contract::Sound::Default => sdk::Sound::Default,
            contract::Sound::Named(name) => sdk::Sound::Named(name.clone()),
            contract::Sound::Critical(contract::CriticalSound { name, volume }) => {
                sdk::Sound::Critical(sdk::CriticalSound { name: name.clone(), volume: *volume })
            }
        }),
        category: notification.category.clone(),
        thread: notification.thread.clone(),
        data: notification.data.clone(),
        collapse_key: notification.collapse_key.clone(),
        time_to_live: notification.time_to_live,
        priority: notification.priority.map(|priority| match priority {
            contract::Priority::Low => sdk::Priority::Low,
            contract::Priority::Normal => sdk::Priority::Normal,
            contract::Priority::High => sdk::Priority::High,
        }),
        identifier: notification.identifier.clone(),
        options: notification.options.clone(),
        native: notification.native.clone(),
    }
}

fn alert(alert: &contract::Alert) -> sdk::Alert {
    let localized = |text: &contract::Localized| sdk::Localized {
        key: text.key.clone(),
        arguments: text.arguments.clone(),
    };
    sdk::Alert {
        title: alert.title.clone(),
        subtitle: alert.subtitle.clone(),
        body: alert.body.clone(),
        image: alert.image.clone(),
        title_localized: alert.title_localized.as_ref().map(localized),
        subtitle_localized: alert.subtitle_localized.as_ref().map(localized),
        body_localized: alert.body_localized.as_ref().map(localized),
    }
}

fn recipient(recipient: &contract::Recipient) -> sdk::Recipient {
    sdk::Recipient { target: target(&recipient.target), options: recipient.options.clone() }
}

fn target(target: &contract::Target) -> sdk::Target {
    match target {
        contract::Target::Device(token) => sdk::Target::Device(token.clone()),
        contract::Target::Topic(name) => sdk::Target::Topic(name.clone()),
        contract::Target::Condition(condition) => sdk::Target::Condition(condition.clone()),
        contract::Target::Channel(channel) => sdk::Target::Channel(channel.clone()),
        contract::Target::Url(url) => sdk::Target::Url(url.clone()),
    }
}

fn encoded(encoded: sdk::Encoded) -> codec::Encoded {
    let message = |message: sdk::Message| codec::Message {
        endpoint: message.endpoint,
        method: match message.method {
            sdk::Method::Get => codec::Method::Get,
            sdk::Method::Post => codec::Method::Post,
            sdk::Method::Put => codec::Method::Put,
            sdk::Method::Delete => codec::Method::Delete,
        },
        headers: message.headers,
        body: message.body,
        authenticate: message.authenticate,
    };
    let exchange = |sdk::Exchange { covers, message, url, path, headers, idempotent }| codec::Exchange {
        covers,
        message,
        url,
        path,
        headers,
        idempotent,
    };
    let refusal = |sdk::Refusal { covers, rejection }| codec::Refusal {
        covers,
        rejection: contract::Rejection {
            code: rejection.code,
            message: rejection.message,
            field: rejection.field,
            more: rejection
                .more
                .into_iter()
                .map(|sdk::Fault { code, message, field }| contract::Fault { code, message, field })
                .collect(),
        },
    };
    codec::Encoded {
        messages: encoded.messages.into_iter().map(message).collect(),
        exchanges: encoded.exchanges.into_iter().map(exchange).collect(),
        refusals: encoded.refusals.into_iter().map(refusal).collect(),
    }
}

fn answer(answer: &codec::Answer) -> sdk::Answer {
    let codec::Response { status, headers, body } = &answer.response;
    sdk::Answer {
        targets: answer.targets.iter().map(target).collect(),
        response: sdk::Response { status: *status, headers: headers.clone(), body: body.clone() },
    }
}

fn reply(reply: sdk::Reply) -> codec::Reply {
    codec::Reply { outcomes: reply.outcomes.into_iter().map(outcome).collect(), native: reply.native }
}

fn outcome(outcome: sdk::Outcome) -> contract::Outcome {
    contract::Outcome {
        disposition: disposition(outcome.disposition),
        id: outcome.id,
        code: outcome.code,
        message: outcome.message,
        connection: match outcome.connection {
            sdk::ConnectionHint::Keep => contract::ConnectionHint::Keep,
            sdk::ConnectionHint::Close => contract::ConnectionHint::Close,
        },
    }
}

fn disposition(disposition: sdk::Disposition) -> contract::Disposition {
    use contract::Disposition as Host;
    use sdk::Disposition;
    match disposition {
        Disposition::Delivered => Host::Delivered,
        Disposition::Unregistered(since) => Host::Unregistered(since),
        Disposition::Replaced(successor) => Host::Replaced(successor),
        Disposition::Rejected => Host::Rejected,
        Disposition::CredentialRejected(fault) => Host::CredentialRejected(match fault {
            sdk::CredentialFault::Expired => contract::CredentialFault::Expired,
            sdk::CredentialFault::Refused => contract::CredentialFault::Refused,
        }),
        Disposition::Throttled(throttle) => Host::Throttled(contract::Throttle {
            scope: match throttle.scope {
                sdk::Scope::Target => contract::Scope::Target,
                sdk::Scope::Application => contract::Scope::Application,
                sdk::Scope::Provider => contract::Scope::Provider,
            },
            retry_after: throttle.retry_after,
        }),
        Disposition::Unavailable(wait) => Host::Unavailable(wait),
        Disposition::Unknown => Host::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "native_tests.rs"]
mod tests;
