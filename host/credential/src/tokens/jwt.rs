//! Signed tokens (RFC 7515, RFC 7519), built as a manifest describes them, and the jobs that sign them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::token::{AuthorizeError, ClockReading, TokenId};
use crate::credential::Credential;
use crate::files::keys::TokenKey;
use pushlet_model::contract::manifest::{SignedToken, SigningAlgorithm, Source};
use pushlet_model::digest::DigestParts;
use pushlet_quota::account::{Account, Work};

/// Header values beyond this are refused by common servers.
const LONGEST_TOKEN: usize = 6 << 10;

/// Where the values of sources come from.
#[derive(Clone, Copy)]
pub(crate) struct TokenInputs<'a> {
    pub(crate) credential: &'a Credential,
    pub(crate) settings: &'a [(String, String)],
    /// `https://host[:port]` of the exchange.
    pub(crate) origin: &'a str,
}

/// A token whose values are all known but those that change with every mint.
pub(crate) struct TokenTemplate {
    algorithm: SigningAlgorithm,
    header: Vec<(String, ClaimSlot)>,
    claims: Vec<(String, ClaimSlot)>,
    lifetime: Duration,
}

enum ClaimSlot {
    Fixed(Value),
    IssuedAt,
    ExpiresAt,
    UniqueId,
}

impl TokenInputs<'_> {
    fn slot(&self, source: &Source) -> Result<ClaimSlot, AuthorizeError> {
        Ok(match source {
            Source::Literal(json) => ClaimSlot::Fixed(
                serde_json::from_str(json).map_err(|_| AuthorizeError::manifest("a literal is not JSON"))?,
            ),
            Source::Setting(name) => ClaimSlot::Fixed(Value::from(self.setting(name)?)),
            Source::SecretProperty((secret, name)) => {
                ClaimSlot::Fixed(Value::from(self.property(secret, name)?))
            }
            Source::IssuedAt => ClaimSlot::IssuedAt,
            Source::ExpiresAt => ClaimSlot::ExpiresAt,
            Source::UniqueId => ClaimSlot::UniqueId,
            Source::TargetOrigin => ClaimSlot::Fixed(Value::from(self.origin)),
        })
    }

    /// Returns the text of a source that does not change with time.
    pub(crate) fn text(&self, source: &Source) -> Result<String, AuthorizeError> {
        match self.slot(source)? {
            ClaimSlot::Fixed(Value::String(text)) => Ok(text),
            _ => Err(AuthorizeError::manifest("a source is not a text")),
        }
    }

    /// Adds what a source is: its kind, and its value if that does not change with every mint.
    fn describe(&self, source: &Source, into: &mut DigestParts) -> Result<(), AuthorizeError> {
        let (kind, value) = match source {
            Source::Literal(json) => ("literal", json.as_str()),
            Source::Setting(name) => ("text", self.setting(name)?),
            Source::SecretProperty((secret, name)) => ("text", self.property(secret, name)?),
            Source::TargetOrigin => ("text", self.origin),
            Source::IssuedAt => ("issued-at", ""),
            Source::ExpiresAt => ("expires-at", ""),
            Source::UniqueId => ("unique-id", ""),
        };
        into.add(kind.as_bytes());
        into.add(value.as_bytes());
        Ok(())
    }

    pub(crate) fn setting(&self, name: &str) -> Result<&str, AuthorizeError> {
        let setting = self.settings.iter().find(|(key, value)| key == name && !value.is_empty());
        setting
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| AuthorizeError::MissingSetting(name.to_owned()))
    }

    fn property(&self, secret: &str, name: &str) -> Result<&str, AuthorizeError> {
        let value = self.credential.property(secret, name);
        value.ok_or_else(|| AuthorizeError::manifest("a property is not in the secret"))
    }

    fn slots(&self, sources: &[(String, Source)]) -> Result<Vec<(String, ClaimSlot)>, AuthorizeError> {
        sources.iter().map(|(name, source)| Ok((name.clone(), self.slot(source)?))).collect()
    }
}

/// Equal for tokens that differ in nothing but time and unique ids. It is asked for with every push, a
/// [`TokenTemplate`] only to mint.
pub(crate) fn digest(token: &SignedToken, facts: TokenInputs<'_>) -> Result<TokenId, AuthorizeError> {
    let mut parts = DigestParts::new();
    parts.add(name(token.algorithm).as_bytes());
    for sources in [&token.header, &token.claims] {
        parts.add(&sources.len().to_be_bytes());
        for (name, source) in sources {
            parts.add(name.as_bytes());
            facts.describe(source, &mut parts)?;
        }
    }
    parts.add(&token.lifetime.to_be_bytes());
    parts.add(&token.minimum_age.to_be_bytes());
    Ok(parts.finish())
}

/// Returns the step to which the time of issue is rounded down, so that all nodes of a fleet make the same token without
/// a word between them; None: this token is not shared. Apple counts the new tokens of a key, so the step is the
/// largest multiple of the minimum age within the lifetime: 40 minutes for Apple.
pub(crate) fn shared_step(token: &SignedToken) -> Option<Duration> {
    let minimum_age = Duration::from_millis(token.minimum_age).as_secs();
    let steps = use_for(token).as_secs().checked_div(minimum_age)?;
    let is_unique =
        token.header.iter().chain(&token.claims).any(|(_, source)| matches!(source, Source::UniqueId));
    // The salt of a PS256 signature is random.
    let is_repeatable = token.algorithm != SigningAlgorithm::Ps256 && !is_unique;
    (steps > 0 && is_repeatable).then(|| Duration::from_secs(steps * minimum_age))
}

/// Returns how long a token is used. One that carries its own end is given up before that end.
pub(crate) fn use_for(token: &SignedToken) -> Duration {
    let lifetime = Duration::from_millis(token.lifetime);
    // Apple's tokens carry no end: the service decides when they have expired.
    let ends =
        token.header.iter().chain(&token.claims).any(|(_, source)| matches!(source, Source::ExpiresAt));
    if ends { lifetime * 5 / 6 } else { lifetime }
}

impl TokenTemplate {
    pub(crate) fn new(token: &SignedToken, facts: TokenInputs<'_>) -> Result<Self, AuthorizeError> {
        Ok(Self {
            algorithm: token.algorithm,
            header: facts.slots(&token.header)?,
            claims: facts.slots(&token.claims)?,
            lifetime: Duration::from_millis(token.lifetime),
        })
    }

    pub(crate) fn mint(
        &self,
        key: &TokenKey,
        now: &ClockReading,
    ) -> Result<Zeroizing<String>, AuthorizeError> {
        let mut header = Map::new();
        header.insert("alg".to_owned(), Value::from(name(self.algorithm)));
        self.fill(&self.header, now, &mut header);
        let mut claims = Map::new();
        self.fill(&self.claims, now, &mut claims);
        let mut token = Zeroizing::new(String::new());
        URL_SAFE_NO_PAD.encode_string(Value::Object(header).to_string(), &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(Value::Object(claims).to_string(), &mut token);
        let signature = key.sign(token.as_bytes()).ok_or(AuthorizeError::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > LONGEST_TOKEN {
            return Err(AuthorizeError::manifest("the token is too long"));
        }
        Ok(token)
    }

    fn fill(&self, slots: &[(String, ClaimSlot)], now: &ClockReading, into: &mut Map<String, Value>) {
        for (name, slot) in slots {
            let value = match slot {
                ClaimSlot::Fixed(value) => value.clone(),
                ClaimSlot::IssuedAt => Value::from(now.unix_seconds()),
                ClaimSlot::ExpiresAt => Value::from(now.unix_seconds() + self.lifetime.as_secs()),
                ClaimSlot::UniqueId => Value::from(Uuid::new_v4().to_string()),
            };
            into.insert(name.clone(), value);
        }
    }
}

fn name(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::Es256 => "ES256",
        SigningAlgorithm::Rs256 => "RS256",
        SigningAlgorithm::Ps256 => "PS256",
    }
}

/// One token to be signed. An RSA signature takes milliseconds, and the author of the provider's manifest decides how
/// many there are, so they are computed on the threads for heavy work, on the tenant's account.
pub(crate) struct SigningJob {
    template: TokenTemplate,
    key: Arc<TokenKey>,
}

impl SigningJob {
    /// Finds all values of the token; signs nothing.
    pub(crate) fn new(
        token: &SignedToken,
        key: &Arc<TokenKey>,
        facts: TokenInputs<'_>,
    ) -> Result<Self, AuthorizeError> {
        Ok(Self { template: TokenTemplate::new(token, facts)?, key: key.clone() })
    }

    /// Signs the token when it is the tenant's turn, unless the deadline has passed by then.
    pub(crate) async fn run(
        self,
        account: &Arc<Account>,
        now: ClockReading,
        deadline: Instant,
    ) -> Result<Zeroizing<String>, AuthorizeError> {
        let sign = move || match Instant::now() < deadline {
            true => self.template.mint(&self.key, &now),
            false => Err(AuthorizeError::DeadlineExceeded),
        };
        account.run_heavy(Work::Signing, sign).await.map_err(AuthorizeError::NoCapacity)?
    }
}

/// The text around a token in the header.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeaderFrame<'a> {
    Prefix(&'a str),
    /// RFC 8292 section 3: `vapid t=TOKEN, k=KEY`.
    Vapid,
}

impl HeaderFrame<'_> {
    /// Returns a name that distinguishes frames.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Vapid => "vapid",
        }
    }

    /// Returns the text before and after a token that this key signs.
    pub(crate) fn parts(&self, key: &TokenKey) -> (String, String) {
        match self {
            Self::Prefix(prefix) => ((*prefix).to_owned(), String::new()),
            Self::Vapid => {
                ("vapid t=".to_owned(), format!(", k={}", URL_SAFE_NO_PAD.encode(key.public_key())))
            }
        }
    }
}
