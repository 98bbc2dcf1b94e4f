//! Apple's binary provider protocol, which Apple itself switched off in 2021. It lives on behind servers that an
//! operator configures.
//!
//! - `manifest`: what the provider is and needs
//! - `payload`: a notification as JSON
//! - `frame`: the bytes of a notification, of an error packet and of a feedback tuple
//! - `gateway`: what is in flight on a connection, and what an error packet says about it
//! - `feedback`: the connection that lists dead tokens
//!
//! Source: Apple's "Binary Provider API" and "Legacy Notification Format" (Local and Remote Notification Programming
//! Guide, 2018).

mod feedback;
mod frame;
mod gateway;
mod manifest;
mod payload;

use feedback::FeedbackReader;
use gateway::GatewaySession;
use pushlet_provider::input::{self, rejection};
use pushlet_provider::stream::{Connection, Step, StreamProvider, Submission, step};
use pushlet_provider::{Application, Context, Notification, ProviderManifest, Rejection};

/// The provider.
pub struct ApnsBinary;

/// A connection to one of the two servers.
pub enum Link {
    /// Takes notifications.
    Gateway(GatewaySession),
    /// Lists dead tokens, and takes nothing.
    Feedback(FeedbackReader),
}

impl StreamProvider for ApnsBinary {
    type Connection = Link;

    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        gateway::Settings::of(application).map(drop)
    }

    fn connect(application: &Application, endpoint: &str, _: &[(String, u32)]) -> Link {
        match endpoint {
            manifest::FEEDBACK => Link::Feedback(FeedbackReader::default()),
            // The settings were checked when the application was registered.
            _ => Link::Gateway(GatewaySession::new(gateway::Settings::of(application).unwrap_or_default())),
        }
    }
}

impl Connection for Link {
    fn start(&mut self, context: &Context) -> Step {
        self.tick(context)
    }

    fn submit(
        &mut self,
        context: &Context,
        notification: &Notification,
        submissions: Vec<Submission>,
    ) -> Step {
        match self {
            Self::Gateway(session) => session.submit(context.now, notification, submissions),
            Self::Feedback(_) => {
                let mut step = step();
                for Submission { id, .. } in submissions {
                    step.refuse(id, rejection("no_submissions", "the feedback service takes nothing", None));
                }
                step
            }
        }
    }

    fn written(&mut self, context: &Context) -> Step {
        match self {
            Self::Gateway(session) => session.written(context.now),
            Self::Feedback(_) => step(),
        }
    }

    fn receive(&mut self, context: &Context, bytes: &[u8]) -> Step {
        match self {
            Self::Gateway(session) => session.receive(context.now, bytes),
            Self::Feedback(reader) => reader.receive(bytes),
        }
    }

    fn tick(&mut self, context: &Context) -> Step {
        match self {
            Self::Gateway(session) => session.tick(context.now),
            Self::Feedback(_) => step(),
        }
    }

    fn finish(&mut self, context: &Context) -> Step {
        match self {
            Self::Gateway(session) => session.finish(context.now),
            Self::Feedback(_) => Step { close: true, ..step() },
        }
    }

    fn closed(&mut self, context: &Context) -> Step {
        match self {
            Self::Gateway(session) => session.closed(context.now),
            Self::Feedback(_) => step(),
        }
    }
}

pushlet_provider::export_stream!(ApnsBinary);

/// Returns a setting that is a whole number.
fn number(application: &Application, name: &str) -> Result<Option<u64>, Rejection> {
    let Some(text) = input::setting(application, name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| input::invalid(name, format!("{name} must be a whole number")))
}
