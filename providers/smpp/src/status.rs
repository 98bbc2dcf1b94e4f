//! What `command_status` says of a message (section 5.1.3).

use pushlet_provider::reply::failed;
use pushlet_provider::{CredentialFault, Disposition, Outcome, Scope, Throttle};

/// The command is not known.
pub const BAD_COMMAND: u32 = 0x03;
/// The length cannot be right.
pub const BAD_LENGTH: u32 = 0x02;
const QUEUE_FULL: u32 = 0x14;
const THROTTLED: u32 = 0x58;

/// Is the service asking for a pause?
pub fn is_too_fast(status: u32) -> bool {
    matches!(status, THROTTLED | QUEUE_FULL)
}

/// The outcome of a message that was refused. `pause`: milliseconds until the connection sends again.
pub fn outcome(status: u32, pause: u64) -> Outcome {
    let disposition = match status {
        THROTTLED | QUEUE_FULL => {
            Disposition::Throttled(Throttle { scope: Scope::Application, retry_after: Some(pause) })
        }
        0x04 | 0x08 | 0x64 => Disposition::Unavailable(None),
        0x05 | 0x0d..=0x0f | 0x101 => Disposition::CredentialRejected(CredentialFault::Refused),
        0xff => Disposition::Unknown,
        status if name(status).is_some() => Disposition::Rejected,
        _ => Disposition::Unknown,
    };
    described(status, disposition)
}

/// The outcome of everything that waits for a bind that was refused.
pub fn bind_outcome(status: u32) -> Outcome {
    let disposition = match status {
        0x0d..=0x0f | 0x53 | 0x101 => Disposition::CredentialRejected(CredentialFault::Refused),
        _ => Disposition::Unavailable(None),
    };
    described(status, disposition)
}

fn described(status: u32, disposition: Disposition) -> Outcome {
    let message = name(status).map_or_else(
        || format!("the service answered with the status 0x{status:08X}"),
        |name| format!("{name} (status 0x{status:08X})"),
    );
    failed(disposition, Some(&format!("0x{status:08X}")), Some(message))
}

fn name(status: u32) -> Option<&'static str> {
    Some(match status {
        0x01 => "the message length is invalid",
        BAD_LENGTH => "the command length is invalid",
        BAD_COMMAND => "the command is invalid",
        0x04 => "the bind status is wrong for the command",
        0x05 => "the client is bound already",
        0x06 => "the priority flag is invalid",
        0x07 => "the registered delivery flag is invalid",
        0x08 => "the service has a system error",
        0x0a => "the source address is invalid",
        0x0b => "the number is invalid",
        0x0d => "the bind failed",
        0x0e => "the password is wrong",
        0x0f => "the system id is wrong",
        QUEUE_FULL => "the message queue is full",
        0x15 => "the service type is invalid",
        0x33 => "the number of destinations is invalid",
        0x43 => "the message class is invalid",
        0x45 => "the service could not take the message",
        0x48 => "the type of the source address is invalid",
        0x49 => "the numbering plan of the source address is invalid",
        0x50 => "the type of the number is invalid",
        0x51 => "the numbering plan of the number is invalid",
        0x53 => "the system type is invalid",
        THROTTLED => "too many messages",
        0x61 => "the scheduled time is invalid",
        0x62 => "the validity period is invalid",
        0x63 => "the predefined message is invalid",
        0x64 => "the receiving side has a temporary error",
        0x65 => "the receiving side has a permanent error",
        0x66 => "the receiving side rejected the message",
        0xc0..=0xc4 => "an optional parameter is wrong",
        0xff => "the service does not say why",
        0x101 => "the client is not allowed to do that",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_by_who_must_act() {
        let of = |status| outcome(status, 1000).disposition;
        for status in [0x0b, 0x33, 0x50, 0x01, 0x0a, 0x45, 0x65, 0x66, 0xc3] {
            assert_eq!(of(status), Disposition::Rejected, "{status:x}");
        }
        assert!(matches!(of(0x58), Disposition::Throttled(Throttle { retry_after: Some(1000), .. })));
        assert!(matches!(of(0x0e), Disposition::CredentialRejected(_)));
        assert_eq!(of(0x08), Disposition::Unavailable(None));
        assert_eq!(of(0xff), Disposition::Unknown);
        assert_eq!(of(0x0400), Disposition::Unknown, "a vendor's own");
        assert_eq!(outcome(0x0400, 0).code.as_deref(), Some("0x00000400"));
        assert_eq!(bind_outcome(0x08).disposition, Disposition::Unavailable(None));
        assert!(matches!(bind_outcome(0x0f).disposition, Disposition::CredentialRejected(_)));
    }
}
