//! One repository of an OCI registry, over HTTP: the OCI distribution specification 1.1, and the token authentication
//! that registries share. Each answer is read up to a bound: a registry is not trusted.
//!
//! The crate `oci-client` reads manifests, tokens and errors without a bound, so it is not used.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::reference::{Reference, digest_of};
use pushlet_settings::Problem;
use pushlet_transport::http_client;

/// Media type of a manifest (OCI image specification 1.1).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The largest manifest in bytes; ours have 400.
const LARGEST_MANIFEST: usize = 256 << 10;
const LARGEST_TOKEN: usize = 64 << 10;
const LARGEST_ERROR: usize = 4 << 10;
const LONGEST_REQUEST: Duration = Duration::from_secs(300);
/// Registries hand blobs out from elsewhere.
const MOST_REDIRECTS: usize = 5;

/// Who we are to registries, and which authorities their certificates may have besides the system's.
#[derive(Default)]
pub struct RegistryAccess {
    pub login: Option<(String, Zeroizing<String>)>,
    pub roots: Vec<PathBuf>,
}

/// A repository, and what it lets us do.
pub struct Repository<'a> {
    client: Client,
    /// Scheme, host and port.
    origin: Url,
    name: String,
    login: Option<&'a (String, Zeroizing<String>)>,
    /// The last token that the registry's challenge led to.
    authorization: Option<RegistryCredential>,
}

#[derive(Clone)]
enum RegistryCredential {
    Basic,
    Bearer(Zeroizing<String>),
}

impl<'a> Repository<'a> {
    /// Plain HTTP is spoken with this machine alone, unless an authority is given.
    pub fn new(reference: &Reference, access: &'a RegistryAccess) -> Result<Self, Problem> {
        let plain = reference.is_local() && access.roots.is_empty();
        let scheme = if plain { "http" } else { "https" };
        let origin = Url::parse(&format!("{scheme}://{}/", reference.host)).map_err(Problem::new)?;
        let client = http_client(&access.roots).map_err(Problem::new)?;
        let (name, login) = (reference.repository.clone(), access.login.as_ref());
        Ok(Self { client, origin, name, login, authorization: None })
    }

    /// Returns the manifest of this tag or digest; None: there is none.
    pub async fn manifest(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let url = self.url(&format!("manifests/{name}"))?;
        let response = self.send(|client| client.get(url.clone()).header(ACCEPT, MANIFEST), &url).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => read(response, LARGEST_MANIFEST, "the manifest").await.map(Some),
            _ => Err(self.refusal(response).await),
        }
    }

    /// Returns a blob, which must have this size and digest.
    pub async fn blob(&mut self, digest: &str, size: usize) -> Result<Vec<u8>, Problem> {
        let mut url = self.url(&format!("blobs/{digest}"))?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(|client| client.get(url.clone()), &url).await?;
            if response.status().is_redirection() {
                url = self.location(&response, &url)?;
                continue;
            }
            if response.status() != StatusCode::OK {
                return Err(self.refusal(response).await);
            }
            let bytes = read(response, size, &format!("blob {digest}")).await?;
            let found = digest_of(&bytes);
            if bytes.len() != size || found != digest {
                return Err(Problem::new(format_args!(
                    "blob {digest} of {size} bytes is not what the registry sent: {found}, {} bytes",
                    bytes.len()
                )));
            }
            return Ok(bytes);
        }
        Err(Problem::new(format_args!(
            "blob {digest}: the registry redirects more than {MOST_REDIRECTS} times"
        )))
    }

    /// Uploads a blob in one request, unless it is there.
    pub async fn put_blob(&mut self, bytes: &Bytes) -> Result<(), Problem> {
        let digest = digest_of(bytes);
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.send(|client| client.head(url.clone()), &url).await?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        let url = self.url("blobs/uploads/")?;
        let response = self.send(|client| client.post(url.clone()).body(""), &url).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refusal(response).await);
        }
        let mut place = self.location(&response, &url)?;
        place.query_pairs_mut().append_pair("digest", &digest);
        let put = |client: &Client| {
            client.put(place.clone()).header(CONTENT_TYPE, "application/octet-stream").body(bytes.clone())
        };
        self.stored(put, &place).await
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(&mut self, name: &str, manifest: &[u8]) -> Result<(), Problem> {
        let url = self.url(&format!("manifests/{name}"))?;
        let bytes = Bytes::copy_from_slice(manifest);
        let put =
            |client: &Client| client.put(url.clone()).header(CONTENT_TYPE, MANIFEST).body(bytes.clone());
        self.stored(put, &url).await
    }

    async fn stored(
        &mut self,
        request: impl Fn(&Client) -> RequestBuilder,
        url: &Url,
    ) -> Result<(), Problem> {
        let response = self.send(request, url).await?;
        if response.status() == StatusCode::CREATED { Ok(()) } else { Err(self.refusal(response).await) }
    }

    fn url(&self, path: &str) -> Result<Url, Problem> {
        self.origin.join(&format!("/v2/{}/{path}", self.name)).map_err(Problem::new)
    }

    /// Sends a request; once more with the credential that the registry asks for.
    async fn send(
        &mut self,
        request: impl Fn(&Client) -> RequestBuilder,
        url: &Url,
    ) -> Result<Response, Problem> {
        // A credential is for the registry alone, wherever it redirects to.
        let is_own = url.origin() == self.origin.origin();
        let known = self.authorization.clone().filter(|_| is_own);
        let response = self.answer(self.authorized(request(&self.client), known.as_ref())).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !is_own {
            return Ok(response);
        }
        let found = self.credential(response.headers()).await?;
        let response = self.answer(self.authorized(request(&self.client), Some(&found))).await?;
        self.authorization = Some(found);
        Ok(response)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let failed = |error: reqwest::Error| {
            let causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let cause = causes.last().map(ToString::to_string).unwrap_or_default();
            Problem::new(format_args!("cannot reach the registry {}: {cause}", self.origin))
        };
        request.timeout(LONGEST_REQUEST).send().await.map_err(failed)
    }

    fn authorized(&self, request: RequestBuilder, credential: Option<&RegistryCredential>) -> RequestBuilder {
        match (credential, self.login) {
            (Some(RegistryCredential::Bearer(token)), _) => request.bearer_auth(token.as_str()),
            (Some(RegistryCredential::Basic), Some((name, password))) => {
                request.basic_auth(name, Some(password.as_str()))
            }
            _ => request,
        }
    }

    /// Obtains what a 401 asks for: the login itself, or a token from the service that it names.
    async fn credential(&self, headers: &HeaderMap) -> Result<RegistryCredential, Problem> {
        let origin = &self.origin;
        let challenges: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let Some(challenge) = challenges.iter().find_map(|challenge| bearer(challenge)) else {
            let hint = "give --oci-username and PUSHLET_OCI_PASSWORD";
            return match self.login {
                Some(_) if challenges.iter().any(|challenge| is_scheme(challenge, "basic")) => {
                    Ok(RegistryCredential::Basic)
                }
                Some(_) => Err(Problem::new(format_args!("{origin} asks for credentials of no known kind"))),
                None => Err(Problem::new(format_args!("{origin} asks for credentials: {hint}"))),
            };
        };
        let value = |name: &str| challenge.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let mut url = value("realm").and_then(|realm| Url::parse(realm).ok()).ok_or_else(|| {
            Problem::new(format_args!("{origin} asks for a token, and does not say where to get it"))
        })?;
        self.ensure_safe(&url)?;
        for name in ["service", "scope"] {
            if let Some(value) = value(name) {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let login = self.login.map(|_| RegistryCredential::Basic);
        let response = self.answer(self.authorized(self.client.get(url), login.as_ref())).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let body = Zeroizing::new(read(response, LARGEST_TOKEN, "the answer with the token").await?);
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body["token"].as_str().or_else(|| body["access_token"].as_str());
        let sound =
            token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        let missing = || Problem::new(format_args!("{origin}: its token service answers without a token"));
        sound.map(|token| RegistryCredential::Bearer(Zeroizing::new(token.to_owned()))).ok_or_else(missing)
    }

    /// Resolves where a response says to go on.
    fn location(&self, response: &Response, from: &Url) -> Result<Url, Problem> {
        let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = place.and_then(|place| from.join(place).ok());
        let place = place.ok_or_else(|| {
            Problem::new(format_args!(
                "{} answers {} without a place to go on at",
                self.origin,
                response.status()
            ))
        })?;
        self.ensure_safe(&place)?;
        Ok(place)
    }

    /// Refuses to leave TLS, except where all is on this machine.
    fn ensure_safe(&self, url: &Url) -> Result<(), Problem> {
        let is_plain_here = self.origin.scheme() == "http" && url.scheme() == "http" && is_loopback(url);
        if url.scheme() == "https" || is_plain_here {
            return Ok(());
        }
        Err(Problem::new(format_args!("{} leads to {url}, which is not https", self.origin)))
    }

    /// Describes a response that says no: its status, and the first error in it.
    async fn refusal(&self, response: Response) -> Problem {
        let status = response.status();
        let body = read(response, LARGEST_ERROR, "the error").await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = &body["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        let told = format!("{} {}", text("code"), text("message"));
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.login.is_none() => {
                "; give --oci-username and PUSHLET_OCI_PASSWORD"
            }
            _ => "",
        };
        Problem::new(format_args!("{} answers {status} {}{hint}", self.origin, told.trim()))
    }
}

/// Reads a body up to a bound in bytes.
async fn read(mut response: Response, most: usize, what: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) =
        response.chunk().await.map_err(|error| Problem::new(format_args!("{what}: {error}")))?
    {
        if bytes.len() + piece.len() > most {
            return Err(Problem::new(format_args!("{what} is larger than {most} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_scheme(challenge: &str, scheme: &str) -> bool {
    challenge.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(scheme))
}

/// Returns the parameters of a Bearer challenge (RFC 6750 section 3): `Bearer realm="…",service="…",scope="…"`.
fn bearer(challenge: &str) -> Option<Vec<(String, String)>> {
    let (scheme, mut rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        found.push((name.trim_matches([' ', ',']).to_ascii_lowercase(), value.to_owned()));
        rest = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let realm = pair("realm", "https://auth.example/token");
        assert_eq!(
            bearer(
                r#"Bearer realm="https://auth.example/token",service="r.example", scope="repository:a/b:pull,push""#
            ),
            Some(vec![
                realm.clone(),
                pair("service", "r.example"),
                pair("scope", "repository:a/b:pull,push")
            ])
        );
        assert_eq!(
            bearer("bearer realm=https://auth.example/token, service=x"),
            Some(vec![realm, pair("service", "x")])
        );
        assert_eq!(bearer(r#"Basic realm="x""#), None);
        assert_eq!(bearer(r#"Bearer realm="unfinished"#), None);
        assert!(is_scheme(r#"basic realm="x""#, "Basic") && !is_scheme("Basics", "basic"));
    }
}
