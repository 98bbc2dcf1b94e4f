//! A decoder for header blocks (RFC 7541), as far as requests of push gateways need it: printable ASCII.

/// The fields of the static table that can be referred to by name or whole (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Bits of the Huffman codes of the characters 32 to 126 (RFC 7541, appendix B). The code is canonical: codes
/// of the same length count up with the characters, so that the lengths say all. The only other character
/// with a code of at most 15 bits is 0, with 13.
const LENGTHS: [u8; 95] = [
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
];
const LONGEST: u8 = 15;

/// Decodes the header blocks of one connection, in order.
pub struct Decoder {
    /// The newest field comes first.
    dynamic: std::collections::VecDeque<(String, String)>,
    size: usize,
    most: usize,
    codes: Vec<(u8, u16, u8)>,
}

impl Decoder {
    pub fn new() -> Self {
        Self { dynamic: Default::default(), size: 0, most: 4096, codes: codes() }
    }

    /// The fields of a header block; None if it is none that this decoder knows.
    pub fn decode(&mut self, mut block: &[u8]) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            match first {
                0x80.. => fields.push(self.field(integer(&mut block, 7)?)?),
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.insert(field.clone());
                    fields.push(field);
                }
                0x20.. => {
                    self.most = integer(&mut block, 5)?;
                    self.evict();
                }
                _ => fields.push(self.literal(&mut block, 4)?),
            }
        }
        Some(fields)
    }

    fn literal(&self, block: &mut &[u8], bits: u32) -> Option<(String, String)> {
        let name = match integer(block, bits)? {
            0 => self.string(block)?,
            index => self.field(index)?.0,
        };
        Some((name, self.string(block)?))
    }

    fn field(&self, index: usize) -> Option<(String, String)> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some(((*name).to_owned(), (*value).to_owned())),
            None => self.dynamic.get(index - STATIC.len()).cloned(),
        }
    }

    fn insert(&mut self, field: (String, String)) {
        self.size += size(&field);
        self.dynamic.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let Some(oldest) = self.dynamic.pop_back() else { return };
            self.size -= size(&oldest);
        }
    }

    fn string(&self, block: &mut &[u8]) -> Option<String> {
        let huffman = block.first()? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (bytes, rest) = block.split_at_checked(length)?;
        *block = rest;
        let bytes = if huffman { self.huffman(bytes)? } else { bytes.to_vec() };
        String::from_utf8(bytes).ok()
    }

    fn huffman(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
        let (mut code, mut length) = (0_u16, 0_u8);
        for byte in bytes {
            for bit in (0..8).rev() {
                code = code << 1 | u16::from(byte >> bit & 1);
                length += 1;
                if let Ok(found) = self.codes.binary_search_by_key(&(length, code), |(l, c, _)| (*l, *c)) {
                    text.push(self.codes.get(found)?.2);
                    (code, length) = (0, 0);
                } else if length > LONGEST {
                    return None;
                }
            }
        }
        // What is left is padding: fewer than 8 bits, all of them 1.
        (length < 8 && code == (1 << length) - 1).then_some(text)
    }
}

/// An entry counts 32 beside its text (RFC 7541, section 4.1).
fn size((name, value): &(String, String)) -> usize {
    name.len() + value.len() + 32
}

/// Length, code and character, sorted by the first two.
fn codes() -> Vec<(u8, u16, u8)> {
    let printable = (32..).zip(LENGTHS).filter(|(_, length)| *length <= LONGEST);
    let mut lengths: Vec<(u8, u8)> = printable.map(|(character, length)| (length, character)).collect();
    lengths.push((13, 0));
    lengths.sort_unstable();
    let (mut code, mut before) = (0, 5);
    let mut codes = Vec::with_capacity(lengths.len());
    for (length, character) in lengths {
        code <<= length - before;
        before = length;
        codes.push((length, code, character));
        code += 1;
    }
    codes
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    let most = (1 << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// The three requests of RFC 7541, appendix C.4.
    #[test]
    fn the_examples_of_the_standard() {
        let mut decoder = Decoder::new();
        let mut decode = |hex| decoder.decode(&bytes(hex)).unwrap();
        let first = decode("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let authority = (":authority".to_owned(), "www.example.com".to_owned());
        assert_eq!(first[3], authority);
        let second = decode("8286 84be 5886 a8eb 1064 9cbf");
        assert_eq!(second[3..], [authority.clone(), ("cache-control".to_owned(), "no-cache".to_owned())]);
        let third = decode("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        assert_eq!(third[3..], [authority, ("custom-key".to_owned(), "custom-value".to_owned())]);
    }
}
