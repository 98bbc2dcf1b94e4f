//! Remembers which token a credential last needed.

use arc_swap::ArcSwapOption;

use super::error::AuthorizeError;
use super::handle::TokenId;
use pushlet_model::contract::manifest::Credential as CredentialKind;

/// The id of a credential's last token, and what it was found from: finding it takes some digests, comparing does
/// not, and nearly every exchange of an application needs the same.
#[derive(Default)]
pub(crate) struct TokenMemo(ArcSwapOption<RememberedToken>);

struct RememberedToken {
    kind: CredentialKind,
    settings: Vec<(String, String)>,
    origin: String,
    id: TokenId,
}

impl TokenMemo {
    /// The id of the token that an exchange with this kind, settings and origin needs. `find` computes it from
    /// nothing but these three and the credential.
    pub(crate) fn id(
        &self,
        kind: &CredentialKind,
        settings: &[(String, String)],
        origin: &str,
        find: impl FnOnce() -> Result<TokenId, AuthorizeError>,
    ) -> Result<TokenId, AuthorizeError> {
        if let Some(last) = &*self.0.load()
            && last.origin == origin
            && last.settings == settings
            && last.kind == *kind
        {
            return Ok(last.id);
        }
        let id = find()?;
        let last = RememberedToken {
            kind: kind.clone(),
            settings: settings.to_vec(),
            origin: origin.to_owned(),
            id,
        };
        self.0.store(Some(last.into()));
        Ok(id)
    }
}
