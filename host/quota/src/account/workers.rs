//! The threads for strangers' code and for heavy work: the kernel serves them after all other threads of this
//! server, so that what runs here takes only what others leave.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Nice values: with others that want a processor, a thread of these gets a thirtieth or a seventieth of it.
const LIGHT: i32 = 15;
const HEAVY: i32 = 19;

/// Jobs of those who use little, and of those who use a lot; neither waits for a place of the other kind.
pub(super) struct WorkerPools {
    pub light: WorkerPool,
    pub heavy: WorkerPool,
}

/// Some places, and the threads behind them.
pub(super) struct WorkerPool {
    places: Arc<Semaphore>,
    /// Only the runtime's blocking pool is used; its threads exit when idle.
    threads: Option<Runtime>,
}

impl WorkerPools {
    /// With so many places each.
    pub fn new(light: usize, heavy: usize) -> io::Result<Self> {
        Ok(Self { light: WorkerPool::new(light, LIGHT)?, heavy: WorkerPool::new(heavy, HEAVY)? })
    }
}

impl WorkerPool {
    fn new(places: usize, niceness: i32) -> io::Result<Self> {
        let threads = Builder::new_current_thread()
            .thread_name("worker")
            .on_thread_start(move || be_nice(niceness))
            .build()?;
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { places, threads: Some(threads) })
    }

    /// Waits for a place, in order. None: never.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// Runs `job` on a thread of its own. None: the pool is being dropped.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        Some(self.threads.as_ref()?.spawn_blocking(job))
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        // May happen on a thread of another runtime, which must not wait.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Waits for a job. A panic in it goes on here. None: the pool is going down.
pub(super) async fn join<T>(running: Option<JoinHandle<T>>) -> Option<T> {
    match running?.await {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// On Linux a nice value is the thread's own; elsewhere it is the process's, and stays as it is.
fn be_nice(niceness: i32) {
    if cfg!(target_os = "linux") {
        // If this is not permitted, the threads are served like all others.
        let _ = rustix::process::nice(niceness);
    }
}

/// The processor time that this thread has used. Costs a system call.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_come_after_others_and_nobody_elses_do() {
        let own = || rustix::process::nice(0).unwrap();
        let before = own();
        let pools = WorkerPools::new(1, 1).unwrap();
        assert_eq!(pools.light.run(own).unwrap().await.unwrap(), (before + LIGHT).min(19));
        assert_eq!(pools.heavy.run(own).unwrap().await.unwrap(), (before + HEAVY).min(19));
        assert_eq!(own(), before);
    }
}
