//! All villains at once, under the limits that strangers have, beside a neighbour who goes on as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pushlet::provider::{BreakerPolicy, Instances, Limits, Provider, Sandbox, Trust};
use pushlet::tenant::TenantId;

use super::stage::{Call, apns, application, call, component};

/// Each with a tenant of its own: the guest, what is called, and what it is told to do.
const VILLAINS: &[(&str, Call, &str)] = &[
    ("endless", Call::CheckApplication, "check_application"),
    ("endless", Call::Encode, "encode"),
    ("endless", Call::Decode, "decode"),
    ("recursion", Call::Encode, "recurse"),
    ("hog", Call::Encode, "hoard"),
    ("huge_result", Call::Encode, "body"),
    ("huge_result", Call::Decode, "native"),
    ("lies", Call::Encode, "past_the_end"),
    ("trap", Call::Encode, "unreachable"),
    ("trap", Call::Decode, "out_of_bounds"),
    ("panic", Call::Encode, "panic"),
];
/// How long the neighbour is watched: alone, and beside the others.
const WATCHED: Duration = Duration::from_secs(2);

/// Calls of the neighbour in a while, all with the same result.
async fn watched(neighbour: &Arc<Instances>) -> usize {
    let (started, mut calls) = (Instant::now(), 0);
    let application = Arc::new(application(&[("apns_topic", "com.example.app")]));
    let mut expected = None;
    while started.elapsed() < WATCHED {
        let application = application.clone();
        let result =
            neighbour.run(move |instances| call(instances, Call::Encode, &application)).await.unwrap();
        assert_eq!(*expected.get_or_insert_with(|| result.clone()), result);
        calls += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_goes_on_beside_all_of_them() {
    // One that keeps failing is not put away, so that all go on all the time.
    let breaker = BreakerPolicy { failures: usize::MAX, ..BreakerPolicy::default() };
    let sandbox = Sandbox::new(Limits { breaker, ..Limits::default() }).unwrap();
    let neighbour = apns(&sandbox).instances(&TenantId::new("neighbour"));
    let alone = tokio::spawn({
        let neighbour = neighbour.clone();
        async move { watched(&neighbour).await }
    });
    let alone = alone.await.unwrap();

    let (over, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let villains = VILLAINS.iter().enumerate().map(|(number, (guest, export, task))| {
        let provider = Provider::load(&sandbox, component(guest), Trust::Uploaded, &Arc::default()).unwrap();
        let instances = provider.instances(&TenantId::new(&format!("villain {number}")));
        let (over, failures) = (over.clone(), failures.clone());
        tokio::spawn(async move {
            let application = Arc::new(application(&[("do", task)]));
            while !over.load(Ordering::Relaxed) {
                let application = application.clone();
                let result = instances.run(move |instances| call(instances, *export, &application)).await;
                assert!(result.is_err(), "{result:?}");
                failures.fetch_add(1, Ordering::Relaxed);
                // A caller that is told so tries again, and not at once.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let villains: Vec<_> = villains.collect();
    while failures.load(Ordering::Relaxed) < VILLAINS.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let beside = tokio::spawn({
        let neighbour = neighbour.clone();
        async move { watched(&neighbour).await }
    });
    let beside = beside.await.unwrap();
    over.store(true, Ordering::Relaxed);
    for villain in villains {
        villain.await.unwrap();
    }
    println!(
        "the neighbour's calls in {WATCHED:?}: {alone} alone, {beside} beside {} failures of {} villains, ratio {:.3}",
        failures.load(Ordering::Relaxed),
        VILLAINS.len(),
        beside as f64 / alone as f64
    );
}
