use std::time::{Duration, Instant};

/// How long a test waits for something that must happen: long enough for a machine that is busy with other tests.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `check` returns true. Panics after [`LONGEST_WAIT`] with what it waited for.
pub async fn wait_until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    wait_for(what, async || check().await.then_some(())).await;
}

/// Waits until `check` returns a value. Panics after [`LONGEST_WAIT`] with what it waited for.
pub async fn wait_for<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < LONGEST_WAIT, "waited {LONGEST_WAIT:?} for this: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
