//! Calls routes, and writes down every answer.

use std::collections::BTreeSet;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::program::Program;
use pushlet_test_support::http_client;

pub struct RecordingClient {
    client: Client,
    base: String,
    /// The routes that were called.
    pub routes: BTreeSet<(String, String)>,
    /// All answers, with their headers.
    pub transcript: Vec<u8>,
}

impl RecordingClient {
    pub fn new(program: &Program) -> Self {
        Self {
            client: http_client(),
            base: program.base.clone(),
            routes: BTreeSet::new(),
            transcript: Vec::new(),
        }
    }

    /// A request of this route, at this path and query.
    pub fn request(&mut self, method: &str, route: &str, path: &str) -> RequestBuilder {
        self.routes.insert((method.to_owned(), route.to_owned()));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends; answers the status.
    pub async fn call(&mut self, request: RequestBuilder) -> u16 {
        let (status, body) = self.answer(request).await;
        self.transcript.extend(body);
        status
    }

    /// Sends, and keeps the body of the answer, which holds a secret rightly, out of the transcript.
    pub async fn secretly(&mut self, request: RequestBuilder) -> Value {
        let (status, body) = self.answer(request).await;
        assert_eq!(status, 201);
        serde_json::from_slice(&body).unwrap()
    }

    async fn answer(&mut self, request: RequestBuilder) -> (u16, Vec<u8>) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        self.transcript.extend(format!("\n{status} {:?}\n", response.headers()).bytes());
        (status, response.bytes().await.unwrap().to_vec())
    }
}
