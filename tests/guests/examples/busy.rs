//! Never breaks a limit of one call, but keeps the processor busy all the time.

use pushlet_guests::*;

pub struct Busy;

impl Guest for Busy {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let turns = task(&application).parse().unwrap_or(0_u64);
        let mut work = 0_u64;
        for turn in 0..turns {
            work = std::hint::black_box(work ^ turn);
        }
        encoded(&targets)
    }
}

export!(Busy);
