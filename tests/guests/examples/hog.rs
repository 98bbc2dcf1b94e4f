//! Takes all the memory that it can get.

use pushlet_guests::*;

pub struct Hog;

/// Allocates and touches memory until there is none.
fn hoard() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![0xaa; 1 << 20]));
    }
}

/// Takes what it gets and lives with a refusal. The pages that it has in the end.
#[cfg(target_arch = "wasm32")]
fn grow_while_possible() -> usize {
    let mut step = 1 << 10;
    while step > 0 {
        if core::arch::wasm32::memory_grow(0, step) == usize::MAX {
            step /= 2;
        }
    }
    core::arch::wasm32::memory_size(0)
}

#[cfg(not(target_arch = "wasm32"))]
fn grow_while_possible() -> usize {
    0
}

impl Guest for Hog {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application) {
            "hoard" => hoard(),
            "grow" => with_body(&targets, grow_while_possible().to_string().into_bytes()),
            _ => encoded(&targets),
        }
    }
}

export!(Hog);
