//! Wants a token of its own for the origin of each target, so that there is a signature for each.

use pushlet_guests::*;
use pushlet_provider::manifest::{
    Authentication, Credential, Endpoint, SecretFormat, SignedToken, SigningAlgorithm, Source, example,
    header, secret,
};
use pushlet_provider::{Environment, reply};

const KEY: &str = "signer_key";

pub struct Signer;

impl Guest for Signer {
    fn describe() -> ProviderManifest {
        let token = SignedToken {
            key: KEY.into(),
            algorithm: SigningAlgorithm::Rs256,
            header: Vec::new(),
            claims: vec![("aud".into(), Source::TargetOrigin), ("exp".into(), Source::ExpiresAt)],
            lifetime: 3_600_000,
            minimum_age: 0,
        };
        let endpoint = |environment| Endpoint {
            name: "push".into(),
            environment,
            transport: Transport::Https,
            origin: Origin::AnyHttps,
        };
        ProviderManifest {
            credentials: vec![Credential {
                name: "key".into(),
                secrets: vec![secret(KEY, SecretFormat::Pkcs8Key, None, "An RSA key.")],
                authentication: Authentication::SignedToken((token, header("authorization", "Bearer "))),
                required_settings: Vec::new(),
                derivations: Vec::new(),
                inline: false,
                companions: Vec::new(),
                connection_settings: Vec::new(),
            }],
            targets: vec![TargetKind::Url],
            endpoints: [Environment::Production, Environment::Development].map(endpoint).to_vec(),
            targets_per_exchange: 1,
            examples: vec![example("key", &[], "https://push.example/a", r#"{"body":"hello"}"#)],
            ..manifest()
        }
    }

    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let exchanges = targets.iter().enumerate().map(|(place, target)| {
            let url = match &target.target {
                Target::Url(url) => Some(url.clone()),
                _ => None,
            };
            Exchange { url, ..exchange(&[reply::index(place)]) }
        });
        Encoded {
            messages: vec![message(b"hello".to_vec())],
            exchanges: exchanges.collect(),
            refusals: Vec::new(),
        }
    }
}

export!(Signer);
