//! Keeps web pages of other sites from calling through a visitor's browser.
//!
//! A browser on this machine reaches an open server without credentials, and sends cached Basic credentials to
//! others. Headers that a browser adds and a page cannot forge tell whose page calls: `Host` (it still holds a DNS name
//! that was rebound to this address), `Sec-Fetch-Site` and `Origin`. Programs send neither of the last two.

use axum::extract::Request;
use axum::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::response::Response;

use crate::response;
use pushlet_model::error::{Error, Kind};
use pushlet_settings::CallerConfig;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks requests before authentication.
pub struct SiteGuard {
    /// No credentials are needed, so `Host` must be a name of this machine or one of `names`.
    is_open: bool,
    /// The configured `allowed_hosts`, in lower case.
    names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
enum SiteRefusal {
    /// There is not exactly one valid `Host`.
    InvalidHost,
    HostNotAllowed,
    CrossSite,
}

impl SiteGuard {
    pub fn new(callers: &CallerConfig) -> Self {
        let names = callers.allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { is_open: callers.login.is_none() && callers.admin.is_none(), names }
    }

    /// Returns the response to a request that must not be handled.
    pub fn refuse(&self, request: &Request) -> Option<Response> {
        let refusal = self.check(request).err()?;
        Some(match refusal {
            SiteRefusal::InvalidHost => {
                let message = "the request needs one Host header with a name and perhaps a port";
                response::error(Error::new(Kind::Invalid, "invalid_host", message))
            }
            SiteRefusal::HostNotAllowed => {
                let message = "without [auth] this server answers to localhost and loopback addresses only; \
                     add the name in the Host header to allowed_hosts, or set [auth]";
                response::with_status(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", message)
            }
            SiteRefusal::CrossSite => {
                let message =
                    "a web page of another site must not change anything here (Origin or Sec-Fetch-Site)";
                response::error(Error::new(Kind::Forbidden, "cross_site_request", message))
            }
        })
    }

    fn check(&self, request: &Request) -> Result<(), SiteRefusal> {
        let host = host(request)?;
        if self.is_open && !host.as_ref().is_some_and(|host| self.knows(host)) {
            return Err(SiteRefusal::HostNotAllowed);
        }
        // A page cannot read the response to a simple GET of another site, and these methods change nothing.
        let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if changes_nothing || (self.is_same_site(request.headers()) && self.is_own(request.headers(), host)) {
            return Ok(());
        }
        Err(SiteRefusal::CrossSite)
    }

    fn knows(&self, host: &Authority) -> bool {
        let name = host.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.is_loopback())
            || self.is_named(name)
    }

    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|known| name.eq_ignore_ascii_case(known))
    }

    /// Returns whether the browser says that its own site or its user asks (`none`: the user, such as by a reload).
    fn is_same_site(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(SEC_FETCH_SITE).iter();
        all.all(|site| site == "same-origin" || site == "none")
    }

    /// Returns whether the `Origin`, if there is one, is this server. Behind a proxy that changes `Host`, it must be one
    /// of the configured names.
    fn is_own(&self, headers: &HeaderMap, host: Option<Authority>) -> bool {
        headers.get_all(ORIGIN).iter().all(|origin| {
            let Some((scheme, origin)) = origin.to_str().ok().and_then(|text| text.split_once("://")) else {
                return false;
            };
            let default = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return false,
            };
            let Ok(origin) = origin.parse::<Authority>() else { return false };
            let same = |host: &Authority| {
                let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
                host.host().eq_ignore_ascii_case(origin.host()) && port(host) == port(&origin)
            };
            host.as_ref().is_some_and(same) || self.is_named(origin.host())
        })
    }
}

/// Returns the host that the request names: in the target (HTTP/2, or the absolute form), or else in `Host`. Only
/// HTTP/1.0 may have none.
fn host(request: &Request) -> Result<Option<Authority>, SiteRefusal> {
    let mut all = request.headers().get_all(HOST).iter();
    let header = match (all.next(), all.next()) {
        (Some(one), None) => {
            let host = Authority::try_from(one.as_bytes()).map_err(|_| SiteRefusal::InvalidHost)?;
            // User information is not allowed in `Host` (RFC 9110, section 7.2).
            if host.as_str().contains('@') {
                return Err(SiteRefusal::InvalidHost);
            }
            Some(host)
        }
        (None, _) if request.version() != Version::HTTP_11 => None,
        _ => return Err(SiteRefusal::InvalidHost),
    };
    Ok(request.uri().authority().cloned().or(header))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;

    use super::*;
    use pushlet_settings::{HiddenText, Login};

    fn open(names: &[&str]) -> SiteGuard {
        let allowed_hosts = names.iter().map(|name| (*name).to_owned()).collect();
        SiteGuard::new(&CallerConfig { allowed_hosts, ..CallerConfig::default() })
    }

    fn guarded() -> SiteGuard {
        let login = Some(Login { username: "me".into(), password: HiddenText::new("a:b".into()) });
        SiteGuard::new(&CallerConfig { login, ..CallerConfig::default() })
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri("/send_notification");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn posted(guard: &SiteGuard, headers: &[(&str, &str)]) -> Result<(), SiteRefusal> {
        guard.check(&request("POST", headers))
    }

    #[test]
    fn an_open_server_answers_to_names_of_this_machine_only() {
        for host in ["localhost", "LOCALHOST:9292", "127.0.0.1:9292", "127.0.0.2", "[::1]", "[::1]:9292"] {
            assert_eq!(posted(&open(&[]), &[("host", host)]), Ok(()), "{host}");
        }
        let others =
            ["evil.example:9292", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1", "[::2]"];
        for host in others {
            for method in ["GET", "POST", "OPTIONS"] {
                let refused = open(&[]).check(&request(method, &[("host", host)]));
                assert_eq!(refused, Err(SiteRefusal::HostNotAllowed), "{method} {host}");
            }
            assert_eq!(posted(&guarded(), &[("host", host)]), Ok(()), "with a login: {host}");
        }
        assert_eq!(posted(&open(&["Push.example"]), &[("host", "push.EXAMPLE:80")]), Ok(()));
    }

    #[test]
    fn one_host_is_needed_that_can_be_read() {
        for headers in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "evil@localhost")],
        ] {
            assert_eq!(posted(&guarded(), headers), Err(SiteRefusal::InvalidHost), "{headers:?}");
        }
        let mut old = request("POST", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(guarded().check(&old), Ok(()));
        assert_eq!(open(&[]).check(&old), Err(SiteRefusal::HostNotAllowed));
    }

    #[test]
    fn the_target_of_a_request_goes_before_its_host() {
        let mut rebound = request("POST", &[("host", "localhost")]);
        *rebound.uri_mut() = "http://evil.example/send_notification".parse().unwrap();
        assert_eq!(open(&[]).check(&rebound), Err(SiteRefusal::HostNotAllowed));
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let host = ("host", "127.0.0.1:9292");
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "http://127.0.0.1"),
            ("origin", "http://localhost:9292"),
            ("origin", "null"),
            ("origin", ""),
            ("origin", "chrome-extension://127.0.0.1:9292"),
        ] {
            for guard in [open(&[]), guarded()] {
                assert_eq!(posted(&guard, &[host, foreign]), Err(SiteRefusal::CrossSite), "{foreign:?}");
                for method in ["PUT", "DELETE", "PATCH", "BREW"] {
                    let refused = guard.check(&request(method, &[host, foreign]));
                    assert_eq!(refused, Err(SiteRefusal::CrossSite), "{method} {foreign:?}");
                }
                assert_eq!(guard.check(&request("GET", &[host, foreign])), Ok(()), "{foreign:?}");
            }
        }
        let both = [host, ("origin", "http://127.0.0.1:9292"), ("origin", "https://evil.example")];
        assert_eq!(posted(&guarded(), &both), Err(SiteRefusal::CrossSite));
    }

    #[test]
    fn the_servers_own_page_may() {
        let own = [("origin", "http://127.0.0.1:9292"), ("sec-fetch-site", "same-origin")];
        let host = ("host", "127.0.0.1:9292");
        assert_eq!(posted(&open(&[]), &[host, own[0], own[1]]), Ok(()));
        assert_eq!(posted(&open(&[]), &[host, ("sec-fetch-site", "none")]), Ok(()));
        for (host, origin) in [
            ("push.example", "https://push.example"),
            ("push.example:443", "https://push.example"),
            ("Push.example:8080", "http://push.example:8080"),
        ] {
            assert_eq!(posted(&guarded(), &[("host", host), ("origin", origin)]), Ok(()), "{host} {origin}");
        }
        let behind_a_proxy = [("host", "backend:9292"), ("origin", "https://push.example")];
        assert_eq!(posted(&guarded(), &behind_a_proxy), Err(SiteRefusal::CrossSite));
        let named = SiteGuard { names: vec!["push.example".into()], ..guarded() };
        assert_eq!(posted(&named, &behind_a_proxy), Ok(()));
    }
}
