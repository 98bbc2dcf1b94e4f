//! What hostile guests have in common: everything that a sound provider does. Each example overrides what it
//! does wrong, so that whatever happens comes from that alone.
//!
//! Several do one of a few things; the application's setting `do` says which (see [`task`]). Without it they
//! behave, which shows that the same tenant is served again afterwards.

pub mod webhook;

use pushlet_provider::manifest::{both_environments, endpoints, field};
use pushlet_provider::reply;

pub use pushlet_provider::{bindings as __bindings, codec_bindings as __codec_bindings};

/// The exported interfaces.
pub mod exports {
    pub use pushlet_provider::bindings::exports::pushlet::provider::manifest;
    pub use pushlet_provider::codec_bindings::exports::pushlet::provider::codec;
}

pub use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Example, Origin, ProviderManifest, TargetKind, Transport, ValueKind,
};
pub use pushlet_provider::{
    Answer, Application, ConnectionHint, Context, Disposition, Encoded, Exchange, Message, Method,
    Notification, Outcome, Recipient, Refusal, Rejection, Reply, Target,
};

/// A provider as the contract wants it, unless a method is overridden.
pub trait Guest {
    fn describe() -> ProviderManifest {
        manifest()
    }

    fn check_application(_: Application) -> Result<(), Rejection> {
        Ok(())
    }

    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        encoded(&targets)
    }

    fn decode(_: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        replies(&answers)
    }
}

/// Makes the named type, a [`Guest`], the component's export.
#[macro_export]
macro_rules! export {
    ($guest:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        mod component {
            use super::$guest;
            use $crate::exports::{codec, manifest};

            impl manifest::Guest for $guest {
                fn describe() -> $crate::ProviderManifest {
                    <$guest as $crate::Guest>::describe()
                }
            }

            impl codec::Guest for $guest {
                fn check_application(application: $crate::Application) -> Result<(), $crate::Rejection> {
                    <$guest as $crate::Guest>::check_application(application)
                }

                fn encode(
                    context: $crate::Context,
                    application: $crate::Application,
                    notification: $crate::Notification,
                    targets: Vec<$crate::Recipient>,
                ) -> $crate::Encoded {
                    <$guest as $crate::Guest>::encode(context, application, notification, targets)
                }

                fn decode(
                    context: $crate::Context,
                    application: $crate::Application,
                    answers: Vec<$crate::Answer>,
                    native: bool,
                ) -> Vec<$crate::Reply> {
                    <$guest as $crate::Guest>::decode(context, application, answers, native)
                }
            }

            $crate::__bindings::export_manifest!($guest with_types_in $crate::__bindings);
            $crate::__codec_bindings::export_codec!($guest with_types_in $crate::__codec_bindings);
        }
    };
}

/// What a test asks for with; see [`task`].
const SETTINGS: [&str; 4] = ["do", "value", "where", "message"];

/// What the test asks for: the application's setting `do`, or nothing.
pub fn task(application: &Application) -> &str {
    setting(application, "do")
}

/// A setting of the application, or nothing.
pub fn setting<'a>(application: &'a Application, name: &str) -> &'a str {
    application.settings.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

pub fn manifest() -> ProviderManifest {
    let production = "https://push.example";
    ProviderManifest {
        name: "guest".into(),
        title: "A guest".into(),
        vendor: "nobody".into(),
        version: "1".into(),
        description: "A guest of the tests.".into(),
        also_answers: Vec::new(),
        settings: SETTINGS.map(|name| field(name, ValueKind::Text, "What to do wrong.")).to_vec(),
        credentials: Vec::new(),
        options: Vec::new(),
        targets: vec![TargetKind::Device],
        endpoints: endpoints("push", Transport::Https, production, "https://dev.push.example").to_vec(),
        targets_per_exchange: 10,
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: both_environments(),
        response_headers: Vec::new(),
        entropy: 16,
        examples: vec![Example {
            settings: Vec::new(),
            credential: None,
            notification: r#"{"body":"hello"}"#.into(),
            target: "device".into(),
            target_options: Vec::new(),
        }],
    }
}

/// One message for all, one exchange for each.
pub fn encoded(targets: &[Recipient]) -> Encoded {
    let exchanges = (0..targets.len()).map(|place| exchange(&[reply::index(place)])).collect();
    Encoded { messages: vec![message(b"hello".to_vec())], exchanges, refusals: Vec::new() }
}

pub fn message(body: Vec<u8>) -> Message {
    Message {
        endpoint: "push".into(),
        method: Method::Post,
        headers: vec![("content-type".into(), "text/plain".into())],
        body,
        authenticate: true,
    }
}

pub fn exchange(covers: &[u32]) -> Exchange {
    let path = "/send".into();
    Exchange { covers: covers.to_vec(), message: 0, url: None, path, headers: Vec::new(), idempotent: false }
}

/// One message with this body, and one exchange for all targets.
pub fn with_body(targets: &[Recipient], body: Vec<u8>) -> Encoded {
    Encoded { messages: vec![message(body)], ..all_at_once(targets) }
}

/// One exchange for all targets.
pub fn all_at_once(targets: &[Recipient]) -> Encoded {
    let covers: Vec<u32> = (0..targets.len()).map(reply::index).collect();
    Encoded { exchanges: vec![exchange(&covers)], ..encoded(targets) }
}

/// What is accepted is delivered, and nothing is known of the rest.
pub fn replies(answers: &[Answer]) -> Vec<Reply> {
    let outcome = |status: u16| match status {
        200..=299 => reply::delivered(None),
        _ => reply::failed(Disposition::Unknown, None, None),
    };
    answers
        .iter()
        .map(|answer| reply::same_for_all(answer.targets.len(), outcome(answer.response.status)))
        .collect()
}

/// Computes for ever, in a way that no compiler takes out.
pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}
