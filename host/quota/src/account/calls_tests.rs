#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::super::work::WorkLimits;
use super::super::{AccountSettings, Accounts};
use super::*;
use pushlet_model::tenant::TenantId;

fn accounts(limits: WorkLimits) -> Arc<Accounts> {
    let work = WorkLimits { cpu_per_second: Duration::from_secs(1000), ..limits };
    Accounts::new(AccountSettings { work, ..AccountSettings::default() }).unwrap()
}

fn account(accounts: &Accounts, tenant: &str) -> Arc<Account> {
    accounts.of(&TenantId::new(tenant))
}

fn one_at_a_time(wait: Duration) -> WorkLimits {
    WorkLimits { calls: 1, heavy_calls: 1, calls_per_tenant: 1, wait, ..WorkLimits::default() }
}

const LONG: Duration = Duration::from_secs(60);

/// A call that runs until it is told to end.
struct Blocked {
    end: std::sync::mpsc::Sender<()>,
    ended: tokio::task::JoinHandle<Option<()>>,
}

impl Blocked {
    async fn begin(account: &Arc<Account>) -> Self {
        let (end, wait) = std::sync::mpsc::channel();
        let (begun, begins) = oneshot::channel();
        let account = account.clone();
        let call = move || {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        };
        let ended = tokio::spawn(async move { account.run_call(call).await });
        begins.await.unwrap();
        Self { end, ended }
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        assert_eq!(self.ended.await.unwrap(), Some(()));
    }
}

#[tokio::test]
async fn each_call_runs_once_and_no_more_at_a_time_than_may() {
    let accounts =
        accounts(WorkLimits { calls: 3, calls_per_tenant: 2, wait: LONG, ..WorkLimits::default() });
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tenants: Vec<_> = (0..4).map(|number| account(&accounts, &format!("tenant-{number}"))).collect();
    let calls = (0..400).map(|number| {
        let (now, most) = (now.clone(), most.clone());
        let tenant = &tenants[number % tenants.len()];
        tenant.run_call(move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
            now.fetch_sub(1, Ordering::SeqCst);
            number
        })
    });
    let results: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    assert_eq!(results, (0..400).collect::<Vec<_>>());
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    while tenants.iter().any(|tenant| tenant.work.calls.lock().sizes() != (0, 0)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_that_cannot_begin_in_time_never_does() {
    let accounts = accounts(one_at_a_time(Duration::from_millis(20)));
    let (own, other) = (account(&accounts, "a"), account(&accounts, "b"));
    let blocked = Blocked::begin(&own).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let count = || {
        let ran = ran.clone();
        move || {
            ran.fetch_add(1, Ordering::SeqCst);
        }
    };
    assert_eq!((own.run_call(count()).await, other.run_call(count()).await), (None, None));
    // What nobody waits for is not begun either, nor kept.
    assert!(own.run_call(count()).now_or_never().is_none());
    assert_eq!(Arc::strong_count(&ran), 1);
    blocked.end().await;
    assert_eq!((own.run_call(|| 7).await, other.run_call(|| 8).await), (Some(7), Some(8)));
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_call_that_has_begun_is_waited_for() {
    let accounts = accounts(one_at_a_time(Duration::from_millis(5)));
    let call = || std::thread::sleep(Duration::from_millis(50));
    assert_eq!(account(&accounts, "a").run_call(call).await, Some(()));
}

#[tokio::test]
async fn a_panic_is_the_callers_and_the_next_call_runs() {
    let account = account(&accounts(one_at_a_time(LONG)), "a");
    let caller = account.clone();
    let failing = tokio::spawn(async move { caller.run_call(|| panic!("as it happens")).await });
    let (failed, next) = tokio::join!(failing, account.run_call(|| 7));
    assert!(failed.unwrap_err().is_panic());
    assert_eq!(next, Some(7));
}

#[tokio::test]
async fn a_tenant_with_many_calls_keeps_nobody_waiting_for_all_of_them() {
    let accounts = accounts(one_at_a_time(LONG));
    let (busy, other) = (account(&accounts, "busy"), account(&accounts, "other"));
    let blocked = Blocked::begin(&busy).await;
    let ended = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (busy, ended) = (busy.clone(), ended.clone());
            tokio::spawn(async move {
                let call = move || {
                    std::thread::sleep(Duration::from_millis(1));
                    ended.fetch_add(1, Ordering::SeqCst);
                };
                busy.run_call(call).await
            })
        })
        .collect();
    while busy.work.calls.lock().sizes().0 < 200 {
        tokio::task::yield_now().await;
    }
    let seen = ended.clone();
    let between = other.run_call(move || seen.load(Ordering::SeqCst));
    let (before, ()) = tokio::join!(between, blocked.end());
    assert!(before.unwrap() < 20, "after a turn of the busy one: {before:?}");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap().is_some()));
    assert_eq!(ended.load(Ordering::SeqCst), 200);
}
