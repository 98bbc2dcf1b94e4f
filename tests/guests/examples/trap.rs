//! Traps.

use pushlet_guests::*;

pub struct Trap;

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
fn trap(how: &str) {
    match how {
        "unreachable" => core::arch::wasm32::unreachable(),
        "out_of_bounds" => {
            let nowhere = std::ptr::without_provenance_mut::<u8>(std::hint::black_box(0xffff_fff0));
            // SAFETY: none. The component's sandbox has to hold.
            unsafe { nowhere.write_volatile(1) }
        }
        _ => {}
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn trap(_: &str) {}

impl Guest for Trap {
    fn check_application(application: Application) -> Result<(), Rejection> {
        trap(task(&application));
        Ok(())
    }

    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        trap(task(&application));
        encoded(&targets)
    }

    fn decode(_: Context, application: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        trap(task(&application));
        replies(&answers)
    }
}

export!(Trap);
