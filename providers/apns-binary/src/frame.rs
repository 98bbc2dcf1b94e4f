//! The bytes on the wire. All integers are big-endian.

use pushlet_provider::Rejection;
use pushlet_provider::input::invalid;

/// Bytes of a device token.
pub const TOKEN: usize = 32;
/// Bytes of an error packet.
pub const ERROR_PACKET: usize = 6;

/// Which form of notification is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Command {
    /// Command 1, the enhanced format.
    Enhanced,
    /// Command 2, the framed format.
    #[default]
    Framed,
}

/// What all notifications of one submission have in common.
#[derive(Debug, Clone)]
pub struct Message {
    /// At most [`crate::payload::LIMIT`] bytes.
    pub payload: Vec<u8>,
    /// Seconds since the epoch; 0: it is not stored. None: not written, where the format allows that.
    pub expiry: Option<u32>,
    /// 10: at once; 5: when it suits the device.
    pub priority: Option<u8>,
}

impl Message {
    /// Appends the notification for one token.
    pub fn write(&self, command: Command, identifier: u32, token: &[u8; TOKEN], out: &mut Vec<u8>) {
        match command {
            Command::Enhanced => {
                out.push(1);
                out.extend_from_slice(&identifier.to_be_bytes());
                out.extend_from_slice(&self.expiry.unwrap_or(0).to_be_bytes());
                write_counted(token, out);
                write_counted(&self.payload, out);
            }
            Command::Framed => {
                let mut items = Vec::with_capacity(self.payload.len() + 64);
                write_item(1, token, &mut items);
                write_item(2, &self.payload, &mut items);
                write_item(3, &identifier.to_be_bytes(), &mut items);
                if let Some(expiry) = self.expiry {
                    write_item(4, &expiry.to_be_bytes(), &mut items);
                }
                if let Some(priority) = self.priority {
                    write_item(5, &[priority], &mut items);
                }
                out.push(2);
                out.extend_from_slice(&u32::try_from(items.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(&items);
            }
        }
    }
}

fn write_item(kind: u8, data: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    write_counted(data, out);
}

/// The data after its length. It is never longer than a payload.
fn write_counted(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
}

/// What the gateway writes before it closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorPacket {
    pub status: u8,
    /// The notification that failed; with the status 10, the last one that was accepted.
    pub identifier: u32,
}

impl ErrorPacket {
    /// Parses an error packet; None: it is none.
    pub fn parse(bytes: &[u8; ERROR_PACKET]) -> Option<Self> {
        let [command, status, identifier @ ..] = *bytes;
        (command == 8).then_some(Self { status, identifier: u32::from_be_bytes(identifier) })
    }
}

/// Parses a device token in hexadecimal. Spaces and angle brackets, as iOS once printed them, are left out.
pub fn token(text: &str) -> Result<[u8; TOKEN], Rejection> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|letter| !matches!(letter, ' ' | '<' | '>'))
        .map_while(|letter| letter.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    let length = text.chars().filter(|letter| !matches!(letter, ' ' | '<' | '>')).count();
    let mut token = [0; TOKEN];
    if length != TOKEN * 2 || digits.len() != length {
        let message =
            "device_token must be 64 hexadecimal digits (the binary protocol has tokens of 32 bytes)";
        return Err(invalid("device_token", message));
    }
    for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Ok(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TOKEN_TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn written(command: Command, identifier: u32, expiry: Option<u32>, priority: Option<u8>) -> String {
        let message = Message { payload: br#"{"aps":{"alert":"Hi"}}"#.to_vec(), expiry, priority };
        let mut out = Vec::new();
        message.write(command, identifier, &token(TOKEN_TEXT).unwrap(), &mut out);
        hex::encode(out)
    }

    #[test]
    fn golden_frames() {
        let payload = "7b22617073223a7b22616c657274223a224869227d7d";
        // As PyPI apns 2.0.1 writes it.
        assert_eq!(
            written(Command::Enhanced, 42, Some(1_893_456_000), None),
            format!("010000002a70dbd8800020{TOKEN_TEXT}0016{payload}")
        );
        // As npm apn 1.7.8 writes it.
        assert_eq!(
            written(Command::Framed, 42, Some(1_893_456_000), Some(5)),
            format!("020000004e010020{TOKEN_TEXT}020016{payload}0300040000002a04000470dbd88005000105")
        );
        assert_eq!(
            written(Command::Framed, 42, Some(1_893_456_000), None),
            format!("020000004a010020{TOKEN_TEXT}020016{payload}0300040000002a04000470dbd880")
        );
        // Grocer 0.2.0: identifier and expiry of 0.
        assert_eq!(
            written(Command::Enhanced, 0, None, None),
            format!("0100000000000000000020{TOKEN_TEXT}0016{payload}")
        );
    }

    #[test]
    fn golden_packets() {
        let packet = ErrorPacket::parse(&[8, 8, 0, 0, 0, 0x2a]);
        assert_eq!(packet, Some(ErrorPacket { status: 8, identifier: 42 }));
        assert_eq!(ErrorPacket::parse(&[0; 6]), None);
    }

    #[test]
    fn tokens_are_64_digits() {
        assert_eq!(
            token("<00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191A1B 1c1d1e1f>"),
            token(TOKEN_TEXT)
        );
        for wrong in
            ["", "00", &TOKEN_TEXT[1..], &format!("{TOKEN_TEXT}00"), &TOKEN_TEXT.replace('f', "g"), "é"]
        {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }
}
