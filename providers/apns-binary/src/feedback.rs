//! The feedback service: once connected, it writes the tokens that became dead, and closes. Reading empties its list.

use crate::frame::TOKEN;
use pushlet_provider::Target;
use pushlet_provider::stream::{Step, step};

/// Bytes of a time and of a token's length.
const HEAD: usize = 6;

/// What came in and is no whole tuple yet.
#[derive(Debug, Default)]
pub struct FeedbackReader(Vec<u8>);

impl FeedbackReader {
    /// Reports the token of each whole tuple. A token of another length cannot be in this list: the bytes after it
    /// would be taken for something else, so the connection is closed.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Step {
        let mut step = step();
        while !bytes.is_empty() {
            let (next, rest) = bytes.split_at(bytes.len().min(HEAD + TOKEN - self.0.len()));
            bytes = rest;
            self.0.extend_from_slice(next);
            let &[a, b, c, d, high, low, ref token @ ..] = &*self.0 else { continue };
            if usize::from(u16::from_be_bytes([high, low])) != TOKEN {
                return Step { close: true, ..step };
            }
            if token.len() == TOKEN {
                let seconds = u32::from_be_bytes([a, b, c, d]);
                let token = token.iter().map(|byte| format!("{byte:02x}")).collect();
                step.report_dead(Target::Device(token), u64::from(seconds) * 1000);
                self.0.clear();
            }
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushlet_provider::stream::Event;

    fn tuple(seconds: u32, token: [u8; TOKEN]) -> Vec<u8> {
        [&seconds.to_be_bytes()[..], &[0, 32], &token].concat()
    }

    #[test]
    fn golden_tuple() {
        let token: Vec<u8> = (0..32).collect();
        let bytes = [&[0x65, 0x53, 0xf1, 0x00, 0, 32][..], &token].concat();
        let step = FeedbackReader::default().receive(&bytes);
        assert_eq!(step.events, [Event::Dead((Target::Device(hex::encode(token)), 1_700_000_000_000))]);
    }

    #[test]
    fn a_token_of_another_length_ends_the_connection() {
        let bytes = [tuple(1, [7; 32]), vec![0, 0, 0, 1, 0, 31], vec![7; 100]].concat();
        let step = FeedbackReader::default().receive(&bytes);
        assert!(step.close && step.events.len() == 1);
    }

    proptest! {
        #[test]
        fn tuples_may_be_split_anywhere(
            tuples in prop::collection::vec((any::<u32>(), any::<[u8; 32]>()), 0..20),
            cuts in prop::collection::vec(1_usize..80, 1..50),
        ) {
            let bytes: Vec<u8> = tuples.iter().flat_map(|(seconds, token)| tuple(*seconds, *token)).collect();
            let (mut reader, mut rest, mut events) = (FeedbackReader::default(), &*bytes, Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (part, left) = rest.split_at(rest.len().min(*cut));
                rest = left;
                events.extend(reader.receive(part).events);
            }
            let expected: Vec<_> = tuples.iter().map(|(seconds, token)| {
                Event::Dead((Target::Device(hex::encode(token)), u64::from(*seconds) * 1000))
            }).collect();
            prop_assert_eq!(events, expected);
        }
    }
}
