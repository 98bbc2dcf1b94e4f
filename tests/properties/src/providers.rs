//! The built-in providers, in their sandbox: no caller and no push service can make one fail.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arbitrary::Unstructured;
use pushlet_model::contract::manifest::TargetKind;
use pushlet_model::contract::session::{Event, Submission};
use pushlet_model::contract::{Application, Context, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{
    BUILT_IN, ComponentTrust, Instances, Provider, ProviderError, Sandbox, SandboxLimits, Session,
    SessionInput, target_url,
};

use crate::contract;

/// Each built-in provider and its instances.
pub fn providers() -> &'static [(Arc<Provider>, Arc<Instances>)] {
    static PROVIDERS: OnceLock<Vec<(Arc<Provider>, Arc<Instances>)>> = OnceLock::new();
    PROVIDERS.get_or_init(|| {
        // Under a fuzzer everything is slow.
        let limits = SandboxLimits {
            instances: 16,
            call_timeout: Duration::from_secs(10),
            ..SandboxLimits::default()
        };
        let sandbox = Sandbox::new(limits, Accounts::new(AccountSettings::default()).unwrap()).unwrap();
        let load = |(_, bytes): &(&str, &[u8])| {
            let provider = Provider::load(&sandbox, bytes, ComponentTrust::BuiltIn, &Arc::default()).unwrap();
            let instances = provider.instances(&TenantId::default_tenant());
            (provider, instances)
        };
        BUILT_IN.iter().map(load).collect()
    })
}

/// Any notification to any targets is encoded or refused.
pub fn encode(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok((provider, instances)) = chosen(&mut u, false) else { return };
    let (Ok(mut context), Ok(application)) = (contract::context(&mut u), application(&mut u, provider))
    else {
        return;
    };
    let (Ok(notification), Ok(mut targets)) =
        (contract::notification(&mut u), contract::some(&mut u, 4, contract::recipient))
    else {
        return;
    };
    // The host sends at least one target, only kinds that the manifest knows, URLs that are some, and the entropy that
    // it asks for.
    targets.retain(|recipient| provider.manifest().targets.contains(&kind(&recipient.target)));
    targets.retain(|recipient| !matches!(&recipient.target, Target::Url(url) if target_url(url).is_err()));
    if targets.is_empty() {
        return;
    }
    context.entropy.resize(targets.len() * provider.manifest().entropy as usize, 7);
    match instances.encode(&context, &application, &notification, &targets) {
        Ok(_) => {}
        Err(error) => panic!("{}: {error:?}\n{}", provider.manifest().name, instances.log().text()),
    }
    if let Err(error) = instances.check_application(&context, &application) {
        panic!("{}: {error:?}\n{}", provider.manifest().name, instances.log().text());
    }
}

/// Any answer of the push service is read, and something is said of each target.
pub fn decode(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok((provider, instances)) = chosen(&mut u, false) else { return };
    let (Ok(context), Ok(application)) = (contract::context(&mut u), application(&mut u, provider)) else {
        return;
    };
    let Ok(native) = u.arbitrary() else { return };
    let Ok(answers) = contract::some(&mut u, 3, contract::answer) else { return };
    match instances.decode(&context, &application, &answers, native) {
        Ok(replies) => assert_eq!(replies.len(), answers.len()),
        // The budget of bytes goes with the number of targets, and a native answer may be larger.
        Err(ProviderError::BadOutput(_))
            if answers.iter().any(|answer| answer.response.body.len() > 64 << 10) => {}
        Err(error) => panic!("{}: {error:?}\n{}", provider.manifest().name, instances.log().text()),
    }
}

/// Whatever a push service writes, and whenever: every submission is settled once.
pub fn receive(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok((provider, instances)) = chosen(&mut u, true) else { return };
    let (Ok(mut context), Ok(mut application)) = (contract::context(&mut u), application(&mut u, provider))
    else {
        return;
    };
    if let Some(example) = provider.manifest().examples.first() {
        application.settings.clone_from(&example.settings);
    }
    let (Ok(endpoint), Ok(length)) = (u.choose(&["push", "feedback"]), u.int_in_range(0..=12)) else {
        return;
    };
    let secrets = [("smpp_password".to_owned(), length)];
    let session = instances.open_session(&context, &application, endpoint, &secrets);
    let mut run =
        StreamRun { instances, session: session.unwrap(), submitted: 0, settled: 0, is_over: false };
    run.step(&context, &SessionInput::Start);
    while !u.is_empty() && !run.is_over && run.submitted < 2000 {
        if run.act(&mut u, &mut context).is_err() {
            break;
        }
    }
    run.step(&context, &SessionInput::Closed);
    assert!(run.session.in_flight().is_empty(), "{} of {} were never settled", run.settled, run.submitted);
    assert_eq!(run.settled, run.submitted);
}

/// One connection.
struct StreamRun<'a> {
    instances: &'a Instances,
    session: Session,
    submitted: u64,
    settled: u64,
    is_over: bool,
}

impl StreamRun<'_> {
    fn act(&mut self, u: &mut Unstructured<'_>, context: &mut Context) -> arbitrary::Result<()> {
        match u.int_in_range(0..=7)? {
            0 => {
                let notification = contract::notification(u)?;
                let first = self.submitted;
                let recipients = contract::some(u, 4, contract::recipient)?.into_iter();
                let submissions: Vec<_> =
                    recipients.zip(first..).map(|(recipient, id)| Submission { id, recipient }).collect();
                self.submitted += submissions.len() as u64;
                self.step(context, &SessionInput::Submit(&notification, &submissions));
            }
            1 => self.step(context, &SessionInput::Written),
            2 => {
                context.now = context.now.saturating_add(u.int_in_range(0..=60_000)?);
                self.step(context, &SessionInput::Tick);
            }
            3 => self.step(context, &SessionInput::Finish),
            _ => {
                let length = u.int_in_range(0..=64)?.min(u.len());
                let received = u.bytes(length)?;
                self.step(context, &SessionInput::Received(received));
            }
        }
        Ok(())
    }

    fn step(&mut self, context: &Context, input: &SessionInput<'_>) {
        match self.instances.step(&mut self.session, context, input) {
            Ok(step) => {
                // The sandbox has checked that each is about a submission in flight.
                let settles = |event: &&Event| !matches!(event, Event::Dead(_));
                self.settled += step.events.iter().filter(settles).count() as u64;
                self.is_over |= step.close;
            }
            Err(error) => panic!("{input:?}: {error:?}\n{}", self.instances.log().text()),
        }
    }
}

/// A built-in provider of one of the worlds.
fn chosen(
    u: &mut Unstructured<'_>,
    streams: bool,
) -> arbitrary::Result<(&'static Arc<Provider>, &'static Arc<Instances>)> {
    let all: Vec<_> =
        providers().iter().filter(|(provider, _)| provider.speaks_stream() == streams).collect();
    u.choose(&all).map(|(provider, instances)| (provider, instances))
}

/// An application with a credential that the provider knows, if any.
fn application(u: &mut Unstructured<'_>, provider: &Provider) -> arbitrary::Result<Application> {
    let mut application = contract::application(u)?;
    let credentials = &provider.manifest().credentials;
    application.credential = credentials.first().map(|credential| credential.name.clone());
    // The host registers none for an environment that the manifest does not have.
    let environments = &provider.manifest().environments;
    if !environments.contains(&application.environment) {
        application.environment = environments[0];
    }
    Ok(application)
}

fn kind(target: &Target) -> TargetKind {
    match target {
        Target::Device(_) => TargetKind::Device,
        Target::Topic(_) => TargetKind::Topic,
        Target::Condition(_) => TargetKind::Condition,
        Target::Channel(_) => TargetKind::Channel,
        Target::Url(_) => TargetKind::Url,
    }
}
