//! SIGTERM and SIGINT: the first one asks for an orderly end, the second one ends at once.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use pushlet_settings::Problem;

/// A future that ends with the first signal. Listening begins now.
pub fn stop() -> Result<impl Future<Output = ()>, Problem> {
    let listen =
        |kind| signal(kind).map_err(|error| Problem::new(format_args!("cannot listen for signals: {error}")));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (first, stop) = oneshot::channel();
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        let _ = first.send(());
        let number = next(&mut terminate, &mut interrupt).await;
        // As a shell reports a program that a signal ended.
        std::process::exit(128 + number);
    });
    Ok(async {
        let _ = stop.await;
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
