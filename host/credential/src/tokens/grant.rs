//! What is given to a token endpoint for an access token: an assertion, a client's secret, or a vendor's own request.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::utf8_percent_encode;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::access_tokens::TokenForm;
use super::composition::{Composer, RESERVED};
use super::jwt::{self, SigningJob, TokenInputs};
use super::token::{AuthorizeError, ClockReading, TokenId, sensitive};
use super::token_endpoint::{AnswerShape, EndpointDialect, RequestField, RequestFields, parse_token_url};
use crate::credential::{Credential, text_fingerprint};
use crate::files::keys::TokenKey;
use pushlet_model::contract::manifest::{
    self, ClientAuthentication, ClientCredentials, Grant, Part, SignedToken, TokenExchange, TokenRequest,
};
use pushlet_model::digest::DigestParts;

/// A grant with the secrets that it needs.
pub(super) enum ResolvedGrant<'a> {
    Assertion { key: &'a Arc<TokenKey>, token: &'a SignedToken, facts: TokenInputs<'a> },
    Client { id: String, secret: Zeroizing<String>, authentication: ClientAuthentication },
    Custom { request: &'a TokenRequest, facts: TokenInputs<'a> },
}

impl<'a> ResolvedGrant<'a> {
    pub(super) fn new(grant: &'a Grant, facts: TokenInputs<'a>) -> Result<Self, AuthorizeError> {
        match grant {
            Grant::JwtBearer(token) => {
                let key = token_key(facts.credential, &token.key)?;
                Ok(Self::Assertion { key, token, facts })
            }
            Grant::Custom(request) => Ok(Self::Custom { request, facts }),
            Grant::ClientCredentials(ClientCredentials { id, secret, authentication }) => {
                let bytes = facts.credential.text(secret);
                let bytes = bytes.ok_or_else(|| AuthorizeError::manifest("it is no client secret"))?;
                let secret = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
                let id = facts.text(id)?;
                Ok(Self::Client { id, secret, authentication: *authentication })
            }
        }
    }

    pub(super) fn digest(&self) -> Result<TokenId, AuthorizeError> {
        Ok(match self {
            Self::Assertion { key, token, facts } => {
                DigestParts::of(&[key.fingerprint(), &jwt::digest(token, *facts)?])
            }
            Self::Client { id, secret, authentication } => {
                let authentication = &[*authentication as u8];
                DigestParts::of(&[id.as_bytes(), &text_fingerprint(secret.as_bytes()), authentication])
            }
            // The secrets are in the credential's own fingerprint.
            Self::Custom { request, facts } => {
                let mut parts = DigestParts::of(&[format!("{request:?}").as_bytes()]).to_vec();
                for (name, value) in facts.settings {
                    parts = DigestParts::of(&[&parts, name.as_bytes(), value.as_bytes()]).to_vec();
                }
                DigestParts::of(&[&parts])
            }
        })
    }

    pub(super) fn form(&self, scope: Option<&str>, now: &ClockReading) -> Result<TokenForm, AuthorizeError> {
        let (mut fields, assertion, dialect) = match self {
            Self::Assertion { key, token, facts } => (
                vec![RequestField::new("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")],
                Some(SigningJob::new(token, key, *facts)?),
                EndpointDialect::STANDARD,
            ),
            Self::Client { id, secret, authentication: ClientAuthentication::Body } => (
                vec![
                    RequestField::new("grant_type", "client_credentials"),
                    RequestField::new("client_id", id),
                    RequestField::secret("client_secret", secret.clone()),
                ],
                None,
                EndpointDialect::STANDARD,
            ),
            Self::Client { id, secret, authentication: ClientAuthentication::Basic } => {
                let authorization = Some(basic(id, secret)?);
                let fields = vec![RequestField::new("grant_type", "client_credentials")];
                (fields, None, EndpointDialect { authorization, ..EndpointDialect::STANDARD })
            }
            Self::Custom { request, facts } => {
                let composer = Composer::new(*facts, None, now);
                let dialect = EndpointDialect {
                    format: request.format,
                    authorization: None,
                    answer: Some(AnswerShape::of(request)),
                };
                (custom_fields(request, &composer)?, None, dialect)
            }
        };
        fields.extend(scope.map(|scope| RequestField::new("scope", scope)));
        Ok(TokenForm { fields, assertion, dialect })
    }
}

/// RFC 6749 section 2.3.1: both are form-urlencoded before they are joined.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, AuthorizeError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encoded(secret));
    let both = Zeroizing::new([&encoded(id), ":", &secret].concat());
    sensitive(format!("Basic {}", STANDARD.encode(both.as_bytes())))
}

fn custom_fields(request: &TokenRequest, composer: &Composer<'_>) -> Result<RequestFields, AuthorizeError> {
    let digest = request.digest.as_ref().map(|digest| composer.digest(digest)).transpose()?;
    let field = |field: &manifest::RequestField| {
        let secret = |part: &Part| matches!(part, Part::Secret(_) | Part::Digest);
        Ok(RequestField {
            name: field.name.clone().into(),
            value: composer.text(&field.value, digest.as_deref().map(String::as_str))?,
            is_secret: field.value.parts.iter().any(secret),
            is_number: field.number,
        })
    };
    request.fields.iter().map(field).collect()
}

/// Returns the URL of a token endpoint, whose pieces may be settings.
pub(super) fn token_url(facts: TokenInputs<'_>, token: &TokenExchange) -> Result<Url, AuthorizeError> {
    let mut pieces = token.token_url.iter();
    let mut url = pieces.next().map_or_else(|| Ok(String::new()), |piece| facts.text(piece))?;
    for piece in pieces {
        // A setting is one piece of the path, whatever is in it.
        let text = facts.text(piece)?;
        match piece {
            manifest::Source::Literal(_) => url.push_str(&text),
            _ => url.extend(utf8_percent_encode(&text, RESERVED)),
        }
    }
    parse_token_url(&url).ok_or_else(|| AuthorizeError::manifest("a token URL is not https"))
}

/// Returns the key of a credential that signs.
pub(super) fn token_key<'a>(
    credential: &'a Credential,
    secret: &str,
) -> Result<&'a Arc<TokenKey>, AuthorizeError> {
    credential.token_key(secret).ok_or_else(|| AuthorizeError::manifest("it is no key that signs"))
}
