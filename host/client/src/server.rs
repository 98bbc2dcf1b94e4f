//! A server, as a client sees it: where it is, who we are to it, and what its errors mean.

use std::path::PathBuf;

use clap::ArgMatches;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::terminal::given;
use pushlet_settings::Problem;
use pushlet_transport::http_client;

/// Items in one answer.
const PAGE: usize = 1000;

pub struct ApiClient {
    client: Client,
    base: String,
    access: ServerAccess,
}

enum ServerAccess {
    Open,
    Key(Zeroizing<String>),
    Basic(String, Zeroizing<String>),
}

impl ApiClient {
    pub fn new(matches: &ArgMatches) -> Result<Self, Problem> {
        let base = given(matches, "server").trim_end_matches('/').to_owned();
        let url = url::Url::parse(&base);
        if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(Problem::new(format_args!(
                "--server {base}: expected http://host:port or https://…"
            )));
        }
        let secret = |name| Zeroizing::new(given(matches, name).to_owned());
        let access = match (given(matches, "api-key"), given(matches, "username")) {
            ("", "") => ServerAccess::Open,
            ("", username) => ServerAccess::Basic(username.to_owned(), secret("password")),
            (_, _) => ServerAccess::Key(secret("api-key")),
        };
        let roots: Vec<PathBuf> = matches.get_one("ca").cloned().into_iter().collect();
        Ok(Self { client: http_client(&roots).map_err(Problem::new)?, base, access })
    }

    /// `path`: its segments, unescaped.
    pub fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let path: String = path
            .iter()
            .map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)))
            .collect();
        self.plain(method, &format!("/v1{path}"))
    }

    /// `path`: as it is.
    pub fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.access {
            ServerAccess::Open => request,
            ServerAccess::Key(key) => request.bearer_auth(key.as_str()),
            ServerAccess::Basic(username, password) => request.basic_auth(username, Some(password.as_str())),
        }
    }

    /// Sends the request, and returns the response if its status is a success.
    pub async fn answer(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(self.refusal(status, &text))
    }

    /// Sends the request, and returns the JSON of the response; null if it has no body.
    pub async fn json(&self, request: RequestBuilder) -> Result<Value, Problem> {
        let text = self.answer(request).await?.text().await.map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let wrong = |_| Problem::new(format_args!("{} does not answer as Pushlet does", self.base));
        serde_json::from_str(&text).map_err(wrong)
    }

    pub async fn get(&self, path: &[&str]) -> Result<Value, Problem> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Returns all items of a paged list. `name`: of the list, and of its path.
    pub async fn all(&self, name: &str) -> Result<Vec<Value>, Problem> {
        self.all_of(name, None).await
    }

    /// The same with another field of the query.
    pub async fn all_of(&self, name: &str, field: Option<(&str, &str)>) -> Result<Vec<Value>, Problem> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            // A page begins after the last id of the page before it.
            let last = all.last().and_then(|last| last["id"].as_str());
            let after = last.map(|last| ("after", last.to_owned()));
            let field = field.map(|(name, value)| (name, value.to_owned()));
            let query: Vec<(&str, String)> =
                [("limit", PAGE.to_string())].into_iter().chain(field).chain(after).collect();
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            let mut page = self.json(self.plain(Method::GET, &format!("/v1/{name}?{query}"))).await?;
            let (items, next) = (page[name].take(), page["next"].take());
            all.extend(items.as_array().cloned().unwrap_or_default());
            if next.is_null() {
                return Ok(all);
            }
        }
    }

    pub async fn delete(&self, path: &[&str]) -> Result<(), Problem> {
        self.json(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// Sends JSON.
    pub async fn write(&self, method: Method, path: &[&str], body: &Value) -> Result<Value, Problem> {
        let request = self.request(method, path).header("content-type", "application/json");
        self.json(request.body(body.to_string())).await
    }

    /// Describes why no response came, with a hint.
    pub fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let base = &self.base;
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        let cause = causes.last().map(ToString::to_string).unwrap_or_default();
        let hint = match error {
            error if error.is_connect() && cause.contains("certificate") => {
                "; name the authority of its certificate with --ca"
            }
            error if error.is_connect() => "; is `pushlet serve` running there? --server names another",
            _ => "",
        };
        Problem::new(format_args!("cannot reach {base}: {cause}{hint}"))
    }

    fn refusal(&self, status: StatusCode, text: &str) -> Problem {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let (Some(code), Some(message)) = (body["error"].as_str(), body["message"].as_str()) else {
            return Problem::new(format_args!(
                "{} responds with {status} and no error of Pushlet",
                self.base
            ));
        };
        if status == StatusCode::UNAUTHORIZED {
            let why = match self.access {
                ServerAccess::Open => "requires credentials: give --api-key, or --username and --password",
                _ => "does not know these credentials",
            };
            return Problem::new(format_args!("{} {why}", self.base));
        }
        let field = body["field"].as_str().map(|field| format!(", field {field}")).unwrap_or_default();
        Problem::new(format_args!("{message} ({code}{field})"))
    }
}
