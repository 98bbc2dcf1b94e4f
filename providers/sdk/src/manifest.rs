//! Short constructors for the records of a manifest.

use crate::Environment;
pub use crate::bindings::exports::pushlet::provider::manifest::{
    Authentication, ClientCredentials, Credential, Derivation, Endpoint, Example, Field, Grant,
    HeaderPlacement, Origin, Property, ProviderManifest, Secret, SecretFormat, SignedToken, SigningAlgorithm,
    Source, TargetKind, TokenExchange, Transport, ValueKind,
};

/// A setting or an option that takes any value of its kind.
pub fn field(name: &str, kind: ValueKind, description: &str) -> Field {
    Field { name: name.into(), kind, choices: Vec::new(), description: description.into() }
}

/// A text setting or option that takes one of `choices`.
pub fn choice(name: &str, choices: &[&str], description: &str) -> Field {
    let choices = choices.iter().map(|choice| choice.to_string()).collect();
    Field { name: name.into(), kind: ValueKind::Text, choices, description: description.into() }
}

/// A secret, with the upload field of its password where it may have one.
pub fn secret(name: &str, format: SecretFormat, password: Option<&str>, description: &str) -> Secret {
    Secret { name: name.into(), format, password: password.map(Into::into), description: description.into() }
}

/// `name: prefix token`.
pub fn header(name: &str, prefix: &str) -> HeaderPlacement {
    HeaderPlacement { name: name.into(), prefix: prefix.into() }
}

/// An endpoint of both environments, at fixed origins.
pub fn endpoints(name: &str, transport: Transport, production: &str, development: &str) -> [Endpoint; 2] {
    let endpoint = |environment, origin: &str| Endpoint {
        name: name.into(),
        environment,
        transport,
        origin: Origin::Fixed(origin.into()),
    };
    [endpoint(Environment::Production, production), endpoint(Environment::Development, development)]
}

/// A notification that the provider can encode, in the JSON form of the HTTP API.
pub fn example(credential: &str, settings: &[(&str, &str)], target: &str, notification: &str) -> Example {
    Example {
        settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        credential: Some(credential.into()),
        notification: notification.into(),
        target: target.into(),
    }
}

/// Names, as the manifest's lists want them.
pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
