//! How far a transfer lags behind the minimum data rate.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Only time in which the other side is waited for counts, so a transfer that has nothing to say is never late. What
/// was fast for a while is no credit: the lag is never less than nothing.
pub struct TransferPace {
    grace: Duration,
    /// Bytes per second.
    rate: u32,
    lag: Duration,
    waiting: Option<Instant>,
}

impl TransferPace {
    /// `grace`: how far it may lag behind. `rate`: bytes per second.
    pub fn new(grace: Duration, rate: usize) -> Self {
        Self {
            grace,
            rate: u32::try_from(rate).unwrap_or(u32::MAX).max(1),
            lag: Duration::ZERO,
            waiting: None,
        }
    }

    /// The other side takes nothing now. Answers until when that may go on.
    pub fn wait(&mut self) -> Instant {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        since + self.grace.saturating_sub(self.lag)
    }

    /// The other side took so many bytes. Reads no clock where nothing was waited for.
    pub fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.waiting.take() {
            self.lag += since.elapsed();
        }
        if !self.lag.is_zero() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let made_up = Duration::from_secs_f64(f64::from(bytes) / f64::from(self.rate));
            self.lag = self.lag.saturating_sub(made_up);
        }
    }
}

/// Ready when the time has come; else the task is woken then.
pub fn stalled(timer: &mut Option<Pin<Box<Sleep>>>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.as_mut().poll(cx)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    /// Seconds until a reader that takes `bytes` after each wait of `pause` is late; None: it never is.
    async fn late_after(bytes: usize, pause: Duration) -> Option<u64> {
        let mut pace = TransferPace::new(GRACE, 1000);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3600) {
            if pace.wait() < Instant::now() + pause {
                return Some(start.elapsed().as_secs());
            }
            advance(pause).await;
            pace.moved(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_late_in_the_end_and_a_fast_one_never() {
        assert_eq!(late_after(2000, Duration::from_secs(2)).await, None);
        assert_eq!(late_after(1000, Duration::from_secs(2)).await, Some(18));
        assert_eq!(late_after(0, Duration::from_secs(11)).await, Some(0));
        assert_eq!(late_after(1_000_000, Duration::from_secs(11)).await, Some(0), "speed is no credit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_has_nothing_to_say_is_not_late() {
        let mut pace = TransferPace::new(GRACE, 1000);
        for _ in 0..100 {
            advance(GRACE).await;
            pace.moved(1);
        }
        assert_eq!(pace.wait(), Instant::now() + GRACE);
    }
}
