//! Remembers which token a credential last needed.

use arc_swap::ArcSwapOption;

use super::authorizer::{AuthorizeError, Exchange};
use super::cache::Key;
use pushlet_model::contract::manifest::Credential as CredentialKind;

/// The id of a credential's last token, and what it was found from: finding it takes some digests, comparing does
/// not, and nearly every exchange of an application needs the same.
#[derive(Default)]
pub(super) struct TokenMemo(ArcSwapOption<Remembered>);

struct Remembered {
    kind: CredentialKind,
    settings: Vec<(String, String)>,
    origin: String,
    id: Key,
}

impl TokenMemo {
    /// The id of the token that this exchange needs. `find` tells it by nothing but the exchange.
    pub(super) fn id(
        &self,
        exchange: &Exchange<'_>,
        find: impl FnOnce() -> Result<Key, AuthorizeError>,
    ) -> Result<Key, AuthorizeError> {
        if let Some(last) = &*self.0.load()
            && last.is_for(exchange)
        {
            return Ok(last.id);
        }
        let id = find()?;
        self.0.store(Some(Remembered::new(exchange, id).into()));
        Ok(id)
    }
}

impl Remembered {
    fn new(exchange: &Exchange<'_>, id: Key) -> Self {
        let Exchange { kind, settings, origin, .. } = *exchange;
        Self { kind: kind.clone(), settings: settings.to_vec(), origin: origin.to_owned(), id }
    }

    fn is_for(&self, exchange: &Exchange<'_>) -> bool {
        self.origin == exchange.origin && self.settings == exchange.settings && self.kind == *exchange.kind
    }
}
