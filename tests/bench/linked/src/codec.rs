//! One push through a provider's codec, `encode` and then `decode`: linked natively, in a warm sandbox, in a
//! sandbox that is made for each call. The inputs are the same.

use std::hint::black_box;
use std::time::Instant;

use pushlet_bench::failure::{Failure, at};
use pushlet_bench::linked::{Mode, Repeat, Subject};
use pushlet_model::contract;
use pushlet_model::tenant::TenantId;
use pushlet_provider as sdk;
use pushlet_quota::account::{AccountSettings, Accounts};
use pushlet_sandbox::{BUILT_IN, ComponentTrust, InstanceIsolation, Provider, Sandbox, SandboxLimits};

use crate::native;

const NOW: u64 = 1_700_000_000_000;
const TOKEN: &str = "fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9a2";
const TOPIC: (&str, &str) = ("apns_topic", "com.example.bench");
const SUBJECT: (&str, &str) = ("vapid_subject", "mailto:push@example.com");
/// A subscription (RFC 8291 section 5).
const URL: &str = "https://push.example/p/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV";
const KEYS: [(&str, &str); 2] = [
    (
        "p256dh",
        r#""BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4""#,
    ),
    ("auth", r#""BTBZMqHH6r4Tts7J_aSIgg""#),
];
/// The address space that a checker has is small.
const INSTANCES: u32 = 4;

/// A push that is encoded and whose answer is decoded, as often as wanted.
pub struct Codec(Kind);

enum Kind {
    Native(Box<Native>),
    Sandboxed(Box<Sandboxed>),
}

struct Native {
    application: sdk::Application,
    notification: sdk::Notification,
    targets: Vec<sdk::Recipient>,
}

struct Sandboxed {
    instances: std::sync::Arc<pushlet_sandbox::Instances>,
    application: contract::Application,
    notification: contract::Notification,
    targets: Vec<contract::Recipient>,
    response: contract::codec::Response,
    /// Of all targets.
    entropy: Vec<u8>,
}

impl Codec {
    /// For `targets` devices or browsers in one call.
    pub fn new(subject: Subject, mode: Mode, targets: usize) -> Result<Self, Failure> {
        let isolation = match mode {
            Mode::Native if subject == Subject::Apns => {
                return Ok(Self(Kind::Native(Box::new(native(targets)))));
            }
            Mode::Native => return Err(Failure::new("it is not linked natively")),
            Mode::Warm => InstanceIsolation::Warm,
            Mode::PerCall => InstanceIsolation::PerCall,
        };
        let limits = SandboxLimits { isolation, instances: INSTANCES, ..SandboxLimits::default() };
        let accounts = Accounts::new(AccountSettings::default()).map_err(at("accounts"))?;
        let sandbox = Sandbox::new(limits, accounts).map_err(|error| Failure::new(error.message))?;
        let component = BUILT_IN.iter().find(|(name, _)| *name == subject.name());
        let (_, bytes) = component.ok_or_else(|| Failure::new("there is no such component"))?;
        let provider = Provider::load(&sandbox, bytes, ComponentTrust::BuiltIn, &std::sync::Arc::default())
            .map_err(at("provider"))?;
        Ok(Self(Kind::Sandboxed(Box::new(Sandboxed {
            instances: provider.instances(&TenantId::default_tenant()),
            application: application(subject),
            notification: notification(),
            targets: vec![recipient(subject); targets],
            response: response(subject),
            entropy: vec![7; provider.manifest().entropy as usize * targets],
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
        use sdk::codec_bindings::exports::pushlet::provider::codec::Guest;
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
        let context = contract::Context { now: NOW, entropy: self.entropy.clone() };
        let encoded = self.instances.encode(&context, &self.application, &self.notification, &self.targets);
        let mut delivered = 0;
        for _ in &black_box(encoded.map_err(at("encode"))?).exchanges {
            let context = contract::Context { now: NOW, entropy: Vec::new() };
            let targets = self.targets.iter().take(1).map(|recipient| recipient.target.clone()).collect();
            let answers = [contract::codec::Answer { targets, response: self.response.clone() }];
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
    let recipient = sdk::Recipient { target: sdk::Target::Device(TOKEN.to_owned()), options: Vec::new() };
    Native {
        application: native::application(&application(Subject::Apns)),
        notification: native::notification(&notification()),
        targets: vec![recipient; targets],
    }
}

fn application(subject: Subject) -> contract::Application {
    let ((name, value), credential) = match subject {
        Subject::Apns => (TOPIC, "token"),
        Subject::WebPush => (SUBJECT, "vapid"),
    };
    contract::Application {
        id: "bench".into(),
        environment: contract::Environment::Production,
        settings: vec![(name.into(), value.into())],
        credential: Some(credential.into()),
    }
}

fn recipient(subject: Subject) -> contract::Recipient {
    match subject {
        Subject::Apns => contract::Target::Device(TOKEN.to_owned()).into(),
        Subject::WebPush => contract::Recipient {
            target: contract::Target::Url(URL.to_owned()),
            options: KEYS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
    }
}

/// What the service answers to each request.
fn response(subject: Subject) -> contract::codec::Response {
    let (status, name, value) = match subject {
        Subject::Apns => (200, "apns-id", "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D"),
        Subject::WebPush => (201, "location", "https://push.example/m/1"),
    };
    let headers = vec![(name.to_owned(), value.to_owned())];
    contract::codec::Response { status, headers, body: Vec::new() }
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
    let codec = Codec::new(repeat.subject, repeat.mode, 1)?;
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
        for subject in Subject::ALL {
            for mode in subject.modes() {
                let codec = Codec::new(subject, *mode, 3).unwrap();
                assert_eq!(codec.push().unwrap(), 3, "{} {}", subject.name(), mode.name());
            }
        }
    }
}
