//! File descriptors: as many as the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but callers' connections: those to push services, files, and connections that are being
/// closed while others take their place.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, and answers how many of these connections there may be. Where they do not
/// fit, accepting one more would fail, and those that are idle would not make room for it.
pub fn that_fit(connections: usize) -> usize {
    let limit = raised();
    let fit = fitting(connections, limit);
    if fit < connections {
        tracing::warn!(
            "limits.connections is {connections}, but this process may have {} file descriptors: \
             at most {fit} connections are served; raise the hard limit (ulimit -Hn, LimitNOFILE) to {} or more",
            limit.unwrap_or_default(),
            connections as u64 + OTHERS,
        );
    }
    fit
}

/// The limit that holds now; None: there is none.
fn raised() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    }
    getrlimit(Resource::Nofile).current
}

fn fitting(connections: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return connections };
    // Where there are very few, others must not have them all.
    let for_callers = limit.saturating_sub(OTHERS).max(limit / 2).max(1);
    connections.min(usize::try_from(for_callers).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_limit() {
        assert_eq!(fitting(1024, None), 1024);
        assert_eq!(fitting(1024, Some(1 << 20)), 1024);
        assert_eq!(fitting(1024, Some(1280)), 1024);
        assert_eq!(fitting(1024, Some(1024)), 768);
        assert_eq!(fitting(1024, Some(256)), 128);
        assert_eq!(fitting(1024, Some(0)), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        that_fit(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
