//! Random inputs, the same ones for the same seed: what no list of inputs has thought of.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use pushlet_model::contract::codec::{Answer, Response};

use crate::connections::{Act, converse, greeting};
use crate::inputs;
use crate::report::{Rule, RuleReport};
use crate::sample::{Sample, context, like, parsed, text};
use crate::subject::{Failure, Subject};

/// Words of answers and notifications.
const WORDS: [&str; 24] = [
    "error",
    "errors",
    "results",
    "result",
    "status",
    "code",
    "reason",
    "message",
    "details",
    "id",
    "name",
    "success",
    "failure",
    "data",
    "token",
    "registration_id",
    "message_id",
    "timestamp",
    "NotFound",
    "InvalidToken",
    "ok",
    "retry",
    "@type",
    "fieldViolations",
];

/// Most acts of a random conversation, beside its beginning and its end.
const LONGEST: usize = 12;

/// Fields of notifications: name, what is special about the value, value.
type Fields = [(String, String, Value)];

/// Tries random notifications, targets and answers until the time is over; of a component that speaks over a byte stream
/// random conversations.
pub fn random(subject: &Subject, samples: &[Sample], time: Duration, seed: u64) -> RuleReport {
    let about = if subject.speaks_stream() {
        "random conversations: submissions, bytes of the service, time, ends"
    } else {
        "random notifications, targets and answers"
    };
    let mut rule = Rule::new("fuzz", about);
    let mut dice = StdRng::seed_from_u64(seed);
    let fields = inputs::fields(subject.manifest());
    let own: Vec<Vec<u8>> = match subject.speaks_stream() {
        true => samples.iter().map(|sample| greeting(subject, sample, &mut rule)).collect(),
        false => Vec::new(),
    };
    let end = Instant::now() + time;
    while Instant::now() < end && !rule.is_full() {
        let number = dice.random_range(0..samples.len());
        let sample = &samples[number];
        match (own.get(number), dice.random_range(0..2)) {
            (Some(own), _) => conversation(subject, (sample, own), &fields, &mut dice, &mut rule),
            (None, 0) => answer(subject, sample, &mut dice, &mut rule),
            (None, _) => notification(subject, sample, &fields, &mut dice, &mut rule),
        }
    }
    rule.done()
}

/// `own`: what the component writes itself.
fn conversation(
    subject: &Subject,
    (sample, own): (&Sample, &[u8]),
    fields: &Fields,
    dice: &mut StdRng,
    rule: &mut Rule,
) {
    let given = any_fields(fields, dice);
    let Ok(notification) = parsed(subject.manifest(), given.clone()) else { return };
    let acts: Vec<Act> = std::iter::once(Act::Start)
        .chain((0..dice.random_range(1..=LONGEST)).map(|_| any_act(sample, own, dice)))
        .chain([Act::Closed])
        .collect();
    let place = shortened(&format!("{}, {acts:?}", Value::Object(given)));
    let course = converse(subject, sample, &notification, &acts, &place, rule);
    // In some protocols it means delivered that the service says nothing for a while.
    let is_silent = !acts.iter().any(|act| matches!(act, Act::Receive(_) | Act::Tick));
    if is_silent && course.is_some_and(|course| course.confirms()) {
        rule.error("connection", place, "it is reported as delivered, and the service said nothing");
    }
}

fn any_act(sample: &Sample, own: &[u8], dice: &mut StdRng) -> Act {
    match dice.random_range(0..10) {
        0..3 => {
            let target = like(&sample.target, mutated(text(&sample.target), dice));
            Act::Submit([vec![target], vec![sample.target.clone(); dice.random_range(0..3)]].concat())
        }
        3 | 4 => Act::Written,
        5..8 => Act::Receive(any_bytes(own, dice)),
        8 => Act::Tick,
        _ => Act::Finish,
    }
}

/// Returns bytes of the service, of which there is at least one: often something like what the component writes itself.
fn any_bytes(own: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let mut bytes: Vec<u8> = if own.is_empty() || dice.random_bool(0.3) {
        (0..dice.random_range(1..200)).map(|_| dice.random()).collect()
    } else {
        let from = dice.random_range(0..own.len());
        own[from..dice.random_range(from + 1..=own.len())].to_vec()
    };
    for _ in 0..dice.random_range(0..4) {
        let at = dice.random_range(0..bytes.len());
        bytes[at] = dice.random();
    }
    bytes
}

fn any_fields(fields: &Fields, dice: &mut StdRng) -> Map<String, Value> {
    let mut given = Map::new();
    for _ in 0..dice.random_range(0..6) {
        let (field, _, value) = &fields[dice.random_range(0..fields.len())];
        let value = if dice.random_bool(0.3) { any_value(dice, 4) } else { value.clone() };
        given.insert(field.clone(), value);
    }
    given
}

/// Returns the beginning of what describes a case.
fn shortened(place: &str) -> String {
    place.chars().take(400).collect()
}

fn notification(subject: &Subject, sample: &Sample, fields: &Fields, dice: &mut StdRng, rule: &mut Rule) {
    let given = any_fields(fields, dice);
    let Ok(notification) = parsed(subject.manifest(), given.clone()) else { return };
    rule.case();
    let targets = [like(&sample.target, mutated(text(&sample.target), dice)), sample.target.clone()];
    let place = shortened(&format!("{} to {:?}", Value::Object(given), text(&targets[0])));
    let context = context(subject.manifest(), targets.len());
    let is_url = matches!(targets[0].target, pushlet_model::contract::Target::Url(_));
    let targets = if is_url { &targets[1..] } else { &targets[..] };
    let encoded = subject.encode(&place, &context, &sample.application, &notification, targets);
    if let Err(Failure { message, printed, .. }) = encoded {
        rule.error_of("encode", place, message, printed);
    }
}

fn answer(subject: &Subject, sample: &Sample, dice: &mut StdRng, rule: &mut Rule) {
    rule.case();
    let body = match dice.random_range(0..3) {
        0 => any_value(dice, 5).to_string().into_bytes(),
        1 => {
            let mut body = any_value(dice, 5).to_string().into_bytes();
            body.truncate(dice.random_range(0..=body.len()));
            body
        }
        _ => (0..dice.random_range(0..200)).map(|_| dice.random()).collect(),
    };
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let response = Response { status: dice.random_range(100..600), headers, body };
    let shown: String = String::from_utf8_lossy(&response.body).chars().take(300).collect();
    let place = format!("status {}, body {shown:?}", response.status);
    let answers = [Answer { targets: vec![sample.target.target.clone()], response }];
    let context = context(subject.manifest(), 1);
    let decoded = subject.decode(&place, &context, &sample.application, &answers, dice.random());
    if let Err(Failure { message, printed, .. }) = decoded {
        rule.error_of("decode", place, message, printed);
    }
}

fn any_text(dice: &mut StdRng) -> String {
    match dice.random_range(0..3) {
        0 => WORDS[dice.random_range(0..WORDS.len())].to_owned(),
        1 => inputs::TEXTS[dice.random_range(0..inputs::TEXTS.len())].1.to_owned(),
        _ => (0..dice.random_range(0..40)).map(|_| dice.random::<char>()).collect(),
    }
}

/// Returns a value that is at most so deep.
fn any_value(dice: &mut StdRng, depth: usize) -> Value {
    match dice.random_range(0..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(dice.random::<bool>()),
        2 => json!(dice.random::<i64>()),
        3 => json!(dice.random::<f64>() * 1e6),
        4 => json!(any_text(dice)),
        5 => (0..dice.random_range(0..4)).map(|_| any_value(dice, depth - 1)).collect(),
        _ => {
            let members = (0..dice.random_range(0..5)).map(|_| (any_text(dice), any_value(dice, depth - 1)));
            Value::Object(members.collect())
        }
    }
}

fn mutated(text: &str, dice: &mut StdRng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..dice.random_range(0..3) {
        let at = dice.random_range(0..=letters.len());
        letters.insert(at, dice.random());
    }
    letters.into_iter().collect()
}
