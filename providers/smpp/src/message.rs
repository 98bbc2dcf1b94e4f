//! A notification as `submit_sm` requests.

use crate::pdu::{Address, Submit};
use crate::text::{Alphabet, LongMessages, TextError, submissions};
use pushlet_provider::input::{Options, invalid, missing, too_large, unsupported};
use pushlet_provider::{Notification, Priority, Rejection, Target};

/// Types of number (section 5.2.5).
const INTERNATIONAL: u8 = 1;
const ALPHANUMERIC: u8 = 5;
/// Numbering plan of E.164 (section 5.2.6).
const E164: u8 = 1;
/// Digits of the longest number (E.164 has 15; services have longer ones of their own).
const MOST_DIGITS: usize = 20;
/// Digits of the longest number that is no international one.
const SHORT_CODE: usize = 8;
/// Characters of a name as a source.
const LONGEST_NAME: usize = 11;
/// The longest validity period, in seconds: a month is where its notation depends on the calendar.
const LONGEST_VALIDITY: u32 = 28 * 86_400;

/// What all recipients of one notification get.
#[derive(Debug)]
pub struct Message {
    submit: Submit,
    text: String,
    alphabet: Alphabet,
}

impl Message {
    /// `source`: the application's, unless the notification names one. `service_type`: the application's.
    pub fn of(notification: &Notification, source: &Address, service_type: &str) -> Result<Self, Rejection> {
        let options = Options::of(notification);
        let text = text(notification)?;
        let alphabet = match options.choice("alphabet", &["auto", "gsm", "ucs2"])?.as_deref() {
            Some("gsm") => Alphabet::Gsm,
            Some("ucs2") => Alphabet::Ucs2,
            _ => Alphabet::of(&text),
        };
        let own = options.text("smpp_source_address")?;
        let submit = Submit {
            service_type: service_type.into(),
            source: own.map_or_else(|| Ok(source.clone()), |own| self::source(&own))?,
            priority: u8::from(notification.priority == Some(Priority::High)),
            validity: notification.time_to_live.map(validity).unwrap_or_default(),
            ..Submit::default()
        };
        let message = Self { submit, text, alphabet };
        // Whether the text fits does not depend on the recipient.
        message.parts(&Address::default(), LongMessages::Parts, 0).map(|_| message)
    }

    /// Returns the requests for one recipient.
    pub fn parts(
        &self,
        destination: &Address,
        long: LongMessages,
        reference: u8,
    ) -> Result<Vec<Submit>, Rejection> {
        let submit = Submit { destination: destination.clone(), ..self.submit.clone() };
        submissions(&self.text, self.alphabet, long, reference, &submit).map_err(|error| match error {
            TextError::TooLong => too_large("body", "the text needs more than 10 parts"),
            TextError::Character(letter) => {
                let letter = letter.escape_default();
                invalid("alphabet", format!("the alphabet gsm does not have the character {letter}"))
            }
        })
    }
}

fn text(notification: &Notification) -> Result<String, Rejection> {
    if notification.native.is_some() {
        return Err(invalid("native", "SMPP has no raw payload; give title and body"));
    }
    let alert = notification.alert.as_ref();
    let lines = alert.map(|alert| [alert.title.as_deref(), alert.subtitle.as_deref(), alert.body.as_deref()]);
    let lines: Vec<&str> = lines.into_iter().flatten().flatten().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(missing("body", "there is no text to send: give a body"));
    }
    Ok(lines.join("\n"))
}

/// Parses the number of a phone in international form.
pub fn destination(target: &Target) -> Result<Address, Rejection> {
    let Target::Device(number) = target else { return Err(unsupported(target)) };
    match digits(number) {
        Some(address) => Ok(Address { ton: INTERNATIONAL, npi: E164, address }),
        None => Err(invalid(
            "device_token",
            "the target must be a phone number in international form: +491700000000",
        )),
    }
}

/// Parses whom a message comes from: an international number, a short one, or a name.
pub fn source(text: &str) -> Result<Address, Rejection> {
    if text.is_empty() {
        return Ok(Address::default());
    }
    if let Some(address) = digits(text) {
        let is_short = !text.starts_with('+') && address.len() <= SHORT_CODE;
        let (ton, npi) = if is_short { (0, 0) } else { (INTERNATIONAL, E164) };
        return Ok(Address { ton, npi, address });
    }
    let is_name = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_name && text.len() <= LONGEST_NAME {
        return Ok(Address { ton: ALPHANUMERIC, npi: 0, address: text.into() });
    }
    let message = "smpp_source_address must be a phone number, or at most 11 letters and digits";
    Err(invalid("smpp_source_address", message))
}

/// The digits of a number; None: it is none.
fn digits(number: &str) -> Option<String> {
    let plain: String =
        number.chars().filter(|letter| !matches!(letter, ' ' | '-' | '(' | ')' | '/')).collect();
    let digits = plain.strip_prefix('+').unwrap_or(&plain);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && digits.len() <= MOST_DIGITS).then(|| digits.into())
}

/// A relative time (section 7.1.1.2). 0: as short as it can be.
fn validity(seconds: u32) -> String {
    let seconds = seconds.clamp(1, LONGEST_VALIDITY);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!("0000{days:02}{hours:02}{minutes:02}{:02}000R", seconds % 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use pushlet_provider::Alert;

    /// A notification with a text.
    pub fn body(text: &str) -> Notification {
        let alert = Alert {
            title: None,
            subtitle: None,
            body: Some(text.into()),
            image: None,
            title_localized: None,
            subtitle_localized: None,
            body_localized: None,
        };
        Notification { alert: Some(alert), ..Notification::default() }
    }

    fn address(ton: u8, npi: u8, address: &str) -> Address {
        Address { ton, npi, address: address.into() }
    }

    #[test]
    fn addresses_say_what_they_are() {
        let to = |number: &str| destination(&Target::Device(number.into()));
        assert_eq!(to("+49 (170) 000-0000"), Ok(address(1, 1, "491700000000")));
        assert_eq!(to("491700000000"), Ok(address(1, 1, "491700000000")));
        for wrong in ["", "+", "abc", "12a", "++49", "1".repeat(21).as_str(), "49\u{0}1"] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
        assert_eq!(source("Pushlet"), Ok(address(5, 0, "Pushlet")));
        assert_eq!(source("12345"), Ok(address(0, 0, "12345")));
        assert_eq!(source("+12345"), Ok(address(1, 1, "12345")));
        assert_eq!(source("491700000000"), Ok(address(1, 1, "491700000000")));
        for wrong in ["a name that is long", "é", "a\u{0}b"] {
            assert_eq!(source(wrong).unwrap_err().field.as_deref(), Some("smpp_source_address"));
        }
    }

    #[test]
    fn times_are_relative() {
        assert_eq!(validity(3600), "000000010000000R");
        assert_eq!(validity(0), "000000000001000R");
        assert_eq!(validity(90_061), "000001010101000R");
        assert_eq!(validity(u32::MAX), "000028000000000R");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let code = |notification: &Notification| {
            Message::of(notification, &Address::default(), "").map(drop).unwrap_err().code
        };
        assert_eq!(code(&Notification { alert: None, ..body("") }), "missing_body");
        assert_eq!(code(&Notification { native: Some("{}".into()), ..body("x") }), "invalid_native");
        assert_eq!(code(&body(&"x".repeat(1531))), "payload_too_large");
        let gsm = vec![("alphabet".into(), "\"gsm\"".into())];
        assert_eq!(code(&Notification { options: gsm, ..body("中") }), "invalid_alphabet");
    }
}
