//! SMPP 3.4: text messages to phones through a message centre (SMSC).
//!
//! - `manifest`: what the provider is and needs
//! - `message`: a notification as `submit_sm` requests
//! - `text`: the default alphabet, UTF-16, and long messages
//! - `pdu`, `status`: the units on the wire, and what their statuses mean
//! - `settings`: what an application says about its account
//! - `pending`: a message between its submission and its outcome
//! - `session`: bind, window, answers, keep-alive, unbind
//!
//! Source: SMPP Protocol Specification v3.4, issue 1.2.

mod manifest;
mod message;
mod pdu;
mod pending;
mod session;
mod settings;
mod status;
mod text;

use pushlet_provider::stream::{Connection, Step, StreamProvider, Submission};
use pushlet_provider::{Application, Context, Notification, ProviderManifest, Rejection};

pub use session::SmppSession;

/// The provider.
pub struct Smpp;

impl StreamProvider for Smpp {
    type Connection = SmppSession;

    fn describe() -> ProviderManifest {
        manifest::manifest()
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        settings::Settings::of(application).map(drop)
    }

    fn connect(application: &Application, _: &str, secrets: &[(String, u32)]) -> SmppSession {
        let password =
            secrets.iter().find(|(name, _)| name == manifest::PASSWORD).map_or(0, |(_, length)| *length);
        SmppSession::new(settings::Settings::of(application), password as usize)
    }
}

impl Connection for SmppSession {
    fn start(&mut self, context: &Context) -> Step {
        self.bind(context.now)
    }

    fn submit(
        &mut self,
        context: &Context,
        notification: &Notification,
        submissions: Vec<Submission>,
    ) -> Step {
        SmppSession::submit(self, context.now, notification, submissions)
    }

    fn written(&mut self, context: &Context) -> Step {
        // Only answers settle anything, so it does not matter when a request was written.
        SmppSession::tick(self, context.now)
    }

    fn receive(&mut self, context: &Context, bytes: &[u8]) -> Step {
        SmppSession::receive(self, context.now, bytes)
    }

    fn tick(&mut self, context: &Context) -> Step {
        SmppSession::tick(self, context.now)
    }

    fn finish(&mut self, context: &Context) -> Step {
        SmppSession::finish(self, context.now)
    }

    fn closed(&mut self, context: &Context) -> Step {
        SmppSession::closed(self, context.now)
    }
}

pushlet_provider::export_stream!(Smpp);
