//! Sends to any origin that a target names, without a credential, so that nothing comes before the connection.

use pushlet_guests::*;
use pushlet_provider::bindings::exports::pushlet::provider::manifest::{Endpoint, Environment};
use pushlet_provider::reply;

pub struct Anywhere;

fn endpoint(environment: Environment) -> Endpoint {
    Endpoint { name: "push".into(), environment, transport: Transport::Https, origin: Origin::AnyHttps }
}

impl Guest for Anywhere {
    fn describe() -> ProviderManifest {
        let mut manifest = ProviderManifest {
            name: "anywhere".into(),
            targets: vec![TargetKind::Url],
            endpoints: [Environment::Production, Environment::Development].map(endpoint).to_vec(),
            targets_per_exchange: 1,
            ..manifest()
        };
        for example in &mut manifest.examples {
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

export!(Anywhere);
