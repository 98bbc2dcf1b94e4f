#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::payload::tests::text;
use proptest::prelude::*;
use pushlet_provider::Recipient;
use pushlet_provider::stream::{Chunk, Event};

const TOKEN_TEXT: &str = "fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9a2";
const NOW: u64 = 1_700_000_000_000;

fn submissions(ids: impl IntoIterator<Item = u64>) -> Vec<Submission> {
    let recipient = Recipient { target: Target::Device(TOKEN_TEXT.into()), options: Vec::new() };
    ids.into_iter().map(|id| Submission { id, recipient: recipient.clone() }).collect()
}

fn session() -> GatewaySession {
    GatewaySession::new(Settings::default())
}

/// Sends `count` notifications, with the numbers from 0 on and the identifiers from 1 on.
fn sent(count: u64) -> GatewaySession {
    let mut session = session();
    let step = session.submit(NOW, &text("hi"), submissions(0..count));
    assert!(step.events.is_empty() && step.window as usize == WINDOW - count as usize);
    session.written(NOW);
    session
}

fn packet(status: u8, identifier: u32) -> Vec<u8> {
    [&[8, status][..], &identifier.to_be_bytes()].concat()
}

/// Sorts the events: delivered, settled otherwise, resubmitted.
fn sorted(step: &Step) -> (Vec<u64>, Vec<(u64, Disposition)>, Vec<u64>) {
    let (mut accepted, mut others, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for event in &step.events {
        match event {
            Event::Settled((id, outcome)) if outcome.disposition == Disposition::Delivered => {
                accepted.push(*id)
            }
            Event::Settled((id, outcome)) => others.push((*id, outcome.disposition.clone())),
            Event::Resubmit(id) => again.push(*id),
            other => panic!("{other:?}"),
        }
    }
    (accepted, others, again)
}

#[test]
fn an_error_packet_settles_all() {
    let step = sent(5).receive(NOW, &packet(8, 3));
    assert_eq!(sorted(&step), (vec![0, 1], vec![(2, Disposition::Rejected)], vec![3, 4]));
    assert!(step.close && step.window == 0);
}

#[test]
fn a_shutdown_names_the_last_one_that_was_accepted() {
    let step = sent(5).receive(NOW, &packet(10, 3));
    assert_eq!(sorted(&step), (vec![0, 1, 2], vec![], vec![3, 4]));
}

#[test]
fn an_error_packet_may_name_what_counts_as_delivered_already() {
    let mut session = sent(2);
    assert_eq!(sorted(&session.tick(NOW + SETTLE)).0, [0, 1]);
    session.submit(NOW + SETTLE, &text("hi"), submissions(2..4));
    assert_eq!(sorted(&session.receive(NOW + SETTLE, &packet(8, 1))).2, [2, 3]);
}

#[test]
fn an_error_packet_that_names_nothing_proves_nothing() {
    for packet in [packet(8, 0), packet(8, 9), packet(10, 0), packet(128, u32::MAX), packet(0, 1), vec![9; 6]]
    {
        let (accepted, others, again) = sorted(&sent(2).receive(NOW, &packet));
        assert_eq!((accepted.len(), others.len(), again.len()), (0, 2, 0), "{packet:?}");
        assert!(others.iter().all(|(_, disposition)| *disposition == Disposition::Unknown));
    }
}

#[test]
fn nothing_is_settled_by_time_before_it_was_written() {
    let mut session = session();
    let step = session.submit(NOW, &text("hi"), submissions(0..1));
    assert_eq!(step.wake, None);
    assert!(session.tick(NOW + 10 * SETTLE).events.is_empty());
    assert_eq!(session.written(NOW + 10 * SETTLE).wake, Some(NOW + 11 * SETTLE));
    assert!(session.tick(NOW + 11 * SETTLE - 1).events.is_empty());
    assert_eq!(sorted(&session.tick(NOW + 11 * SETTLE)).0, [0]);
}

#[test]
fn nothing_is_settled_by_time_while_an_error_packet_comes_in() {
    let mut session = sent(2);
    session.receive(NOW, &packet(8, 1)[..3]);
    assert!(session.tick(NOW + SETTLE).events.is_empty());
    let step = session.receive(NOW + SETTLE, &packet(8, 1)[3..]);
    assert_eq!(sorted(&step), (vec![], vec![(0, Disposition::Rejected)], vec![1]));
}

#[test]
fn a_connection_that_ends_without_a_word_leaves_the_outcome_unknown() {
    let (_, others, _) = sorted(&sent(2).closed(NOW));
    assert_eq!(others, [(0, Disposition::Unknown), (1, Disposition::Unknown)]);
}

#[test]
fn identifiers_wrap_around() {
    let mut session = session();
    session.first = u32::MAX - 1;
    session.submit(NOW, &text("hi"), submissions(0..4));
    // MAX - 1, MAX, 0, 1
    let step = session.receive(NOW, &packet(8, 1));
    assert_eq!(sorted(&step), (vec![0, 1, 2], vec![(3, Disposition::Rejected)], vec![]));
}

#[test]
fn a_wrong_target_or_message_costs_nobody_else() {
    let mut session = session();
    let mut list = submissions(0..3);
    list[1].recipient.target = Target::Device("zz".into());
    let step = session.submit(NOW, &text("hi"), list);
    assert!(
        matches!(&*step.events, [Event::Refused((1, rejection))] if rejection.code == "invalid_device_token")
    );
    let step = session.submit(NOW, &Notification::default(), submissions(7..8));
    assert!(matches!(&*step.events, [Event::Refused((7, rejection))] if rejection.code == "missing_alert"));
    assert_eq!(session.sent.len(), 2);
}

#[test]
fn it_closes_once_it_has_finished() {
    let mut session = sent(1);
    assert!(!session.finish(NOW).close);
    let step = session.tick(NOW + SETTLE);
    assert!(step.close && step.events.len() == 1);
    assert!(super::tests::session().finish(NOW).close);
}

#[test]
fn settings_are_checked() {
    let with = |name: &str, value: &str| {
        let settings = vec![(name.to_owned(), value.to_owned())];
        let environment = pushlet_provider::Environment::Production;
        Settings::of(&Application { id: String::new(), environment, settings, credential: None }).map(drop)
    };
    assert!(with("settle_time", "50").is_ok() && with("command", "1").is_ok());
    for (name, value) in
        [("settle_time", "49"), ("settle_time", "20001"), ("settle_time", "x"), ("command", "0")]
    {
        assert_eq!(with(name, value).unwrap_err().field.as_deref(), Some(name));
    }
}

/// What happens next on a connection.
#[derive(Debug, Clone)]
enum Action {
    Submit(u8),
    /// So many bytes of what was written arrive at the gateway, split there.
    Deliver(usize),
    /// The gateway's answer arrives, so many bytes of it.
    Receive(usize),
    /// Milliseconds pass.
    Wait(u64),
    Shutdown,
    Close,
    Finish,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (1_u8..20).prop_map(Action::Submit),
        8 => (1_usize..400).prop_map(Action::Deliver),
        4 => (1_usize..8).prop_map(Action::Receive),
        2 => (0_u64..400).prop_map(Action::Wait),
        1 => Just(Action::Shutdown),
        1 => Just(Action::Close),
        1 => Just(Action::Finish),
    ];
    prop::collection::vec(action, 1..80)
}

/// A gateway that knows which tokens are bad, and what it accepted.
#[derive(Default)]
struct Gateway {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// By the first bytes of the token, in which the test writes the number.
    accepted: BTreeMap<u64, u32>,
    last: u32,
    is_closed: bool,
}

impl Gateway {
    /// Reads whole notifications. A number that 7 divides is a bad token.
    fn read(&mut self) {
        while !self.is_closed && self.inbox.len() >= 5 {
            let length = u32::from_be_bytes(self.inbox[1..5].try_into().unwrap()) as usize;
            if self.inbox.len() < 5 + length {
                return;
            }
            let frame: Vec<u8> = self.inbox.drain(..5 + length).skip(5).collect();
            let number = u64::from_be_bytes(frame[3..11].try_into().unwrap());
            let payload = u16::from_be_bytes(frame[36..38].try_into().unwrap()) as usize;
            let identifier = u32::from_be_bytes(frame[41 + payload..45 + payload].try_into().unwrap());
            if number % 7 == 3 {
                self.end(8, identifier);
            } else {
                *self.accepted.entry(number).or_default() += 1;
                self.last = identifier;
            }
        }
    }

    fn end(&mut self, status: u8, identifier: u32) {
        if !self.is_closed {
            self.outbox = packet(status, identifier);
            self.is_closed = true;
        }
    }
}

/// The client's side of one connection, and the network between the two.
struct Run {
    session: GatewaySession,
    gateway: Gateway,
    wire: Vec<u8>,
    now: u64,
    next: u64,
    settled: BTreeMap<u64, Event>,
    /// An error packet came too late for something that counted as delivered.
    late: bool,
    ended: bool,
}

impl Run {
    fn new() -> Self {
        let settings = Settings { settle: 300, command: Command::Framed };
        let (session, gateway) = (GatewaySession::new(settings), Gateway::default());
        Self {
            session,
            gateway,
            wire: Vec::new(),
            now: NOW,
            next: 0,
            settled: BTreeMap::new(),
            late: false,
            ended: false,
        }
    }

    fn take(&mut self, step: Step) {
        assert!(step.window as usize <= WINDOW);
        for chunk in step.write {
            let Chunk::Bytes(bytes) = chunk else { panic!("there are no secrets") };
            self.wire.extend(bytes);
        }
        for event in step.events {
            let (Event::Settled((id, _)) | Event::Refused((id, _)) | Event::Resubmit(id)) = event else {
                panic!("no token is reported dead here")
            };
            assert!(id < self.next, "{id} was never submitted");
            assert!(self.settled.insert(id, event).is_none(), "{id} was settled twice");
        }
        self.ended |= step.close;
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Submit(count) => self.submit(u64::from(count)),
            Action::Deliver(count) => {
                let count = count.min(self.wire.len());
                self.gateway.inbox.extend(self.wire.drain(..count));
                self.gateway.read();
                if self.wire.is_empty() {
                    let step = self.session.written(self.now);
                    self.take(step);
                }
            }
            Action::Receive(count) => {
                let count = count.min(self.gateway.outbox.len());
                let bytes: Vec<u8> = self.gateway.outbox.drain(..count).collect();
                let step = self.session.receive(self.now, &bytes);
                self.take(step);
            }
            Action::Wait(time) => {
                self.now += time;
                let before = self.settled.len();
                let step = self.session.tick(self.now);
                self.take(step);
                self.late |= self.gateway.is_closed && self.settled.len() > before;
            }
            Action::Shutdown => self.gateway.end(10, self.gateway.last),
            Action::Close => self.ended = true,
            Action::Finish => {
                let step = self.session.finish(self.now);
                self.take(step);
            }
        }
    }

    fn submit(&mut self, count: u64) {
        let ids = self.next..self.next + count;
        self.next = ids.end;
        let with_number = |id: u64| {
            let token = format!("{id:016x}{}", &TOKEN_TEXT[16..]);
            Submission { id, recipient: Recipient { target: Target::Device(token), options: Vec::new() } }
        };
        let step = self.session.submit(self.now, &text("hi"), ids.map(with_number).collect());
        self.take(step);
    }

    fn end(&mut self) {
        let step = self.session.closed(self.now);
        self.take(step);
    }

    /// What each event says is true of the gateway.
    fn check(&self) {
        let all: BTreeSet<u64> = (0..self.next).collect();
        assert_eq!(self.settled.keys().copied().collect::<BTreeSet<_>>(), all, "some were never settled");
        for (id, event) in &self.settled {
            let accepted = self.gateway.accepted.get(id).copied().unwrap_or(0);
            assert!(accepted <= 1, "{id} was sent twice on one connection");
            match event {
                // The settle time is the limit of what this protocol can tell.
                Event::Settled((_, Outcome { disposition: Disposition::Delivered, .. })) => {
                    assert!(accepted == 1 || self.late, "{id} was not accepted");
                }
                Event::Settled((_, Outcome { disposition: Disposition::Rejected, .. })) => {
                    assert_eq!((accepted, id % 7), (0, 3), "{id}");
                }
                Event::Resubmit(_) => assert_eq!(accepted, 0, "{id} would be delivered twice"),
                Event::Settled((_, Outcome { disposition: Disposition::Unknown, .. })) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    // `PROPTEST_CASES=10000 cargo test -p pushlet-apns-binary` runs as many as a change of this file deserves.
    #[test]
    fn every_target_is_settled_once_and_truthfully(actions in actions()) {
        let mut run = Run::new();
        for action in &actions {
            if run.ended { break }
            run.act(action);
        }
        run.end();
        run.check();
    }

    #[test]
    fn any_bytes_settle_every_target_once(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20),
        count in 0_u64..30,
    ) {
        let mut run = Run::new();
        run.submit(count);
        for part in parts {
            let step = run.session.receive(run.now, &part);
            run.take(step);
        }
        run.end();
        prop_assert_eq!(run.settled.len() as u64, count);
    }
}
