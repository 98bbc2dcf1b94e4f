//! Names: which are valid, and which known one was meant by a wrong one.

/// Returns the known name that is most similar to a wrong one, if any is similar.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similar = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let similar = similar.filter(|(similarity, _)| *similarity > 0.8);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// Returns the end of an error message: `; did you mean {known}?`, or nothing.
pub fn did_you_mean(known: Option<&str>) -> String {
    known.map(|known| format!("; did you mean {known}?")).unwrap_or_default()
}

/// Returns true if the text is 1 to `longest` of a-z, 0-9, - and _. Names become form fields, error codes, settings,
/// labels of metrics and URL segments.
pub fn is_name(text: &str, longest: usize) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=longest).contains(&text.len()) && text.bytes().all(is_plain)
}
