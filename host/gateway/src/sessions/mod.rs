//! Providers of the world `stream-provider`: each application has one connection, which a worker opens when there is
//! something to send, keeps while it is used, and opens again after it ended.
//!
//! - [`Sessions`]: the workers of all applications, and what is submitted to them
//! - `worker`: what waits, what is in flight, and when to connect again
//! - `connection`: a socket, and the instance that says what is written to it

mod connection;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use connection::Connection;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairPermits;
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::Provider;
use worker::{Worker, permit, report_dead};

pub(crate) use connection::SessionPeer;
pub(crate) use worker::{QueuedSubmission, Ticket};

/// Connections of all tenants, divided among them: each holds an instance.
pub(crate) const MOST_CONNECTIONS: usize = 200;
/// Connections of one tenant that wait for a permit.
const MOST_WAITING_CONNECTIONS: usize = 1000;
/// Submissions of one application that wait for their worker.
const QUEUE: usize = 1000;
/// How often to look whether the workers have ended.
const LOOK: Duration = Duration::from_millis(10);

/// The workers of all applications.
pub(crate) struct Sessions {
    workers: Mutex<HashMap<(TenantId, String), WorkerHandle>>,
    permits: FairPermits<TenantId>,
    /// Workers that have not ended.
    alive: Arc<AtomicUsize>,
    /// That of the process: connections belong to all shards, and outlive them at a shutdown.
    runtime: Handle,
}

/// The way to a worker. Once all of these are dropped, it finishes what it has.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    pub queue: mpsc::Sender<QueuedSubmission>,
    application: Arc<RegisteredApplication>,
    /// Of the component that it runs.
    digest: String,
}

impl Sessions {
    /// Must be called in the runtime that the workers shall use.
    pub fn new() -> Self {
        Self {
            workers: Mutex::default(),
            permits: FairPermits::new(MOST_CONNECTIONS, MOST_WAITING_CONNECTIONS),
            alive: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The application was replaced or removed: its worker finishes what it has.
    pub fn retire(&self, tenant: &TenantId, application: &str) {
        self.workers.lock().remove(&(tenant.clone(), application.to_owned()));
    }

    /// Lets all workers finish what they have, within a time.
    pub async fn close(&self, within: Duration) {
        self.workers.lock().clear();
        let end = Instant::now() + within;
        while self.alive.load(Ordering::Acquire) > 0 && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// Reads what a feedback service lists, until it closes the connection.
    pub async fn read_feedback(&self, peer: &Arc<SessionPeer>) -> Result<(), Error> {
        let permit = permit(&self.permits, peer).await?;
        let mut connection = Connection::open(peer, permit).await.map_err(|failure| failure.error())?;
        loop {
            for event in std::mem::take(&mut connection.events) {
                report_dead(peer, event);
            }
            if connection.is_over() {
                return Ok(());
            }
            connection.advance().await?;
        }
    }

    /// Returns how many workers there are, each with a connection or about to have one.
    pub fn count(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    /// Returns the worker of an application. `start` makes the peer of one that is not there.
    pub fn worker(
        &self,
        tenant: &TenantId,
        application: &Arc<RegisteredApplication>,
        provider: &Provider,
        start: impl FnOnce() -> Result<SessionPeer, Error>,
    ) -> Result<WorkerHandle, Error> {
        let key = (tenant.clone(), application.record.id.clone());
        let mut workers = self.workers.lock();
        let known = workers.get(&key).filter(|known| {
            let is_current =
                Arc::ptr_eq(&known.application, application) && known.digest == provider.digest();
            is_current && !known.queue.is_closed()
        });
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let (queue, submissions) = mpsc::channel(QUEUE);
        let worker = Worker::new(start()?, submissions, self.permits.clone(), &self.alive);
        self.runtime.spawn(worker.run());
        let (application, digest) = (application.clone(), provider.digest().to_owned());
        let handle = WorkerHandle { queue, application, digest };
        workers.retain(|_, worker| !worker.queue.is_closed());
        workers.insert(key, handle.clone());
        Ok(handle)
    }
}
