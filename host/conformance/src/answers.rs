//! The rules about `decode`: every answer that a service may give becomes one truthful outcome for each target.

use pushlet_model::contract::codec::{Answer, Reply, Response};
use pushlet_model::contract::{Disposition, Throttle};

use crate::inputs;
use crate::report::{Rule, RuleReport, Severity};
use crate::sample::{NOW, Sample, context};
use crate::subject::{Failure, Subject};

const JSON: &str = "application/json";

/// Decodes one answer about the example's target. None: a finding was added.
fn decode(
    subject: &Subject,
    sample: &Sample,
    place: &str,
    response: Response,
    rule: &mut Rule,
) -> Option<Reply> {
    rule.case();
    let answers = [Answer { targets: vec![sample.target.target.clone()], response }];
    let context = context(subject.manifest(), 1);
    match subject.decode(place, &context, &sample.application, &answers, true) {
        Err(Failure { message, printed, .. }) => {
            rule.error_of("decode", place, message, printed);
            None
        }
        Ok(mut replies) => replies.pop(),
    }
}

fn json_response(status: u16, body: Vec<u8>) -> Response {
    Response { status, headers: vec![("content-type".to_owned(), JSON.to_owned())], body }
}

/// Every status with every body becomes an outcome, and one that is true whatever the body says.
pub fn any_status(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("answers", "each status from 100 to 599 with any body becomes a true outcome");
    let Some(sample) = samples.first() else { return rule.done() };
    let bodies = inputs::bodies();
    // 0: the connection was closed without an answer.
    for status in [0].into_iter().chain(100..=599) {
        for (name, body) in &bodies {
            let place = format!("status {status}, body: {name}");
            let Some(reply) = decode(subject, sample, &place, json_response(status, body.clone()), &mut rule)
            else {
                continue;
            };
            let outcome = reply.outcomes.first().map(|outcome| &outcome.disposition);
            if let Some((severity, message)) = outcome.and_then(|outcome| untrue(status, outcome)) {
                match severity {
                    Severity::Error => rule.error("decode", place, message),
                    Severity::Warning => rule.warning("decode", place, message),
                }
            }
        }
        if rule.is_full() {
            break;
        }
    }
    rule.done()
}

/// Returns why an outcome cannot be true of an answer that says nothing about the target.
fn untrue(status: u16, outcome: &Disposition) -> Option<(Severity, &'static str)> {
    use Disposition as D;
    let is_success = (200..300).contains(&status);
    match (outcome, status) {
        (D::Delivered | D::Replaced(_), _) if !is_success => {
            Some((Severity::Error, "it is reported as delivered, and the service did not say so"))
        }
        (D::Unregistered(_), 0 | 100..=199 | 300..=399 | 401 | 407 | 408 | 429 | 500..) => Some((
            Severity::Error,
            "it is reported as unregistered, so that callers delete the target; the service did not say so",
        )),
        (D::CredentialRejected(_), 0 | 100..=199 | 404 | 410 | 429 | 500..) => Some((
            Severity::Warning,
            "it is reported as a matter of the credential; the service did not say so",
        )),
        (D::Rejected, 429) => Some((Severity::Warning, "rejected is never sent again: say throttled")),
        (D::Rejected, 500 | 502..=504) => {
            Some((Severity::Warning, "rejected is never sent again: say unavailable"))
        }
        (D::Rejected, 401) => Some((Severity::Warning, "say credential-rejected: the operator must act")),
        (D::Rejected, 0) => Some((Severity::Warning, "there was no answer: say unknown or unavailable")),
        _ => None,
    }
}

/// Headers of every kind do no harm.
pub fn any_header(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-header", "headers of an answer may be missing, doubled, long or nonsense");
    let Some(sample) = samples.first() else { return rule.done() };
    for status in [200, 201, 204, 302, 400, 404, 410, 429, 500, 503] {
        for (name, headers) in inputs::headers() {
            let place = format!("status {status}, {name}");
            let response = Response { status, headers, body: Vec::new() };
            decode(subject, sample, &place, response, &mut rule);
        }
    }
    rule.done()
}

/// A service that names a time to wait is understood: in seconds, and as a date.
pub fn told_to_wait(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("retry-after", "a time to wait is handed on, in milliseconds");
    let Some(sample) = samples.first() else { return rule.done() };
    // RFC 9110 section 5.6.7, two minutes after the time of the call.
    let date = "Tue, 14 Nov 2023 22:15:20 GMT";
    debug_assert_eq!(NOW, 1_700_000_000);
    for status in [429, 503] {
        for value in ["120", date] {
            let place = format!("status {status}, retry-after: {value}");
            let headers = vec![("retry-after".to_owned(), value.to_owned())];
            let response = Response { status, headers, body: Vec::new() };
            let Some(reply) = decode(subject, sample, &place, response, &mut rule) else { continue };
            let Some(outcome) = reply.outcomes.first() else { continue };
            let wait = match &outcome.disposition {
                Disposition::Unavailable(wait)
                | Disposition::Throttled(Throttle { retry_after: wait, .. }) => *wait,
                _ => continue,
            };
            match wait {
                Some(120_000) => {}
                Some(wait) => {
                    rule.error("decode", place, format!("two minutes became {wait} ms, not 120000 ms"));
                }
                None => rule.warning("decode", place, "it is ignored, and the service asked for it"),
            }
        }
        for value in ["", "-1", "1.5", "soon", "99999999999999999999999", "Tue, 99 Nov 2023 22:15:20 GMT"] {
            let place = format!("status {status}, retry-after: {value:?}");
            let headers = vec![("retry-after".to_owned(), value.to_owned())];
            decode(subject, sample, &place, Response { status, headers, body: Vec::new() }, &mut rule);
        }
    }
    rule.done()
}

/// Several answers in one call, each about several targets; and the same answer means the same each time.
pub fn many_answers(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("many-answers", "a reply for each answer, an outcome for each of its targets");
    let Some(sample) = samples.first() else { return rule.done() };
    let most = subject.manifest().targets_per_exchange as usize;
    let mut bodies = inputs::bodies();
    // Large ones are tried alone.
    bodies.retain(|(_, body)| body.len() <= 1_000);
    let answers: Vec<Answer> = [200, 404, 410, 429, 503]
        .into_iter()
        .flat_map(|status| bodies.iter().map(move |(_, body)| (status, body.clone())))
        .enumerate()
        .map(|(number, (status, body))| Answer {
            targets: vec![sample.target.target.clone(); [1, 2, 11, most][number % 4].clamp(1, most)],
            response: json_response(status, body),
        })
        .collect();
    let mut together = |answers: &[Answer], native, place: &str| {
        decode_all(subject, sample, place, answers, native, &mut rule)
    };
    together(&[], true, "no answer at all");
    let all = together(&answers, true, &format!("{} answers", answers.len()));
    together(&answers, false, &format!("{} answers, without native", answers.len()));
    for (number, answer) in answers.iter().enumerate() {
        let status = answer.response.status;
        let place = format!("answer {number} of {}, status {status}, alone", answers.len());
        let alone = decode_all(subject, sample, &place, std::slice::from_ref(answer), true, &mut rule);
        let (Some(alone), Some(all)) = (alone, &all) else { continue };
        if alone.first() != all.get(number) {
            rule.error("decode", place, "its reply is not the one that it gets among others");
        }
    }
    rule.done()
}

/// Decodes several answers in one call. None: a finding was added.
fn decode_all(
    subject: &Subject,
    sample: &Sample,
    place: &str,
    answers: &[Answer],
    native: bool,
    rule: &mut Rule,
) -> Option<Vec<Reply>> {
    rule.case();
    let context = context(subject.manifest(), 1);
    match subject.decode(place, &context, &sample.application, answers, native) {
        Ok(replies) => Some(replies),
        Err(Failure { message, printed, .. }) => {
            rule.error_of("decode", place, message, printed);
            None
        }
    }
}
