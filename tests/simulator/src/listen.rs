//! The accept loop that every listener shares.

use std::future::Future;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections beyond this many wait in the system's queue until another one closes.
const MAX_CONNECTIONS: usize = 4096;

/// Accepts for ever and runs `handle` for each connection; all of them end when this future is dropped.
pub(crate) async fn accept_loop<F, Fut>(listener: TcpListener, handle: F)
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    // A small answer must not wait for the next segment; failing to say so costs speed only.
                    let _ = socket.set_nodelay(true);
                    connections.spawn(handle(socket));
                }
                // Out of file descriptors, most likely: let connections close before the next try.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
