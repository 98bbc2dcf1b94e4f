//! What an application says about its account and about how it sends.

use crate::message::source;
use crate::pdu::{Address, command};
use crate::text::LongMessages;
use pushlet_provider::input::{all, invalid, missing, setting};
use pushlet_provider::{Application, Rejection};

/// Requests that wait for an answer, unless a setting says otherwise.
pub const WINDOW: usize = 10;
/// The greatest value of that setting.
pub const MOST_IN_FLIGHT: usize = 1000;

/// How an application sends.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the account.
    pub system_id: String,
    pub system_type: String,
    pub service_type: String,
    /// Whom messages come from.
    pub source: Address,
    /// The command of its bind request.
    pub bind: u32,
    pub long: LongMessages,
    /// Most requests without an answer.
    pub window: usize,
}

impl Settings {
    /// Reads the settings of an application.
    pub fn of(application: &Application) -> Result<Self, Rejection> {
        let text = |name: &str, longest: usize| {
            let text = setting(application, name).unwrap_or_default();
            match text.len() <= longest && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                true => Ok(text.to_owned()),
                false => Err(invalid(name, format!("{name} must be at most {longest} ASCII characters"))),
            }
        };
        let window = setting(application, "smpp_window").map_or(Ok(WINDOW), str::parse);
        let window = window.ok().filter(|window| (1..=MOST_IN_FLIGHT).contains(window));
        let window = window.ok_or_else(|| invalid("smpp_window", "smpp_window must be from 1 to 1000"));
        let (system_id, system_type) = (text("smpp_system_id", 15), text("smpp_system_type", 12));
        let service_type = text("smpp_service_type", 5);
        let source = source(setting(application, "smpp_source_address").unwrap_or_default());
        let is = |name, value| setting(application, name) == Some(value);
        match (system_id, system_type, service_type, source, window) {
            (Ok(system_id), Ok(system_type), Ok(service_type), Ok(source), Ok(window)) => {
                if system_id.is_empty() {
                    return Err(missing("smpp_system_id", "smpp_system_id is required"));
                }
                let bind = match is("smpp_bind", "transceiver") {
                    true => command::BIND_TRANSCEIVER,
                    false => command::BIND_TRANSMITTER,
                };
                let long = match is("smpp_long_messages", "payload") {
                    true => LongMessages::Payload,
                    false => LongMessages::Parts,
                };
                Ok(Self { system_id, system_type, service_type, source, bind, long, window })
            }
            (a, b, c, d, e) => {
                let faults = [a.err(), b.err(), c.err(), d.err(), e.err()];
                Err(all(faults.into_iter().flatten()).err().unwrap_or_else(|| invalid("settings", "wrong")))
            }
        }
    }
}
