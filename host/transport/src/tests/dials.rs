//! A service that allows fewer connections than wanted: it closes further ones as it accepts them.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::peer::{MAX_CONCURRENT_STREAMS, Peer};
use super::{push, request, transport, until};

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

/// Someone always waits for a stream, and the good connection goes on answering.
#[tokio::test]
async fn a_service_that_allows_one_connection_is_not_dialled_all_the_time() {
    const BASE: Duration = Duration::from_millis(20);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let peer = Arc::new(Peer::start().await);
    let transport = transport(&peer, |settings| {
        (settings.backoff_base, settings.backoff_max) = (BASE, Duration::from_secs(30));
    });
    let origin = peer.origin();
    let first = push(&transport, request(&origin));
    let mut wire = peer.accept(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wire.serve().await;
    first.await.unwrap().unwrap();
    tokio::spawn(async move {
        loop {
            wire.serve().await;
        }
    });
    let dials = Arc::new(AtomicUsize::new(0));
    let (listener, counter) = (peer.clone(), dials.clone());
    tokio::spawn(async move {
        loop {
            drop(listener.accept_tcp().await);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (start, answered) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..10 {
        let (transport, origin, answered) = (transport.clone(), origin.clone(), answered.clone());
        tokio::spawn(async move {
            loop {
                transport.send(&request(&origin)).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    until(|| start.elapsed() > 40 * BASE && answered.load(Ordering::Relaxed) > 100).await;
    // Each pause is at least half of twice the one before it, so there were no more dials than this in that time.
    let pauses = 2 * start.elapsed().as_millis() / BASE.as_millis();
    let most = 2 + (pauses + 1).ilog2() as usize;
    let dials = dials.load(Ordering::Relaxed);
    assert!((1..=most).contains(&dials), "{dials} dials, and no more than {most} were right");
    let warnings = log.lines().into_iter().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
    assert!(warnings.len() == 1 && warnings[0].contains("connect failed"), "{warnings:?}");
}
