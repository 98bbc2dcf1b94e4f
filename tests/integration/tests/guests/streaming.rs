//! What a guest of the world `stream-provider` does in the calls of a connection.

use pushlet_model::contract::session::{Event, Submission};
use pushlet_sandbox::{ProviderError, Session, SessionInput};

use super::fixture::{HostileGuest, application, bad, context, devices, hello, shared_sandbox};

/// Opens a connection whose component does what `task` says.
fn open(guest: &HostileGuest, task: &str) -> Result<Session, ProviderError> {
    let application = application(&[("do", task)]);
    let mut session = guest.0.open_session(&context(), &application, "push", &[])?;
    guest.0.step(&mut session, &context(), &SessionInput::Start)?;
    Ok(session)
}

/// Submits for two devices and receives two bytes; returns how many were settled.
fn exchange(guest: &HostileGuest, session: &mut Session) -> Result<usize, ProviderError> {
    let recipients = devices(2).into_iter().zip(0..);
    let submissions: Vec<_> = recipients.map(|(recipient, id)| Submission { id, recipient }).collect();
    let notification = hello();
    guest.0.step(session, &context(), &SessionInput::Submit(&notification, &submissions))?;
    let step = guest.0.step(session, &context(), &SessionInput::Received(&[1, 1]))?;
    Ok(step.events.iter().filter(|event| matches!(event, Event::Settled(_))).count())
}

#[test]
fn a_failure_costs_its_own_connection_alone() {
    let guest = HostileGuest::new("byte_stream");
    let mut neighbour = open(&guest, "").unwrap();
    let stranger = bad("an event is about a submission that is not in flight");
    let cases: [(&str, fn(&ProviderError) -> bool); 5] = [
        ("trap", |error| matches!(error, ProviderError::Panicked(_))),
        ("spin", |error| *error == ProviderError::TimedOut),
        ("hoard", |error| *error == ProviderError::OutOfMemory),
        ("many", |error| matches!(error, ProviderError::BadOutput(_))),
        ("connect", |error| matches!(error, ProviderError::Panicked(_))),
    ];
    for (task, is_expected) in cases {
        let result = shared_sandbox().with_victim_running(|| {
            let mut session = open(&guest, task)?;
            exchange(&guest, &mut session)
        });
        assert!(result.as_ref().is_err_and(is_expected), "{task}: {result:?}");
        assert_eq!(exchange(&guest, &mut neighbour), Ok(2), "after {task}");
    }
    for task in ["stranger", "twice"] {
        let mut session = open(&guest, task).unwrap();
        assert_eq!(exchange(&guest, &mut session), Err(stranger.clone()), "{task}");
    }
}

#[test]
fn what_it_writes_is_checked() {
    let guest = HostileGuest::new("byte_stream");
    let secret = bad("it writes a secret that its credential does not have");
    assert_eq!(open(&guest, "secret").err(), Some(secret));
    assert!(matches!(open(&guest, "much").err(), Some(ProviderError::BadOutput(_))));
    let refused = guest.0.check_application(&context(), &application(&[("do", "check")]));
    assert!(matches!(refused, Err(ProviderError::Panicked(_))), "{refused:?}");
    // It has no codec.
    let encoded = guest.0.encode(&context(), &application(&[]), &hello(), &devices(1));
    assert!(matches!(encoded, Err(ProviderError::Refused(_))), "{encoded:?}");
}
