//! Tries a provider with its own examples before anybody depends on it: some trap on their first call.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Map;

use crate::context::unix_milliseconds;
use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::manifest::{Example, ProviderManifest, TargetKind};
use pushlet_model::contract::{Application, Context, Environment, Notification, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::notification;
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{Instances, PreparedRequests, Provider, ProviderError};

/// Answers that every service gives some day: status and body.
const ANSWERS: [(u16, &[u8]); 4] =
    [(200, b"{}"), (200, b"\xff\0 no text"), (400, b"{\"error\":\"invalid\"}"), (503, b"")];

/// Encodes each example, and decodes answers to it. Each example waits for the tenant's turn.
pub(super) async fn run(provider: &Arc<Provider>, tenant: &TenantId) -> Result<(), Error> {
    let instances = provider.instances(tenant);
    for (number, trial) in trials(provider) {
        let trial = trial?;
        verdict(number, instances.run(move |instances| trial.run(instances)).await)?;
    }
    Ok(())
}

/// The same on this thread, when there is nobody yet to take turns with.
pub(super) fn run_here(provider: &Arc<Provider>, tenant: &TenantId) -> Result<(), Error> {
    let instances = provider.instances(tenant);
    trials(provider).try_for_each(|(number, trial)| verdict(number, trial?.run(&instances)))
}

fn trials(provider: &Provider) -> impl Iterator<Item = (usize, Result<Trial, Error>)> {
    let manifest = provider.manifest();
    manifest
        .examples
        .iter()
        .enumerate()
        .map(|(number, example)| (number, Trial::new(manifest, example).map_err(|why| failed(number, &why))))
}

fn verdict(number: usize, result: Result<Option<String>, ProviderError>) -> Result<(), Error> {
    match result {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(failed(number, &why)),
        Err(error @ (ProviderError::Exhausted | ProviderError::CpuLimit { .. })) => Err(error.into()),
        Err(error) => Err(failed(number, &error.to_string())),
    }
}

fn failed(number: usize, why: &str) -> Error {
    Error::new(Kind::Invalid, "dry_run_failed", format!("examples[{number}] of the manifest: {why}"))
}

/// One example as the codec sees it.
struct Trial {
    context: Context,
    application: Application,
    notification: Notification,
    target: Target,
}

impl Trial {
    fn new(manifest: &ProviderManifest, example: &Example) -> Result<Self, String> {
        let fields: Map<_, _> = serde_json::from_str(&example.notification)
            .map_err(|error| format!("its notification is not a JSON object: {error}"))?;
        let notification =
            notification::from_json(fields, manifest, &[]).map_err(|error| error.message.into_owned())?;
        let environment = manifest.endpoints.first().map(|endpoint| endpoint.environment);
        Ok(Self {
            context: Context {
                now: unix_milliseconds(SystemTime::now()),
                entropy: vec![7; manifest.entropy as usize],
            },
            application: Application {
                id: "example".into(),
                environment: environment.unwrap_or(Environment::Production),
                settings: example.settings.clone(),
                credential: example.credential.clone(),
            },
            notification,
            target: target(manifest, &example.target),
        })
    }

    /// What is wrong with it or with the component; None: nothing. `Err`: it could not be tried.
    fn run(&self, instances: &Instances) -> Result<Option<String>, ProviderError> {
        let checked = instances.check_application(&self.context, &self.application);
        match named("check-application", instances, checked)? {
            Err(why) => return Ok(Some(why)),
            Ok(Err(rejection)) => {
                return Ok(Some(format!("its application is refused: {}", rejection.message)));
            }
            Ok(Ok(())) => {}
        }
        let targets = std::slice::from_ref(&self.target);
        let encoded = instances.encode(&self.context, &self.application, &self.notification, targets);
        let refusals = match named("encode", instances, encoded)? {
            Err(why) => return Ok(Some(why)),
            Ok(PreparedRequests { refusals, .. }) => refusals,
        };
        if let Some((_, rejection)) = refusals.first() {
            return Ok(Some(format!("it is refused: {}", rejection.message)));
        }
        for (status, body) in ANSWERS {
            let headers = vec![("content-type".into(), "application/json".into())];
            let response = Response { status, headers, body: body.to_vec() };
            let answers = [Answer { targets: targets.to_vec(), response }];
            let decoded = instances.decode(&self.context, &self.application, &answers, true);
            let call =
                format!("decode of an answer of status {status}, body {:?}", String::from_utf8_lossy(body));
            if let Err(why) = named(&call, instances, decoded)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}

/// With a failure of the component told as that of this call, after what it printed last.
fn named<T>(
    call: &str,
    instances: &Instances,
    result: Result<T, ProviderError>,
) -> Result<Result<T, String>, ProviderError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_components_fault() => {
            let printed =
                instances.log().last_words().map(|words| format!("; before that it printed: {words}"));
            Ok(Err(format!("{call}: {error}{}", printed.unwrap_or_default())))
        }
        Err(error) => Err(error),
    }
}

/// An example's target is a text; it is of the first kind that the provider ensure_supports.
fn target(manifest: &ProviderManifest, text: &str) -> Target {
    let text = text.to_owned();
    match manifest.targets.first() {
        Some(TargetKind::Topic) => Target::Topic(text),
        Some(TargetKind::Condition) => Target::Condition(text),
        Some(TargetKind::Channel) => Target::Channel(text),
        Some(TargetKind::Url) => Target::Url(text),
        Some(TargetKind::Device) | None => Target::Device(text),
    }
}
