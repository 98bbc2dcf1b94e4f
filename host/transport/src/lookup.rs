//! Looks host names up, without letting one tenant's slow names delay another's.
//!
//! By `getaddrinfo`, so that `/etc/hosts`, `nsswitch.conf` and the search domains of containers count as they
//! do for every other program of the machine. It blocks a thread until the last name server has been given up,
//! which nothing can shorten: therefore lookups have few of the runtime's blocking threads, divided among
//! tenants, and a lookup whose caller has left keeps its place until the thread is free again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use super::error::{DialError, FailureCause};
use pushlet_model::tenant::TenantId;
use pushlet_quota::fair::FairPermits;

/// Lookups at the same time, of the 512 blocking threads of the runtime.
const MOST_AT_ONCE: usize = 64;
/// Lookups of one tenant that wait.
const MOST_WAITING: usize = 10_000;

type SystemLookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct DnsLookups {
    permits: FairPermits<TenantId>,
    system: Arc<SystemLookup>,
}

impl DnsLookups {
    /// Through the system's resolver.
    pub fn new() -> Self {
        Self::through(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    fn through(system: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { permits: FairPermits::new(MOST_AT_ONCE, MOST_WAITING), system: Arc::new(system) }
    }

    /// The addresses of a host. The caller bounds the wait by dropping the future.
    pub async fn addresses(
        &self,
        tenant: &TenantId,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let permit = self.permits.acquire(tenant).await.map_err(|_| {
            DialError::new(
                FailureCause::Overloaded,
                "too many of the tenant's host names wait to be looked up",
            )
        })?;
        let (system, name) = (self.system.clone(), host.to_owned());
        let looking_up = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            system(&name, port)
        });
        let found = looking_up.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        found.map_err(|error| DialError::new(FailureCause::Dns, format!("{host}: {error}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A resolver that answers `slow` names only when the gate opens.
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        waiting: AtomicUsize,
    }

    fn gated() -> (Arc<Gate>, DnsLookups) {
        let gate =
            Arc::new(Gate { open: Mutex::new(false), opened: Condvar::new(), waiting: AtomicUsize::new(0) });
        let its = gate.clone();
        let lookups = DnsLookups::through(move |host, port| {
            if host.starts_with("slow") {
                its.waiting.fetch_add(1, Ordering::SeqCst);
                let open = its.opened.wait_while(its.open.lock().unwrap(), |open| !*open).unwrap();
                drop(open);
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        (gate, lookups)
    }

    #[tokio::test]
    async fn slow_names_of_one_tenant_delay_nobody_else() {
        let (gate, lookups) = gated();
        let slow: Vec<_> = (0..1_000)
            .map(|number| {
                let lookups = lookups.clone();
                let tenant = TenantId::new("slow");
                tokio::spawn(async move { lookups.addresses(&tenant, &format!("slow{number}"), 1).await })
            })
            .collect();
        while gate.waiting.load(Ordering::SeqCst) < MOST_AT_ONCE / 4 {
            tokio::task::yield_now().await;
        }
        // They wait for the resolver: callers that leave do not make room for others of the same tenant.
        slow.iter().skip(100).for_each(tokio::task::JoinHandle::abort);
        let neighbour = lookups.addresses(&TenantId::new("neighbour"), "push.example", 7).await;
        assert_eq!(neighbour.unwrap(), [SocketAddr::from(([127, 0, 0, 1], 7))]);
        // The blocking threads that are left serve everything else.
        assert_eq!(tokio::task::spawn_blocking(|| 1).await.unwrap(), 1);
        assert_eq!(gate.waiting.load(Ordering::SeqCst), MOST_AT_ONCE / 4);
        *gate.open.lock().unwrap() = true;
        gate.opened.notify_all();
        for lookup in slow.into_iter().take(100) {
            lookup.await.unwrap().unwrap();
        }
    }
}
