//! The coding of request heads on one connection (HPACK, RFC 7541).
//!
//! The heads of pushes differ little: what repeats goes into the table that the peer keeps, and from then on takes one
//! byte or two. The table only grows, so that nothing is looked up that has left it. The provider token is a literal
//! that no table holds, and its coded form is kept for the next push.

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};
use zeroize::Zeroizing;

/// First bytes of a field (RFC 7541, section 6), and how many bits of its number they hold.
const INDEXED: (u8, u32) = (0x80, 7);
const WITH_INDEXING: (u8, u32) = (0x40, 6);
const WITHOUT_INDEXING: (u8, u32) = (0x00, 4);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const SIZE_UPDATE: (u8, u32) = (0x20, 5);
/// First bits of a string (section 5.2).
const HUFFMAN: (u8, u32) = (0x80, 7);
const PLAIN: (u8, u32) = (0x00, 7);

/// The static table (RFC 7541, appendix A), as far as it is used.
const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const METHOD_POST: usize = 3;
const PATH: usize = 4;
const SCHEME_HTTPS: usize = 7;
const AUTHORIZATION_NAME: usize = 23;
const FIRST_DYNAMIC: usize = 62;

/// The size of the peer's table until it sets another, and the most that is used of it, as section 4.1 counts it.
const TABLE_SIZE: usize = 4096;
/// What an entry takes besides its name and value.
const ENTRY_OVERHEAD: usize = 32;
/// Values of one header that go into the table: those of some, such as `apns-id`, never repeat.
const MOST_VALUES: usize = 4;

/// A request's head without the authority, which is the connection's.
pub struct RequestHead {
    pub method: Method,
    pub path: PathAndQuery,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Codes the heads of one connection, in the order in which they leave.
pub struct HeadEncoder {
    authority: String,
    /// The peer's table, oldest first.
    table: Vec<TableEntry>,
    size: usize,
    limit: usize,
    /// Where the next header is if it follows the last one, as it did before.
    next: usize,
    credential: Option<KeptCredential>,
}

struct TableEntry {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A provider token or another credential, and the string that it is sent as.
struct KeptCredential {
    value: HeaderValue,
    coded: Zeroizing<Vec<u8>>,
}

impl HeadEncoder {
    pub fn new(authority: String) -> Self {
        HeadEncoder { authority, table: Vec::new(), size: 0, limit: TABLE_SIZE, next: 0, credential: None }
    }

    /// Appends the header block of a request.
    pub fn encode(&mut self, head: &RequestHead, block: &mut Vec<u8>) {
        if head.method == Method::POST {
            number(INDEXED, METHOD_POST, block);
        } else {
            number(WITHOUT_INDEXING, METHOD, block);
            string(head.method.as_str().as_bytes(), block);
        }
        number(INDEXED, SCHEME_HTTPS, block);
        self.next = 0;
        let authority = std::mem::take(&mut self.authority);
        self.field(Some(AUTHORITY), b":authority", authority.as_bytes(), block);
        self.authority = authority;
        number(WITHOUT_INDEXING, PATH, block);
        string(head.path.as_str().as_bytes(), block);
        for (name, value) in &head.headers {
            if *name == AUTHORIZATION || value.is_sensitive() {
                self.credential(name, value, block);
            } else {
                self.field(None, name.as_str().as_bytes(), value.as_bytes(), block);
            }
        }
    }

    /// Appends the update that the peer waits for after it has set the size of its table (section 4.2), and begins an
    /// empty one.
    pub fn resize(&mut self, limit: usize, block: &mut Vec<u8>) {
        self.limit = limit.min(TABLE_SIZE);
        self.size = 0;
        self.table.clear();
        number(SIZE_UPDATE, 0, block);
        number(SIZE_UPDATE, self.limit, block);
    }

    /// `index`: that of the name in the static table.
    fn field(&mut self, index: Option<usize>, name: &[u8], value: &[u8], block: &mut Vec<u8>) {
        let is_it = |entry: &TableEntry| entry.value == value && entry.name == name;
        let found = match self.table.get(self.next) {
            Some(entry) if is_it(entry) => Some(self.next),
            _ => self.table.iter().position(is_it),
        };
        if let Some(at) = found {
            self.next = at + 1;
            return number(INDEXED, self.index(at), block);
        }
        let same_name = |entry: &&TableEntry| entry.name == name;
        let values = self.table.iter().filter(same_name).count();
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let is_kept = values < MOST_VALUES && self.size + size <= self.limit;
        let index =
            index.or_else(|| self.table.iter().position(|entry| entry.name == name).map(|at| self.index(at)));
        number(if is_kept { WITH_INDEXING } else { WITHOUT_INDEXING }, index.unwrap_or(0), block);
        if index.is_none() {
            string(name, block);
        }
        string(value, block);
        if is_kept {
            self.size += size;
            self.table.push(TableEntry { name: name.to_vec(), value: value.to_vec() });
        }
    }

    /// A credential is never indexed, by proxies neither (section 7.1.3).
    fn credential(&mut self, name: &HeaderName, value: &HeaderValue, block: &mut Vec<u8>) {
        if *name == AUTHORIZATION {
            number(NEVER_INDEXED, AUTHORIZATION_NAME, block);
        } else {
            number(NEVER_INDEXED, 0, block);
            string(name.as_str().as_bytes(), block);
        }
        if let Some(kept) = self.credential.as_ref().filter(|kept| kept.value == *value) {
            return block.extend_from_slice(&kept.coded);
        }
        let mut coded = Zeroizing::new(Vec::new());
        string(value.as_bytes(), &mut coded);
        block.extend_from_slice(&coded);
        self.credential = Some(KeptCredential { value: value.clone(), coded });
    }

    /// Returns the number of an entry: the newest has the first (section 2.3.3).
    fn index(&self, at: usize) -> usize {
        FIRST_DYNAMIC + self.table.len() - 1 - at
    }
}

/// Returns the size of the table that a header block begins with, if it updates it; of several the last.
pub fn size_update(mut block: &[u8]) -> Option<usize> {
    let mut size = None;
    while let Some((first, rest)) = block.split_first()
        && first >> SIZE_UPDATE.1 == SIZE_UPDATE.0 >> SIZE_UPDATE.1
    {
        let most = (1 << SIZE_UPDATE.1) - 1;
        let mut value = usize::from(*first) & most;
        block = rest;
        if value == most {
            let mut shift = 0;
            while let Some((byte, rest)) = block.split_first() {
                value = value.saturating_add(usize::from(byte & 0x7f) << shift);
                block = rest;
                shift += 7;
                if byte & 0x80 == 0 || shift > 28 {
                    break;
                }
            }
        }
        size = Some(value);
    }
    size
}

/// Appends an integer whose first bits share a byte with others (section 5.1).
fn number((first, bits): (u8, u32), value: usize, block: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return block.push(first | value as u8);
    }
    block.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// Appends a string, in Huffman's code where that is shorter.
fn string(text: &[u8], block: &mut Vec<u8>) {
    let start = block.len();
    // Room for the length, which nearly always takes a byte.
    block.push(0);
    huffman(text, block);
    let length = block.len() - start - 1;
    if length >= text.len() {
        block.truncate(start);
        number(PLAIN, text.len(), block);
        block.extend_from_slice(text);
    } else if length < (1 << HUFFMAN.1) - 1 {
        block[start] = HUFFMAN.0 | length as u8;
    } else {
        let coded = block.split_off(start + 1);
        block.truncate(start);
        number(HUFFMAN, length, block);
        block.extend_from_slice(&coded);
    }
}

/// Appends a text in Huffman's code (section 5.2).
fn huffman(text: &[u8], block: &mut Vec<u8>) {
    let (mut pending, mut count) = (0_u64, 0);
    for byte in text {
        let (code, length) = CODES[usize::from(*byte)];
        // At most 31 bits wait, and a code has at most 30.
        pending = pending << length | u64::from(code);
        count += length;
        if count >= 32 {
            count -= 32;
            block.extend_from_slice(&((pending >> count) as u32).to_be_bytes());
        }
    }
    // The last byte is filled up with ones.
    let left = ((pending << 32 | 0xffff_ffff) >> count) as u32;
    block.extend_from_slice(&left.to_be_bytes());
    block.truncate(block.len() - 4 + count.div_ceil(8) as usize);
}

/// Bits of each byte's code (RFC 7541, appendix B). Codes of the same length follow each other in the order of their
/// bytes, so that the lengths tell all.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Each byte's code and its bits.
const CODES: [(u32, u32); 256] = codes();

const fn codes() -> [(u32, u32); 256] {
    let mut codes = [(0, 0); 256];
    let (mut next, mut length) = (0, 5);
    while length <= 30 {
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] == length {
                codes[byte] = (next, length as u32);
                next += 1;
            }
            byte += 1;
        }
        next <<= 1;
        length += 1;
    }
    codes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "hpack_tests.rs"]
mod tests;
