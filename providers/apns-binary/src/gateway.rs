//! What is in flight on a connection to the gateway, and what becomes of it.
//!
//! The gateway answers nothing to what it accepts. The first notification that it does not accept it names in an error
//! packet, and closes; what was written before that one is accepted, what was written after it was thrown away.
//! So a notification is settled by an error packet, or by time: nothing came for long enough after it was written.

use std::collections::VecDeque;

use crate::frame::{Command, ERROR_PACKET, ErrorPacket, TOKEN, token};
use crate::payload;
use pushlet_provider::input::{invalid, setting, unsupported};
use pushlet_provider::reply::{delivered, failed};
use pushlet_provider::stream::{Step, Submission, step};
use pushlet_provider::{Application, Disposition, Notification, Outcome, Rejection, Target};

/// Milliseconds after which a notification without an error counts as delivered, unless a setting says otherwise.
pub const SETTLE: u64 = 1000;
/// The least value of that setting.
pub const LEAST_SETTLE: u64 = 50;
/// The greatest value of that setting.
pub const LONGEST_SETTLE: u64 = 20_000;
/// Most notifications in flight on a connection.
const WINDOW: usize = 1000;
/// The identifier of an error packet for a notification that had none.
const NO_IDENTIFIER: u32 = 0;
/// The status of a server that shuts down.
const SHUTDOWN: u8 = 10;

/// How an application sends.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Milliseconds.
    settle: u64,
    command: Command,
}

impl Default for Settings {
    fn default() -> Self {
        Self { settle: SETTLE, command: Command::default() }
    }
}

impl Settings {
    /// Reads the settings of an application.
    pub fn of(application: &Application) -> Result<Self, Rejection> {
        let settle = crate::number(application, "settle_time")?.unwrap_or(SETTLE);
        if !(LEAST_SETTLE..=LONGEST_SETTLE).contains(&settle) {
            let message = format!("settle_time must be from {LEAST_SETTLE} to {LONGEST_SETTLE} ms");
            return Err(invalid("settle_time", message));
        }
        let command = match setting(application, "command") {
            None | Some("2") => Command::Framed,
            Some("1") => Command::Enhanced,
            Some(_) => return Err(invalid("command", "command must be 1 or 2")),
        };
        Ok(Self { settle, command })
    }
}

/// One notification that was written and is not settled.
#[derive(Debug)]
struct Sent {
    /// The host's number.
    id: u64,
    /// When it had been handed to the network; None: not yet.
    written: Option<u64>,
}

/// The state of one connection.
#[derive(Debug)]
pub struct GatewaySession {
    settings: Settings,
    /// In the order of their identifiers, which have no gaps.
    sent: VecDeque<Sent>,
    /// The identifier of the first of `sent`, or of the next notification.
    first: u32,
    /// How many were settled as delivered before `first`; identifiers before these were never used.
    settled: u32,
    received: Vec<u8>,
    /// An error packet came, or something that is none.
    ended: bool,
    /// No more submissions come.
    finishing: bool,
}

impl GatewaySession {
    /// Creates the state of a connection on which nothing was written.
    pub fn new(settings: Settings) -> Self {
        let (sent, received) = (VecDeque::new(), Vec::new());
        Self { settings, sent, first: 1, settled: 0, received, ended: false, finishing: false }
    }

    /// Writes the notification for each recipient.
    pub fn submit(&mut self, now: u64, notification: &Notification, submissions: Vec<Submission>) -> Step {
        let mut step = step();
        let message = payload::message(notification, now);
        let mut bytes = Vec::new();
        for Submission { id, recipient } in submissions {
            match (&message, device(&recipient.target)) {
                (Err(rejection), _) => step.refuse(id, rejection.clone()),
                (_, Err(rejection)) => step.refuse(id, rejection),
                (Ok(_), Ok(_)) if self.ended || self.sent.len() >= WINDOW => step.resubmit(id),
                (Ok(message), Ok(token)) => {
                    message.write(self.settings.command, self.next_identifier(), &token, &mut bytes);
                    self.sent.push_back(Sent { id, written: None });
                }
            }
        }
        if !bytes.is_empty() {
            step.write(&bytes);
        }
        self.done(now, step)
    }

    /// From now on, no error means that it was accepted.
    pub fn written(&mut self, now: u64) -> Step {
        for sent in self.sent.iter_mut().rev().take_while(|sent| sent.written.is_none()) {
            sent.written = Some(now);
        }
        self.done(now, step())
    }

    /// Takes what the gateway wrote: an error packet is all that it ever writes.
    pub fn receive(&mut self, now: u64, bytes: &[u8]) -> Step {
        let mut step = step();
        if self.ended {
            return self.done(now, step);
        }
        self.received.extend(bytes.iter().take(ERROR_PACKET - self.received.len()));
        if let Ok(packet) = <&[u8; ERROR_PACKET]>::try_from(&*self.received) {
            self.ended = true;
            match ErrorPacket::parse(packet) {
                Some(packet) => self.settle_by(packet, &mut step),
                None => self.lose(&mut step),
            }
        }
        self.done(now, step)
    }

    /// Settles what has waited long enough for an error.
    pub fn tick(&mut self, now: u64) -> Step {
        let mut step = step();
        let settle = self.settings.settle;
        let is_due = |sent: &Sent| sent.written.is_some_and(|written| written.saturating_add(settle) <= now);
        let due = self.sent.iter().take_while(|sent| is_due(sent)).count();
        // Part of an error packet is there: the rest of it says what became of them.
        if self.received.is_empty() {
            self.accept(due, &mut step);
        }
        self.done(now, step)
    }

    /// Closes once nothing is in flight.
    pub fn finish(&mut self, now: u64) -> Step {
        self.finishing = true;
        self.done(now, step())
    }

    /// The connection has ended without an error packet: nothing says what became of the rest.
    pub fn closed(&mut self, now: u64) -> Step {
        let mut step = step();
        self.ended = true;
        self.lose(&mut step);
        self.done(now, step)
    }

    fn next_identifier(&self) -> u32 {
        // There are never more than `WINDOW` in flight, so the wrap-around makes none ambiguous.
        self.first.wrapping_add(u32::try_from(self.sent.len()).unwrap_or(u32::MAX))
    }

    /// Settles everything by an error packet.
    fn settle_by(&mut self, packet: ErrorPacket, step: &mut Step) {
        let place = packet.identifier.wrapping_sub(self.first) as usize;
        let before = self.first.wrapping_sub(packet.identifier);
        if place < self.sent.len() {
            self.accept(place, step);
            if let Some(named) = self.sent.pop_front() {
                step.settle(named.id, outcome(packet.status));
            }
        } else if !(1..=self.settled).contains(&before) || packet.identifier == NO_IDENTIFIER {
            // It names nothing that was written here.
            return self.lose(step);
        }
        match packet.status {
            // It says that there is no error: what it did with the others is not known.
            0 => self.lose(step),
            _ => self.sent.drain(..).for_each(|sent| step.resubmit(sent.id)),
        }
    }

    /// The gateway has accepted the first `count`.
    fn accept(&mut self, count: usize, step: &mut Step) {
        self.sent.drain(..count).for_each(|sent| step.settle(sent.id, delivered(None)));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.first = self.first.wrapping_add(count);
        self.settled = self.settled.saturating_add(count);
    }

    fn lose(&mut self, step: &mut Step) {
        let message = "the connection ended before the time in which an error would have come";
        let lost = failed(Disposition::Unknown, None, Some(message.into()));
        self.sent.drain(..).for_each(|sent| step.settle(sent.id, lost.clone()));
    }

    fn done(&self, now: u64, step: Step) -> Step {
        let window = if self.ended || self.finishing { 0 } else { WINDOW - self.sent.len() };
        let written = self.sent.front().and_then(|sent| sent.written);
        let wake = written.map(|written| written.saturating_add(self.settings.settle).max(now + 1));
        let close = self.ended || self.finishing && self.sent.is_empty();
        Step { window: u32::try_from(window).unwrap_or(u32::MAX), wake, close, ..step }
    }
}

fn device(target: &Target) -> Result<[u8; TOKEN], Rejection> {
    match target {
        Target::Device(text) => token(text),
        other => Err(unsupported(other)),
    }
}

/// What an error packet says of the notification that it names.
fn outcome(status: u8) -> Outcome {
    let (code, message) = match status {
        SHUTDOWN => return delivered(None),
        0 => {
            return failed(
                Disposition::Unknown,
                Some("0"),
                Some("the gateway closed without an error".into()),
            );
        }
        1 => {
            let message = "the gateway could not process it".into();
            return failed(Disposition::Unavailable(None), Some("processing_error"), Some(message));
        }
        2 => ("missing_device_token", "the device token is missing"),
        3 => ("missing_topic", "the topic is missing"),
        4 => ("missing_payload", "the payload is missing"),
        5 => ("invalid_token_size", "the size of the device token is wrong"),
        6 => ("invalid_topic_size", "the size of the topic is wrong"),
        7 => ("invalid_payload_size", "the size of the payload is wrong"),
        8 => ("invalid_token", "the device token is invalid"),
        128 => ("protocol_error", "the gateway could not read the notification"),
        _ => ("unknown_error", "the gateway refused it and does not say why"),
    };
    failed(Disposition::Rejected, Some(code), Some(message.into()))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
