//! Uploaded secrets: any bytes are read or refused, in bounded time.

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use pushlet_credential::{Credential, CredentialPurpose, Secret, UploadedSecrets};
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::Credential as Kind;

use crate::providers::providers;

/// The first byte chooses the upload field, the second the password, the rest is the file.
pub fn credential(bytes: &[u8]) {
    let [field, password, file @ ..] = bytes else { return };
    let secrets: Vec<_> = kinds().iter().flat_map(|kind| &kind.secrets).collect();
    let secret = secrets[usize::from(*field) % secrets.len()];
    let mut uploads = UploadedSecrets::default();
    uploads.insert(&secret.name, Secret::new(file.to_vec()));
    if let (Some(field), true) = (&secret.password, password % 2 == 1) {
        let passwords: [&[u8]; 4] = [b"", b"password", b"\xff", "p\u{e4}ss".as_bytes()];
        let value = passwords[usize::from(password / 2) % passwords.len()];
        uploads.insert(field, Secret::new(value.to_vec()));
    }
    // A fixed time, so that a finding stays one.
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let purpose = CredentialPurpose { environment: Environment::Production, now, settings: Vec::new() };
    if let Ok(Some(credential)) = Credential::parse(kinds(), &uploads, &purpose) {
        assert!(kinds().iter().any(|kind| kind.name == credential.kind()));
        credential.summary();
    }
}

/// All kinds of credentials of the built-in providers.
fn kinds() -> &'static [Kind] {
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        providers().iter().flat_map(|(provider, _)| provider.manifest().credentials.clone()).collect()
    })
}
