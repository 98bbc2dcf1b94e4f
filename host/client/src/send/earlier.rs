//! The targets that were sent lately, to tell a duplicate in another spelling from one in the same: the results file
//! has the text of each line, and a run that resumes it cannot know that two texts are one token.

use std::collections::VecDeque;

use super::target::{TargetKey, key};

/// Lines that are remembered: as many different targets as the server compares with.
const MOST: usize = 229_376;

#[derive(Default)]
pub struct RecentTargets {
    keys: VecDeque<TargetKey>,
    /// The number of the next line.
    next: u64,
}

impl RecentTargets {
    pub fn push(&mut self, target: &str) {
        if self.keys.len() == MOST {
            self.keys.pop_front();
        }
        self.keys.push_back(key(target));
        self.next += 1;
    }

    /// Returns true if the line of this number has another text; false if it is too long ago.
    pub fn differs(&self, line: u64, target: &str) -> bool {
        let first = self.next - self.keys.len() as u64;
        let place = line.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.keys.get(place)).is_some_and(|earlier| *earlier != key(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_remembered_for_a_while() {
        let mut earlier = RecentTargets::default();
        (0..MOST + 2).for_each(|number| earlier.push(&number.to_string()));
        assert!(earlier.differs(2, "x") && !earlier.differs(2, "2") && !earlier.differs(2, " 2 "));
        assert!(!earlier.differs(1, "x"), "it is forgotten");
        assert!(!earlier.differs(MOST as u64 + 2, "x"), "it was never sent");
    }
}
