//! Reads files.

use pushlet_guests::*;

pub struct Filesystem;

impl Guest for Filesystem {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Target>) -> Encoded {
        with_body(&targets, std::fs::read("/etc/passwd").unwrap_or_default())
    }
}

export!(Filesystem);
