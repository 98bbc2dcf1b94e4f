//! Client certificates (RFC 5280) with Apple's extensions, and the choice of the one that can push: keychains export
//! everything that belongs to a key, which is often more than one certificate.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use pkcs8::der::Tag;
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::FileFault;
use super::keys::DerReader;
use pushlet_model::contract::Environment;

/// More topics than Apple puts into any certificate.
const MOST_TOPICS: usize = 64;
/// Apple's extensions of push certificates: development (1), production (2), topics (3 to 6).
const APPLE_PUSH: Oid<'static> = oid!(1.2.840.113635.100.6.3);
/// Characters of Apple's team ids.
const TEAM_ID: usize = 10;

/// The facts of one certificate.
pub(crate) struct CertificateInfo {
    /// The subject's UID (RFC 4519 section 2.39): the topic of an Apple push certificate.
    pub(crate) uid: Option<String>,
    pub(crate) common_name: Option<String>,
    /// Apple's extension 1.2.840.113635.100.6.3.6.
    pub(crate) topics: Vec<String>,
    /// `development` and `production`, by Apple's extensions .6.3.1 and .6.3.2.
    pub(crate) environments: Vec<&'static str>,
    /// It has one of Apple's extensions 1.2.840.113635.100.6.3.x.
    is_marked: bool,
    /// Its extended key usage, if it has one, allows TLS clients.
    pub(crate) is_for_clients: bool,
    not_before: ASN1Time,
    not_after: ASN1Time,
    /// DER of the subject public key info.
    pub(crate) public_key: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
}

/// Returns the end of a certificate's validity in seconds since the Unix epoch; None: it cannot be read.
pub fn certificate_end(der: &[u8]) -> Option<i64> {
    CertificateInfo::parse(der).ok().map(|certificate| certificate.ends_at())
}

impl CertificateInfo {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, FileFault> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| FileFault::from("its certificate is damaged"))?;
        let uid = oid!(0.9.2342.19200300.100.1.1);
        let common_name = oid!(2.5.4.3);
        let mark = |id: &Oid<'_>| certificate.extensions().iter().any(|extension| &extension.oid == id);
        let marks =
            [("development", oid!(1.2.840.113635.100.6.3.1)), ("production", oid!(1.2.840.113635.100.6.3.2))];
        Ok(Self {
            uid: attribute(&certificate, &uid),
            common_name: attribute(&certificate, &common_name),
            topics: topics(&certificate),
            is_marked: certificate.extensions().iter().any(|extension| is_push_mark(&extension.oid)),
            is_for_clients: is_for_clients(&certificate),
            environments: marks.iter().filter(|(_, id)| mark(id)).map(|(name, _)| *name).collect(),
            not_before: certificate.validity().not_before,
            not_after: certificate.validity().not_after,
            public_key: certificate.public_key().raw.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// Returns true if Apple marks it as a push certificate.
    pub(crate) fn is_for_push(&self) -> bool {
        self.is_marked
    }

    /// Returns true if it can push in this environment. A certificate without marks of environments is none of
    /// Apple's, or is good for both.
    pub(crate) fn is_for(&self, environment: Environment) -> bool {
        let name = match environment {
            Environment::Production => "production",
            Environment::Development => "development",
        };
        self.environments.is_empty() || self.environments.contains(&name)
    }

    /// Returns true if its UID is a team's id, as in Apple's certificates for signing code.
    pub(crate) fn names_team(&self) -> bool {
        let is_id = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        self.uid.as_deref().is_some_and(|uid| uid.len() == TEAM_ID && uid.bytes().all(is_id))
    }

    /// Returns true if this is one of its topics.
    pub(crate) fn covers(&self, topic: &str) -> bool {
        self.uid.as_deref() == Some(topic) || self.topics.iter().any(|covered| covered == topic)
    }

    /// Checks that it is valid at this time.
    pub(crate) fn check_validity(&self, now: SystemTime) -> Result<(), FileFault> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > self.not_after.timestamp() {
            return Err(format!("the certificate expired on {}", date(self.not_after)).into());
        }
        if now < self.not_before.timestamp() {
            return Err(format!("the certificate is not valid before {}", date(self.not_before)).into());
        }
        Ok(())
    }

    /// Returns the end of its validity in seconds since the Unix epoch.
    pub(crate) fn ends_at(&self) -> i64 {
        self.not_after.timestamp()
    }

    /// Returns the end of its validity, as RFC 3339 writes it.
    pub(crate) fn not_after(&self) -> String {
        let time = self.not_after.to_datetime();
        format!("{}T{:02}:{:02}:{:02}Z", time.date(), time.hour(), time.minute(), time.second())
    }
}

fn date(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

fn is_push_mark(id: &Oid<'_>) -> bool {
    id.as_bytes().strip_prefix(APPLE_PUSH.as_bytes()).is_some_and(|last| last.len() == 1)
}

/// RFC 5280 section 4.2.1.12: a certificate without the extension may be used for anything.
fn is_for_clients(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_none_or(|usage| usage.value.any || usage.value.client_auth)
}

fn attribute(certificate: &X509Certificate<'_>, id: &Oid<'_>) -> Option<String> {
    let attribute = certificate.subject().iter_attributes().find(|attribute| attribute.attr_type() == id)?;
    attribute.as_str().ok().map(str::to_owned)
}

fn topics(certificate: &X509Certificate<'_>) -> Vec<String> {
    let id = oid!(1.2.840.113635.100.6.3.6);
    let extension = certificate.extensions().iter().find(|extension| extension.oid == id);
    extension.and_then(|extension| read_topics(extension.value).ok()).unwrap_or_default()
}

/// `SEQUENCE { topic UTF8String, tags SEQUENCE OF UTF8String, topic, tags, … }`
fn read_topics(value: &[u8]) -> Result<Vec<String>, FileFault> {
    let mut list = DerReader::new(value).enter(Tag::Sequence)?;
    let mut topics = Vec::new();
    while !list.is_finished() && topics.len() < MOST_TOPICS {
        let topic = list.value(Tag::Utf8String)?;
        list.value(Tag::Sequence)?;
        topics.push(String::from_utf8(topic.to_vec()).map_err(|_| FileFault::Unreadable)?);
    }
    Ok(topics)
}

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

/// Chooses the certificate that can push. Apple's marks decide before all else, because the same key also signs a
/// team's code-signing certificate, which may end later.
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
    // Before the validity, so that an expired certificate is reported as expired, not as one for the other environment.
    left = require(left, |one| one.info.is_for(need.environment), |others| of_another(others, need))?;
    if let Some((setting, Some(topic))) = need.topic
        && topics_of(&left).len() > 1
    {
        left = require(
            left,
            |one| one.info.covers(topic),
            |others| {
                let found = list(&topics_of(others));
                format!("none of its certificates is for the {setting} {topic}; they are for {found}").into()
            },
        )?;
    }
    prefer(&mut left, |one| one.info.check_validity(need.now).is_ok());
    prefer(&mut left, |one| one.is_named_by_key);
    if topics_of(&left).len() > 1 {
        return Err(ambiguous(&topics_of(&left), need));
    }
    // If an app has several certificates, the latest one was renewed.
    let last = left.iter().max_by_key(|one| one.info.ends_at());
    last.map(|one| one.index).ok_or(FileFault::Unreadable)
}

/// Returns the candidates that fit; if there is none, the reason.
fn require<'a>(
    candidates: Vec<CertificateCandidate<'a>>,
    fits: impl Fn(&CertificateCandidate<'a>) -> bool,
    why: impl FnOnce(&[CertificateCandidate<'a>]) -> FileFault,
) -> Result<Vec<CertificateCandidate<'a>>, FileFault> {
    let fitting: Vec<_> = candidates.iter().filter(|one| fits(one)).copied().collect();
    if fitting.is_empty() { Err(why(&candidates)) } else { Ok(fitting) }
}

/// Drops the candidates that do not fit, unless none fits.
fn prefer<'a>(
    candidates: &mut Vec<CertificateCandidate<'a>>,
    fits: impl Fn(&CertificateCandidate<'a>) -> bool,
) {
    if candidates.iter().any(&fits) {
        candidates.retain(fits);
    }
}

fn topics_of<'a>(candidates: &[CertificateCandidate<'a>]) -> BTreeSet<Option<&'a str>> {
    candidates.iter().map(|one| one.info.uid.as_deref()).collect()
}

fn list(topics: &BTreeSet<Option<&str>>) -> String {
    let names: Vec<&str> = topics.iter().map(|topic| topic.unwrap_or("no topic")).collect();
    names.join(", ")
}

fn of_a_team(candidates: &[CertificateCandidate<'_>]) -> FileFault {
    let team = list(&topics_of(candidates));
    format!("its certificate is a developer's or distributor's of the team {team}, not a push certificate")
        .into()
}

fn of_another(candidates: &[CertificateCandidate<'_>], need: &CertificateNeed<'_>) -> FileFault {
    let (wanted, other) = match need.environment {
        Environment::Production => ("production", "development"),
        Environment::Development => ("development", "production"),
    };
    let topics = list(&topics_of(candidates));
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
