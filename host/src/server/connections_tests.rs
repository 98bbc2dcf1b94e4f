#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use super::*;
use pushlet_settings::ConfigLayers;

fn limits() -> LimitsConfig {
    let limits = ConfigLayers::new().unwrap().finish().unwrap().limits;
    LimitsConfig { connections: 3, connections_per_address: 2, ..limits }
}

fn all() -> Arc<ConnectionTable> {
    ConnectionTable::new(&limits())
}

/// A connection from this address that does nothing until it is aborted.
struct Caller {
    admitted: AdmittedConnection,
    task: tokio::task::JoinHandle<()>,
}

impl Caller {
    fn new(all: &Arc<ConnectionTable>, last: u8) -> Self {
        let admitted = all.admit(Peer::new(Ipv4Addr::new(192, 0, 2, last).into(), &Arc::default()));
        let task = tokio::spawn(std::future::pending());
        all.started(admitted.id(), task.abort_handle());
        Self { admitted, task }
    }

    fn authenticated(all: &Arc<ConnectionTable>, last: u8) -> Self {
        let caller = Self::new(all, last);
        caller.admitted.connection.peer.authenticate();
        caller
    }

    /// One that has sent so many requests.
    fn busy(all: &Arc<ConnectionTable>, last: u8, requests: u32) -> Self {
        let caller = Self::authenticated(all, last);
        (0..requests).for_each(|_| drop(caller.admitted.connection.begin()));
        caller
    }

    async fn is_aborted(&self) -> bool {
        tokio::task::yield_now().await;
        self.task.is_finished()
    }

    fn is_told_to_close(&self) -> bool {
        self.admitted.connection.is_closing()
    }
}

/// Lets time pass, with the sweeps that belong into it.
async fn pass(all: &ConnectionTable, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::advance(Duration::from_secs(1)).await;
        all.sweep(Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_stranger_makes_room() {
    let all = all();
    let known = Caller::authenticated(&all, 1);
    let (first, second) = (Caller::new(&all, 2), Caller::new(&all, 3));
    let newcomer = Caller::new(&all, 4);
    assert!(newcomer.admitted.refusal.is_none());
    assert!(first.is_aborted().await);
    assert!(!second.is_aborted().await && !known.is_aborted().await && !known.is_told_to_close());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_has_its_answer_makes_room_for_one_that_was_not_heard_yet() {
    let all = all();
    let heard = |last| {
        let caller = Caller::new(&all, last);
        drop(caller.admitted.connection.begin());
        caller
    };
    let (fresh, answered) = (Caller::new(&all, 1), heard(2));
    let asking = Caller::new(&all, 3);
    let under_way = asking.admitted.connection.begin();
    let later = Caller::new(&all, 4);
    assert!(later.admitted.refusal.is_none() && answered.is_aborted().await);
    assert!(!fresh.is_aborted().await && !asking.is_aborted().await);
    drop(under_way);
    let last = Caller::new(&all, 5);
    assert!(last.admitted.refusal.is_none() && asking.is_aborted().await && !fresh.is_aborted().await);
}

#[tokio::test(start_paused = true)]
async fn then_the_one_that_is_idle_longest_and_none_that_works() {
    let all = all();
    let works = Caller::authenticated(&all, 1);
    let _request = works.admitted.connection.begin();
    let (idle, just_now) = (Caller::authenticated(&all, 2), Caller::authenticated(&all, 3));
    pass(&all, Duration::from_secs(2)).await;
    drop(just_now.admitted.connection.begin());
    pass(&all, Duration::from_secs(1)).await;
    let newcomer = Caller::authenticated(&all, 4);
    assert!(newcomer.admitted.refusal.is_none());
    assert!(idle.is_told_to_close() && !just_now.is_told_to_close() && !works.is_told_to_close());
    assert!(!idle.is_aborted().await, "its request may be on the way");
    let requests = [&just_now, &newcomer].map(|caller| caller.admitted.connection.begin());
    assert!(matches!(Caller::new(&all, 5).admitted.refusal, Some(Refusal::TooManyConnections)));
    drop(requests);
    assert!(Caller::new(&all, 5).admitted.refusal.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_used_all_the_time_stays_though_nobody_has_looked() {
    let all = all();
    let callers = [(1, 3), (2, 1), (3, 2)].map(|(last, requests)| Caller::busy(&all, last, requests));
    let newcomer = Caller::busy(&all, 4, 4);
    let _another = Caller::authenticated(&all, 5);
    let closing = callers.each_ref().map(Caller::is_told_to_close);
    assert!(!newcomer.is_told_to_close() && closing == [false, true, true], "{closing:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_used_all_the_time_stays_though_a_sweep_saw_it_between_two_requests() {
    let all = all();
    let callers = [(1, 3), (2, 1), (3, 2)].map(|(last, requests)| Caller::busy(&all, last, requests));
    all.sweep(Instant::now());
    // What is used after a sweep was used later than what was used before it.
    tokio::time::advance(Duration::from_millis(1)).await;
    let newcomer = Caller::busy(&all, 4, 1);
    let _another = Caller::authenticated(&all, 5);
    let closing = callers.each_ref().map(Caller::is_told_to_close);
    assert!(!newcomer.is_told_to_close() && closing == [false, true, true], "{closing:?}");
}

#[tokio::test(start_paused = true)]
async fn one_address_has_only_so_many_and_makes_room_for_its_own() {
    let all = all();
    let other = Caller::new(&all, 1);
    let own = [Caller::authenticated(&all, 2), Caller::authenticated(&all, 2)];
    let third = Caller::authenticated(&all, 2);
    assert!(third.admitted.refusal.is_none() && own[0].is_told_to_close());
    let _requests = [&own[1], &third].map(|caller| caller.admitted.connection.begin());
    assert!(matches!(Caller::new(&all, 2).admitted.refusal, Some(Refusal::TooManyFromThisAddress)));
    assert!(!other.is_aborted().await);
    drop(own);
    assert!(Caller::new(&all, 2).admitted.refusal.is_none(), "those that have ended are not counted");
}

#[tokio::test(start_paused = true)]
async fn loopback_may_have_as_many_as_there_are() {
    let all = all();
    let local = || all.admit(Peer::new(Ipv4Addr::LOCALHOST.into(), &Arc::default()));
    let three = [local(), local(), local()];
    assert!(three.iter().all(|admitted| admitted.refusal.is_none()));
}

#[tokio::test(start_paused = true)]
async fn of_those_beyond_the_limit_the_oldest_goes() {
    let all = all();
    let working: Vec<_> = (1..=3).map(|last| Caller::authenticated(&all, last)).collect();
    let _requests: Vec<_> = working.iter().map(|caller| caller.admitted.connection.begin()).collect();
    let beyond: Vec<_> = (0..SPARE).map(|_| Caller::new(&all, 9)).collect();
    assert!(beyond.iter().all(|caller| caller.admitted.refusal.is_some()));
    assert!(!beyond[0].is_aborted().await);
    let _one_more = Caller::new(&all, 9);
    assert!(beyond[0].is_aborted().await && !beyond[1].is_aborted().await);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_a_strangers_much_sooner() {
    let (all, limits) = (ConnectionTable::new(&LimitsConfig { connections: 9, ..limits() }), limits());
    let (known, stranger, silent, working) = (
        Caller::authenticated(&all, 1),
        Caller::new(&all, 2),
        Caller::new(&all, 3),
        Caller::authenticated(&all, 4),
    );
    stranger.admitted.connection.speaks_http2();
    let _request = working.admitted.connection.begin();
    pass(&all, STRANGER_IDLE + Duration::from_secs(1)).await;
    assert!(stranger.is_told_to_close() && !silent.is_told_to_close());
    pass(&all, CLOSE_TIME).await;
    assert!(stranger.is_aborted().await, "it did not close");
    pass(&all, limits.header_timeout).await;
    assert!(silent.is_told_to_close() && !known.is_told_to_close());
    pass(&all, limits.keep_alive).await;
    assert!(known.is_told_to_close());
    assert!(!working.is_told_to_close() && !working.is_aborted().await);
}

#[tokio::test(start_paused = true)]
async fn requests_keep_a_connection_and_noise_does_not() {
    let all = all();
    let (busy, noisy) = (Caller::authenticated(&all, 1), Caller::authenticated(&all, 2));
    noisy.admitted.connection.speaks_http2();
    for _ in 0..100 {
        drop(busy.admitted.connection.begin());
        noisy.admitted.connection.heard();
        pass(&all, Duration::from_secs(1)).await;
    }
    assert!(!busy.is_told_to_close() && noisy.is_told_to_close());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_has_its_own_time() {
    let all = all();
    let slow = Caller::authenticated(&all, 1);
    drop(slow.admitted.connection.begin());
    pass(&all, Duration::from_secs(2)).await;
    for _ in 0..limits().header_timeout.as_secs() {
        assert!(!slow.is_aborted().await);
        slow.admitted.connection.heard();
        pass(&all, Duration::from_secs(1)).await;
    }
    pass(&all, Duration::from_secs(1)).await;
    assert!(slow.is_aborted().await);
}
