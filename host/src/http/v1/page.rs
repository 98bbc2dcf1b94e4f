//! Long lists come in pages: `limit` says how many items, `after` behind which id.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;

/// Items in one answer.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// `{NAME: […], "next": …}` of items that are in the order of their ids; `next` is null on the last page.
pub(super) fn page<T: Serialize>(
    name: &str,
    all: &[T],
    id: impl Fn(&T) -> &str,
    query: &BTreeMap<String, String>,
) -> Result<Value, Error> {
    let limit = match query.get("limit").map(|text| text.parse::<usize>()) {
        None => PAGE,
        Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => {
            let message = format!("limit must be an integer from 1 to {LARGEST_PAGE}");
            return Err(Error::field("invalid_limit", "limit", message));
        }
    };
    let behind = |item: &&T| query.get("after").is_none_or(|after| id(item) > after.as_str());
    let mut rest = all.iter().filter(behind);
    let page: Vec<&T> = rest.by_ref().take(limit).collect();
    let last = page.last().map(|item| id(item));
    let next = rest.next().and(last);
    Ok(json!({ name: page, "next": next }))
}
