//! Reads answers wrongly: too few or too many outcomes, and texts that can't be handed on.

use pushlet_guests::*;

pub struct Outcomes;

impl Guest for Outcomes {
    fn decode(_: Context, application: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        let mut replies = replies(&answers);
        let outcome = replies[0].outcomes[0].clone();
        match task(&application) {
            "no_reply" => replies.clear(),
            "two_replies" => replies.push(replies[0].clone()),
            "no_outcome" => replies[0].outcomes.clear(),
            "one_more" => replies[0].outcomes.push(outcome),
            "native" => replies[0].native = Some("{not json".into()),
            "deep_native" => replies[0].native = Some("[".repeat(100_000)),
            "token" => replies[0].outcomes[0].disposition = Disposition::Replaced("t".repeat(5000)),
            "no_token" => replies[0].outcomes[0].disposition = Disposition::Replaced(String::new()),
            "id" => replies[0].outcomes[0].id = Some("i".repeat(5000)),
            "for_ever" => replies[0].outcomes[0].disposition = Disposition::Unavailable(Some(u64::MAX)),
            _ => {}
        }
        replies
    }
}

export!(Outcomes);
