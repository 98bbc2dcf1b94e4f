//! Long lists come in pages: `limit` says how many items, `after` behind which id.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::Failure;
use pushlet_model::error::{Error, Kind};

/// Items in one answer.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Which page is wanted.
pub(super) struct Paging {
    after: Option<String>,
    limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(mut query) = Query::<BTreeMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Error::new(Kind::Invalid, "invalid_query", error.body_text()))?;
        let limit = match query.get("limit").map(|text| text.parse::<usize>()) {
            None => PAGE,
            Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
            Some(_) => {
                let message = format!("limit must be an integer from 1 to {LARGEST_PAGE}");
                return Err(Error::field("invalid_limit", "limit", message).into());
            }
        };
        Ok(Self { after: query.remove("after"), limit })
    }
}

impl Paging {
    /// The page of items that are in the order of their ids, and what the next page is `after`.
    pub(super) fn of<'a, T>(&self, all: &'a [T], id: impl Fn(&T) -> &str) -> (&'a [T], Option<String>) {
        let after = self.after.as_deref();
        let start = all.partition_point(|item| after.is_some_and(|after| id(item) <= after));
        let rest = all.get(start..).unwrap_or_default();
        let (page, others) = rest.split_at(rest.len().min(self.limit));
        let next = page.last().filter(|_| !others.is_empty()).map(|last| id(last).to_owned());
        (page, next)
    }
}
