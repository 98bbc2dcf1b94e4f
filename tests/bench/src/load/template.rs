//! Requests with places that change from one to the next, at a cost that a load generator can afford.

/// A device token that differs from request to request: 64 hexadecimal digits, as Apple's are.
const TOKEN: &str = "{token}";
/// A number of [`DIGITS`] digits, counted round through the applications.
const APPLICATION: &str = "{application}";
/// As many quoted tokens with commas as a request has targets.
const TOKENS: &str = "{tokens}";
/// Digits of an application's number.
pub const DIGITS: usize = 6;

/// Bytes with holes.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    tokens: Vec<usize>,
    applications: Vec<usize>,
    count: u64,
    step: u64,
    most_applications: u64,
}

impl Template {
    /// `seed` and `step` keep the tokens of several users of a template apart.
    pub fn new(text: &str, targets: usize, applications: u64, seed: u64, step: u64) -> Self {
        let list = vec![format!("\"{TOKEN}\""); targets].join(",");
        let mut text = text.replace(TOKENS, &list).replace(TOKEN, &"f".repeat(64));
        let holes = |text: &str, mark: &str| text.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
        let mut applications_at = Vec::new();
        while let Some(at) = text.find(APPLICATION) {
            text.replace_range(at..at + APPLICATION.len(), &"0".repeat(DIGITS));
            applications_at.push(at);
        }
        let tokens = holes(&text, &"f".repeat(64));
        let most_applications = applications.max(1);
        Self {
            bytes: text.into_bytes(),
            tokens,
            applications: applications_at,
            count: seed,
            step,
            most_applications,
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
        let application = self.count / self.step.max(1) % self.most_applications;
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
        let mut template = Template::new("[{tokens}] to app-{application}", 2, 10, 0, 1);
        let first = String::from_utf8_lossy(template.next()).into_owned();
        let second = String::from_utf8_lossy(template.next()).into_owned();
        assert!(
            first.starts_with("[\"0000000000000001f") && first.contains("\"0000000000000002f"),
            "{first}"
        );
        assert!(first.ends_with("app-000002") && second.ends_with("app-000004"), "{first} {second}");
    }
}
