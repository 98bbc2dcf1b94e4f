//! Calls itself without end.

use std::hint::black_box;

use pushlet_guests::*;

pub struct Recursion;

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1))) + 1
}

impl Guest for Recursion {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        if task(&application) == "recurse" {
            black_box(deeper(0));
        }
        encoded(&targets)
    }
}

export!(Recursion);
