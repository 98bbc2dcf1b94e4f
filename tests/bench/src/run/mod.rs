//! The whole measurement: one table, and the curves.

pub mod bench;
mod contest;
mod curves;
mod h2load;
mod peer;
mod relay;
mod svg;
mod table;
mod whole;

pub use curves::curves;
pub use peer::peer;
pub use whole::whole;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Of one measurement.
    pub seconds: f64,
    /// Into so many turns it is cut, so that what disturbs the machine disturbs all modes.
    pub turns: u32,
    /// Lines of the streamed request.
    pub stream: u64,
    /// Requests of h2load.
    pub ceiling: u32,
    /// Calls of the codec.
    pub calls: u32,
    /// Starts of which the middle one counts.
    pub starts: u32,
    /// Upper ends of the curves are a tenth of the full ones.
    pub quick: bool,
}

impl Pace {
    pub const FULL: Self = Self {
        seconds: 6.0,
        turns: 3,
        stream: 1_000_000,
        ceiling: 400_000,
        calls: 50_000,
        starts: 5,
        quick: false,
    };
    pub const QUICK: Self = Self {
        seconds: 1.6,
        turns: 2,
        stream: 50_000,
        ceiling: 100_000,
        calls: 10_000,
        starts: 3,
        quick: true,
    };
}
