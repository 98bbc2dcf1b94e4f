//! Ends the process, which is not its own.

use pushlet_guests::*;

pub struct Exit;

impl Guest for Exit {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application) {
            "exit 0" => std::process::exit(0),
            "exit 1" => std::process::exit(1),
            "abort" => std::process::abort(),
            _ => encoded(&targets),
        }
    }
}

export!(Exit);
