#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::message::tests::body;
use pushlet_provider::stream::{Chunk, Event};
use pushlet_provider::{Application, CredentialFault, Disposition, Environment, Recipient, Target};

pub const NOW: u64 = 1_700_000_000_000;

pub fn settings(more: &[(&str, &str)]) -> Result<Settings, Rejection> {
    let mut settings = vec![("smpp_system_id".to_owned(), "pushlet".to_owned())];
    settings.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    Settings::of(&Application {
        id: String::new(),
        environment: Environment::Production,
        settings,
        credential: None,
    })
}

pub fn submissions(ids: impl IntoIterator<Item = u64>) -> Vec<Submission> {
    let recipient =
        |id: u64| Recipient { target: Target::Device(format!("{}", 1000 + id)), options: Vec::new() };
    ids.into_iter().map(|id| Submission { id, recipient: recipient(id) }).collect()
}

/// A session whose bind request is written, and answered with this status.
fn bound(more: &[(&str, &str)], status: u32) -> (SmppSession, Step) {
    let mut session = SmppSession::new(settings(more), 6);
    let step = session.bind(NOW);
    assert!(matches!(&*step.write, [Chunk::Bytes(_), Chunk::Secret(_), Chunk::Bytes(_)]));
    let header = Header { status, ..Header::answer(command::BIND_TRANSMITTER, 1) };
    let step = session.receive(NOW, &header.with(&[]));
    (session, step)
}

pub fn units(step: &Step) -> Vec<(Header, Vec<u8>)> {
    let mut bytes: Vec<u8> = step
        .write
        .iter()
        .flat_map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.clone(),
            Chunk::Secret(_) => vec![b'p'; 6],
        })
        .collect();
    let mut units = Vec::new();
    while let Next::Unit(header, body) = pdu::next(&mut bytes) {
        units.push((header, body));
    }
    assert!(bytes.is_empty());
    units
}

pub fn answer(sequence: u32, status: u32) -> Vec<u8> {
    let body: &[u8] = if status == 0 { b"id7\0" } else { &[] };
    Header { status, ..Header::answer(command::SUBMIT_SM, sequence) }.with(body)
}

fn dispositions(step: &Step) -> Vec<(u64, Disposition)> {
    step.events
        .iter()
        .map(|event| match event {
            Event::Settled((id, outcome)) => (*id, outcome.disposition.clone()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn messages_wait_for_the_bind() {
    let mut session = SmppSession::new(settings(&[]), 6);
    session.bind(NOW);
    let step = session.submit(NOW, &body("hi"), submissions(0..2));
    assert!(step.write.is_empty() && step.window as usize == WINDOW - 2);
    let step = session.receive(NOW, &Header::answer(command::BIND_TRANSMITTER, 1).with(b"SMSC\0"));
    assert_eq!(units(&step).iter().map(|(header, _)| header.sequence).collect::<Vec<_>>(), [2, 3]);
    let step = session.receive(NOW, &[answer(3, 0), answer(2, 0x0b)].concat());
    assert_eq!(dispositions(&step), [(1, Disposition::Delivered), (0, Disposition::Rejected)]);
    let Event::Settled((_, outcome)) = &step.events[0] else { panic!() };
    assert_eq!(outcome.id.as_deref(), Some("id7"));
}

#[test]
fn a_bind_that_is_refused_settles_all() {
    let mut session = SmppSession::new(settings(&[]), 6);
    session.bind(NOW);
    session.submit(NOW, &body("hi"), submissions(0..2));
    let step = session.receive(NOW, &Header { status: 0x0e, ..Header::answer(2, 1) }.with(&[]));
    let refused = Disposition::CredentialRejected(CredentialFault::Refused);
    assert_eq!(dispositions(&step), [(0, refused.clone()), (1, refused)]);
    assert!(step.close);
}

#[test]
fn the_window_holds_and_shrinks_while_the_service_is_slow() {
    let (mut session, _) = bound(&[("smpp_window", "4")], 0);
    let step = session.submit(NOW, &body("hi"), submissions(0..5));
    assert_eq!((units(&step).len(), step.window), (4, 0));
    assert!(matches!(&*step.events, [Event::Resubmit(4)]));
    let step = session.receive(NOW, &answer(2, 0x58));
    assert!(matches!(dispositions(&step)[..], [(0, Disposition::Throttled(_))]));
    let step = session.submit(NOW, &body("hi"), submissions(9..10));
    assert!(step.write.is_empty() && step.wake == Some(NOW + PAUSE));
    session.receive(NOW, &answer(3, 0));
    let step = session.receive(NOW + PAUSE, &answer(4, 0));
    assert_eq!(units(&step).len(), 1);
}

#[test]
fn a_message_in_parts_is_settled_as_a_whole() {
    let long = body(&"x".repeat(400));
    let (mut session, _) = bound(&[], 0);
    let sent = units(&session.submit(NOW, &long, submissions(0..1)));
    assert_eq!(sent.len(), 3);
    assert!(session.receive(NOW, &[answer(2, 0), answer(3, 0)].concat()).events.is_empty());
    assert_eq!(dispositions(&session.receive(NOW, &answer(4, 0))), [(0, Disposition::Delivered)]);

    let (mut session, _) = bound(&[("smpp_window", "1")], 0);
    session.submit(NOW, &long, submissions(0..1));
    session.receive(NOW, &answer(2, 0));
    let step = session.receive(NOW, &answer(3, 0x58));
    assert_eq!(dispositions(&step), [(0, Disposition::Unknown)], "its first part would arrive twice");

    let (mut session, _) = bound(&[("smpp_window", "1")], 0);
    session.submit(NOW, &long, submissions(0..1));
    let step = session.receive(NOW, &answer(2, 0x0b));
    assert_eq!(dispositions(&step), [(0, Disposition::Rejected)]);
    assert_eq!(step.window, 1);
}

#[test]
fn the_services_requests_are_answered() {
    let (mut session, _) = bound(&[], 0);
    let receipt = Header::request(command::DELIVER_SM, 9).with(&[0; 40]);
    let enquiry = Header::request(command::ENQUIRE_LINK, 10).with(&[]);
    let strange = Header::request(0x21, 11).with(&[]);
    let step = session.receive(NOW, &[receipt, enquiry, strange].concat());
    let written = units(&step);
    assert_eq!(written[0], (Header::answer(command::DELIVER_SM, 9), vec![0]));
    assert_eq!(written[1].0, Header::answer(command::ENQUIRE_LINK, 10));
    assert_eq!(written[2].0, Header::nack(3, 11));
}

#[test]
fn silence_is_asked_about_and_ends_the_connection() {
    let (mut session, step) = bound(&[], 0);
    assert_eq!(step.wake, Some(NOW + ENQUIRE_AFTER));
    let step = session.tick(NOW + ENQUIRE_AFTER);
    assert_eq!(units(&step)[0].0, Header::request(command::ENQUIRE_LINK, 2));
    let step = session.receive(NOW + ENQUIRE_AFTER, &Header::answer(command::ENQUIRE_LINK, 2).with(&[]));
    assert!(!step.close && step.wake == Some(NOW + 2 * ENQUIRE_AFTER));
    session.tick(NOW + 2 * ENQUIRE_AFTER);
    assert!(session.tick(NOW + 2 * ENQUIRE_AFTER + ENQUIRY_TIMEOUT).close);
}

#[test]
fn what_gets_no_answer_is_unknown_and_a_late_answer_is_left_out() {
    let (mut session, _) = bound(&[], 0);
    session.submit(NOW, &body("hi"), submissions(0..1));
    assert_eq!(dispositions(&session.tick(NOW + ANSWER_TIMEOUT)), [(0, Disposition::Unknown)]);
    assert!(session.receive(NOW + ANSWER_TIMEOUT, &answer(2, 0)).events.is_empty());
}

#[test]
fn an_unbind_gives_back_what_was_not_written() {
    let (mut session, _) = bound(&[("smpp_window", "2")], 0);
    session.submit(NOW, &body("hi"), submissions(0..1));
    session.receive(NOW, &answer(2, 0x58));
    session.submit(NOW, &body("hi"), submissions(1..3));
    let step = session.receive(NOW, &Header::request(command::UNBIND, 5).with(&[]));
    assert!(matches!(&*step.events, [Event::Resubmit(1), Event::Resubmit(2)]));
    assert!(step.close && units(&step)[0].0 == Header::answer(command::UNBIND, 5));
}

#[test]
fn it_unbinds_once_it_has_finished() {
    let (mut session, _) = bound(&[], 0);
    session.submit(NOW, &body("hi"), submissions(0..1));
    assert!(session.finish(NOW).write.is_empty());
    let step = session.receive(NOW, &answer(2, 0));
    assert_eq!(units(&step)[0].0, Header::request(command::UNBIND, 3));
    assert!(!step.close);
    assert!(session.receive(NOW, &Header::answer(command::UNBIND, 3).with(&[])).close);
}

#[test]
fn a_password_that_does_not_fit_is_refused() {
    let mut session = SmppSession::new(settings(&[]), 9);
    session.bind(NOW);
    let step = session.submit(NOW, &body("hi"), submissions(0..1));
    assert!(
        matches!(&*step.events, [Event::Refused((0, rejection))] if rejection.code == "invalid_smpp_password")
    );
}

#[test]
fn settings_are_checked() {
    assert!(settings(&[("smpp_window", "1000"), ("smpp_source_address", "Pushlet")]).is_ok());
    for (name, value) in [
        ("smpp_window", "0"),
        ("smpp_window", "x"),
        ("smpp_system_type", "thirteenlong!"),
        ("smpp_service_type", "é"),
        ("smpp_source_address", "é"),
    ] {
        assert_eq!(settings(&[(name, value)]).unwrap_err().field.as_deref(), Some(name));
    }
    let rejection = settings(&[("smpp_window", "0"), ("smpp_source_address", "é")]).unwrap_err();
    assert_eq!(rejection.more.len(), 1);
}
