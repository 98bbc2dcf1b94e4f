//! What the examples of a manifest need: an application with throw-away credentials, a push, and token endpoints that
//! answer.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use pushlet_credential::token_host;
use pushlet_model::contract::manifest::{
    Authentication, Credential, Example, Grant, ProviderManifest, Secret, SecretFormat, SignedToken,
    SigningAlgorithm, Source, TargetKind, TokenExchange, TokenRequest,
};
use pushlet_settings::Problem;
use pushlet_simulator::recorder::AnswerRule;
use pushlet_simulator::{CredentialFiles, make_credentials};

/// A text that is hex and base64 too, as the key of some signatures must be.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Seconds.
const TOKEN_LIFETIME: u64 = 3600;

/// Credentials that are worth nothing. Keys are made when they are first needed.
#[derive(Default)]
pub(super) struct ThrowAway(Option<(TempDir, CredentialFiles)>);

impl ThrowAway {
    /// Returns what the application of an example is registered with.
    pub fn application(&mut self, manifest: &ProviderManifest, example: &Example) -> Result<Value, Problem> {
        let settings: Map<String, Value> =
            example.settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let named = example.credential.as_ref();
        let credential = manifest.credentials.iter().find(|one| named.is_none_or(|name| *name == one.name));
        let mut credentials = Map::new();
        if let Some(credential) = credential {
            // A file with a key and a certificate is what PEM is for, too, where both are taken.
            let secret =
                credential.secrets.iter().find(|secret| secret.format != SecretFormat::Pkcs12Identity);
            for secret in secret.or(credential.secrets.first()).into_iter().chain(&credential.companions) {
                credentials.insert(secret.name.clone(), self.secret(secret, credential)?);
            }
        }
        Ok(json!({"provider": manifest.name, "settings": settings, "credentials": credentials}))
    }

    fn secret(&mut self, secret: &Secret, credential: &Credential) -> Result<Value, Problem> {
        if secret.format == SecretFormat::Text {
            // Protocols of their own have short ones; the dry run of an upload has the same length.
            let in_stream = matches!(credential.authentication, Authentication::InStream);
            return Ok(json!(if in_stream { &SECRET[..8] } else { SECRET }));
        }
        let files = self.files()?;
        let text = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| Problem::new(format_args!("{}: {error}", path.display())))
        };
        Ok(match secret.format {
            SecretFormat::Pkcs12Identity => {
                let bytes = std::fs::read(&files.apns_p12).map_err(Problem::new)?;
                json!({ "base64": STANDARD.encode(bytes) })
            }
            SecretFormat::PemIdentity => json!(text(&files.apns_pem)?),
            SecretFormat::ServiceAccount => {
                // Vendors name different things in these; what is there besides is not read.
                let account =
                    |path| serde_json::from_str::<Map<String, Value>>(&text(path)?).map_err(Problem::new);
                let mut all = account(&files.hms_service_account)?;
                all.extend(account(&files.fcm_service_account)?);
                json!(Value::Object(all).to_string())
            }
            SecretFormat::Pkcs8Key if signs_with_rsa(credential) => {
                let account: Value =
                    serde_json::from_str(&text(&files.fcm_service_account)?).map_err(Problem::new)?;
                account["private_key"].clone()
            }
            _ => json!(text(&files.apns_p8)?),
        })
    }

    fn files(&mut self) -> Result<&CredentialFiles, Problem> {
        if self.0.is_none() {
            let folder = tempfile::tempdir().map_err(Problem::new)?;
            let files = make_credentials(folder.path()).map_err(Problem::new)?;
            self.0 = Some((folder, files));
        }
        self.0.as_ref().map(|(_, files)| files).ok_or_else(|| Problem::new("no credentials"))
    }
}

fn signs_with_rsa(credential: &Credential) -> bool {
    let is_rsa = |token: &SignedToken| token.algorithm != SigningAlgorithm::Es256;
    match &credential.authentication {
        Authentication::SignedToken((token, _)) | Authentication::Vapid(token) => is_rsa(token),
        Authentication::ExchangedToken((TokenExchange { grant: Grant::JwtBearer(token), .. }, _)) => {
            is_rsa(token)
        }
        _ => false,
    }
}

/// Returns the push of an example.
pub(super) fn push(manifest: &ProviderManifest, example: &Example, application: &str) -> Value {
    let kind = match manifest.targets.first() {
        Some(TargetKind::Topic) => "topic",
        Some(TargetKind::Condition) => "condition",
        Some(TargetKind::Channel) => "channel",
        Some(TargetKind::Url) => "url",
        Some(TargetKind::Device) | None => "device",
    };
    let mut target = Map::from_iter([(kind.to_owned(), json!(example.target))]);
    if !example.target_options.is_empty() {
        let options = example.target_options.iter().map(|(name, value)| (name.clone(), parsed(value)));
        target.insert("options".to_owned(), Value::Object(options.collect()));
    }
    json!({"application_id": application, "notification": parsed(&example.notification), "targets": [target]})
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

/// Returns answers of the token endpoints that are of a vendor's own kind; those of OAuth need none.
pub(super) fn token_answers(manifest: &ProviderManifest) -> Vec<AnswerRule> {
    let exchanges = manifest.credentials.iter().filter_map(|credential| match &credential.authentication {
        Authentication::ExchangedToken((exchange, _)) => Some(exchange),
        _ => None,
    });
    exchanges.filter_map(token_answer).collect()
}

fn token_answer(exchange: &TokenExchange) -> Option<AnswerRule> {
    let Grant::Custom(request) = &exchange.grant else { return None };
    let origin = token_host(exchange)?;
    let url: String = exchange.token_url.iter().map(pattern).collect();
    // The first piece has the whole origin and the slash after it.
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    Some(AnswerRule {
        host: origin.host_str().map(str::to_owned),
        path: Some(format!("/{path}")),
        body: Some(token_body(request)),
        ..AnswerRule::default()
    })
}

fn pattern(piece: &Source) -> String {
    match piece {
        Source::Literal(text) => parsed(text).as_str().unwrap_or_default().to_owned(),
        _ => "*".to_owned(),
    }
}

fn token_body(request: &TokenRequest) -> Value {
    let mut body = json!({});
    put(&mut body, &request.token, json!("recorded-token"));
    if let Some(path) = &request.expires_in {
        put(&mut body, path, json!(TOKEN_LIFETIME));
    }
    if let Some((path, value)) = &request.success {
        put(&mut body, path, json!(value));
    }
    body
}

/// Sets a value at a path of names joined by dots.
fn put(body: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(body, |place, name| {
        if !place.is_object() {
            *place = json!({});
        }
        &mut place[name]
    });
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_at_its_path() {
        let mut body = json!({});
        put(&mut body, "data.token", json!("t"));
        put(&mut body, "data.ttl", json!(60));
        put(&mut body, "code", json!("0"));
        assert_eq!(body, json!({"data": {"token": "t", "ttl": 60}, "code": "0"}));
    }
}
