//! Service account files: JSON with a private key and properties that are no secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::keys::TokenKey;
use super::{FileFault, FilePassword, pem};
use pushlet_model::contract::manifest::SigningAlgorithm;
use pushlet_model::digest::sha256;

const MOST_PROPERTIES: usize = 64;
const LONGEST_PROPERTY: usize = 2048;
/// Of UTF-8, as Windows editors write it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A service account.
pub(crate) struct ServiceAccount {
    pub(crate) key: Arc<TokenKey>,
    /// The text properties without the private key.
    properties: BTreeMap<String, String>,
}

impl ServiceAccount {
    /// `needed`: the properties that the provider refers to.
    pub(crate) fn parse(
        file: &[u8],
        algorithm: SigningAlgorithm,
        needed: &[&str],
    ) -> Result<Self, FileFault> {
        let mut properties = read_properties(file)?;
        let private_key =
            properties.remove("private_key").map(Zeroizing::new).ok_or("it has no private_key")?;
        for name in needed {
            if properties.get(*name).is_none_or(String::is_empty) {
                return Err(format!("it has no {name}").into());
            }
        }
        if let Some(url) = properties.get("token_uri") {
            crate::tokens::token_endpoint::parse_token_url(url)
                .ok_or("its token_uri is not the https URL of a token endpoint")?;
        }
        let no_password = FilePassword { value: None, field: None };
        let key = pem::parse_key(private_key.as_bytes(), no_password).map_err(|fault| match fault {
            FileFault::Unreadable => "its private_key cannot be read".into(),
            other => other,
        })?;
        Ok(Self { key: Arc::new(TokenKey::parse(&key, algorithm)?), properties })
    }

    /// Returns a property that is not secret.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Returns a digest that distinguishes accounts: of the key and of all properties.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut text = hex::encode(self.key.public_key());
        for (name, value) in &self.properties {
            text.push_str(&Value::from(name.as_str()).to_string());
            text.push_str(&Value::from(value.as_str()).to_string());
        }
        sha256(text.as_bytes())
    }
}

/// Reads the top-level text properties. Those that look like a second secret are left out, since properties
/// can become settings that a provider sees.
fn read_properties(file: &[u8]) -> Result<BTreeMap<String, String>, FileFault> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    if file.trim_ascii_start().starts_with(b"<") {
        return Err("it is XML, as GoogleService-Info.plist of an app; \
                    a service account's key is a JSON file from the project's settings"
            .into());
    }
    let mut values: BTreeMap<String, Value> =
        serde_json::from_slice(file).map_err(|error| match error.classify() {
            // The text of the error may quote the file.
            serde_json::error::Category::Data => FileFault::from("it is not a JSON object"),
            _ => format!("it is not JSON (line {}, column {})", error.line(), error.column()).into(),
        })?;
    if let Some(kind) = other_kind(&values) {
        values.values_mut().for_each(wipe);
        return Err(kind.into());
    }
    let mut properties = BTreeMap::new();
    for (name, value) in &mut values {
        let Value::String(text) = value else { continue };
        let is_key = name == "private_key";
        if is_key
            || (text.len() <= LONGEST_PROPERTY
                && !is_secret(name, text)
                && properties.len() < MOST_PROPERTIES)
        {
            properties.insert(name.clone(), std::mem::take(text));
        } else {
            text.zeroize();
        }
    }
    Ok(properties)
}

/// Returns what the file is, if it is another kind of file that Google issues.
fn other_kind(values: &BTreeMap<String, Value>) -> Option<String> {
    const WANTED: &str = "download a service account's key from the project's settings instead";
    let kind = match values.get("type").and_then(Value::as_str) {
        Some("service_account") => return None,
        Some("external_account") => {
            "an external_account, which is for workload identity federation and holds no key"
        }
        Some("authorized_user") => "an authorized_user, which is a person's login (gcloud auth)",
        Some("impersonated_service_account") => {
            "an impersonated_service_account, which holds no key of its own"
        }
        Some("external_account_authorized_user") => {
            "an external_account_authorized_user, which is a person's login (gcloud auth)"
        }
        Some(_) => return Some("its type is not service_account".to_owned()),
        None if values.contains_key("project_info") && values.contains_key("client") => {
            "a google-services.json, which is for Android apps and holds no key"
        }
        None if values.contains_key("installed") || values.contains_key("web") => "the id of an OAuth client",
        None if values.contains_key("apiKey") => "the configuration of a web app, which holds no key",
        None => return None,
    };
    Some(format!("it is {kind}; {WANTED}"))
}

/// Overwrites the texts in a value.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    let secret_name = ["secret", "password", "private_key_"].iter().any(|part| name.contains(part));
    (secret_name && name != "private_key_id") || value.contains("PRIVATE KEY")
}
