//! Can what is registered be kept? Asked by those who watch this server, so it is cheap for all but one of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use pushlet_registry::{Registry, StorageError};

/// How long a result counts.
const FRESH: Duration = Duration::from_secs(3);
/// A disk that takes longer than this is as good as none.
const WAIT: Duration = Duration::from_secs(2);

/// Looks at the registry's storage, one look at a time.
#[derive(Default)]
pub(super) struct StorageCheck(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(Instant, Option<String>)>,
    /// A look that has not come to its end: another one would only hang beside it.
    looking: Option<JoinHandle<Result<(), StorageError>>>,
}

impl StorageCheck {
    /// Why nothing can be kept now; None: it can.
    pub async fn problem(&self, registry: &Arc<Registry>) -> Option<String> {
        let mut state = self.0.lock().await;
        if let Some((at, problem)) = &state.last
            && at.elapsed() < FRESH
        {
            return problem.clone();
        }
        let registry = registry.clone();
        let look = move || tokio::task::spawn_blocking(move || registry.check_storage());
        let looking = state.looking.get_or_insert_with(look);
        let problem = match timeout(WAIT, &mut *looking).await {
            Ok(ended) => {
                state.looking = None;
                match ended {
                    Ok(result) => result.err().map(|error| error.to_string()),
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(_) => Some(format!("the disk did not answer within {WAIT:?}")),
        };
        state.last = Some((Instant::now(), problem.clone()));
        problem
    }
}
