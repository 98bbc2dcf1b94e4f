//! Providers of the world `stream-provider`: one connection over a long-lived byte stream, without a socket and
//! without a clock.

use std::cell::RefCell;

pub use crate::stream_bindings::exports::pushlet::provider::session::{Chunk, Event, Step, Submission};

use crate::stream_bindings::exports::pushlet::provider::session;
use crate::{Application, Context, Notification, Outcome, ProviderManifest, Rejection, Target};

/// A push provider of the world `stream-provider`.
pub trait StreamProvider {
    /// The state of one connection.
    type Connection: Connection + 'static;

    /// What the provider is and needs.
    fn describe() -> ProviderManifest;

    /// Are the settings of this application complete and sound?
    fn check_application(application: &Application) -> Result<(), Rejection>;

    /// A connection to one of the manifest's endpoints. `secrets`: the names of the credential's secrets and their
    /// lengths in bytes.
    fn connect(application: &Application, endpoint: &str, secrets: &[(String, u32)]) -> Self::Connection;
}

/// One connection. Every submission gets one event: it is settled, refused, or to be submitted elsewhere.
pub trait Connection {
    /// The connection is there: the first bytes.
    fn start(&mut self, context: &Context) -> Step;

    /// Deliver `notification` to the recipient of each submission.
    fn submit(
        &mut self,
        context: &Context,
        notification: &Notification,
        submissions: Vec<Submission>,
    ) -> Step;

    /// All that was returned for writing has been handed to the network.
    fn written(&mut self, context: &Context) -> Step;

    /// Bytes came in, split anywhere.
    fn receive(&mut self, context: &Context, bytes: &[u8]) -> Step;

    /// The time is `context.now`.
    fn tick(&mut self, context: &Context) -> Step;

    /// No more submissions come.
    fn finish(&mut self, context: &Context) -> Step;

    /// The connection has ended.
    fn closed(&mut self, context: &Context) -> Step;
}

/// A step in which nothing happens.
pub fn step() -> Step {
    Step { write: Vec::new(), events: Vec::new(), window: 0, wake: None, close: false }
}

impl Step {
    /// Writes bytes after those that are there.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.write.last_mut() {
            Some(Chunk::Bytes(written)) => written.extend_from_slice(bytes),
            _ => self.write.push(Chunk::Bytes(bytes.to_vec())),
        }
    }

    /// Has the host write a secret.
    pub fn write_secret(&mut self, name: &str) {
        self.write.push(Chunk::Secret(name.into()));
    }

    /// The service has answered, or the protocol's own rules settle it.
    pub fn settle(&mut self, id: u64, outcome: Outcome) {
        self.events.push(Event::Settled((id, outcome)));
    }

    /// It cannot be sent on any connection.
    pub fn refuse(&mut self, id: u64, rejection: Rejection) {
        self.events.push(Event::Refused((id, rejection)));
    }

    /// The service did not process it: it goes to another connection.
    pub fn resubmit(&mut self, id: u64) {
        self.events.push(Event::Resubmit(id));
    }

    /// A target is dead since this time, in milliseconds since the Unix epoch.
    pub fn report_dead(&mut self, target: Target, since: u64) {
        self.events.push(Event::Dead((target, since)));
    }
}

/// What the component exports for a type that implements [`StreamProvider`].
#[doc(hidden)]
pub struct Exported<P>(P);

impl<P: StreamProvider> crate::bindings::exports::pushlet::provider::manifest::Guest for Exported<P> {
    fn describe() -> ProviderManifest {
        P::describe()
    }
}

impl<P: StreamProvider + 'static> session::Guest for Exported<P> {
    type Connection = Shared<P>;

    fn check_application(application: Application) -> Result<(), Rejection> {
        P::check_application(&application)
    }
}

/// The state of a connection behind the shared reference that the bindings give.
#[doc(hidden)]
pub struct Shared<P: StreamProvider>(RefCell<P::Connection>);

impl<P: StreamProvider + 'static> session::GuestConnection for Shared<P> {
    fn new(application: Application, endpoint: String, secrets: Vec<(String, u32)>) -> Self {
        Self(RefCell::new(P::connect(&application, &endpoint, &secrets)))
    }

    fn start(&self, context: Context) -> Step {
        self.0.borrow_mut().start(&context)
    }

    fn submit(&self, context: Context, notification: Notification, submissions: Vec<Submission>) -> Step {
        self.0.borrow_mut().submit(&context, &notification, submissions)
    }

    fn written(&self, context: Context) -> Step {
        self.0.borrow_mut().written(&context)
    }

    fn receive(&self, context: Context, bytes: Vec<u8>) -> Step {
        self.0.borrow_mut().receive(&context, &bytes)
    }

    fn tick(&self, context: Context) -> Step {
        self.0.borrow_mut().tick(&context)
    }

    fn finish(&self, context: Context) -> Step {
        self.0.borrow_mut().finish(&context)
    }

    fn closed(&self, context: Context) -> Step {
        self.0.borrow_mut().closed(&context)
    }
}

/// Makes the named type, which implements [`StreamProvider`], the component's export. Natively it does nothing, so
/// that unit tests link.
#[macro_export]
macro_rules! export_stream {
    ($provider:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        mod component {
            type Exported = $crate::stream::Exported<super::$provider>;
            $crate::bindings::export_manifest!(Exported with_types_in $crate::bindings);
            $crate::stream_bindings::export_session!(Exported with_types_in $crate::stream_bindings);
        }
    };
}
