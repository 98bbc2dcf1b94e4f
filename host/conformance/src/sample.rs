//! The manifest's examples as inputs of the calls: what every other input is a variation of.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};

use pushlet_model::contract::manifest::{Example, ProviderManifest, TargetKind};
use pushlet_model::contract::{Application, Context, Environment, Notification, Recipient, Target};
use pushlet_model::notification;

use crate::report::{Rule, RuleReport};
use crate::subject::Subject;

/// The time of all calls, in seconds since the epoch: results must not depend on when they are checked.
pub(crate) const NOW: u64 = 1_700_000_000;

/// Examples that are checked; a server accepts no more.
const MOST: usize = 32;

/// One example as the component's functions get it.
#[derive(Clone)]
pub struct Sample {
    /// `examples[0]`.
    pub place: String,
    pub application: Application,
    /// The fields of the notification, in the JSON form of the HTTP API.
    pub fields: Map<String, Value>,
    pub notification: Notification,
    pub target: Recipient,
}

impl Sample {
    /// Reads an example of a manifest. `Err`: what is wrong with it.
    pub fn of(manifest: &ProviderManifest, number: usize, example: &Example) -> Result<Self, String> {
        let fields: Map<String, Value> = serde_json::from_str(&example.notification)
            .map_err(|error| format!("its notification is not a JSON object: {error}"))?;
        let notification = parsed(manifest, fields.clone())?;
        let kind = manifest.targets.first().copied().unwrap_or(TargetKind::Device);
        let target = target(kind, example.target.clone());
        let recipient = Recipient { target, options: example.target_options.clone() };
        notification::check_recipient(&recipient, manifest).map_err(|error| error.message.into_owned())?;
        Ok(Self {
            place: format!("examples[{number}]"),
            application: Application {
                id: "example".into(),
                environment: Environment::Production,
                settings: example.settings.clone(),
                credential: example.credential.clone(),
            },
            fields,
            notification,
            target: recipient,
        })
    }

    /// Returns the same with other fields over its own. None: the host would refuse them before any call.
    pub(crate) fn with(&self, manifest: &ProviderManifest, fields: &[(&str, Value)]) -> Option<Notification> {
        let mut all = self.fields.clone();
        all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        parsed(manifest, all).ok()
    }

    /// Returns the example's application with another value of a setting.
    pub(crate) fn with_setting(&self, name: &str, value: Option<&str>) -> Application {
        let mut application = self.application.clone();
        application.settings.retain(|(known, _)| known != name);
        application.settings.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        application
    }
}

/// Parses a notification as the HTTP API does.
pub(crate) fn parsed(
    manifest: &ProviderManifest,
    fields: Map<String, Value>,
) -> Result<Notification, String> {
    notification::from_json(fields, manifest, &[]).map_err(|error| error.message.into_owned())
}

/// Returns the context of a call for so many targets.
pub(crate) fn context(manifest: &ProviderManifest, targets: usize) -> Context {
    let entropy = vec![7; manifest.entropy as usize * targets];
    Context::at(UNIX_EPOCH + Duration::from_secs(NOW), entropy)
}

/// Returns the target of a kind with this text.
pub fn target(kind: TargetKind, text: String) -> Target {
    match kind {
        TargetKind::Device => Target::Device(text),
        TargetKind::Topic => Target::Topic(text),
        TargetKind::Condition => Target::Condition(text),
        TargetKind::Channel => Target::Channel(text),
        TargetKind::Url => Target::Url(text),
    }
}

/// Returns the text of a target.
pub(crate) fn text(recipient: &Recipient) -> &str {
    match &recipient.target {
        Target::Device(text)
        | Target::Topic(text)
        | Target::Condition(text)
        | Target::Channel(text)
        | Target::Url(text) => text,
    }
}

/// Returns a recipient of the same kind with another text.
pub fn like(recipient: &Recipient, text: String) -> Recipient {
    let target = match &recipient.target {
        Target::Device(_) => Target::Device(text),
        Target::Topic(_) => Target::Topic(text),
        Target::Condition(_) => Target::Condition(text),
        Target::Channel(_) => Target::Channel(text),
        Target::Url(_) => Target::Url(text),
    };
    Recipient { target, options: recipient.options.clone() }
}

/// Checks the examples, and returns those that encode.
/// `sends`: whether one becomes a request or a submission, and reports what is wrong.
pub(crate) fn samples(
    subject: &Subject,
    settings: &[(String, String)],
    sends: fn(&Subject, &Sample, &mut Rule) -> bool,
) -> (Vec<Sample>, RuleReport) {
    let manifest = subject.manifest();
    let mut rule = Rule::new("examples", "each example of the manifest encodes");
    if manifest.examples.is_empty() || manifest.examples.len() > MOST {
        rule.error(
            "describe",
            "examples",
            format!("it must have 1 to {MOST}, with which an upload is tried"),
        );
    }
    let mut samples = Vec::new();
    for (number, example) in manifest.examples.iter().take(MOST).enumerate() {
        rule.case();
        let place = format!("examples[{number}]");
        let mut sample = match Sample::of(manifest, number, example) {
            Ok(sample) => sample,
            Err(why) => {
                rule.error("describe", place, why);
                continue;
            }
        };
        undeclared(manifest, &sample, &mut rule);
        for (name, value) in settings {
            sample.application = sample.with_setting(name, Some(value));
        }
        if is_registered(subject, &sample, &mut rule) && sends(subject, &sample, &mut rule) {
            samples.push(sample);
        }
    }
    (samples, rule.done())
}

/// Reports what an example uses and the manifest does not declare.
fn undeclared(manifest: &ProviderManifest, sample: &Sample, rule: &mut Rule) {
    let Sample { place, application, .. } = sample;
    for (name, _) in &application.settings {
        if !manifest.settings.iter().any(|field| field.name == *name) {
            let message = format!("its setting {name} is not one of the manifest's settings");
            rule.error("describe", place.as_str(), message);
        }
    }
    match &application.credential {
        Some(name) if !manifest.credentials.iter().any(|credential| credential.name == *name) => {
            rule.error("describe", place, format!("its credential {name} is not one of the manifest's"));
        }
        None if !manifest.credentials.is_empty() => {
            rule.error("describe", place, "it names none of the manifest's credentials");
        }
        _ => {}
    }
}

/// Checks that the application of a sample is taken.
fn is_registered(subject: &Subject, sample: &Sample, rule: &mut Rule) -> bool {
    let Sample { place, application, .. } = sample;
    match subject.check_application(place, &context(subject.manifest(), 1), application) {
        Err(failure) => rule.error_of("check-application", place, failure.message, failure.printed),
        Ok(Err(rejection)) => {
            let message = format!("its application is refused: {}", rejection.message);
            rule.error("check-application", place, message);
        }
        Ok(Ok(())) => return true,
    }
    false
}

/// Checks that a sample becomes a request.
pub(crate) fn encodes(subject: &Subject, sample: &Sample, rule: &mut Rule) -> bool {
    let Sample { place, application, notification, target, .. } = sample;
    let (context, targets) = (context(subject.manifest(), 1), std::slice::from_ref(target));
    match subject.encode(place, &context, application, notification, targets) {
        Err(failure) => rule.error_of("encode", place, failure.message, failure.printed),
        Ok(requests) => match requests.refusals.first() {
            Some((_, rejection)) => {
                rule.error("encode", place, format!("it is refused: {}", rejection.message))
            }
            None => return true,
        },
    }
    false
}
