//! Its manifest places a secret in a header that frames the request.

use pushlet_guests::exports::manifest::{Authentication, Credential, SecretFormat};
use pushlet_guests::*;
use pushlet_provider::manifest::{header, secret};

pub struct Smuggler;

impl Guest for Smuggler {
    fn describe() -> ProviderManifest {
        let placement = header("transfer-encoding", "");
        let credential = Credential {
            name: "key".into(),
            secrets: vec![secret("key", SecretFormat::Text, None, "")],
            authentication: Authentication::Secret(("key".into(), placement)),
            required_settings: Vec::new(),
            derivations: Vec::new(),
            inline: false,
            companions: Vec::new(),
            connection_settings: Vec::new(),
        };
        ProviderManifest { credentials: vec![credential], ..manifest() }
    }
}

export!(Smuggler);
