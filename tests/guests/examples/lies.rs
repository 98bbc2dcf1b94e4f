//! Returns texts that are none, and lists that are not where it says.
#![allow(unsafe_code)]

use pushlet_guests::*;

pub struct Lies;

/// A body of `length` bytes at `address`, whatever is there.
fn body_at(address: usize, length: usize) -> Vec<u8> {
    // SAFETY: none. The component's sandbox has to hold.
    unsafe { Vec::from_raw_parts(std::ptr::without_provenance_mut(address), length, length) }
}

fn not_utf8(bytes: &[u8]) -> String {
    // SAFETY: none. The host has to check.
    unsafe { String::from_utf8_unchecked(bytes.to_vec()) }
}

impl Guest for Lies {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application) {
            "past_the_end" => with_body(&targets, body_at(0xffff_0000, 0x10000)),
            "length" => with_body(&targets, body_at(16, 0x7fff_ffff)),
            "wrap_around" => with_body(&targets, body_at(0xffff_fff0, 0x7fff_ffff)),
            "path" => {
                let exchange = Exchange { path: not_utf8(b"/\xff\xfe"), ..exchange(&[0]) };
                Encoded { exchanges: vec![exchange], ..encoded(&targets) }
            }
            "surrogate" => {
                let exchange = Exchange { path: not_utf8(b"/\xed\xa0\x80"), ..exchange(&[0]) };
                Encoded { exchanges: vec![exchange], ..encoded(&targets) }
            }
            "overlong" => {
                let exchange = Exchange { path: not_utf8(b"/\xc0\xae\xc0\xae/"), ..exchange(&[0]) };
                Encoded { exchanges: vec![exchange], ..encoded(&targets) }
            }
            _ => encoded(&targets),
        }
    }
}

export!(Lies);
