//! Why a measurement could not be made.

use std::fmt;

/// Where it failed and why, for people.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the place of an error.
pub fn at<E: fmt::Display>(place: &str) -> impl Fn(E) -> Failure {
    move |error| Failure(format!("{place}: {error}"))
}
