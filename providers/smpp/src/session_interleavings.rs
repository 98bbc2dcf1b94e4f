#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
//! Whatever is written, answered and ended, and in whatever order: every message is settled once.
use std::collections::{BTreeMap, BTreeSet};

use super::tests::{NOW, answer, settings, submissions, units};
use super::*;
use crate::message::tests::body;
use proptest::prelude::*;
use pushlet_provider::Disposition;
use pushlet_provider::stream::Event;

/// What happens next on a connection.
#[derive(Debug, Clone)]
enum Action {
    Submit(u8, bool),
    /// So many of the client's bytes arrive at the service.
    Deliver(usize),
    /// So many of the service's bytes arrive at the client.
    Receive(usize),
    Wait(u64),
    /// The service answers the requests that it holds, the last one first or in order, with this status.
    Answer(bool, u32),
    /// The service asks something of its own.
    Ask(u32),
    Unbind,
    Close,
    Finish,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let status =
        prop_oneof![6 => Just(0_u32), 1 => Just(0x58), 1 => Just(0x0b), 1 => Just(0xff), 1 => Just(0x08)];
    let action = prop_oneof![
        6 => (1_u8..6, prop::bool::weighted(0.3)).prop_map(|(count, long)| Action::Submit(count, long)),
        8 => (1_usize..600).prop_map(Action::Deliver),
        8 => (1_usize..80).prop_map(Action::Receive),
        6 => (any::<bool>(), status).prop_map(|(order, status)| Action::Answer(order, status)),
        2 => prop_oneof![0_u64..3000, Just(ANSWER_TIMEOUT), Just(ENQUIRE_AFTER)].prop_map(Action::Wait),
        2 => prop_oneof![Just(0x05_u32), Just(0x15), Just(0x102), Just(0x99)].prop_map(Action::Ask),
        1 => Just(Action::Unbind),
        1 => Just(Action::Close),
        1 => Just(Action::Finish),
    ];
    prop::collection::vec(action, 1..100)
}

/// A message centre.
#[derive(Default)]
struct Service {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    held: Vec<(Header, Vec<u8>)>,
    /// Parts that it accepted, by number and part.
    accepted: BTreeMap<(u64, u8), u32>,
    bind: u32,
}

impl Service {
    fn read(&mut self) {
        while let Next::Unit(header, body) = pdu::next(&mut self.inbox) {
            let (Header { command, sequence, .. }, status) = (header, self.bind);
            match command {
                command::BIND_TRANSMITTER => {
                    self.outbox.extend(Header { status, ..Header::answer(command, sequence) }.with(&[]));
                }
                command::SUBMIT_SM => self.held.push((header, body)),
                command::ENQUIRE_LINK | command::UNBIND => {
                    self.outbox.extend(Header::answer(command, sequence).with(&[]));
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, last_first: bool, status: u32) {
        if last_first {
            self.held.reverse();
        }
        for (header, body) in std::mem::take(&mut self.held) {
            if status == 0 {
                // service_type, source; then the number, the message after 12 further octets
                let rest = &body[1 + 2 + 1 + 2..];
                let end = rest.iter().position(|byte| *byte == 0).unwrap();
                let number: u64 = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
                let has_header = rest[end + 1] & 0x40 != 0;
                let message = &rest[end + 11..];
                let part = if has_header { message[5] } else { 0 };
                *self.accepted.entry((number - 1000, part)).or_default() += 1;
            }
            self.outbox.extend(answer(header.sequence, status));
        }
    }
}

struct Run {
    session: SmppSession,
    service: Service,
    wire: Vec<u8>,
    now: u64,
    next: u64,
    long: BTreeSet<u64>,
    settled: BTreeMap<u64, Event>,
    ended: bool,
}

impl Run {
    fn new(bind: u32) -> Self {
        let session = SmppSession::new(settings(&[("smpp_window", "5")]), 6);
        let service = Service { bind, ..Service::default() };
        let (settled, long) = (BTreeMap::new(), BTreeSet::new());
        let mut run =
            Self { session, service, wire: Vec::new(), now: NOW, next: 0, long, settled, ended: false };
        let step = run.session.bind(NOW);
        run.take(step);
        run
    }

    fn take(&mut self, step: Step) {
        assert!(step.window <= 5);
        assert!(self.session.requests.len() <= 5);
        assert!(step.wake.is_none_or(|wake| wake > self.now));
        for (header, body) in units(&step) {
            self.wire.extend(header.with(&body));
        }
        for event in step.events {
            let (Event::Settled((id, _)) | Event::Refused((id, _)) | Event::Resubmit(id)) = event else {
                panic!("no number is reported dead")
            };
            assert!(id < self.next, "{id} was never submitted");
            assert!(self.settled.insert(id, event).is_none(), "{id} was settled twice");
        }
        self.ended |= step.close;
    }

    fn act(&mut self, action: &Action) {
        let step = match *action {
            Action::Submit(count, long) => {
                let ids = self.next..self.next + u64::from(count);
                self.next = ids.end;
                if long {
                    self.long.extend(ids.clone());
                }
                let text = body(&"x".repeat(if long { 330 } else { 5 }));
                self.session.submit(self.now, &text, submissions(ids))
            }
            Action::Deliver(count) => {
                let count = count.min(self.wire.len());
                self.service.inbox.extend(self.wire.drain(..count));
                self.service.read();
                return;
            }
            Action::Receive(count) => {
                let count = count.min(self.service.outbox.len());
                let bytes: Vec<u8> = self.service.outbox.drain(..count).collect();
                self.session.receive(self.now, &bytes)
            }
            Action::Wait(time) => {
                self.now += time;
                self.session.tick(self.now)
            }
            Action::Answer(order, status) => return self.service.answer(order, status),
            Action::Ask(command) => {
                return self.service.outbox.extend(Header::request(command, 77).with(&[0; 9]));
            }
            Action::Unbind => {
                return self.service.outbox.extend(Header::request(command::UNBIND, 78).with(&[]));
            }
            Action::Finish => self.session.finish(self.now),
            Action::Close => {
                self.ended = true;
                return;
            }
        };
        self.take(step);
    }

    fn end(&mut self) {
        let step = self.session.closed(self.now);
        self.take(step);
        assert!(self.session.pending.is_empty() && self.session.waiting.is_empty());
    }

    fn check(&self) {
        let all: BTreeSet<u64> = (0..self.next).collect();
        assert_eq!(self.settled.keys().copied().collect::<BTreeSet<_>>(), all, "some were never settled");
        assert!(self.service.accepted.values().all(|count| *count == 1), "a part was sent twice");
        for (id, event) in &self.settled {
            let accepted = self.service.accepted.range((*id, 0)..=(*id, u8::MAX)).count();
            let parts = if self.long.contains(id) { 3 } else { 1 };
            match event {
                Event::Settled((_, outcome)) => match outcome.disposition {
                    Disposition::Delivered => assert_eq!(accepted, parts, "{id}"),
                    Disposition::Unknown => {}
                    _ => assert_eq!(accepted, 0, "{id} was accepted in part: {outcome:?}"),
                },
                Event::Resubmit(_) => assert_eq!(accepted, 0, "{id} would be delivered twice"),
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    // `PROPTEST_CASES=10000 cargo test -p pushlet-smpp` runs as many as a change of this file deserves.
    #[test]
    fn every_message_is_settled_once_and_truthfully(
        bind in prop_oneof![9 => Just(0_u32), 1 => Just(0x0e)],
        actions in actions(),
    ) {
        let mut run = Run::new(bind);
        for action in &actions {
            if run.ended { break }
            run.act(action);
        }
        run.end();
        run.check();
    }

    #[test]
    fn any_bytes_settle_every_message_once(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        count in 0_u8..9,
    ) {
        let mut run = Run::new(0);
        run.act(&Action::Submit(count, false));
        for part in parts {
            let step = run.session.receive(run.now, &part);
            run.take(step);
        }
        run.end();
        prop_assert_eq!(run.settled.len() as u64, u64::from(count));
    }
}
