//! Prints more than anybody wants to read.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::Write;

use pushlet_guests::*;

pub struct Flood;

/// 16 KiB of text.
fn lines() -> Vec<u8> {
    b"x".repeat((16 << 10) - 1).into_iter().chain(*b"\n").collect()
}

impl Guest for Flood {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let lines = lines();
        let mut outputs: [Box<dyn Write>; 2] = [Box::new(std::io::stdout()), Box::new(std::io::stderr())];
        match task(&application) {
            "much" => {
                for turn in 0..200 {
                    outputs[turn % 2].write_all(&lines).unwrap();
                }
                println!("the last line");
            }
            "endless" => loop {
                outputs[0].write_all(&lines).unwrap();
            },
            _ => {}
        }
        encoded(&targets)
    }
}

export!(Flood);
