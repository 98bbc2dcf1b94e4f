//! The rules about `encode` and `check-application`: the same input gives the same requests, every target is served,
//! and no text that a caller may send gets out of its place.

use pushlet_model::contract::manifest::{TargetKind, ValueKind};
use pushlet_model::contract::{Application, Notification, Recipient};
use pushlet_sandbox::{PreparedRequests, ProviderError};
use serde_json::{Value, json};

use crate::inputs;
use crate::report::{Rule, RuleReport};
use crate::sample::{Sample, context, like, target, text};
use crate::subject::{Failure, Subject};

/// Most targets that a server gives to one call.
const MOST_TARGETS: usize = 500;
/// Bytes of the longest setting.
const LONGEST_SETTING: usize = 1024;
/// Bytes of the longest target.
const LONGEST_TARGET: usize = 4096;
/// Characters of a text in which all of Unicode is given.
const LETTERS: usize = 600;

/// One input of `encode`.
struct Input<'a> {
    place: String,
    application: &'a Application,
    notification: &'a Notification,
    targets: &'a [Recipient],
}

impl Input<'_> {
    /// Encodes, and checks what the host does not: that a body is what its header says. None: a finding was added.
    fn encode(&self, subject: &Subject, rule: &mut Rule) -> Option<PreparedRequests> {
        rule.case();
        let context = context(subject.manifest(), self.targets.len());
        let encoded =
            subject.encode(&self.place, &context, self.application, self.notification, self.targets);
        match encoded {
            Err(Failure { message, printed, .. }) => {
                rule.error_of("encode", self.place.as_str(), message, printed);
                None
            }
            Ok(requests) => {
                if let Some(problem) = wrong_body(&requests) {
                    rule.error("encode", self.place.as_str(), problem);
                }
                Some(requests)
            }
        }
    }
}

fn wrong_body(requests: &PreparedRequests) -> Option<String> {
    requests.messages.iter().find_map(|message| {
        let kind = message.headers.get("content-type")?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_json = kind == "application/json" || kind.ends_with("+json");
        let error = serde_json::from_slice::<Value>(&message.body).err().filter(|_| is_json)?;
        let body: String = String::from_utf8_lossy(&message.body).chars().take(120).collect();
        Some(format!("content-type is {kind}, and the body is no JSON ({error}): {body}"))
    })
}

/// The same input gives the same requests: with a new instance, with a used one, and after other calls.
pub fn same_every_time(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("deterministic", "the same input gives the same requests, whatever came before");
    let targets = |sample: &Sample| [sample.target.clone()];
    for (number, sample) in samples.iter().enumerate() {
        let Sample { place, application, notification, .. } = sample;
        let targets = targets(sample);
        let context = context(subject.manifest(), 1);
        let mut fresh = || {
            subject
                .encode_fresh(&context, application, notification, &targets)
                .map(|requests| format!("{requests:?}"))
                .map_err(|error| rule.error("encode", place.as_str(), error.to_string()))
        };
        let (Ok(one), Ok(two)) = (fresh(), fresh()) else { continue };
        rule.case();
        if one != two {
            let message = format!("two new instances make different requests: {}", difference(&one, &two));
            rule.error("encode", place.as_str(), message);
            continue;
        }
        // Another example before it, and the same one twice.
        for before in [(number + 1) % samples.len(), number, number] {
            let before = &samples[before];
            let input = Input {
                place: before.place.clone(),
                application: &before.application,
                notification: &before.notification,
                targets: std::slice::from_ref(&before.target),
            };
            let _ = input.encode(subject, &mut rule);
            let input = Input { place: place.clone(), application, notification, targets: &targets };
            let Some(used) = input.encode(subject, &mut rule) else { continue };
            let used = format!("{used:?}");
            if used != one {
                let after = format!("{place}, after {}", before.place);
                let message = format!(
                    "a used instance makes another request than a new one: {}",
                    difference(&one, &used)
                );
                rule.error("encode", after, message);
            }
        }
    }
    rule.done()
}

/// Returns the first place where two texts differ.
pub fn difference(one: &str, other: &str) -> String {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let excerpt = |text: &str| {
        let excerpt: String = text.chars().skip(same.saturating_sub(20)).take(60).collect();
        format!("…{excerpt}…")
    };
    format!("{} and {}", excerpt(one), excerpt(other))
}

/// Every number of targets is served: none, one, many; and each as if it were alone.
pub fn number_of_targets(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("targets", "0, 1 and many targets, each as if it were alone");
    for sample in samples {
        let Sample { application, notification, place, .. } = sample;
        let variants = variants(subject, sample);
        no_target(subject, sample, &mut rule);
        // A server gives a call no more than the manifest says.
        let most = MOST_TARGETS.min(subject.manifest().targets_per_call as usize);
        for count in [1, 2, 7, most] {
            let targets: Vec<Recipient> = variants.iter().cycle().take(count).cloned().collect();
            let place = format!("{place}, {count} targets");
            let input = Input { place: place.clone(), application, notification, targets: &targets };
            let Some(requests) = input.encode(subject, &mut rule) else { continue };
            for (covers, rejection) in &requests.refusals {
                let message = format!("it refuses {} of them: {}", covers.len(), rejection.message);
                rule.error("encode", place.as_str(), message);
            }
            if subject.manifest().targets_per_exchange == 1 && count <= variants.len() {
                alone(subject, sample, &targets, &requests, &mut rule);
            }
        }
    }
    rule.done()
}

/// A call without targets must come to its end; what it returns is not used.
fn no_target(subject: &Subject, sample: &Sample, rule: &mut Rule) {
    rule.case();
    let place = format!("{}, 0 targets", sample.place);
    let context = context(subject.manifest(), 0);
    match subject.encode(&place, &context, &sample.application, &sample.notification, &[]) {
        Ok(_) | Err(Failure { error: Some(ProviderError::BadOutput(_)), .. }) => {}
        Err(Failure { message, printed, .. }) => rule.error_of("encode", place, message, printed),
    }
}

/// Checks that each target's request is the one that it gets alone.
fn alone(subject: &Subject, sample: &Sample, targets: &[Recipient], all: &PreparedRequests, rule: &mut Rule) {
    for (index, target) in targets.iter().enumerate() {
        let input = Input {
            place: sample.place.clone(),
            application: &sample.application,
            notification: &sample.notification,
            targets: std::slice::from_ref(target),
        };
        let Some(one) = input.encode(subject, rule) else { continue };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let (one, many) = (request_of(&one, 0), request_of(all, index));
        if one != many {
            let place = format!("{}, target {index} of {}", sample.place, targets.len());
            let message =
                format!("its request is not the one that it gets alone: {}", difference(&many, &one));
            rule.error("encode", place, message);
        }
    }
}

fn request_of(requests: &PreparedRequests, target: u32) -> String {
    let exchange = requests.exchanges.iter().find(|exchange| exchange.covers.contains(&target));
    let Some(exchange) = exchange else { return "no request".to_owned() };
    let message = &requests.messages[exchange.message];
    let url = exchange.url.as_ref().map(ToString::to_string).unwrap_or_default();
    let body = String::from_utf8_lossy(&message.body);
    let (method, headers) = (&message.method, &message.headers);
    format!("{method} {url}{} {:?} {headers:?} {body}", exchange.path, exchange.headers)
}

/// Returns targets like the example's that are told apart by their last character and are encoded.
fn variants(subject: &Subject, sample: &Sample) -> Vec<Recipient> {
    let original = text(&sample.target);
    let stem: String = original.chars().take(original.chars().count().saturating_sub(1)).collect();
    let others = "0123456789abcdef".chars().map(|last| like(&sample.target, format!("{stem}{last}")));
    let context = context(subject.manifest(), 1);
    let is_taken = |target: &Recipient| {
        let targets = std::slice::from_ref(target);
        let encoded = subject.encode("variant", &context, &sample.application, &sample.notification, targets);
        encoded.is_ok_and(|requests| requests.refusals.is_empty())
    };
    let others = others.filter(|target| *target != sample.target && is_taken(target));
    std::iter::once(sample.target.clone()).chain(others).collect()
}

/// Any target is encoded or refused, and costs the others nothing.
pub fn any_target(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-target", "any text may be a target; a bad one costs the others nothing");
    let Some(sample) = samples.first() else { return rule.done() };
    for kind in &subject.manifest().targets {
        for (name, text) in texts_of(*kind) {
            let bad = Recipient { target: target(*kind, text), options: sample.target.options.clone() };
            let targets = [sample.target.clone(), bad, sample.target.clone()];
            let input = Input {
                place: format!("{}, {kind:?} target: {name}", sample.place),
                application: &sample.application,
                notification: &sample.notification,
                targets: &targets,
            };
            let Some(requests) = input.encode(subject, &mut rule) else { continue };
            // A target of another kind may need another request, so that only targets of its kind are held to this.
            let refused = |index: u32| requests.refusals.iter().any(|(covers, _)| covers.contains(&index));
            let same_kind =
                std::mem::discriminant(&targets[0].target) == std::mem::discriminant(&targets[1].target);
            if same_kind && (refused(0) || refused(2)) {
                let message = "because of it, good targets of the same call are refused";
                rule.error("encode", input.place.as_str(), message);
            }
            if rule.is_full() {
                return rule.done();
            }
        }
    }
    rule.done()
}

/// Returns targets of a kind; the host itself refuses what is no https URL.
fn texts_of(kind: TargetKind) -> Vec<(String, String)> {
    if kind != TargetKind::Url {
        // An empty target is refused by the host.
        return inputs::texts(LONGEST_TARGET).into_iter().filter(|(_, text)| !text.is_empty()).collect();
    }
    let urls = [
        "https://push.example",
        "https://push.example/a%20b?x=1&y=%00",
        "https://push.example:8443/a//b/",
        "https://xn--bcher-kva.example/#fragment",
        "https://[2001:db8::1]/a",
        "https://push.example/../a",
    ];
    urls.iter().map(|url| ((*url).to_owned(), (*url).to_owned())).collect()
}

/// Any value of a setting is refused by `check-application`, or encoded.
pub fn any_setting(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-setting", "any value of a setting is refused at registration, or encoded");
    let Some(sample) = samples.first() else { return rule.done() };
    let manifest = subject.manifest();
    for setting in &manifest.settings {
        let mut values: Vec<(String, Option<String>)> = vec![("absent".to_owned(), None)];
        if setting.kind == ValueKind::Text && setting.choices.is_empty() {
            // An empty setting counts as absent.
            let texts = inputs::texts(LONGEST_SETTING).into_iter().filter(|(_, text)| !text.is_empty());
            values.extend(texts.map(|(name, text)| (name, Some(text))));
        }
        values.extend(setting.choices.iter().map(|choice| (choice.clone(), Some(choice.clone()))));
        for (name, value) in values {
            let application = sample.with_setting(&setting.name, value.as_deref());
            let place = format!("{}, setting {}: {name}", sample.place, setting.name);
            if is_required(subject, &application, &setting.name) && value.is_none() {
                continue;
            }
            let context = context(manifest, 1);
            match subject.check_application(&place, &context, &application) {
                Err(failure) => {
                    rule.case();
                    rule.error_of("check-application", place, failure.message, failure.printed);
                }
                Ok(Err(_)) => rule.case(),
                Ok(Ok(())) => {
                    let targets = std::slice::from_ref(&sample.target);
                    let notification = &sample.notification;
                    Input { place, application: &application, notification, targets }
                        .encode(subject, &mut rule);
                }
            }
        }
    }
    rule.done()
}

/// Returns true if the host refuses an application without this setting.
fn is_required(subject: &Subject, application: &Application, setting: &str) -> bool {
    let of =
        |name: &String| subject.manifest().credentials.iter().find(|credential| credential.name == *name);
    let credential = application.credential.as_ref().and_then(of);
    credential.is_some_and(|credential| credential.required_settings.iter().any(|name| name == setting))
}

/// Each field of a notification at its limits is encoded or refused.
pub fn any_notification(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("any-field", "each field of a notification at its limits is encoded or refused");
    let manifest = subject.manifest();
    nothing_in_it(subject, samples, &mut rule);
    for sample in samples {
        // null: the field is absent.
        let absent = sample.fields.keys().map(|field| (field.clone(), "absent".to_owned(), Value::Null));
        for (field, name, value) in inputs::fields(manifest).into_iter().chain(absent) {
            let Some(notification) = sample.with(manifest, &[(&field, value)]) else { continue };
            let input = Input {
                place: format!("{}, {field}: {name}", sample.place),
                application: &sample.application,
                notification: &notification,
                targets: std::slice::from_ref(&sample.target),
            };
            input.encode(subject, &mut rule);
            if rule.is_full() {
                return rule.done();
            }
        }
    }
    rule.done()
}

/// A notification without any field is encoded or refused.
fn nothing_in_it(subject: &Subject, samples: &[Sample], rule: &mut Rule) {
    for sample in samples {
        let input = Input {
            place: format!("{}, no field at all", sample.place),
            application: &sample.application,
            notification: &Notification::default(),
            targets: std::slice::from_ref(&sample.target),
        };
        input.encode(subject, rule);
    }
}

/// Every character of Unicode is encoded or refused.
pub fn all_of_unicode(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("unicode", "each character of Unicode in title, body and data");
    let Some(sample) = samples.first() else { return rule.done() };
    for letters in inputs::all_of_unicode(LETTERS) {
        let first = letters.chars().next().map(u32::from).unwrap_or_default();
        let fields: [(&str, Value); 3] =
            [("title", json!(letters)), ("body", json!(letters)), ("data", json!({ "text": letters }))];
        for (field, value) in fields {
            let Some(notification) = sample.with(subject.manifest(), &[(field, value)]) else { continue };
            let input = Input {
                place: format!("{}, {field}: {LETTERS} characters from U+{first:04X}", sample.place),
                application: &sample.application,
                notification: &notification,
                targets: std::slice::from_ref(&sample.target),
            };
            input.encode(subject, &mut rule);
        }
        if rule.is_full() {
            break;
        }
    }
    rule.done()
}
