//! One push through a provider's codec, `encode` and then `decode`: linked natively, in a warm sandbox, in a
//! sandbox that is made for each call. The inputs are the same.

use std::hint::black_box;
use std::time::Instant;

use pushlet_bench::failure::{Failure, at};
use pushlet_bench::linked::{Mode, Repeat};
use pushlet_model::contract;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{BUILT_IN, ComponentTrust, InstanceIsolation, Provider, Sandbox, SandboxLimits};
use pushlet_sdk as sdk;

use crate::native;

const NOW: u64 = 1_700_000_000_000;
const TOKEN: &str = "fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9a2";
const TOPIC: (&str, &str) = ("apns_topic", "com.example.bench");
/// The address space that a checker has is small.
const INSTANCES: u32 = 4;

/// A push to Apple that is encoded and whose answer is decoded, as often as wanted.
pub struct Codec(Kind);

enum Kind {
    Native(Box<Native>),
    Sandboxed(Box<Sandboxed>),
}

struct Native {
    application: sdk::Application,
    notification: sdk::Notification,
    targets: Vec<sdk::Target>,
}

struct Sandboxed {
    instances: std::sync::Arc<pushlet_sandbox::Instances>,
    application: contract::Application,
    notification: contract::Notification,
    targets: Vec<contract::Target>,
}

impl Codec {
    /// For `targets` devices in one call.
    pub fn new(mode: Mode, targets: usize) -> Result<Self, Failure> {
        let isolation = match mode {
            Mode::Native => return Ok(Self(Kind::Native(Box::new(native(targets))))),
            Mode::Warm => InstanceIsolation::Warm,
            Mode::PerCall => InstanceIsolation::PerCall,
        };
        let limits = SandboxLimits { isolation, instances: INSTANCES, ..SandboxLimits::default() };
        let accounts = Accounts::new(AccountSettings::default()).map_err(at("accounts"))?;
        let sandbox = Sandbox::new(limits, accounts).map_err(|error| Failure::new(error.message))?;
        let apns = BUILT_IN.iter().find(|(name, _)| *name == "apns");
        let (_, bytes) = apns.ok_or_else(|| Failure::new("there is no apns"))?;
        let provider = Provider::load(&sandbox, bytes, ComponentTrust::BuiltIn, &std::sync::Arc::default())
            .map_err(at("provider"))?;
        Ok(Self(Kind::Sandboxed(Box::new(Sandboxed {
            instances: provider.instances(&TenantId::default_tenant()),
            application: application(),
            notification: notification(),
            targets: vec![contract::Target::Device(TOKEN.to_owned()); targets],
        }))))
    }

    /// One encode for all targets and one decode for each of them. The number of targets that were delivered.
    pub fn push(&self) -> Result<usize, Failure> {
        match &self.0 {
            Kind::Native(native) => Ok(native.push()),
            Kind::Sandboxed(sandboxed) => sandboxed.push(),
        }
    }
}

impl Native {
    fn push(&self) -> usize {
        use sdk::bindings::exports::pushlet::provider::codec::Guest;
        type Apns = pushlet_apns_native::Apns;
        let context = sdk::Context { now: NOW, entropy: vec![7; 16 * self.targets.len()] };
        let (application, notification) = (self.application.clone(), self.notification.clone());
        let encoded = <Apns as Guest>::encode(context, application, notification, self.targets.clone());
        let mut delivered = 0;
        for _ in &black_box(encoded).exchanges {
            let context = sdk::Context { now: NOW, entropy: Vec::new() };
            let headers = vec![("apns-id".to_owned(), "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D".to_owned())];
            let response = sdk::Response { status: 200, headers, body: Vec::new() };
            let answer = sdk::Answer { targets: vec![sdk::Target::Device(TOKEN.to_owned())], response };
            let replies = <Apns as Guest>::decode(context, self.application.clone(), vec![answer], false);
            let outcomes = replies.iter().flat_map(|reply| &reply.outcomes);
            delivered +=
                outcomes.filter(|outcome| outcome.disposition == sdk::Disposition::Delivered).count();
        }
        delivered
    }
}

impl Sandboxed {
    fn push(&self) -> Result<usize, Failure> {
        let context = contract::Context { now: NOW, entropy: vec![7; 16 * self.targets.len()] };
        let encoded = self.instances.encode(&context, &self.application, &self.notification, &self.targets);
        let mut delivered = 0;
        for _ in &black_box(encoded.map_err(at("encode"))?).exchanges {
            let context = contract::Context { now: NOW, entropy: Vec::new() };
            let headers = vec![("apns-id".to_owned(), "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D".to_owned())];
            let response = contract::codec::Response { status: 200, headers, body: Vec::new() };
            let targets = vec![contract::Target::Device(TOKEN.to_owned())];
            let answers = [contract::codec::Answer { targets, response }];
            let replies = self.instances.decode(&context, &self.application, &answers, false);
            let replies = replies.map_err(at("decode"))?;
            let outcomes = replies.iter().flat_map(|reply| &reply.outcomes);
            delivered +=
                outcomes.filter(|outcome| outcome.disposition == contract::Disposition::Delivered).count();
        }
        Ok(delivered)
    }
}

fn native(targets: usize) -> Native {
    Native {
        application: native::application(&application()),
        notification: native::notification(&notification()),
        targets: vec![sdk::Target::Device(TOKEN.to_owned()); targets],
    }
}

fn application() -> contract::Application {
    contract::Application {
        id: "bench".into(),
        environment: contract::Environment::Production,
        settings: vec![(TOPIC.0.into(), TOPIC.1.into())],
        credential: Some("token".into()),
    }
}

fn notification() -> contract::Notification {
    let alert = contract::Alert {
        title: Some("Order 7".into()),
        body: Some("Your order is on its way".into()),
        ..contract::Alert::default()
    };
    contract::Notification {
        alert: Some(alert),
        badge: Some(1),
        sound: Some(contract::Sound::Default),
        data: Some(r#"{"order":7,"state":"sent"}"#.into()),
        ..contract::Notification::default()
    }
}

/// Pushes as often as it is told. Microseconds per push by the wall clock.
pub fn run(repeat: Repeat) -> Result<f64, Failure> {
    let codec = Codec::new(repeat.mode, 1)?;
    at_once(repeat.threads, repeat.warm_up, || codec.push())?;
    let start = Instant::now();
    at_once(repeat.threads, repeat.times, || counted(&codec))?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(repeat.threads * repeat.times).max(1.0))
}

/// Each thread so many times.
fn at_once(
    threads: u32,
    times: u32,
    push: impl Fn() -> Result<usize, Failure> + Sync,
) -> Result<(), Failure> {
    let delivered = || match push()? {
        1 => Ok(()),
        _ => Err(Failure::new("a push was not delivered")),
    };
    let run = || (0..times).try_for_each(|_| delivered());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Failure::new("the codec panicked"))))
    })
}

/// By this name a profiler knows when to count.
#[inline(never)]
fn counted(codec: &Codec) -> Result<usize, Failure> {
    black_box(codec).push()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_modes_do_the_same_work() {
        for mode in Mode::ALL {
            assert_eq!(Codec::new(mode, 3).unwrap().push().unwrap(), 3, "{}", mode.name());
        }
    }
}
