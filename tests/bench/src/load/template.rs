//! Requests with places that change from one to the next, at a cost that a load generator can afford.

use super::Plan;

/// A device token that differs from request to request: 64 hexadecimal digits, as Apple's are.
const TOKEN: &str = "{token}";
/// A number of [`DIGITS`] digits, counted round through the applications.
const APPLICATION: &str = "{application}";
/// As many quoted tokens with commas as a request has targets.
const TOKENS: &str = "{tokens}";
/// An API key, counted round through those that there are, all of one length.
const KEY: &str = "{key}";
/// Digits of an application's number.
pub const DIGITS: usize = 6;

/// Bytes with holes.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    tokens: Vec<usize>,
    applications: Vec<usize>,
    keys_at: Vec<usize>,
    keys: Vec<String>,
    count: u64,
    step: u64,
    most_applications: u64,
}

impl Template {
    /// What the plan says fills the holes of `text`. `seed` and `step` keep the tokens of several users of a
    /// template apart.
    pub fn new(text: &str, plan: &Plan, seed: u64, step: u64) -> Self {
        let list = vec![format!("\"{TOKEN}\""); plan.targets].join(",");
        let mut text = text.replace(TOKENS, &list).replace(TOKEN, &"f".repeat(64));
        let first = plan.keys.first().map_or("", String::as_str);
        text = text.replace(KEY, first);
        let holes = |text: &str, mark: &str| text.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
        let mut applications_at = Vec::new();
        while let Some(at) = text.find(APPLICATION) {
            text.replace_range(at..at + APPLICATION.len(), &"0".repeat(DIGITS));
            applications_at.push(at);
        }
        let tokens = holes(&text, &"f".repeat(64));
        let keys_at = if first.is_empty() { Vec::new() } else { holes(&text, first) };
        Self {
            bytes: text.into_bytes(),
            tokens,
            applications: applications_at,
            keys_at,
            keys: plan.keys.clone(),
            count: seed,
            step,
            most_applications: plan.applications.max(1),
        }
    }

    /// The bytes of the next request.
    pub fn next(&mut self) -> &[u8] {
        for &at in &self.tokens {
            self.count += self.step;
            if let Some(hole) = self.bytes.get_mut(at..at + 16) {
                digits(hole, self.count, 16);
            }
        }
        if self.tokens.is_empty() {
            self.count += self.step;
        }
        let turn = self.count / self.step.max(1);
        let application = turn % self.most_applications;
        let key = self.keys.get(turn as usize % self.keys.len().max(1)).map_or("", String::as_str);
        for &at in &self.keys_at {
            if let Some(hole) = self.bytes.get_mut(at..at + key.len()) {
                hole.copy_from_slice(key.as_bytes());
            }
        }
        for &at in &self.applications {
            if let Some(hole) = self.bytes.get_mut(at..at + DIGITS) {
                digits(hole, application, 10);
            }
        }
        &self.bytes
    }
}

fn digits(hole: &mut [u8], mut number: u64, base: u64) {
    for place in hole.iter_mut().rev() {
        *place = b"0123456789abcdef".get((number % base) as usize).copied().unwrap_or(b'0');
        number /= base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_other_tokens() {
        let plan = Plan { targets: 2, applications: 10, ..Plan::default() };
        let mut template = Template::new("[{tokens}] to app-{application}", &plan, 0, 1);
        let [first, second] = [(); 2].map(|()| String::from_utf8_lossy(template.next()).into_owned());
        assert!(
            first.starts_with("[\"0000000000000001f") && first.contains("\"0000000000000002f"),
            "{first}"
        );
        assert!(first.ends_with("app-000002") && second.ends_with("app-000004"), "{first} {second}");
    }

    #[test]
    fn keys_go_round() {
        let keys = ["key-a", "key-b"].map(str::to_owned).to_vec();
        let mut template = Template::new("{key} {token}", &Plan { keys, ..Plan::default() }, 0, 1);
        let texts = [(); 3].map(|()| String::from_utf8_lossy(template.next()).into_owned());
        let keys = texts.each_ref().map(|text| text.split(' ').next());
        assert_eq!(keys, [Some("key-b"), Some("key-a"), Some("key-b")], "{texts:?}");
    }
}
