/// Creates an HTTP client that shares nothing with the server under test.
pub fn http_client() -> reqwest::Client {
    // Fails if an earlier test of this process has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
