//! Extractors: the variable segments of a path, and which page of a list is wanted.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::response::V1Error;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// Items of a page, if the caller does not say.
const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1000;

/// Like [`Path`], but a path that cannot be read is an error like all others.
pub struct PathSegments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathSegments<T> {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, V1Error> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(rejection) => Err(Error::new(Kind::Invalid, "invalid_path", rejection.body_text()).into()),
        }
    }
}

/// The fields of the query.
pub struct QueryFields(pub BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for QueryFields {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, V1Error> {
        let query = Query::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Query(query) =
            query.map_err(|error| Error::new(Kind::Invalid, "invalid_query", error.body_text()))?;
        Ok(Self(query))
    }
}

/// Which page of a list is wanted: at most `limit` items, from the first one whose id is greater than `after`.
pub struct PageQuery {
    pub after: Option<String>,
    pub limit: usize,
    /// For lists that can be searched: a part of an id.
    pub search: Option<String>,
    /// For lists that have several orders.
    pub sort: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, V1Error> {
        let QueryFields(mut query) = QueryFields::from_request_parts(parts, state).await?;
        let limit = match query.get("limit").map(|text| text.parse::<usize>()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=LARGEST_LIMIT).contains(&limit) => limit,
            Some(_) => {
                let message = format!("limit must be an integer from 1 to {LARGEST_LIMIT}");
                return Err(Error::field("invalid_limit", "limit", message).into());
            }
        };
        let mut take = |name| query.remove(name).filter(|text| !text.is_empty());
        Ok(Self { search: take("search"), sort: take("sort"), after: query.remove("after"), limit })
    }
}

impl PageQuery {
    /// Returns the page, and the `after` of the next page if there is one. `all` must be sorted by id.
    pub fn page<'a, T>(&self, all: &'a [T], id: impl Fn(&T) -> &str) -> (&'a [T], Option<String>) {
        let after = self.after.as_deref();
        let start = all.partition_point(|item| after.is_some_and(|after| id(item) <= after));
        let rest = all.get(start..).unwrap_or_default();
        let (page, others) = rest.split_at(rest.len().min(self.limit));
        let next = page.last().filter(|_| !others.is_empty()).map(|last| id(last).to_owned());
        (page, next)
    }
}

/// Parses the tenant of a path.
pub(super) fn tenant_id(id: &str) -> Result<TenantId, Error> {
    TenantId::parse(id).ok_or_else(|| tenant_not_found(id))
}

/// Returns the error of a tenant that does not exist, or not for the caller.
pub(super) fn tenant_not_found(id: &str) -> Error {
    let id: String = id.chars().take(64).collect();
    Error::new(Kind::NotFound, "tenant_not_found", format!("there is no tenant {id}"))
}
