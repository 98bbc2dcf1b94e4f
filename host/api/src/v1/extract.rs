//! Extractors: the variable segments of a path, and which page of a list is wanted.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::response::V1Error;
use pushlet_model::error::{Error, Kind};

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

/// Which page of a list is wanted: at most `limit` items, from the first one whose id is greater than `after`.
pub struct PageQuery {
    after: Option<String>,
    limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = V1Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, V1Error> {
        let Query(mut query) = Query::<BTreeMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Error::new(Kind::Invalid, "invalid_query", error.body_text()))?;
        let limit = match query.get("limit").map(|text| text.parse::<usize>()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=LARGEST_LIMIT).contains(&limit) => limit,
            Some(_) => {
                let message = format!("limit must be an integer from 1 to {LARGEST_LIMIT}");
                return Err(Error::field("invalid_limit", "limit", message).into());
            }
        };
        Ok(Self { after: query.remove("after"), limit })
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
