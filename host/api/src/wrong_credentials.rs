//! Wrong credentials: counted per address, and slowed where there are many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::peer::counted_as;

/// What the counts are of.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses counted in one window. When there are more the window ends early, so that an attacker with many
/// addresses does not cost memory.
const MOST_ADDRESSES: usize = 10_000;
/// How long the answer to one credential too many is held back.
const DELAY: Duration = Duration::from_secs(1);
/// Answers held back at a time. A further one is given at once: those who wait must not cost more than they save.
const MOST_DELAYED: usize = 256;

/// Counts wrong credentials by address, in this window and the one before.
pub struct WrongCredentials {
    most: u32,
    windows: Mutex<Windows>,
    delayed: Semaphore,
}

struct Windows {
    began: Instant,
    current: HashMap<IpAddr, u32>,
    previous: HashMap<IpAddr, u32>,
}

impl WrongCredentials {
    /// `most`: from one address in a window.
    pub fn new(most: u32) -> Self {
        let windows = Windows { began: Instant::now(), current: HashMap::new(), previous: HashMap::new() };
        Self { most, windows: Mutex::new(windows), delayed: Semaphore::new(MOST_DELAYED) }
    }

    /// Counts one from this address. If there were too many, waits, and answers when to try again.
    pub async fn count(&self, address: IpAddr) -> Option<Duration> {
        let retry_after = self.too_many(counted_as(address))?;
        if let Ok(_place) = self.delayed.try_acquire() {
            sleep(DELAY).await;
        }
        Some(retry_after)
    }

    fn too_many(&self, address: IpAddr) -> Option<Duration> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(Instant::now());
        let before = windows.previous.get(&address).copied().unwrap_or(0);
        let count = windows.current.entry(address).or_insert(0);
        *count = count.saturating_add(1);
        (before.saturating_add(*count) > self.most).then_some(WINDOW)
    }
}

impl Windows {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < WINDOW && self.current.len() < MOST_ADDRESSES {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if age >= 2 * WINDOW {
            self.previous.clear();
        }
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::advance;

    use super::*;

    fn address(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_from_one_address_wait_and_others_do_not() {
        let wrong = WrongCredentials::new(2);
        let start = Instant::now();
        assert_eq!((wrong.count(address(1)).await, wrong.count(address(1)).await), (None, None));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
        assert_eq!(start.elapsed(), DELAY);
        assert_eq!(wrong.count(address(2)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_two_windows_all_is_forgotten_and_after_one_it_is_not() {
        let wrong = WrongCredentials::new(1);
        wrong.count(address(1)).await;
        advance(WINDOW).await;
        assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
        advance(2 * WINDOW).await;
        assert_eq!(wrong.count(address(1)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_address() {
        let wrong = WrongCredentials::new(1);
        assert_eq!(wrong.count("2001:db8::1".parse().unwrap()).await, None);
        assert_eq!(wrong.count("2001:db8::2".parse().unwrap()).await, Some(WINDOW));
        assert_eq!(wrong.count("2001:db8:0:1::1".parse().unwrap()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let wrong = WrongCredentials::new(5);
        for last in 0..50_000 {
            wrong.count(address(last)).await;
        }
        let windows = wrong.windows.lock().unwrap();
        assert!(windows.current.len() <= MOST_ADDRESSES && windows.previous.len() <= MOST_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_at_a_time() {
        let wrong = std::sync::Arc::new(WrongCredentials::new(1));
        wrong.count(address(1)).await;
        let waiting: Vec<_> = (0..MOST_DELAYED)
            .map(|_| {
                tokio::spawn({
                    let wrong = wrong.clone();
                    async move { wrong.count(address(1)).await }
                })
            })
            .collect();
        while wrong.delayed.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for waited in waiting {
            assert_eq!(waited.await.unwrap(), Some(WINDOW));
        }
    }
}
