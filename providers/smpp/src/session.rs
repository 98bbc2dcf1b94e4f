//! One connection to a message centre: bind, requests and their answers, keep-alive, unbind.
//!
//! A message is one request or several. It is settled once each of its requests is answered; what was never written
//! can be submitted again, and what was written without an answer is unknown.

use std::collections::{BTreeMap, VecDeque};

use crate::manifest::PASSWORD;
use crate::message::{Message, destination};
use crate::pdu::{self, ANSWER, Header, LAST_SEQUENCE, Next, command};
use crate::pending::{Pending, unknown};
use crate::settings::{Settings, WINDOW};
use crate::status;
use pushlet_provider::input::invalid;
use pushlet_provider::stream::{Step, Submission, step};
use pushlet_provider::{Notification, Rejection};

/// Milliseconds (section 7.2): until the bind request, a message or an enquiry must be answered, …
const BIND_TIMEOUT: u64 = 10_000;
const ANSWER_TIMEOUT: u64 = 20_000;
const ENQUIRY_TIMEOUT: u64 = 10_000;
const UNBIND_TIMEOUT: u64 = 3_000;
/// … of silence after which the service is asked whether it is there, …
const ENQUIRE_AFTER: u64 = 30_000;
/// … and without a message after the service said that they are too many.
const PAUSE: u64 = 1_000;
/// Longest password: nine octets with the zero that ends it.
const LONGEST_PASSWORD: usize = 8;

/// A request that waits for its answer.
#[derive(Debug)]
struct Request {
    /// The host's number of its message.
    message: u64,
    since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The bind request is to be written, or was written then.
    Binding(u64),
    Bound,
    /// The unbind request was written then.
    Unbinding(u64),
    Ended,
}

/// The state of one connection.
#[derive(Debug)]
pub struct SmppSession {
    /// `Err`: why nothing can be sent.
    settings: Result<Settings, Rejection>,
    /// The length of the password.
    password: usize,
    state: State,
    sequence: u32,
    /// Of the last message in parts.
    reference: u8,
    pending: BTreeMap<u64, Pending>,
    /// Messages with requests that were not written.
    waiting: VecDeque<u64>,
    /// By their sequence numbers.
    requests: BTreeMap<u32, Request>,
    /// How many of these there may be now: fewer while the service says that they are too many.
    allowed: usize,
    paused_until: u64,
    /// The sequence number of an enquiry without an answer, and its time.
    enquiry: Option<(u32, u64)>,
    last_received: u64,
    received: Vec<u8>,
    /// No more submissions come.
    finishing: bool,
}

impl SmppSession {
    /// Creates the state of a connection on which nothing was written. `password`: its length.
    pub fn new(settings: Result<Settings, Rejection>, password: usize) -> Self {
        let settings = settings.and_then(|settings| match password <= LONGEST_PASSWORD {
            true => Ok(settings),
            false => Err(invalid(PASSWORD, "smpp_password must be at most 8 bytes long")),
        });
        let allowed = settings.as_ref().map_or(0, |settings| settings.window);
        Self {
            settings,
            password,
            state: State::Binding(0),
            sequence: 0,
            reference: 0,
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
            requests: BTreeMap::new(),
            allowed,
            paused_until: 0,
            enquiry: None,
            last_received: 0,
            received: Vec::new(),
            finishing: false,
        }
    }

    /// Writes the bind request.
    pub fn bind(&mut self, now: u64) -> Step {
        let mut step = step();
        self.state = State::Binding(now);
        self.last_received = now;
        // So that the parts of messages on two connections are not taken for those of one.
        self.reference = (now / 1000).to_le_bytes()[0];
        let sequence = self.next_sequence();
        if let Ok(Settings { bind, system_id, system_type, .. }) = &self.settings {
            let (before, after) = pdu::bind(*bind, sequence, system_id, self.password, system_type);
            step.write(&before);
            step.write_secret(PASSWORD);
            step.write(&after);
        }
        self.done(now, step)
    }

    /// Takes a message for each recipient; it is written as soon as the window allows.
    pub fn submit(&mut self, now: u64, notification: &Notification, submissions: Vec<Submission>) -> Step {
        let mut step = step();
        let settings = self.settings.clone();
        let message = settings.as_ref().map_err(Clone::clone).and_then(|settings| {
            let message = Message::of(notification, &settings.source, &settings.service_type)?;
            Ok((message, settings))
        });
        for Submission { id, recipient } in submissions {
            self.reference = self.reference.wrapping_add(1);
            let parts = message.as_ref().map_err(Clone::clone).and_then(|(message, settings)| {
                message.parts(&destination(&recipient.target)?, settings.long, self.reference)
            });
            match parts {
                Err(rejection) => step.refuse(id, rejection),
                Ok(_) if self.room() == 0 || self.pending.contains_key(&id) => step.resubmit(id),
                Ok(parts) => {
                    self.pending.insert(id, Pending { unsent: parts.into(), ..Pending::default() });
                    self.waiting.push_back(id);
                }
            }
        }
        self.done(now, step)
    }

    /// Takes what the service wrote.
    pub fn receive(&mut self, now: u64, bytes: &[u8]) -> Step {
        let mut step = step();
        self.last_received = now;
        self.received.extend_from_slice(bytes);
        while self.state != State::Ended {
            match pdu::next(&mut self.received) {
                Next::Incomplete => break,
                Next::Unit(header, body) => self.take(now, header, &body, &mut step),
                Next::BadLength(sequence) => {
                    step.write(&Header::nack(status::BAD_LENGTH, sequence).with(&[]));
                    self.state = State::Ended;
                }
            }
        }
        self.done(now, step)
    }

    /// Gives up what has waited too long, and asks whether the service is still there.
    pub fn tick(&mut self, now: u64) -> Step {
        let mut step = step();
        let is_over = |since: u64, timeout: u64| now >= since.saturating_add(timeout);
        match (self.state, self.enquiry) {
            (State::Binding(since), _) if is_over(since, BIND_TIMEOUT) => self.state = State::Ended,
            (State::Unbinding(since), _) if is_over(since, UNBIND_TIMEOUT) => self.state = State::Ended,
            (State::Bound, Some((_, since))) if is_over(since, ENQUIRY_TIMEOUT) => self.state = State::Ended,
            (State::Bound, None) if is_over(self.last_received, ENQUIRE_AFTER) => {
                let sequence = self.next_sequence();
                self.enquiry = Some((sequence, now));
                step.write(&Header::request(command::ENQUIRE_LINK, sequence).with(&[]));
            }
            _ => {}
        }
        let late = self.requests.iter().filter(|(_, request)| is_over(request.since, ANSWER_TIMEOUT));
        for sequence in late.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            self.answered(sequence, &mut step, |pending| {
                pending.lost = true;
                pending.unsent.clear();
            });
        }
        self.done(now, step)
    }

    /// Unbinds once every message is settled.
    pub fn finish(&mut self, now: u64) -> Step {
        self.finishing = true;
        self.done(now, step())
    }

    /// The connection has ended.
    pub fn closed(&mut self, now: u64) -> Step {
        let mut step = step();
        self.state = State::Ended;
        self.give_back(&mut step);
        let lost = unknown("the connection ended before the service answered");
        std::mem::take(&mut self.pending).into_keys().for_each(|id| step.settle(id, lost.clone()));
        self.done(now, step)
    }

    fn take(&mut self, now: u64, header: Header, body: &[u8], step: &mut Step) {
        let Header { command, sequence, .. } = header;
        let answer = |command| Header::answer(command, sequence);
        match command {
            command::ENQUIRE_LINK => step.write(&answer(command).with(&[])),
            // A service sends no more of them until these are answered.
            command::DELIVER_SM | command::DATA_SM => step.write(&answer(command).with(&[0])),
            command::ALERT_NOTIFICATION | command::OUTBIND => {}
            command::UNBIND => {
                step.write(&answer(command).with(&[]));
                self.give_back(step);
                self.state = State::Ended;
            }
            command if command & ANSWER != 0 => self.take_answer(now, header, body, step),
            _ => step.write(&Header::nack(status::BAD_COMMAND, sequence).with(&[])),
        }
    }

    fn take_answer(
        &mut self,
        now: u64,
        Header { command, status, sequence }: Header,
        body: &[u8],
        step: &mut Step,
    ) {
        if self.enquiry.is_some_and(|(enquiry, _)| enquiry == sequence) {
            self.enquiry = None;
        } else if let State::Binding(_) = self.state {
            // The bind request is the first one.
            if sequence == 1 {
                self.bound(command, status, step);
            }
        } else if let State::Unbinding(_) = self.state {
            if command == command::UNBIND | ANSWER {
                self.state = State::Ended;
            }
        } else if command == command::SUBMIT_SM | ANSWER || command == command::GENERIC_NACK {
            // A nack is a refusal, whatever its status is.
            let status = if command == command::GENERIC_NACK { status.max(1) } else { status };
            self.take_result(now, status, sequence, body, step);
        }
    }

    fn bound(&mut self, command: u32, status: u32, step: &mut Step) {
        if status == 0 && command != command::GENERIC_NACK {
            self.state = State::Bound;
            return;
        }
        self.state = State::Ended;
        self.waiting.clear();
        let outcome = status::bind_outcome(status);
        std::mem::take(&mut self.pending).into_keys().for_each(|id| step.settle(id, outcome.clone()));
    }

    fn take_result(&mut self, now: u64, status: u32, sequence: u32, body: &[u8], step: &mut Step) {
        if !self.requests.contains_key(&sequence) {
            // Too late, or of no request.
            return;
        }
        if status::is_too_fast(status) {
            self.allowed = (self.allowed / 2).max(1);
            self.paused_until = now.saturating_add(PAUSE);
        } else {
            let window = self.settings.as_ref().map_or(0, |settings| settings.window);
            self.allowed = (self.allowed + 1).min(window);
        }
        self.answered(sequence, step, |pending| match status {
            0 => {
                pending.accepted += 1;
                pending.id = pending.id.take().or_else(|| pdu::leading_text(body));
            }
            status => {
                pending.failure.get_or_insert_with(|| status::outcome(status, PAUSE));
                // A message without one of its parts is not shown.
                pending.unsent.clear();
            }
        });
    }

    /// A request is no longer in flight: notes what that means, and settles its message if it was the last one.
    fn answered(&mut self, sequence: u32, step: &mut Step, note: impl FnOnce(&mut Pending)) {
        let Some(Request { message: id, .. }) = self.requests.remove(&sequence) else { return };
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.unanswered -= 1;
        note(pending);
        if pending.unsent.is_empty() {
            self.waiting.retain(|waiting| *waiting != id);
            if pending.unanswered == 0
                && let Some(pending) = self.pending.remove(&id)
            {
                step.settle(id, pending.outcome());
            }
        }
    }

    /// Returns messages of which nothing was written.
    fn give_back(&mut self, step: &mut Step) {
        for id in std::mem::take(&mut self.waiting) {
            let untouched =
                self.pending.get(&id).is_some_and(|pending| pending.unanswered + pending.accepted == 0);
            if untouched {
                self.pending.remove(&id);
                step.resubmit(id);
            }
        }
    }

    /// Writes what the window allows.
    fn flush(&mut self, now: u64, step: &mut Step) {
        while self.state == State::Bound && now >= self.paused_until && self.requests.len() < self.allowed {
            let Some(&id) = self.waiting.front() else { return };
            let sequence = self.next_sequence();
            let Some(pending) = self.pending.get_mut(&id) else { return };
            if let Some(part) = pending.unsent.pop_front() {
                pending.unanswered += 1;
                step.write(&Header::request(command::SUBMIT_SM, sequence).with(&part.body()));
                self.requests.insert(sequence, Request { message: id, since: now });
            }
            if pending.unsent.is_empty() {
                self.waiting.pop_front();
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = if self.sequence >= LAST_SEQUENCE { 1 } else { self.sequence + 1 };
        self.sequence
    }

    /// How many more messages it takes.
    fn room(&self) -> usize {
        let takes = matches!(self.state, State::Binding(_) | State::Bound) && !self.finishing;
        match &self.settings {
            Ok(settings) if takes => settings.window.saturating_sub(self.pending.len()),
            // Each of them is refused.
            Err(_) if takes => WINDOW,
            _ => 0,
        }
    }

    fn done(&mut self, now: u64, mut step: Step) -> Step {
        self.flush(now, &mut step);
        if self.finishing && self.pending.is_empty() {
            match self.state {
                State::Bound => {
                    let sequence = self.next_sequence();
                    step.write(&Header::request(command::UNBIND, sequence).with(&[]));
                    self.state = State::Unbinding(now);
                }
                State::Binding(_) => self.state = State::Ended,
                State::Unbinding(_) | State::Ended => {}
            }
        }
        step.window = u32::try_from(self.room()).unwrap_or(u32::MAX);
        step.wake = self.wake(now);
        step.close = self.state == State::Ended;
        step
    }

    fn wake(&self, now: u64) -> Option<u64> {
        let by_state = match (self.state, self.enquiry) {
            (State::Binding(since), _) => since.saturating_add(BIND_TIMEOUT),
            (State::Unbinding(since), _) => since.saturating_add(UNBIND_TIMEOUT),
            (State::Bound, Some((_, since))) => since.saturating_add(ENQUIRY_TIMEOUT),
            (State::Bound, None) => self.last_received.saturating_add(ENQUIRE_AFTER),
            (State::Ended, _) => return None,
        };
        let oldest = self.requests.values().map(|request| request.since.saturating_add(ANSWER_TIMEOUT)).min();
        let resume = Some(self.paused_until).filter(|until| *until > now && !self.waiting.is_empty());
        [Some(by_state), oldest, resume].into_iter().flatten().min().map(|wake| wake.max(now + 1))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
pub mod tests;

#[cfg(test)]
#[path = "session_interleavings.rs"]
mod interleavings;
