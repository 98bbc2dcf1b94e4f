//! UUIDs from what the call brings along (RFC 9562).

/// A random UUID (version 4) from 16 fresh bytes: slice `index` of the call's entropy. None if the entropy is short.
pub fn random(entropy: &[u8], index: usize) -> Option<String> {
    let bytes: [u8; 16] = entropy.get(index * 16..index * 16 + 16)?.try_into().ok()?;
    Some(format(stamp(bytes, 4)))
}

/// The UUID that stands for a caller's id: a UUID is itself in lower case, an integer below 2^32 stands in the last
/// four bytes of an otherwise empty UUID, and any other text is hashed (version 8, FNV-1a of 128 bits). The same id
/// always gives the same UUID.
pub fn for_identifier(identifier: &str) -> String {
    if is_uuid(identifier) {
        return identifier.to_ascii_lowercase();
    }
    if let Ok(number) = identifier.parse::<u32>() {
        return format(u128::from(number).to_be_bytes());
    }
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in identifier.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format(stamp(hash.to_be_bytes(), 8))
}

/// Is this a UUID in its canonical form, 8-4-4-4-12 hexadecimal digits?
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn stamp(mut bytes: [u8; 16], version: u8) -> [u8; 16] {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

fn format(bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    /// Where the digits of each byte begin.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, place) in bytes.into_iter().zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 15)];
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn random_uuids_take_their_own_slice() {
        let entropy: Vec<u8> = (0..32).collect();
        assert_eq!(random(&entropy, 0).unwrap(), "00010203-0405-4607-8809-0a0b0c0d0e0f");
        assert_eq!(random(&entropy, 1).unwrap(), "10111213-1415-4617-9819-1a1b1c1d1e1f");
        assert_eq!(random(&entropy, 2), None);
    }

    #[test]
    fn identifiers_become_uuids() {
        assert_eq!(
            for_identifier("123E4567-e89b-12d3-a456-426614174000"),
            "123e4567-e89b-12d3-a456-426614174000"
        );
        assert_eq!(for_identifier("1234"), "00000000-0000-0000-0000-0000000004d2");
        let named = for_identifier("order-7");
        assert!(is_uuid(&named) && named != for_identifier("order-8"));
        assert_eq!(named.as_bytes()[14], b'8');
        assert_eq!(named, for_identifier("order-7"));
    }
}
