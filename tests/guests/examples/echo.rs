//! Tells everybody all that it is given: in what it sends, in what it prints, and in what it answers.
#![allow(clippy::print_stdout)]

use pushlet_guests::*;
use pushlet_provider::bindings::exports::pushlet::provider::manifest::{
    Authentication, Credential, Derivation, Property, SecretFormat, SignedToken, SigningAlgorithm, Source,
};
use pushlet_provider::manifest::{header, secret};
use pushlet_provider::reply;

pub struct Echo;

/// With secrets of three kinds, none of which it may see.
fn credentials() -> Vec<Credential> {
    let credential = |name: &str, secrets, authentication| Credential {
        name: name.into(),
        secrets,
        authentication,
        required_settings: Vec::new(),
        derivations: Vec::new(),
        inline: false,
        companions: Vec::new(),
        connection_settings: Vec::new(),
    };
    let signed = SignedToken {
        key: "echo_p8".into(),
        algorithm: SigningAlgorithm::Es256,
        header: Vec::new(),
        claims: vec![("iat".into(), Source::IssuedAt)],
        lifetime: 3_000_000,
        minimum_age: 0,
    };
    let authorization = || header("authorization", "Bearer ");
    let identities = vec![
        secret("echo_pem", SecretFormat::PemIdentity, Some("echo_password"), "An identity."),
        secret("echo_p12", SecretFormat::Pkcs12Identity, Some("echo_password"), "An identity."),
    ];
    let text = vec![secret("echo_token", SecretFormat::Text, None, "A token.")];
    let key = vec![secret("echo_p8", SecretFormat::Pkcs8Key, None, "A key.")];
    vec![
        credential("token", text, Authentication::Secret(("echo_token".into(), authorization()))),
        credential("key", key, Authentication::SignedToken((signed, authorization()))),
        Credential {
            derivations: vec![Derivation { setting: "do".into(), property: Property::CertificateSubjectUid }],
            ..credential("identity", identities, Authentication::ClientCertificate)
        },
    ]
}

impl Guest for Echo {
    fn describe() -> ProviderManifest {
        let mut manifest = ProviderManifest { name: "echo".into(), credentials: credentials(), ..manifest() };
        manifest.examples.iter_mut().for_each(|example| example.credential = Some("token".into()));
        manifest
    }

    fn check_application(application: Application) -> Result<(), Rejection> {
        println!("{application:?}");
        Ok(())
    }

    fn encode(
        context: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Recipient>,
    ) -> Encoded {
        let all = format!("{context:?} {application:?} {notification:?} {targets:?}");
        println!("{all}");
        let environment: Vec<_> =
            std::env::vars().chain(std::env::args().map(|text| (text, String::new()))).collect();
        with_body(&targets, format!("{all} {environment:?}").into_bytes())
    }

    fn decode(context: Context, application: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        println!("{context:?} {application:?} {answers:?}");
        let outcome =
            |answer: &Answer| reply::failed(Disposition::Rejected, None, Some(format!("{answer:?}")));
        answers.iter().map(|answer| reply::same_for_all(answer.targets.len(), outcome(answer))).collect()
    }
}

export!(Echo);
