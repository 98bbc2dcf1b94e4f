//! The rules about connections of the world `stream-provider`: whatever the service says, in whatever pieces, and
//! whenever it goes away, the component keeps to its states and reports as delivered only what the service confirmed.

use std::cell::Cell;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use pushlet_model::contract::manifest::SecretFormat;
use pushlet_model::contract::session::{Chunk, Event, Step, Submission};
use pushlet_model::contract::{Context, Disposition, Notification, Recipient};
use pushlet_sandbox::{Instances, ProviderError, SessionInput};

use crate::inputs;
use crate::report::{Rule, RuleReport};
use crate::sample::{Sample, context, like, parsed};
use crate::subject::{Failure, Subject};

/// The endpoint that takes submissions.
const PUSH: &str = "push";
/// The length of each made-up secret, as in the dry run of an upload.
const SECRET: u32 = 8;
/// Ticks in a row that may each ask for the next one at once.
const MOST_TICKS: usize = 20;
/// Conversations of random bytes.
const RANDOM: u64 = 40;

/// What happens to a connection, one thing after the other.
#[derive(Debug, Clone)]
pub enum Act {
    Start,
    Submit(Vec<Recipient>),
    Written,
    Receive(Vec<u8>),
    /// Time passes until it wants to be called.
    Tick,
    Finish,
    Closed,
}

/// What a component made of a conversation.
#[derive(Debug, Default, PartialEq)]
pub struct Trace {
    /// Bytes that it wrote; a secret stands there as zeros of its length.
    written: Vec<u8>,
    events: Vec<Event>,
    /// Ticks at the end of which it wanted the next one at once, in a row.
    hurried: usize,
}

impl Trace {
    /// Returns true if a submission is reported as delivered.
    pub fn confirms(&self) -> bool {
        let delivered = |event: &Event| {
            matches!(event, Event::Settled((_, outcome))
                if matches!(outcome.disposition, Disposition::Delivered | Disposition::Replaced(_)))
        };
        self.events.iter().any(delivered)
    }
}

/// Checks that a sample is submitted on a connection of its own, and not refused.
pub fn submits(subject: &Subject, sample: &Sample, rule: &mut Rule) -> bool {
    let submit = Act::Submit(vec![sample.target.clone()]);
    let acts = [Act::Start, submit, Act::Written, Act::Closed];
    let Some(trace) = converse(subject, sample, &sample.notification, &acts, &sample.place, rule) else {
        return false;
    };
    let refusal = trace.events.iter().find_map(|event| match event {
        Event::Refused((_, rejection)) => Some(rejection.message.clone()),
        _ => None,
    });
    if let Some(message) = &refusal {
        rule.error("connection.submit", sample.place.as_str(), format!("it is refused: {message}"));
    }
    refusal.is_none()
}

/// The same conversation has the same course, each time and however the service's bytes are split.
pub fn same_every_time(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule =
        Rule::new("deterministic", "the same conversation has the same course, however bytes are split");
    for sample in samples {
        let echoed = greeting(subject, sample, &mut rule);
        let whole = conversation(sample, vec![echoed.clone()]);
        let place = format!("{}, its own bytes come back", sample.place);
        let Some(once) = converse(subject, sample, &sample.notification, &whole, &place, &mut rule) else {
            continue;
        };
        if converse(subject, sample, &sample.notification, &whole, &place, &mut rule)
            .is_some_and(|again| again != once)
        {
            rule.error(
                "connection",
                place.as_str(),
                "a second connection takes another course than the first",
            );
        }
        for length in [1, 2, 3, 7, 16] {
            let pieces: Vec<Vec<u8>> = echoed.chunks(length).map(<[u8]>::to_vec).collect();
            let split = conversation(sample, pieces);
            let place = format!("{place} in pieces of {length} bytes");
            let course = converse(subject, sample, &sample.notification, &split, &place, &mut rule);
            let differs = |course: &Trace| (&course.events, &course.written) != (&once.events, &once.written);
            if course.is_some_and(|course| differs(&course)) {
                rule.error(
                    "connection.receive",
                    place,
                    "it takes another course than with all bytes at once",
                );
            }
        }
    }
    rule.done()
}

/// No bytes of the service trap a component.
pub fn any_bytes(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-bytes", "no bytes of the service stop it, at any time");
    for sample in samples {
        let own = greeting(subject, sample, &mut rule);
        for (name, bytes) in hostile_bytes(&own) {
            for (when, acts) in at_any_time(sample, &bytes) {
                if rule.is_full() {
                    return rule.done();
                }
                let place = format!("{}, {name}, {when}", sample.place);
                let _ = converse(subject, sample, &sample.notification, &acts, &place, &mut rule);
            }
        }
    }
    rule.done()
}

/// A connection may end at any time, and time may pass in between: what the service did not confirm is not delivered.
pub fn any_end(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule =
        Rule::new("any-end", "it may end at any time; delivered is only what the service confirmed");
    for sample in samples {
        let submit = || Act::Submit(vec![sample.target.clone(); 3]);
        let (start, written) = (|| Act::Start, || Act::Written);
        for (name, acts) in [
            ("it is closed at once", vec![start(), Act::Closed]),
            ("it is finished without submissions", vec![start(), written(), Act::Finish, Act::Closed]),
            ("it is closed after submissions", vec![start(), submit(), Act::Closed]),
            ("it is closed after writing them", vec![start(), submit(), written(), Act::Closed]),
            (
                "it is finished after submissions",
                vec![start(), submit(), written(), Act::Finish, Act::Closed],
            ),
            (
                "time passes before the service speaks",
                vec![start(), written(), Act::Tick, Act::Tick, Act::Closed],
            ),
            (
                "more is submitted",
                vec![start(), written(), submit(), written(), submit(), written(), Act::Closed],
            ),
        ] {
            let place = format!("{}, {name}", sample.place);
            let course = converse(subject, sample, &sample.notification, &acts, &place, &mut rule);
            if course.is_some_and(|course| course.confirms()) {
                rule.error(
                    "connection.closed",
                    place,
                    "it is reported as delivered, and the service did not say so",
                );
            }
        }
        let ticks = std::iter::repeat_n(Act::Tick, 2 * MOST_TICKS);
        let acts: Vec<Act> =
            [Act::Start, Act::Written].into_iter().chain(ticks).chain([Act::Closed]).collect();
        let place = format!("{}, the service says nothing", sample.place);
        let course = converse(subject, sample, &sample.notification, &acts, &place, &mut rule);
        if course.is_some_and(|course| course.hurried > MOST_TICKS) {
            rule.error("connection.tick", place, "it wants to be called again at once, again and again");
        }
    }
    rule.done()
}

/// Every field of a notification and every text of a target is submitted or refused.
pub fn any_submission(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-submission", "any notification and target is submitted, or refused");
    let fields = inputs::fields(subject.manifest());
    for sample in samples {
        for (field, name, value) in &fields {
            let mut all = sample.fields.clone();
            all.insert(field.clone(), value.clone());
            let Ok(notification) = parsed(subject.manifest(), all) else { continue };
            let place = format!("{}, {field}: {name}", sample.place);
            submit(subject, sample, &notification, &sample.target, &place, &mut rule);
        }
        for (name, text) in inputs::texts(inputs::LONG) {
            let place = format!("{}, target: {name}", sample.place);
            submit(subject, sample, &sample.notification, &like(&sample.target, text), &place, &mut rule);
        }
        if rule.is_full() {
            break;
        }
    }
    rule.done()
}

fn submit(
    subject: &Subject,
    sample: &Sample,
    notification: &Notification,
    target: &Recipient,
    place: &str,
    rule: &mut Rule,
) {
    if rule.is_full() {
        return;
    }
    let acts = [Act::Start, Act::Submit(vec![target.clone()]), Act::Written, Act::Closed];
    let _ = converse(subject, sample, notification, &acts, place, rule);
}

/// Returns what it writes until it has submitted: the nearest thing to its protocol that is known here.
pub fn greeting(subject: &Subject, sample: &Sample, rule: &mut Rule) -> Vec<u8> {
    let acts = [Act::Start, Act::Submit(vec![sample.target.clone(); 2]), Act::Written];
    let trace = converse(subject, sample, &sample.notification, &acts, &sample.place, rule);
    trace.map(|trace| trace.written).unwrap_or_default()
}

/// Returns a conversation in which the service says this after two submissions.
fn conversation(sample: &Sample, pieces: Vec<Vec<u8>>) -> Vec<Act> {
    let before = [Act::Start, Act::Submit(vec![sample.target.clone(); 2]), Act::Written];
    let said = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Act::Receive);
    before.into_iter().chain(said).chain([Act::Closed]).collect()
}

fn at_any_time(sample: &Sample, bytes: &[u8]) -> [(&'static str, Vec<Act>); 4] {
    let said = || Act::Receive(bytes.to_vec());
    let submit = || Act::Submit(vec![sample.target.clone(); 2]);
    [
        ("at once", vec![Act::Start, said(), Act::Closed]),
        ("after submissions", vec![Act::Start, submit(), Act::Written, said(), Act::Closed]),
        (
            "before submissions",
            vec![Act::Start, Act::Written, said(), submit(), Act::Written, Act::Tick, Act::Closed],
        ),
        (
            "at its end, twice",
            vec![Act::Start, submit(), Act::Written, Act::Finish, said(), said(), Act::Closed],
        ),
    ]
}

/// Returns what no service should say. `own`: what the component writes itself, of which variations are made.
fn hostile_bytes(own: &[u8]) -> Vec<(String, Vec<u8>)> {
    let fixed: [(&str, Vec<u8>); 9] = [
        ("a zero byte", vec![0]),
        ("a byte of ones", vec![0xff]),
        ("an answer of HTTP", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("a TLS alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
        ("a length of nothing", vec![0; 16]),
        ("a length of 2 GiB", [vec![0x7f, 0xff, 0xff, 0xff], vec![0; 12]].concat()),
        ("a length of 4 GiB", vec![0xff; 16]),
        ("every byte", (0..=255).collect()),
        ("64 KiB of zeros", vec![0; 64 << 10]),
    ];
    let mut all: Vec<(String, Vec<u8>)> = fixed.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    // One place after the other; of a long text those at its beginning, where heads are.
    for at in 0..own.len().min(48) {
        for (name, change) in [("flipped", 0xff_u8), ("with its first bit changed", 0x80)] {
            let mut bytes = own.to_vec();
            bytes[at] ^= change;
            all.push((format!("its own bytes, byte {at} {name}"), bytes));
        }
        all.push((format!("{at} of its own bytes"), own[..at].to_vec()));
    }
    for seed in 0..RANDOM {
        let mut dice = StdRng::seed_from_u64(seed);
        let bytes = (0..dice.random_range(1..400)).map(|_| dice.random()).collect();
        all.push((format!("random bytes {seed}"), bytes));
    }
    all.retain(|(_, bytes)| !bytes.is_empty());
    all
}

/// Has the conversation on a new connection. A call that fails is reported; None then.
pub fn converse(
    subject: &Subject,
    sample: &Sample,
    notification: &Notification,
    acts: &[Act],
    place: &str,
    rule: &mut Rule,
) -> Option<Trace> {
    rule.case();
    let secrets = secrets(subject, sample);
    let call = Cell::new("connection");
    let run = |instances: &Instances| course(subject, instances, sample, &secrets, notification, acts, &call);
    match subject.call(&format!("connection, {place}"), run) {
        Ok(trace) => Some(trace),
        Err(Failure { message, printed, .. }) => {
            rule.error_of(call.get(), place, message, printed);
            None
        }
    }
}

fn course(
    subject: &Subject,
    instances: &Instances,
    sample: &Sample,
    secrets: &[(String, u32)],
    notification: &Notification,
    acts: &[Act],
    call: &Cell<&'static str>,
) -> Result<Trace, ProviderError> {
    let mut now = context(subject.manifest(), 1);
    let mut trace = Trace::default();
    let (mut next, mut wake, mut open) = (0, None, true);
    call.set("connection");
    let mut session = instances.open_session(&now, &sample.application, PUSH, secrets)?;
    for act in acts {
        // A host tells a connection that wanted to be closed of its end, and of nothing else.
        if !open && !matches!(act, Act::Closed) {
            continue;
        }
        let submissions: Vec<Submission>;
        let input = match act {
            Act::Start => SessionInput::Start,
            Act::Submit(recipients) => {
                let numbered = recipients.iter().zip(next..);
                submissions =
                    numbered.map(|(recipient, id)| Submission { id, recipient: recipient.clone() }).collect();
                next += recipients.len() as u64;
                SessionInput::Submit(notification, &submissions)
            }
            Act::Written => SessionInput::Written,
            Act::Receive(bytes) => SessionInput::Received(bytes),
            Act::Tick => {
                let due = wake.unwrap_or(now.now + 1000);
                trace.hurried = if due <= now.now { trace.hurried + 1 } else { 0 };
                now = Context { now: due.max(now.now), ..now };
                SessionInput::Tick
            }
            Act::Finish => SessionInput::Finish,
            Act::Closed => SessionInput::Closed,
        };
        call.set(input.call());
        let step = instances.step(&mut session, &now, &input)?;
        wake = step.wake;
        open &= !step.close;
        trace.add(step, secrets);
    }
    Ok(trace)
}

impl Trace {
    fn add(&mut self, step: Step, secrets: &[(String, u32)]) {
        for chunk in step.write {
            match chunk {
                Chunk::Bytes(bytes) => self.written.extend(bytes),
                Chunk::Secret(name) => {
                    let length =
                        secrets.iter().find(|(known, _)| *known == name).map_or(0, |(_, length)| *length);
                    self.written.extend(std::iter::repeat_n(0, length as usize));
                }
            }
        }
        self.events.extend(step.events);
    }
}

/// Returns the names and lengths of the texts that the sample's credential has.
fn secrets(subject: &Subject, sample: &Sample) -> Vec<(String, u32)> {
    let credentials = subject.manifest().credentials.iter();
    let own =
        credentials.filter(|credential| Some(&credential.name) == sample.application.credential.as_ref());
    let texts = own
        .flat_map(|credential| credential.secrets.iter().chain(&credential.companions))
        .filter(|secret| secret.format == SecretFormat::Text);
    texts.map(|secret| (secret.name.clone(), SECRET)).collect()
}
