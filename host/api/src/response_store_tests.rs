#![allow(clippy::unwrap_used)]

use super::*;
use crate::tests::limits;
use pushlet_quota::account::{AccountSettings, Accounts};

fn kept(body: &str) -> StoredResponse {
    StoredResponse {
        request: [0; 32],
        status: StatusCode::OK,
        content_type: None,
        body: Bytes::from(body.to_owned()),
    }
}

fn memory(window: Duration, keys: usize, memory: usize) -> ResponseStore {
    let mut limits = limits();
    limits.idempotency_window = window;
    limits.idempotency_keys = keys;
    limits.idempotency_memory = memory;
    ResponseStore::open(&limits, None)
}

fn present<'a>(memory: &ResponseStore, keys: &[&'a str]) -> Vec<&'a str> {
    let tenant = TenantId::default_tenant();
    keys.iter().copied().filter(|key| memory.get(&tenant, key).is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_window_and_for_its_tenant() {
    let (tenant, other) = (TenantId::default_tenant(), TenantId::new("other"));
    let memory = memory(Duration::from_secs(60), 10, 1 << 20);
    memory.put(&tenant, "a", kept("one"), None).await;
    tokio::time::advance(Duration::from_secs(59)).await;
    memory.put(&tenant, "b", kept("two"), None).await;
    assert_eq!(memory.get(&tenant, "a"), Some(kept("one")));
    assert_eq!(memory.get(&other, "a"), None);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(present(&memory, &["a", "b"]), ["b"]);
}

#[tokio::test]
async fn the_oldest_go_when_there_is_no_room() {
    let tenant = TenantId::default_tenant();
    let by_count = memory(Duration::from_secs(60), 2, 1 << 20);
    for key in ["a", "b", "a", "c"] {
        by_count.put(&tenant, key, kept(key), None).await;
    }
    assert_eq!(present(&by_count, &["a", "b", "c"]), ["a", "c"]);
    let by_size = memory(Duration::from_secs(60), 100, 3000);
    for key in ["a", "b", "c"] {
        by_size.put(&tenant, key, kept(&"x".repeat(900)), None).await;
    }
    assert_eq!(present(&by_size, &["a", "b", "c"]), ["b", "c"]);
    by_size.put(&tenant, "large", kept(&"x".repeat(9000)), None).await;
    assert_eq!(present(&by_size, &["b", "c", "large"]), ["large"]);
}

#[tokio::test]
async fn answers_are_counted_and_the_oldest_make_room() {
    let tenant = TenantId::default_tenant();
    let settings = AccountSettings { tenant_memory: 10_000, ..AccountSettings::default() };
    let account = Accounts::new(settings).unwrap().of(&tenant);
    let memory = memory(Duration::from_secs(60), 100, 1 << 20);
    for key in ["a", "b", "c"] {
        memory.put(&tenant, key, kept(&"x".repeat(4000)), Some(&account)).await;
    }
    assert_eq!(present(&memory, &["a", "b", "c"]), ["b", "c"]);
    assert!((8000..10_000).contains(&account.memory_used_for(MemoryUse::Idempotency)));
    let _body = account.reserve(MemoryUse::RequestBodies, 900).unwrap();
    memory.put(&tenant, "large", kept(&"x".repeat(20_000)), Some(&account)).await;
    assert_eq!(present(&memory, &["b", "c", "large"]), ["large"], "the newest stays, whatever its size");
}
