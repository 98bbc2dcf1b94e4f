//! What befalls requests and connections, by the throw of seeded dice.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::frame::{CANCEL, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR};

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Everything that can happen does.
    Wild,
    /// Accepts every push.
    Calm,
    /// Reads everything and answers nothing.
    Mute,
    /// Closes every connection at the first request: it does not accept the credential.
    Refusing,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Processed when it arrives or when it is answered, with 200.
    Accept { early: bool },
    /// Not processed.
    Reject { status: u16, reason: &'static str },
    /// Not processed: REFUSED_STREAM.
    Refuse,
    /// RST_STREAM with some other code.
    Reset { code: u32, processed: bool },
    /// An answer that breaks off after its head.
    Torn,
    /// No answer, ever.
    Silence { processed: bool },
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// GOAWAY for all above some stream; `first` announces it without a limit. `cut`: without waiting for the rest.
    GoAway {
        code: u32,
        first: bool,
        cut: bool,
    },
    Cut,
    /// It neither reads nor writes for a while.
    Stall(Duration),
    /// It neither reads nor writes again, and stays open.
    Death,
    /// Another MAX_CONCURRENT_STREAMS.
    Limit(u32),
    /// No streams at all for a while.
    Closed(Duration),
    /// All connections are cut, and none is accepted for a while.
    Restart(Duration),
}

pub struct Dice {
    rng: StdRng,
    manner: Manner,
}

impl Dice {
    /// The dice of the `number`th user of the seed.
    pub fn new(seed: u64, number: u64, manner: Manner) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self { rng: StdRng::seed_from_u64(mixed), manner }
    }

    pub fn fate(&mut self) -> Fate {
        match self.manner {
            Manner::Calm => return Fate::Accept { early: false },
            Manner::Mute => return Fate::Silence { processed: false },
            Manner::Refusing => return Fate::Silence { processed: false },
            Manner::Wild => {}
        }
        let processed = self.rng.random_bool(0.5);
        match self.rng.random_range(0..1000) {
            0..15 => Fate::Refuse,
            15..20 => Fate::Reject { status: 429, reason: "TooManyRequests" },
            20..24 => Fate::Reject { status: 500, reason: "InternalServerError" },
            24..30 => Fate::Reject { status: 503, reason: "ServiceUnavailable" },
            30..44 => Fate::Reset { code: INTERNAL_ERROR, processed },
            44..46 => Fate::Reset { code: CANCEL, processed },
            46..47 => Fate::Reset { code: NO_ERROR, processed },
            47..49 => Fate::Torn,
            49..50 => Fate::Silence { processed },
            _ => Fate::Accept { early: processed },
        }
    }

    /// Until the answer. A calm peer answers at once, so that what a push takes is the gateway's.
    pub fn delay(&mut self) -> Duration {
        if self.manner == Manner::Calm {
            return Duration::ZERO;
        }
        let most = if self.rng.random_bool(0.02) { 200 } else { 10 };
        Duration::from_millis(self.rng.random_range(0..most))
    }

    /// Requests until the next event; None: there will be none.
    pub fn calm(&mut self) -> Option<u32> {
        (self.manner == Manner::Wild).then(|| self.rng.random_range(1..200))
    }

    pub fn event(&mut self) -> Event {
        let milliseconds =
            |range: std::ops::Range<u64>, rng: &mut StdRng| Duration::from_millis(rng.random_range(range));
        match self.rng.random_range(0..1000) {
            0..300 => Event::GoAway {
                code: [NO_ERROR, NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM][self.rng.random_range(0..4)],
                first: self.rng.random_bool(0.3),
                cut: self.rng.random_bool(0.3),
            },
            300..350 => Event::Cut,
            350..550 => Event::Stall(milliseconds(1..400, &mut self.rng)),
            550..560 => Event::Death,
            560..900 => Event::Limit(self.limit()),
            900..985 => Event::Closed(milliseconds(1..200, &mut self.rng)),
            _ => Event::Restart(milliseconds(1..200, &mut self.rng)),
        }
    }

    pub fn limit(&mut self) -> u32 {
        match self.manner {
            Manner::Wild => match self.rng.random_range(0..20) {
                0 => 1,
                1 => 5,
                other => [10, 30, 60, 100][other % 4],
            },
            Manner::Calm | Manner::Mute | Manner::Refusing => 1000,
        }
    }

    /// Whether the peer begins with a limit of one until it has answered something, as Apple does.
    pub fn begins_with_one(&mut self) -> bool {
        self.manner == Manner::Wild && self.rng.random_bool(0.3)
    }

    pub fn between(&mut self, least: u32, most: u32) -> u32 {
        self.rng.random_range(least..=most.max(least))
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }
}
