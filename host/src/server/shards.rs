//! One thread for each processor, with a runtime of its own: a caller's connection stays on one of them, and so do its
//! requests, their timers and the connections to push services that carry them. No push waits for another thread.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use pushlet_quota::{OwnedThread, Shard};

/// A runtime wakes its thread for a timer that is due before all others that it has, also where the thread is awake. A
/// timer that is due sooner than those of nearly all requests spares each of them two system calls.
const TICK: Duration = Duration::from_secs(1);
/// At the end: for work of a shard that may block.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The threads. They end when this is dropped, which waits for them.
pub struct ShardThreads {
    shards: Shards,
    _threads: Vec<ShardThread>,
}

/// What hands connections to the threads. Cheap to clone.
#[derive(Clone)]
pub struct Shards(Arc<[ShardRuntime]>);

struct ShardRuntime {
    shard: Shard,
    runtime: Handle,
    /// Each connection has one, so that they are counted.
    connections: Arc<()>,
}

type ShardThread = OwnedThread<oneshot::Sender<()>>;

impl ShardThreads {
    /// Starts a thread for each processor that this process may use.
    pub fn start() -> io::Result<Self> {
        let started: Vec<_> = (0..Shard::count()).map(start).collect::<io::Result<_>>()?;
        let (shards, threads): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        Ok(Self { shards: Shards(shards.into()), _threads: threads })
    }

    pub fn shards(&self) -> &Shards {
        &self.shards
    }
}

impl Shards {
    /// Serves a connection on the thread that has the fewest, of those that keep up with their work if there are any.
    pub fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let load = |shard: &&ShardRuntime| (shard.shard.is_behind(), Arc::strong_count(&shard.connections));
        let Some(shard) = self.0.iter().min_by_key(load) else { return tasks.spawn(connection) };
        let counted = shard.connections.clone();
        let connection = async move {
            connection.await;
            drop(counted);
        };
        tasks.spawn_on(connection, &shard.runtime)
    }
}

fn start(number: u32) -> io::Result<(ShardRuntime, ShardThread)> {
    let shard = Shard::new(number);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || shard.parks())
        .on_thread_unpark(move || shard.unparks())
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, mut stopped) = oneshot::channel::<()>();
    let thread = OwnedThread::start(format!("shard-{number}"), stop, move || {
        shard.enter();
        shard.unparks();
        // Ends also when the other end is dropped.
        runtime.block_on(async { while timeout(TICK, &mut stopped).await.is_err() {} });
        // A look-up of a name that is not answered must not delay the end.
        runtime.shutdown_timeout(STOP_TIME);
    })?;
    let runtime = ShardRuntime { shard, runtime: handle, connections: Arc::default() };
    Ok((runtime, thread))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn connections_are_served_and_counted_by_the_threads() {
        let threads = ShardThreads::start().unwrap();
        let (told, mut places) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let count = Shard::count() as usize;
        for _ in 0..10 * count {
            let told = told.clone();
            threads.shards().spawn(&mut tasks, async move {
                told.send(Shard::current().place()).unwrap();
                std::future::pending().await
            });
        }
        for _ in 0..10 * count {
            // The first place is that of threads that are no shards.
            assert!((1..=count).contains(&places.recv().await.unwrap()));
        }
        let connections = |shard: &ShardRuntime| Arc::strong_count(&shard.connections) - 1;
        let all = || threads.shards().0.iter().map(connections).sum::<usize>();
        assert_eq!(all(), 10 * count);
        tasks.shutdown().await;
        assert_eq!(all(), 0);
    }
}
