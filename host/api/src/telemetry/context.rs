//! Trace contexts as W3C Trace Context writes them in `traceparent` (section 3.2).

use std::fmt;

/// Where in which trace a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The work of this server, or of its caller in a context that came from there.
    pub span: SpanId,
    /// The caller records it.
    pub sampled: bool,
}

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceContext {
    /// Reads `traceparent`; what is not sound is as if it were not there.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let ends = match bytes.get(..3)? {
            b"00-" => bytes.len() == 55,
            b"ff-" => false,
            // A later version may have more, after another dash.
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        if !ends || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        hex(bytes.get(..2)?)?;
        let trace = hex(bytes.get(3..35)?).filter(|trace| *trace != 0)?;
        let span = hex(bytes.get(36..52)?).filter(|span| *span != 0)?;
        let flags = hex(bytes.get(53..55)?)?;
        Some(Self { trace: TraceId(trace), span: SpanId(u64::try_from(span).ok()?), sampled: flags & 1 == 1 })
    }

    /// The first span of a trace.
    pub fn root(sampled: bool) -> Self {
        let trace = TraceId(rand::random::<u128>().max(1));
        Self { trace, span: SpanId::random(), sampled }
    }

    /// A span of the same trace.
    pub fn child(self) -> Self {
        Self { span: SpanId::random(), ..self }
    }
}

impl SpanId {
    fn random() -> Self {
        Self(rand::random::<u64>().max(1))
    }
}

/// Lower-case digits only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_sound_is_read_and_written_the_same() {
        let context = TraceContext::parse(SOUND).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), SOUND);
        assert!(!TraceContext::parse(&SOUND.replace("-01", "-02")).unwrap().sampled);
        assert!(TraceContext::parse(&SOUND.replace("00-4b", "cc-4b")).is_some());
        assert!(TraceContext::parse(&format!("{}-more", SOUND.replace("00-4b", "cc-4b"))).is_some());
        let child = context.child();
        assert_eq!((child.trace, child.sampled), (context.trace, true));
        assert_ne!(child.span, context.span);
    }

    #[test]
    fn what_is_not_sound_is_passed_over() {
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ü",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }
}
