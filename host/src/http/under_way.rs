//! Counts what must end before the program may.

use std::sync::Arc;

use tokio::sync::watch;

/// How many pieces of work are under way. Cheap to clone.
#[derive(Clone)]
pub struct UnderWay(Arc<watch::Sender<usize>>);

/// One piece of work; it ends when this is dropped.
pub struct Guard(UnderWay);

impl Default for UnderWay {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl UnderWay {
    pub fn begin(&self) -> Guard {
        self.0.send_modify(|count| *count += 1);
        Guard(self.clone())
    }

    /// Waits until nothing is under way.
    pub async fn ended(&self) {
        // Fails only when the sender is gone, and we hold it.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    pub fn count(&self) -> usize {
        *self.0.borrow()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
