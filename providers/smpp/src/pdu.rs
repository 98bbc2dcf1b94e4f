//! Protocol data units: a header of 16 bytes and a body. All integers are big-endian.
//!
//! Source: SMPP Protocol Specification v3.4, issue 1.2, chapters 3 to 5.

/// Bytes of a header: length of the whole, command, status, sequence number.
pub const HEADER: usize = 16;
/// Most bytes of a unit that is read: a message payload of 64 KiB and what may be around it.
pub const LONGEST: usize = 68 << 10;
/// Added to a request's command in its answer.
pub const ANSWER: u32 = 0x8000_0000;
/// The greatest sequence number.
pub const LAST_SEQUENCE: u32 = 0x7fff_ffff;

/// Commands (section 5.1.2.1).
pub mod command {
    pub const BIND_TRANSMITTER: u32 = 0x02;
    pub const SUBMIT_SM: u32 = 0x04;
    pub const DELIVER_SM: u32 = 0x05;
    pub const UNBIND: u32 = 0x06;
    pub const BIND_TRANSCEIVER: u32 = 0x09;
    pub const OUTBIND: u32 = 0x0b;
    pub const ENQUIRE_LINK: u32 = 0x15;
    pub const ALERT_NOTIFICATION: u32 = 0x102;
    pub const DATA_SM: u32 = 0x103;
    pub const GENERIC_NACK: u32 = super::ANSWER;
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub command: u32,
    pub status: u32,
    pub sequence: u32,
}

impl Header {
    /// A request.
    pub fn request(command: u32, sequence: u32) -> Self {
        Self { command, status: 0, sequence }
    }

    /// The answer to a request.
    pub fn answer(command: u32, sequence: u32) -> Self {
        Self { command: command | ANSWER, status: 0, sequence }
    }

    /// The answer to what is not understood.
    pub fn nack(status: u32, sequence: u32) -> Self {
        Self { command: command::GENERIC_NACK, status, sequence }
    }

    /// Returns the bytes of a header before a body of this length.
    pub fn bytes(self, body: usize) -> [u8; HEADER] {
        let length = u32::try_from(HEADER + body).unwrap_or(u32::MAX);
        let mut bytes = [0; HEADER];
        for (place, word) in bytes.chunks_exact_mut(4).zip([length, self.command, self.status, self.sequence])
        {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Returns the bytes of a whole unit.
    pub fn with(self, body: &[u8]) -> Vec<u8> {
        [&self.bytes(body.len())[..], body].concat()
    }
}

/// What stands next in the bytes that were received.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It is not whole yet.
    Incomplete,
    /// A whole unit, and its body.
    Unit(Header, Vec<u8>),
    /// Its length cannot be right: where the next unit begins is not known.
    BadLength(u32),
}

/// Takes the next unit out of the bytes.
pub fn next(received: &mut Vec<u8>) -> Next {
    let word = |place: usize| {
        let bytes = received.get(place * 4..place * 4 + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let Some(length) = word(0).map(|length| length as usize) else { return Next::Incomplete };
    if !(HEADER..=LONGEST).contains(&length) {
        return Next::BadLength(word(3).unwrap_or(0));
    }
    let (Some(command), Some(status), Some(sequence)) = (word(1), word(2), word(3)) else {
        return Next::Incomplete;
    };
    if received.len() < length {
        return Next::Incomplete;
    }
    let body = received.drain(..length).skip(HEADER).collect();
    Next::Unit(Header { command, status, sequence }, body)
}

/// Type and plan of an address, and its digits or letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// Type of number (section 5.2.5).
    pub ton: u8,
    /// Numbering plan (section 5.2.6).
    pub npi: u8,
    /// At most 20 bytes.
    pub address: String,
}

impl Address {
    fn write(&self, body: &mut Vec<u8>) {
        body.extend([self.ton, self.npi]);
        write_text(&self.address, body);
    }
}

/// One `submit_sm` (section 4.4.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submit {
    pub service_type: String,
    pub source: Address,
    pub destination: Address,
    /// 0x40: the message begins with a header.
    pub esm_class: u8,
    pub priority: u8,
    /// 16 characters, or none.
    pub validity: String,
    pub registered_delivery: u8,
    pub data_coding: u8,
    /// At most 254 bytes, unless it goes out as a payload.
    pub message: Vec<u8>,
    /// It goes out as the optional parameter `message_payload`.
    pub as_payload: bool,
}

const MESSAGE_PAYLOAD: u16 = 0x0424;

impl Submit {
    /// Returns the body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.message.len() + 80);
        write_text(&self.service_type, &mut body);
        self.source.write(&mut body);
        self.destination.write(&mut body);
        body.extend([self.esm_class, 0, self.priority]);
        // schedule_delivery_time: at once.
        body.push(0);
        write_text(&self.validity, &mut body);
        body.extend([self.registered_delivery, 0, self.data_coding, 0]);
        if self.as_payload {
            body.push(0);
            body.extend(MESSAGE_PAYLOAD.to_be_bytes());
            body.extend(u16::try_from(self.message.len()).unwrap_or(u16::MAX).to_be_bytes());
        } else {
            body.push(u8::try_from(self.message.len()).unwrap_or(u8::MAX));
        }
        body.extend_from_slice(&self.message);
        body
    }
}

/// What stands around the password in a bind request (section 4.1), the header included.
pub fn bind(
    command: u32,
    sequence: u32,
    system_id: &str,
    password: usize,
    system_type: &str,
) -> (Vec<u8>, Vec<u8>) {
    /// Version 3.4.
    const VERSION: u8 = 0x34;
    let (mut before, mut after) = (Vec::new(), vec![0]);
    write_text(system_id, &mut before);
    write_text(system_type, &mut after);
    // Any address: type, plan and range are empty.
    after.extend([VERSION, 0, 0, 0]);
    let header = Header::request(command, sequence).bytes(before.len() + password + after.len());
    (header.into_iter().chain(before).collect(), after)
}

/// Returns the text at the beginning of a body, up to the zero that ends it; None: it is empty, or not printable ASCII.
pub fn leading_text(body: &[u8]) -> Option<String> {
    let text = body.split(|byte| *byte == 0).next().filter(|text| !text.is_empty() && text.len() <= 64)?;
    text.iter().all(|byte| byte.is_ascii_graphic()).then(|| String::from_utf8_lossy(text).into_owned())
}

/// A text and the zero that ends it.
fn write_text(text: &str, body: &mut Vec<u8>) {
    body.extend_from_slice(text.as_bytes());
    body.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Submit {
        Submit {
            source: Address { ton: 5, npi: 0, address: "Pushlet".into() },
            destination: Address { ton: 1, npi: 1, address: "491700000000".into() },
            registered_delivery: 1,
            message: b"Hello".to_vec(),
            ..Submit::default()
        }
    }

    fn written(sequence: u32, submit: &Submit) -> String {
        hex::encode(Header::request(command::SUBMIT_SM, sequence).with(&submit.body()))
    }

    #[test]
    fn golden_submissions() {
        let address = "000500507573686c657400010134393137303030303030303000";
        // As PyPI smpplib 2.2.4 writes it.
        assert_eq!(
            written(2, &hello()),
            format!("00000039000000040000000000000002{address}000000000001000000{}", "0548656c6c6f")
        );
        let ucs2 = hex::decode("0047007200fc00df0065002020ac").unwrap_or_default();
        assert_eq!(
            written(3, &Submit { data_coding: 8, message: ucs2, ..hello() }),
            format!(
                "00000042000000040000000000000003{address}000000000001000800{}",
                "0e0047007200fc00df0065002020ac"
            )
        );
        let payload =
            Submit { registered_delivery: 0, message: vec![b'x'; 300], as_payload: true, ..hello() };
        assert_eq!(
            written(4, &payload),
            format!(
                "00000164000000040000000000000004{address}000000000000000000000424012c{}",
                "78".repeat(300)
            )
        );
        let part = [&[5, 0, 3, 0x42, 2, 1][..], &[b'A'; 10]].concat();
        assert_eq!(
            written(5, &Submit { esm_class: 0x40, message: part, ..hello() }),
            format!(
                "00000044000000040000000000000005{address}400000000001000000{}",
                "1005000342020141414141414141414141"
            )
        );
    }

    #[test]
    fn golden_sessions() {
        let (before, after) = bind(command::BIND_TRANSCEIVER, 1, "pushlet", 6, "");
        let bind = [before, b"secret".to_vec(), after].concat();
        assert_eq!(
            hex::encode(bind),
            "00000024000000090000000000000001707573686c657400736563726574000034000000"
        );
        let unit = |header: Header, body: &[u8]| hex::encode(header.with(body));
        assert_eq!(unit(Header::request(command::ENQUIRE_LINK, 6), &[]), "00000010000000150000000000000006");
        assert_eq!(unit(Header::answer(command::ENQUIRE_LINK, 6), &[]), "00000010800000150000000000000006");
        assert_eq!(unit(Header::request(command::UNBIND, 7), &[]), "00000010000000060000000000000007");
        assert_eq!(unit(Header::nack(3, 8), &[]), "00000010800000000000000300000008");
        assert_eq!(unit(Header::answer(command::DELIVER_SM, 9), &[0]), "0000001180000005000000000000000900");
        assert_eq!(leading_text(b"4B2A\0"), Some("4B2A".into()));
        assert_eq!(leading_text(b"\0"), None);
    }

    #[test]
    fn lengths_are_checked_before_anything_is_kept() {
        for length in [0, 15, u32::try_from(LONGEST).unwrap_or(0) + 1, u32::MAX] {
            let mut received = [length.to_be_bytes(), [0; 4], [0; 4], [0, 0, 0, 7]].concat();
            assert_eq!(next(&mut received), Next::BadLength(7), "{length}");
        }
    }

    proptest! {
        #[test]
        fn units_are_read_as_they_were_written(
            command: u32, status: u32, sequence: u32, body in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300,
        ) {
            let header = Header { command, status, sequence };
            let bytes = header.with(&body);
            let cut = cut.min(bytes.len() - 1);
            let mut received = bytes[..cut].to_vec();
            prop_assert_eq!(next(&mut received), Next::Incomplete);
            received.extend(&bytes[cut..]);
            received.push(9);
            prop_assert_eq!(next(&mut received), Next::Unit(header, body));
            prop_assert_eq!(received, [9]);
        }
    }
}
