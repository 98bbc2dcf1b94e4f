#![allow(clippy::unwrap_used)]
use super::*;

#[cfg(target_os = "linux")]
#[tokio::test]
async fn its_threads_come_after_others_and_nobody_elses_do() {
    let own = || rustix::process::nice(0).unwrap();
    let before = own();
    let limits = WorkLimits::default();
    let pools = WorkerPools::new(&limits).unwrap();
    assert_eq!(pools.light.run(own).unwrap().await.unwrap(), (before + LIGHT).min(19));
    assert_eq!(pools.heavy.run(own).unwrap().await.unwrap(), (before + HEAVY).min(19));
    assert_eq!(own(), before);
    // Unless somebody's own machine has nothing better to do.
    let pools = WorkerPools::new(&WorkLimits { low_priority: false, ..limits }).unwrap();
    assert_eq!(pools.light.run(own).unwrap().await.unwrap(), before);
    assert_eq!(pools.heavy.run(own).unwrap().await.unwrap(), before);
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_debt_is_paid_with_time_and_a_rest_saves_no_more_than_the_burst() {
    let start = 1000 * SECOND;
    let budget = CpuBudget::new(SECOND / 4, SECOND, 1.0, start);
    budget.charge(SECOND / 2);
    assert_eq!(budget.admit(start), Ok(()));
    budget.charge(SECOND);
    assert_eq!(budget.admit(start), Err(2 * SECOND), "half a second of debt at a quarter per second");
    assert_eq!(budget.admit(start + SECOND), Err(SECOND));
    assert_eq!(budget.admit(start + 2 * SECOND), Err(Duration::ZERO), "nothing is owed, and nothing is left");
    assert_eq!(budget.admit(start + 3 * SECOND), Ok(()));
    budget.admit(start + 3600 * SECOND).unwrap();
    budget.charge(SECOND);
    assert!(budget.admit(start + 3600 * SECOND).is_err());
}

#[test]
fn another_rate_changes_the_burst_too() {
    let start = 1000 * SECOND;
    let budget = CpuBudget::new(SECOND / 4, SECOND, 0.5, start);
    budget.set_rate(NonZeroU64::new(1000).unwrap());
    budget.charge(SECOND * 3 / 2);
    assert_eq!(budget.rate_of_use(start), 375, "three quarters of a half per second");
    assert_eq!(budget.admit(start), Ok(()), "two seconds at one go");
    budget.charge(SECOND);
    assert_eq!(budget.admit(start), Err(SECOND), "half a second of debt at a half per second");
}
