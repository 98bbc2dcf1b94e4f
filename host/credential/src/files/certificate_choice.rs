//! Which of a file's certificates pushes: keychains export what belongs to a key, and that is often more than one.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::x509::CertificateInfo;
use crate::error::FileFault;
use pushlet_model::contract::Environment;

/// What the certificate is needed for.
pub(crate) struct CertificateNeed<'a> {
    pub environment: Environment,
    pub now: SystemTime,
    /// The setting that a push certificate's UID is the default of, and its value if the caller gave one.
    pub topic: Option<(&'a str, Option<&'a str>)>,
}

/// A certificate whose private key is in the same file.
#[derive(Clone, Copy)]
pub(crate) struct CertificateCandidate<'a> {
    /// Its place in the file.
    pub index: usize,
    pub info: &'a CertificateInfo,
    /// PKCS#12 names this key as the certificate's own (localKeyID, RFC 2985 section 5.5.2).
    pub is_named_by_key: bool,
}

/// The one that can push. Apple's marks decide before all else, because the same key also signs a team's
/// code-signing certificate, which may end later.
pub(crate) fn choose(
    candidates: Vec<CertificateCandidate<'_>>,
    need: &CertificateNeed<'_>,
) -> Result<usize, FileFault> {
    let mut left = require(
        candidates,
        |one| one.info.is_for_clients,
        |_| "its certificate is not for TLS clients (extended key usage), so it cannot push".into(),
    )?;
    prefer(&mut left, |one| one.info.is_for_push());
    if need.topic.is_some() {
        left = require(left, |one| one.info.is_for_push() || !one.info.names_team(), of_a_team)?;
        prefer(&mut left, |one| one.info.uid.is_some());
    }
    left = require(left, |one| one.info.is_for(need.environment), |others| of_another(others, need))?;
    if let Some((setting, Some(topic))) = need.topic
        && topics(&left).len() > 1
    {
        left = require(
            left,
            |one| one.info.covers(topic),
            |others| {
                let found = list(&topics(others));
                format!("none of its certificates is for the {setting} {topic}; they are for {found}").into()
            },
        )?;
    }
    prefer(&mut left, |one| one.info.check_validity(need.now).is_ok());
    prefer(&mut left, |one| one.is_named_by_key);
    if topics(&left).len() > 1 {
        return Err(ambiguous(&topics(&left), need));
    }
    // Of one app's certificates the renewed one counts.
    let last = left.iter().max_by_key(|one| one.info.ends_at());
    last.map(|one| one.index).ok_or(FileFault::Unreadable)
}

/// Those that fit; if there is none, why.
fn require<'a>(
    candidates: Vec<CertificateCandidate<'a>>,
    fits: impl Fn(&CertificateCandidate<'a>) -> bool,
    why: impl FnOnce(&[CertificateCandidate<'a>]) -> FileFault,
) -> Result<Vec<CertificateCandidate<'a>>, FileFault> {
    let fitting: Vec<_> = candidates.iter().filter(|one| fits(one)).copied().collect();
    if fitting.is_empty() { Err(why(&candidates)) } else { Ok(fitting) }
}

/// Drops those that do not fit, unless none does.
fn prefer<'a>(
    candidates: &mut Vec<CertificateCandidate<'a>>,
    fits: impl Fn(&CertificateCandidate<'a>) -> bool,
) {
    if candidates.iter().any(&fits) {
        candidates.retain(fits);
    }
}

fn topics<'a>(candidates: &[CertificateCandidate<'a>]) -> BTreeSet<Option<&'a str>> {
    candidates.iter().map(|one| one.info.uid.as_deref()).collect()
}

fn list(topics: &BTreeSet<Option<&str>>) -> String {
    let names: Vec<&str> = topics.iter().map(|topic| topic.unwrap_or("no topic")).collect();
    names.join(", ")
}

fn of_a_team(candidates: &[CertificateCandidate<'_>]) -> FileFault {
    let team = list(&topics(candidates));
    format!("its certificate is a developer's or distributor's of the team {team}, not a push certificate")
        .into()
}

fn of_another(candidates: &[CertificateCandidate<'_>], need: &CertificateNeed<'_>) -> FileFault {
    let (wanted, other) = match need.environment {
        Environment::Production => ("production", "development"),
        Environment::Development => ("development", "production"),
    };
    let topics = list(&topics(candidates));
    format!(
        "its certificate ({topics}) is for Apple's {other} environment alone and cannot push in {wanted}: \
         register it for {other}, or upload one for {wanted}"
    )
    .into()
}

fn ambiguous(topics: &BTreeSet<Option<&str>>, need: &CertificateNeed<'_>) -> FileFault {
    let way = match need.topic {
        Some((setting, _)) => format!("; name one as {setting}, or export one alone"),
        None => "; export one alone".to_owned(),
    };
    format!("it holds certificates of several topics: {}{way}", list(topics)).into()
}
