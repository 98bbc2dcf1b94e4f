//! What keys are called: their paths in the file, their flags and their variables, and which one was meant.

use super::keys::keys;
use super::section::ConfigKey;
use super::value::{self, ValueKind};

impl ConfigKey {
    /// Returns true if it stands for many keys, one for each name.
    pub fn is_pattern(&self) -> bool {
        self.path.contains('<')
    }

    /// Returns true if this path, a real one or that of a pattern, is covered by the key.
    pub fn covers(&self, path: &[&str]) -> bool {
        let mut own = self.path.split('.');
        path.iter().all(|segment| own.next().is_some_and(|mine| fits(mine, segment))) && own.next().is_none()
    }

    /// Returns the name of its flag, without the dashes: `auth-username`.
    pub fn flag(&self) -> String {
        flag(self.path)
    }

    /// Returns the name of its variable: `PUSHLET_AUTH_USERNAME`.
    pub fn variable(&self) -> String {
        variable(self.path)
    }
}

pub fn flag(path: &str) -> String {
    path.replace(['.', '_'], "-")
}

pub fn variable(path: &str) -> String {
    format!("PUSHLET_{}", path.replace(['.', '-'], "_").to_uppercase())
}

/// Returns the segments of a real path. One in quotes may hold dots.
pub fn segments(path: &str) -> Vec<&str> {
    let mut in_quotes = false;
    let split = path.split(move |letter: char| {
        in_quotes ^= letter == '"';
        letter == '.' && !in_quotes
    });
    split.map(|segment| segment.trim_matches('"')).collect()
}

/// Returns a path with one more segment, as TOML writes it.
pub fn join(path: &str, name: &str) -> String {
    let is_bare = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-');
    let name = if is_bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "")) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// Returns the key at a real path.
pub fn find(path: &[&str]) -> Option<&'static ConfigKey> {
    keys().find(|key| key.covers(path))
}

/// Returns true if the key at this path is a list, whose members may contain colons.
pub fn is_list_of_texts(path: &str) -> bool {
    find(&segments(path)).is_some_and(|key| matches!(key.kind, ValueKind::Texts))
}

/// Returns true for the path of a table that holds keys.
pub fn is_section(path: &[&str]) -> bool {
    keys().any(|key| {
        let mut own = key.path.split('.');
        path.iter().all(|segment| own.next().is_some_and(|mine| fits(mine, segment))) && own.next().is_some()
    })
}

/// Returns the path of a flag or variable, whose words are joined by `separator`: `endpoints_apns_production`.
pub fn from_words(name: &str, separator: char) -> Option<String> {
    let joined = |path: &str| path.replace(['.', '_'], &separator.to_string());
    // Keys before patterns: the words of a key could be those of a pattern too.
    if let Some(key) = keys().find(|key| !key.is_pattern() && joined(key.path) == name) {
        return Some(key.path.to_owned());
    }
    let words: Vec<&str> = name.split(separator).collect();
    keys().any(|key| key.is_pattern() && key.covers(&words)).then(|| words.join("."))
}

/// Returns the known name that is most similar to `name`, if one is similar.
pub fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, candidate)| (1..=2.max(candidate.len() / 4)).contains(distance))
        .min()
        .map(|(_, candidate)| candidate)
}

fn fits(own: &str, segment: &str) -> bool {
    match own {
        "<provider>" => value::is_provider(segment),
        own if own.starts_with('<') => value::is_name(segment),
        own => own == segment,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_variable_and_flag_names_one_key() {
        for key in keys().filter(|key| !key.is_pattern()) {
            let variable = key.variable().trim_start_matches("PUSHLET_").to_lowercase();
            assert_eq!(from_words(&variable, '_').as_deref(), Some(key.path));
            assert_eq!(from_words(&key.flag(), '-').as_deref(), Some(key.path));
        }
    }

    #[test]
    fn a_pattern_covers_names_and_nothing_else() {
        for path in [
            "endpoints.apns.production",
            "endpoints.web-push.development",
            "endpoints.apns.channels.production",
            "endpoints.\"acme/hook\".production",
            "endpoints.\"acme.co/hook\".hook.production",
        ] {
            let path = segments(path);
            assert!(find(&path).is_some(), "{path:?}");
        }
        for path in [
            "endpoints.apns",
            "endpoints.apns.staging",
            "endpoints.AP NS.production",
            "endpoints.a.b.c.production",
            "endpoints.\"acme/\".production",
            "endpoints.\"/hook\".production",
            "endpoints.\"a/b/c\".production",
            "endpoints.apns.\"acme/hook\".production",
        ] {
            let path = segments(path);
            assert!(find(&path).is_none(), "{path:?}");
        }
        assert_eq!(
            from_words("endpoints_apns_channels_production", '_').unwrap(),
            "endpoints.apns.channels.production"
        );
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = || keys().map(|key| key.path.to_owned());
        assert_eq!(nearest("auth.usrname", names()).as_deref(), Some("auth.username"));
        assert_eq!(nearest("delivery.deadlin", names()).as_deref(), Some("delivery.deadline"));
        assert_eq!(nearest("entirely.different", names()), None);
    }
}
