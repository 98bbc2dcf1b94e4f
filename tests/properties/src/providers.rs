//! The built-in providers, in their sandbox: no caller and no push service can make one fail.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arbitrary::Unstructured;
use pushlet_model::contract::manifest::TargetKind;
use pushlet_model::contract::{Application, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{BUILT_IN, ComponentTrust, Instances, Provider, ProviderError, Sandbox, SandboxLimits};

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
    let Ok((provider, instances)) = u.choose(providers()) else { return };
    let (Ok(mut context), Ok(application)) = (contract::context(&mut u), application(&mut u, provider))
    else {
        return;
    };
    let (Ok(notification), Ok(mut targets)) =
        (contract::notification(&mut u), contract::some(&mut u, 4, contract::target))
    else {
        return;
    };
    // The host sends at least one target, only kinds that the manifest knows, and the entropy that it asks for.
    targets.retain(|target| provider.manifest().targets.contains(&kind(target)));
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
    let Ok((provider, instances)) = u.choose(providers()) else { return };
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

/// An application with a credential that the provider knows, if any.
fn application(u: &mut Unstructured<'_>, provider: &Provider) -> arbitrary::Result<Application> {
    let mut application = contract::application(u)?;
    let credentials = &provider.manifest().credentials;
    application.credential = credentials.first().map(|credential| credential.name.clone());
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
