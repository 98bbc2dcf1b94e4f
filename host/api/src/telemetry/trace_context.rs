//! Where a request is in a trace, by W3C Trace Context (`traceparent`, section 3.2).

use std::fmt;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The span of this server, or of its caller in a context that came with a request.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// Never zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceContext {
    /// Parses `traceparent`; None: it is not valid and must be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let ends = match bytes.get(..3)? {
            b"00-" => bytes.len() == 55,
            b"ff-" => false,
            // Later versions may append fields (W3C Trace Context, section 3.2.4).
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

    /// Returns the context of the first span of a new trace.
    pub fn root(sampled: bool) -> Self {
        let trace = TraceId(rand::random::<u128>().max(1));
        Self { trace, span: SpanId::random(), sampled }
    }

    /// Returns the context of a new span of the same trace.
    pub fn child(self) -> Self {
        Self { span: SpanId::random(), ..self }
    }
}

impl TraceId {
    /// Returns the bytes of its 32 hexadecimal digits.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl SpanId {
    /// Returns the bytes of its 16 hexadecimal digits.
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    fn random() -> Self {
        Self(rand::random::<u64>().max(1))
    }
}

/// Parses lower-case digits; upper-case ones are invalid in `traceparent`.
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
#[path = "trace_context_tests.rs"]
mod tests;
