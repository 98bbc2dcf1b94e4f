//! Short constructors for the records of a manifest.

use crate::Environment;
use crate::bindings::exports::pushlet::provider::manifest as records;
pub use crate::bindings::exports::pushlet::provider::manifest::{
    Authentication, BodyFormat, ClientAuthentication, ClientCredentials, ComposedText, Composition,
    Credential, Derivation, Digest, DigestAlgorithm, Encoding, Endpoint, Example, Field, Grant, Origin, Part,
    Place, Placement, Property, ProviderManifest, RequestField, Secret, SecretFormat, SignedToken,
    SigningAlgorithm, Source, TargetKind, TokenExchange, TokenRequest, Transport, ValueKind,
};

/// A setting or an option that takes any value of its kind.
pub fn field(name: &str, kind: ValueKind, description: &str) -> Field {
    Field {
        name: name.into(),
        kind,
        required: false,
        choices: Vec::new(),
        default: None,
        minimum: None,
        maximum: None,
        max_length: None,
        unit: None,
        description: description.into(),
    }
}

impl records::Field {
    /// It must be given.
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// What holds if it is not given, as JSON.
    pub fn by_default(self, value: &str) -> Self {
        Self { default: Some(value.into()), ..self }
    }

    /// A number from `least` to `most`, both allowed.
    pub fn between(self, least: f64, most: f64) -> Self {
        Self { minimum: Some(least), maximum: Some(most), ..self }
    }

    /// A text of at most so many bytes.
    pub fn at_most(self, bytes: u32) -> Self {
        Self { max_length: Some(bytes), ..self }
    }

    /// What its number counts.
    pub fn in_unit(self, unit: &str) -> Self {
        Self { unit: Some(unit.into()), ..self }
    }
}

/// Both worlds of a service.
pub fn both_environments() -> Vec<Environment> {
    vec![Environment::Production, Environment::Development]
}

/// A text setting or option that takes one of `choices`.
pub fn choice(name: &str, choices: &[&str], description: &str) -> Field {
    let choices = choices.iter().map(|choice| choice.to_string()).collect();
    Field { choices, ..field(name, ValueKind::Text, description) }
}

/// A secret, with the upload field of its password where it may have one.
pub fn secret(name: &str, format: SecretFormat, password: Option<&str>, description: &str) -> Secret {
    Secret { name: name.into(), format, password: password.map(Into::into), description: description.into() }
}

/// `name: prefix token`.
pub fn header(name: &str, prefix: &str) -> Placement {
    Placement { place: Place::Header(name.into()), prefix: prefix.into() }
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

/// A byte stream over TLS in both environments, wherever the operator's configuration says.
pub fn configured(name: &str) -> [Endpoint; 2] {
    let endpoint = |environment| Endpoint {
        name: name.into(),
        environment,
        transport: Transport::Tls,
        origin: Origin::Configured,
    };
    [endpoint(Environment::Production), endpoint(Environment::Development)]
}

/// A notification that the provider can encode, in the JSON form of the HTTP API.
pub fn example(credential: &str, settings: &[(&str, &str)], target: &str, notification: &str) -> Example {
    Example {
        settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        credential: Some(credential.into()),
        notification: notification.into(),
        target: target.into(),
        target_options: Vec::new(),
    }
}

/// Names, as the manifest's lists want them.
pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
