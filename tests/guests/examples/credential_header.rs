//! Has a credential that becomes the header `x-token`, and writes that header itself where it is told to.

use pushlet_guests::*;
use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, SecretFormat,
};
use pushlet_provider::manifest::{header, secret};

pub struct CredentialHeader;

impl Guest for CredentialHeader {
    fn describe() -> ProviderManifest {
        let place = header("x-token", "");
        let credential = Credential {
            name: "token".into(),
            secrets: vec![secret("token", SecretFormat::Text, None, "What the service gave.")],
            authentication: Authentication::Secret(("token".into(), place)),
            required_settings: Vec::new(),
            derivations: Vec::new(),
            inline: false,
            companions: Vec::new(),
            connection_settings: Vec::new(),
        };
        ProviderManifest { credentials: vec![credential], ..manifest() }
    }

    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut encoded = encoded(&targets);
        let header = (task(&application).to_owned(), "mine".to_owned());
        match setting(&application, "where") {
            "message" => encoded.messages[0].headers.push(header),
            "exchange" => encoded.exchanges[0].headers.push(header),
            _ => {}
        }
        encoded
    }
}

export!(CredentialHeader);
