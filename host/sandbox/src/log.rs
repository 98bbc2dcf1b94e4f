//! What guests print: kept in a bounded ring per tenant and component, oldest lines dropped first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes kept per tenant and component.
const CAPACITY: usize = 16 << 10;

/// Characters of the last words.
const WORDS: usize = 300;

/// A ring of bytes.
#[derive(Default)]
pub struct GuestLog {
    ring: Mutex<VecDeque<u8>>,
    /// The end of what was printed before the last failure, on one line.
    last_words: Mutex<String>,
}

impl GuestLog {
    /// Returns the end of what was printed, as text.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.ring().iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn append(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let mut ring = self.ring();
        let excess = (ring.len() + bytes.len()).saturating_sub(CAPACITY);
        ring.drain(..excess);
        ring.extend(bytes);
    }

    /// Adds why a call failed, apart from what the guest printed in it.
    pub(super) fn failed(&self, explanation: &str) {
        let text = self.text();
        let words =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ");
        let beyond = words.chars().count().saturating_sub(WORDS);
        *self.last_words.lock() = words.chars().skip(beyond).collect();
        self.append(explanation.as_bytes());
    }

    /// Returns what was printed before the last failure, if anything was.
    pub fn last_words(&self) -> Option<String> {
        let words = self.last_words.lock();
        (!words.is_empty()).then(|| words.clone())
    }

    fn ring(&self) -> parking_lot::MutexGuard<'_, VecDeque<u8>> {
        self.ring.lock()
    }
}

/// A guest's stdout and stderr. Always ready, never an error: printing cannot make a call fail.
#[derive(Clone)]
pub(super) struct GuestOutput(Arc<GuestLog>);

impl GuestOutput {
    pub(super) fn new(log: &Arc<GuestLog>) -> Self {
        Self(log.clone())
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CAPACITY)
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_bytes() {
        let log = GuestLog::default();
        log.append(b"old");
        log.append(&vec![b'x'; CAPACITY - 1]);
        assert_eq!(log.text().len(), CAPACITY);
        assert!(log.text().starts_with("dx"));
        log.append(&vec![b'y'; 3 * CAPACITY]);
        assert_eq!(log.text(), "y".repeat(CAPACITY));
    }

    #[test]
    fn the_last_words_are_those_before_the_failure() {
        let log = GuestLog::default();
        log.append(b"one\n\n  two\n");
        assert_eq!(log.last_words(), None);
        log.failed("trap\n");
        assert_eq!(log.last_words().unwrap(), "one / two");
        assert_eq!(log.text(), "one\n\n  two\ntrap\n");
        log.append("é".repeat(WORDS).as_bytes());
        log.failed("trap\n");
        assert_eq!(log.last_words().unwrap(), "é".repeat(WORDS));
    }
}
