//! Traps on one of the answers that every service gives some day, and on no other.
#![allow(clippy::panic, clippy::print_stdout)]

use pushlet_guests::*;

pub struct BadAnswer;

impl Guest for BadAnswer {
    fn decode(_: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        for answer in &answers {
            println!("status {}", answer.response.status);
            assert!(answer.response.status != 503, "no body");
        }
        replies(&answers)
    }
}

export!(BadAnswer);
