#![allow(clippy::unwrap_used)]
use futures_util::FutureExt as _;

use super::super::work::WorkLimits;
use super::super::{AccountSettings, Accounts};
use super::*;
use pushlet_model::tenant::TenantId;

const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(10);

fn limits() -> WorkLimits {
    WorkLimits {
        calls: 1,
        heavy_calls: 1,
        calls_per_tenant: 1,
        low_priority: true,
        wait: SHORT,
        heavy_wait: SHORT,
        // Nothing worth mention comes back, however long a test waits for the processor.
        cpu_per_second: Duration::from_micros(1),
        cpu_burst: SECOND,
    }
}

fn accounts(work: WorkLimits) -> Arc<Accounts> {
    Accounts::new(AccountSettings { work, ..AccountSettings::default() }).unwrap()
}

fn account(accounts: &Accounts, tenant: &str) -> Arc<Account> {
    accounts.of(&TenantId::new(tenant))
}

fn spin(time: Duration) {
    let start = thread_cpu_time();
    let mut work = 0_u64;
    while thread_cpu_time() - start < time {
        work = std::hint::black_box(work + 1);
    }
}

#[test]
fn work_is_charged_with_the_time_that_it_used() {
    let account = account(&accounts(limits()), "a");
    account.charge_work(Work::Parsing, SECOND - Duration::from_micros(1));
    account.admit_work(Work::Guest).unwrap();
    let meter = account.meter(Work::Guest);
    spin(Duration::from_millis(5));
    drop(meter);
    for work in [Work::Guest, Work::Signing, Work::Parsing, Work::KeyDerivation] {
        let error = account.admit_work(work).unwrap_err();
        assert_eq!(error.code, "limit_cpu_milliseconds_per_second", "{work:?}");
        assert!(error.retry_after.is_some_and(|wait| wait > Duration::ZERO));
    }
    assert_eq!(account.refused(), 4);
    let used = account.work_by_kind();
    assert!(used[0].1 >= Duration::from_millis(5) && used[2].1 < SECOND, "{used:?}");
}

#[test]
fn compiling_has_a_budget_of_its_own() {
    let accounts = accounts(limits());
    let account = account(&accounts, "a");
    account.charge_work(Work::Compiling, 59 * SECOND);
    account.admit_work(Work::Compiling).unwrap();
    account.admit_work(Work::Guest).unwrap();
    account.charge_work(Work::Compiling, 2 * SECOND);
    account.admit_work(Work::Compiling).unwrap_err();
    account.admit_work(Work::Guest).unwrap();
    assert_eq!(accounts.work_by_kind()[4], (Work::Compiling, 61 * SECOND));
}

#[tokio::test]
async fn jobs_wait_for_their_turn_and_not_for_ever() {
    let accounts = accounts(limits());
    let (a, b) = (account(&accounts, "a"), account(&accounts, "b"));
    let permit = a.permit().await.unwrap();
    assert!(timeout(SHORT, b.permit()).await.is_err());
    assert_eq!(b.run_heavy(Work::Parsing, || ()).await.unwrap_err().code, "overloaded_processor");
    drop(permit);
    assert_eq!(b.run_heavy(Work::Parsing, || 7).await.unwrap(), 7);
    assert_eq!(b.work.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_tenant_that_used_little_does_not_wait_for_those_that_used_much() {
    let accounts = accounts(limits());
    let [busy, other, third] = ["busy", "other", "third"].map(|id| account(&accounts, id));
    drop(busy.permit().await.unwrap());
    // Half of what it may use at one go.
    busy.charge_work(Work::Guest, SECOND / 2);
    let heavy = busy.permit().await.unwrap();
    assert!(!heavy.is_light);
    assert!(other.permit().await.unwrap().is_light);
    third.charge_work(Work::Guest, SECOND / 2);
    assert!(timeout(SHORT, third.permit()).await.is_err(), "in the queue of its like");
    third.admit_work(Work::Guest).unwrap();
}

#[tokio::test]
async fn only_so_many_jobs_of_a_tenant_wait() {
    let accounts = accounts(WorkLimits { heavy_wait: 60 * SECOND, ..limits() });
    let (account, other) = (account(&accounts, "a"), account(&accounts, "b"));
    let permit = account.permit().await.unwrap();
    let mut waiting: Vec<_> =
        (0..MOST_WAITING).map(|_| Box::pin(account.run_heavy(Work::Parsing, || ()))).collect();
    for job in &mut waiting {
        assert!(job.as_mut().now_or_never().is_none());
    }
    let error = account.run_heavy(Work::Parsing, || ()).await.unwrap_err();
    assert_eq!(error.code, "limit_queued_work");
    // Others have a queue of their own, and come between.
    let mut others = Box::pin(other.run_heavy(Work::Parsing, || ()));
    assert!(others.as_mut().now_or_never().is_none());
    drop(permit);
    others.await.unwrap();
    drop(waiting);
    account.run_heavy(Work::Parsing, || ()).await.unwrap();
}

#[tokio::test]
async fn a_job_is_metered_and_a_panic_in_it_is_the_callers() {
    let account = account(&accounts(limits()), "a");
    account.run_heavy(Work::Signing, || spin(Duration::from_millis(5))).await.unwrap();
    assert!(account.work_by_kind()[1].1 >= Duration::from_millis(5));
    let caller = account.clone();
    let failed =
        tokio::spawn(async move { caller.run_heavy(Work::Signing, || panic!("as it happens")).await });
    assert!(failed.await.unwrap_err().is_panic());
    account.run_heavy(Work::Signing, || ()).await.unwrap();
}

/// What each of many computations does in a step, and what others do between.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Step(usize),
    Other,
}

/// Returns what happens on one thread if so many computations of each of two tenants take so many steps.
async fn events(computations: usize, steps: usize) -> Vec<Event> {
    let accounts = accounts(limits());
    let events = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let computing: Vec<_> = (0..2 * computations)
        .map(|number| {
            let account = account(&accounts, ["one", "other"][number % 2]);
            let events = events.clone();
            tokio::spawn(async move {
                let mut pace = Steps::new(account);
                for _ in 0..steps {
                    pace.before(UNITS_PER_STEP).await;
                    events.lock().push(Event::Step(number));
                }
            })
        })
        .collect();
    let seen = events.clone();
    let other = tokio::spawn(async move {
        loop {
            seen.lock().push(Event::Other);
            yield_now().await;
        }
    });
    for computation in computing {
        computation.await.unwrap();
    }
    other.abort();
    events.lock().clone()
}

#[tokio::test]
async fn many_computations_of_a_tenant_delay_others_by_one_step() {
    let (computations, steps) = (10, 5);
    let events = events(computations, steps).await;
    // Each begins without a turn.
    let later = &events[2 * computations..];
    let runs: Vec<_> = later.split(|event| *event == Event::Other).map(<[_]>::len).collect();
    // Two of a tenant where the runtime polls its driver between them.
    assert!(runs.iter().all(|run| *run <= 4), "more than a step of each tenant: {runs:?}");
    assert_eq!(runs.iter().sum::<usize>(), 2 * computations * (steps - 1), "all come to their end");
}

#[tokio::test]
async fn computations_of_a_tenant_take_turns() {
    let events = events(10, 5).await;
    let steps_of = |number| {
        let steps = events.iter().enumerate().filter(move |(_, event)| **event == Event::Step(number));
        steps.map(|(when, _)| when).collect::<Vec<_>>()
    };
    let first_end = (0..20).filter_map(|number| steps_of(number).last().copied()).min().unwrap();
    assert!((0..20).all(|number| steps_of(number)[3] < first_end), "{events:?}");
}

#[tokio::test]
async fn small_work_takes_no_turn() {
    let account = account(&accounts(limits()), "small");
    let turn = account.work.turn().acquire().await.unwrap();
    let mut steps = Steps::new(account.clone());
    for _ in 0..UNITS_PER_STEP {
        steps.before(1).now_or_never().unwrap();
    }
    assert!(steps.before(1).now_or_never().is_none());
    drop(turn);
}
