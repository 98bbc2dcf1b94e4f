//! Computes for ever in the export that it is told to.

use pushlet_guests::*;

pub struct Endless;

impl Guest for Endless {
    fn check_application(application: Application) -> Result<(), Rejection> {
        if task(&application) == "check_application" { spin() } else { Ok(()) }
    }

    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        if task(&application) == "encode" { spin() } else { encoded(&targets) }
    }

    fn decode(_: Context, application: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        if task(&application) == "decode" { spin() } else { replies(&answers) }
    }
}

export!(Endless);
