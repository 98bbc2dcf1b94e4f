//! Components of the world `stream-provider`: a [`Session`] is an instance that holds the state of one connection and
//! lives as long as it. The same limits, checks, quotas and quarantine hold as for the calls of a codec.

use std::collections::HashSet;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::check::{self, MAX_TOKEN};
use super::contract::PUSH;
use super::error::ProviderError;
use super::guest::GuestState;
use super::instance::{GuestInstance, WorldFunctions};
use super::instances::{Instances, LoadedComponent};
use pushlet_model::contract::session::{self, Chunk, Event, Step, Submission};
use pushlet_model::contract::{Application, Context, Notification, Recipient, Rejection, Target};

/// The state of one connection.
pub struct Session {
    instance: GuestInstance<session::Guest>,
    connection: ResourceAny,
    /// Submissions without an event.
    in_flight: HashSet<u64>,
    /// The names of the secrets that it may have written.
    secrets: Vec<String>,
    /// The id of the application that it is for.
    application: String,
}

/// What a connection is told.
#[derive(Debug)]
pub enum SessionInput<'a> {
    Start,
    Submit(&'a Notification, &'a [Submission]),
    /// All that it returned for writing has been handed to the network.
    Written,
    Received(&'a [u8]),
    Tick,
    /// No more submissions come.
    Finish,
    Closed,
}

impl SessionInput<'_> {
    /// Returns the name of the function that is called.
    pub fn call(&self) -> &'static str {
        match self {
            Self::Start => "connection.start",
            Self::Submit(..) => "connection.submit",
            Self::Written => "connection.written",
            Self::Received(_) => "connection.receive",
            Self::Tick => "connection.tick",
            Self::Finish => "connection.finish",
            Self::Closed => "connection.closed",
        }
    }
}

impl Session {
    /// Returns the submissions that have no event yet.
    pub fn in_flight(&self) -> &HashSet<u64> {
        &self.in_flight
    }

    /// Checks what a call returned, and notes which submissions it settles.
    fn checked(&mut self, mut step: Step) -> Result<Step, ProviderError> {
        let bad = |what: &str| Err(ProviderError::BadOutput(what.into()));
        for event in &mut step.events {
            match event {
                Event::Settled((id, outcome)) if self.in_flight.remove(id) => check::outcome(outcome)?,
                Event::Refused((id, rejection)) if self.in_flight.remove(id) => {
                    let unchecked = std::mem::replace(rejection, nothing());
                    *rejection = check::rejection(unchecked);
                }
                Event::Resubmit(id) if self.in_flight.remove(id) => {}
                Event::Dead((Target::Device(token) | Target::Url(token), _))
                    if (1..=MAX_TOKEN).contains(&token.len()) => {}
                Event::Dead(_) => return bad("a dead target is no device, empty or too long"),
                _ => return bad("an event is about a submission that is not in flight"),
            }
        }
        let known = |chunk: &Chunk| match chunk {
            Chunk::Bytes(_) => true,
            Chunk::Secret(name) => self.secrets.contains(name),
        };
        match step.write.iter().all(known) {
            true => Ok(step),
            false => bad("it writes a secret that its credential does not have"),
        }
    }
}

fn nothing() -> Rejection {
    Rejection { code: String::new(), message: String::new(), field: None, more: Vec::new() }
}

impl Instances {
    /// Creates the state of a connection to an endpoint. `secrets`: the names of the credential's texts, and their
    /// lengths.
    pub fn open_session(
        &self,
        context: &Context,
        application: &Application,
        endpoint: &str,
        secrets: &[(String, u32)],
    ) -> Result<Session, ProviderError> {
        self.recorded("connection", &application.id, || {
            self.guarded(|| {
                let mut instance = self.stream_instance(context)?;
                let connection =
                    self.loaded.sandbox.call(&mut instance, &self.bounds(), 1, async |session, store| {
                        session.connection().call_constructor(store, application, endpoint, secrets).await
                    })?;
                let secrets = secrets.iter().map(|(name, _)| name.clone()).collect();
                let application = application.id.clone();
                Ok(Session { instance, connection, in_flight: HashSet::new(), secrets, application })
            })
        })
    }

    /// Tells a connection something, and returns what comes of it, checked. After an error the session is unusable.
    pub fn step(
        &self,
        session: &mut Session,
        context: &Context,
        input: &SessionInput<'_>,
    ) -> Result<Step, ProviderError> {
        let application = std::mem::take(&mut session.application);
        let step = self.recorded(input.call(), &application, || self.call_step(session, context, input));
        session.application = application;
        step
    }

    fn call_step(
        &self,
        session: &mut Session,
        context: &Context,
        input: &SessionInput<'_>,
    ) -> Result<Step, ProviderError> {
        if let SessionInput::Submit(_, submissions) = input {
            session.in_flight.extend(submissions.iter().map(|submission| submission.id));
        }
        let (connection, targets) = (session.connection, session.in_flight.len() + 1);
        let step = self.guarded(|| {
            session.instance.guest().observe_context(context);
            self.loaded.sandbox.call(
                &mut session.instance,
                &self.bounds(),
                targets,
                async |session, store| {
                    let session = session.connection();
                    match input {
                        SessionInput::Start => session.call_start(store, connection, context).await,
                        SessionInput::Submit(notification, submissions) => {
                            session.call_submit(store, connection, context, notification, submissions).await
                        }
                        SessionInput::Written => session.call_written(store, connection, context).await,
                        SessionInput::Received(bytes) => {
                            session.call_receive(store, connection, context, bytes).await
                        }
                        SessionInput::Tick => session.call_tick(store, connection, context).await,
                        SessionInput::Finish => session.call_finish(store, connection, context).await,
                        SessionInput::Closed => session.call_closed(store, connection, context).await,
                    }
                },
            )
        })?;
        self.checked(session.checked(step))
    }

    /// Hands a notification to a connection that does not exist. Returns the submissions that the component refuses,
    /// by their place among the recipients.
    pub fn try_submission(
        &self,
        context: &Context,
        application: &Application,
        secrets: &[(String, u32)],
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<Vec<(usize, Rejection)>, ProviderError> {
        let mut session = self.open_session(context, application, PUSH, secrets)?;
        self.step(&mut session, context, &SessionInput::Start)?;
        let mut refused = Vec::new();
        for (place, recipient) in recipients.iter().enumerate() {
            let submission = Submission { id: place as u64, recipient: recipient.clone() };
            let input = SessionInput::Submit(notification, std::slice::from_ref(&submission));
            let step = self.step(&mut session, context, &input)?;
            refused.extend(step.events.into_iter().filter_map(|event| match event {
                Event::Refused((id, rejection)) if id == submission.id => Some((place, rejection)),
                _ => None,
            }));
        }
        Ok(refused)
    }

    /// Checks the settings of an application.
    pub(super) fn check_stream_application(
        &self,
        context: &Context,
        application: &Application,
    ) -> Result<Result<(), Rejection>, ProviderError> {
        self.guarded(|| {
            let mut instance = self.stream_instance(context)?;
            self.loaded.sandbox.call(&mut instance, &self.bounds(), 1, async |session, store| {
                session.call_check_application(store, application).await
            })
        })
    }

    fn stream_instance(&self, context: &Context) -> Result<GuestInstance<session::Guest>, ProviderError> {
        let LoadedComponent { sandbox, component, functions, .. } = &*self.loaded;
        let WorldFunctions::Stream(functions) = functions else {
            return Err(ProviderError::Refused("session".into()));
        };
        let look_up = |store: &mut Store<GuestState>, instance: &_| functions.load(store, instance);
        let instance = sandbox.instantiate(component, &self.bounds(), &self.log, look_up)?;
        instance.guest().observe_context(context);
        Ok(instance)
    }
}
