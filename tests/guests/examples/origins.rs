//! Needs another token for each origin that it sends to, and sends to any.

use pushlet_guests::*;
use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, Endpoint, Environment, SecretFormat, SignedToken, SigningAlgorithm, Source,
};
use pushlet_provider::manifest::{header, secret};
use pushlet_provider::reply;

pub struct Origins;

const MINUTE: u64 = 60_000;

fn credential() -> Credential {
    let token = SignedToken {
        key: "origins_p8".into(),
        algorithm: SigningAlgorithm::Es256,
        header: Vec::new(),
        // Unique, so that its age counts from when it was signed and not from the step that a fleet shares.
        claims: vec![("aud".into(), Source::TargetOrigin), ("jti".into(), Source::UniqueId)],
        lifetime: 50 * MINUTE,
        minimum_age: 20 * MINUTE,
    };
    Credential {
        name: "key".into(),
        secrets: vec![secret("origins_p8", SecretFormat::Pkcs8Key, None, "A key.")],
        authentication: Authentication::SignedToken((token, header("authorization", "Bearer "))),
        required_settings: Vec::new(),
        derivations: Vec::new(),
        inline: false,
        companions: Vec::new(),
        connection_settings: Vec::new(),
    }
}

fn endpoint(environment: Environment) -> Endpoint {
    Endpoint { name: "push".into(), environment, transport: Transport::Https, origin: Origin::AnyHttps }
}

impl Guest for Origins {
    fn describe() -> ProviderManifest {
        let mut manifest = ProviderManifest {
            name: "origins".into(),
            credentials: vec![credential()],
            targets: vec![TargetKind::Url],
            endpoints: [Environment::Production, Environment::Development].map(endpoint).to_vec(),
            targets_per_exchange: 1,
            ..manifest()
        };
        for example in &mut manifest.examples {
            example.credential = Some("key".into());
            example.target = "https://push.example/send".into();
        }
        manifest
    }

    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let exchanges = targets.iter().enumerate().filter_map(|(place, target)| {
            let Target::Url(url) = &target.target else { return None };
            Some(Exchange { url: Some(url.clone()), path: String::new(), ..exchange(&[reply::index(place)]) })
        });
        Encoded {
            messages: vec![message(b"hello".to_vec())],
            exchanges: exchanges.collect(),
            refusals: Vec::new(),
        }
    }
}

export!(Origins);
