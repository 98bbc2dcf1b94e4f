//! Targets that occur twice in one request or stream are sent to once.
//!
//! Two tokens are equal if they are the same text, or if the provider makes the same request of both: only
//! the provider knows how tokens may be spelled, and it is asked only about tokens that are not in their
//! plain spelling. A stream remembers its last targets, not all of them, so that its memory stays bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::delivery::Delivery;
use pushlet_model::contract::{Context, Notification, Recipient, Target};
use pushlet_quota::account::{Account, MemoryReservation, MemoryUse, Steps};
use pushlet_sandbox::{Exchange, Instances, PreparedRequests};

/// What to do with a target that occurs again with the same notification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// It is not sent again, and its result names the first one.
    #[default]
    Skip,
    /// It is sent like any other.
    Send,
}

/// Targets in one of the two generations: they fill a table of 131,072 slots. When the younger generation is
/// full, the older one is dropped, so between one and two generations are remembered.
const GENERATION: usize = 7 << 14;
/// Bytes of a slot in the table.
const PLACE: usize = 17;
/// Targets that are remembered without being counted on the tenant's account.
const SMALL: usize = 448;

/// The targets that occurred so far.
pub(super) struct SeenTargets {
    hasher: RandomState,
    young: Generation,
    old: Generation,
    /// The bytes of both tables, apart from small ones.
    reserved: MemoryReservation,
}

/// From a hash to a check and the index. Both together, 96 bits, stand for a target, since its text would take ten
/// times as much. The hash is keyed, so a caller cannot find two targets with the same one; the check tells apart those
/// that have it by chance.
type Generation = HashMap<u64, (u32, u32), BuildHasherDefault<HashedKey>>;

/// Returns a key that is a hash already.
#[derive(Default)]
struct HashedKey(u64);

impl Hasher for HashedKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 ^= key;
    }
}

impl SeenTargets {
    pub fn new(account: &Arc<Account>) -> Self {
        Self {
            hasher: RandomState::new(),
            young: Generation::default(),
            old: Generation::default(),
            reserved: account.reserve_nothing(MemoryUse::ParsedInput),
        }
    }

    /// Returns the index of the same target with the same options before, if there was one; otherwise remembers this one. `plain`:
    /// the target's token in its plain spelling, if it is written in another one. `own`: fields of a
    /// notification of its own, without which it is not the same push.
    pub fn first(
        &mut self,
        index: usize,
        recipient: &Recipient,
        plain: Option<&str>,
        own: Option<&Map<String, Value>>,
    ) -> Option<usize> {
        let (kind, text) = match &recipient.target {
            Target::Device(text) => (0_u8, text),
            Target::Topic(text) => (1, text),
            Target::Condition(text) => (2, text),
            Target::Channel(text) => (3, text),
            Target::Url(text) => (4, text),
        };
        // Writing a map of JSON values into memory cannot fail.
        let own = own.and_then(|own| serde_json::to_string(own).ok());
        let text = plain.unwrap_or(text);
        let key = self.hasher.hash_one((kind, text, &recipient.options, own));
        self.first_of(key, check(text), u32::try_from(index).ok()?)
    }

    fn first_of(&mut self, key: u64, check: u32, index: u32) -> Option<usize> {
        if let Some((known, first)) = self.young.get(&key).or_else(|| self.old.get(&key)) {
            // Another target with the same hash: it is sent, and not remembered.
            return (*known == check).then_some(*first as usize);
        }
        self.make_room();
        self.young.insert(key, (check, index));
        None
    }

    /// Drops the older generation where the younger one is full, or has no room on the account to grow.
    fn make_room(&mut self) {
        let full = self.young.capacity();
        if self.young.len() < full || full < SMALL {
            return;
        }
        let growth = table(2 * full) - table(full);
        if full >= GENERATION || self.reserved.grow(growth).is_err() {
            self.old = std::mem::take(&mut self.young);
            self.reserved.shrink_to(table(full));
        }
    }
}

/// FNV-1a.
fn check(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Returns the bytes of a table for this many targets; it holds seven for each eight slots.
fn table(targets: usize) -> usize {
    targets / 7 * 8 * PLACE
}

impl Delivery {
    /// Returns the plain spelling of tokens that are written in another one, by their index in `targets`,
    /// where the provider makes the same request of both.
    pub async fn plain_tokens<'a>(
        &self,
        notification: &Arc<Notification>,
        recipients: impl Iterator<Item = &'a Recipient>,
    ) -> HashMap<usize, String> {
        let mut plain = HashMap::new();
        if self.provider.tells_spellings_apart() || self.provider.speaks_stream() {
            return plain;
        }
        let odd = recipients.enumerate().filter_map(|(place, recipient)| match &recipient.target {
            Target::Device(token) => Some((place, token.clone(), plainly(token)?)),
            _ => None,
        });
        let odd: Vec<(usize, String, String)> = odd.collect();
        let mut steps = Steps::new(self.purpose.payer.clone());
        for pairs in odd.chunks((self.batch_size() / 2).max(1)) {
            steps.before(Steps::CALL + 2 * pairs.len()).await;
            let equal = self.equal_tokens(notification, pairs).await;
            let equal = pairs.iter().zip(equal).filter(|(_, equal)| *equal);
            plain.extend(equal.map(|((place, _, token), _)| (*place, token.clone())));
            if self.provider.tells_spellings_apart() {
                break;
            }
        }
        plain
    }

    /// Returns for each pair whether the provider makes the same request of both tokens. All get the same
    /// randomness, so that only the token makes a difference. A provider that tells a pair apart is
    /// remembered and not asked again.
    async fn equal_tokens(
        &self,
        notification: &Arc<Notification>,
        pairs: &[(usize, String, String)],
    ) -> Vec<bool> {
        let both = |(_, token, plain): &(usize, String, String)| [token.clone(), plain.clone()];
        let tokens = pairs.iter().flat_map(both).map(Target::Device);
        let targets: Vec<Recipient> = tokens.map(Recipient::from).collect();
        let entropy = vec![0; targets.len() * self.provider.manifest().entropy as usize];
        let context = Context::at(SystemTime::now(), entropy);
        let (application, notification) = (self.application.clone(), notification.clone());
        let encode = move |instances: &Instances| {
            instances.encode(&context, &application.record, &notification, &targets)
        };
        // A provider that fails here fails again when it encodes the targets, and the caller sees that.
        let Ok(prepared) = self.instances.run(encode).await else { return vec![false; pairs.len()] };
        let requests = requests(&prepared, pairs.len() * 2);
        let equal = requests.chunks(2).map(|pair| match pair {
            [Covered::Alone(one), Covered::Alone(other)] => same(&prepared, one, other),
            _ => false,
        });
        let equal: Vec<bool> = equal.collect();
        let is_sent = |request: &Covered<'_>| !matches!(request, Covered::Not);
        if requests.chunks(2).zip(&equal).any(|(pair, equal)| !equal && pair.first().is_some_and(is_sent)) {
            self.provider.told_spellings_apart();
        }
        equal
    }
}

/// The exchange that covers a target.
#[derive(Clone, Copy)]
enum Covered<'a> {
    Not,
    WithOthers,
    Alone(&'a Exchange),
}

fn requests(prepared: &PreparedRequests, targets: usize) -> Vec<Covered<'_>> {
    let mut requests = vec![Covered::Not; targets];
    for exchange in &prepared.exchanges {
        let covered = match exchange.covers.len() {
            1 => Covered::Alone(exchange),
            _ => Covered::WithOthers,
        };
        exchange.covers.iter().for_each(|&index| requests[index as usize] = covered);
    }
    requests
}

fn same(prepared: &PreparedRequests, one: &Exchange, other: &Exchange) -> bool {
    let (first, second) = (&prepared.messages[one.message], &prepared.messages[other.message]);
    let same_message = one.message == other.message
        || (first.endpoint == second.endpoint
            && first.method == second.method
            && first.headers == second.headers
            && first.body == second.body);
    same_message && one.url == other.url && one.path == other.path && one.headers == other.headers
}

/// Returns a token's plain spelling, lower-case letters and digits only, or None if it is written so.
fn plainly(token: &str) -> Option<String> {
    let is_plain = |letter: u8| letter.is_ascii_digit() || letter.is_ascii_lowercase();
    // Without an early end many bytes are looked at together.
    if token.bytes().fold(true, |plain, letter| plain & is_plain(letter)) {
        return None;
    }
    let letters = token.chars().filter(char::is_ascii_alphanumeric);
    Some(letters.map(|letter| letter.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pushlet_model::tenant::TenantId;
    use pushlet_quota::account::{AccountSettings, Accounts};

    fn seen(memory: usize) -> SeenTargets {
        let settings = AccountSettings { tenant_memory: memory, ..AccountSettings::default() };
        SeenTargets::new(&Accounts::new(settings).unwrap().of(&TenantId::new("acme")))
    }

    fn device(seen: &mut SeenTargets, index: usize, token: &str) -> Option<usize> {
        seen.first(index, &Target::Device(token.to_owned()).into(), None, None)
    }

    #[test]
    fn the_same_target_is_known_by_the_index_of_the_first() {
        let mut seen = seen(1 << 20);
        assert_eq!(device(&mut seen, 0, "a"), None);
        assert_eq!(device(&mut seen, 1, "b"), None);
        assert_eq!(device(&mut seen, 2, "a"), Some(0));
        assert_eq!(device(&mut seen, 3, "a"), Some(0));
        assert_eq!(seen.first(4, &Target::Topic("a".into()).into(), None, None), None, "another kind");
        assert_eq!(
            seen.first(5, &Target::Device("A".into()).into(), Some("a"), None),
            Some(0),
            "another spelling"
        );
        let own = |body: &str| serde_json::json!({ "body": body }).as_object().unwrap().clone();
        let target = Recipient::from(Target::Device("a".into()));
        let keys = Recipient { options: vec![("auth".into(), "\"x\"".into())], ..target.clone() };
        assert_eq!(seen.first(9, &keys, None, None), None, "other keys");
        assert_eq!(seen.first(6, &target, None, Some(&own("x"))), None, "a notification of its own");
        assert_eq!(seen.first(7, &target, None, Some(&own("y"))), None);
        assert_eq!(seen.first(8, &target, None, Some(&own("x"))), Some(6));
    }

    #[test]
    fn another_target_with_the_same_hash_is_sent() {
        let mut seen = seen(1 << 20);
        assert_eq!(seen.first_of(7, check("a"), 0), None);
        assert_eq!(seen.first_of(7, check("b"), 1), None);
        assert_eq!(seen.first_of(7, check("a"), 2), Some(0));
    }

    #[test]
    fn one_generation_at_least_is_remembered_and_two_at_most() {
        let mut seen = seen(64 << 20);
        for index in 0..=2 * GENERATION {
            assert_eq!(device(&mut seen, index, &index.to_string()), None);
        }
        assert_eq!(seen.young.capacity().max(seen.old.capacity()), GENERATION);
        let youngest = GENERATION + 1;
        assert_eq!(device(&mut seen, 9, &youngest.to_string()), Some(youngest));
        assert_eq!(device(&mut seen, 9, "0"), None, "it is forgotten");
    }

    #[test]
    fn a_tenant_without_room_has_fewer_remembered() {
        let mut seen = seen(100 << 10);
        for index in 0..10_000 {
            assert_eq!(device(&mut seen, index, &index.to_string()), None);
        }
        assert!(seen.reserved.bytes() <= 100 << 10);
        assert_eq!(device(&mut seen, 10_000, "9999"), Some(9999));
        assert_eq!(device(&mut seen, 10_001, "0"), None);
    }

    #[test]
    fn a_plain_token_is_of_lower_case_letters_and_digits() {
        assert_eq!(plainly("00fe"), None);
        assert_eq!(plainly("<00FE aB>").as_deref(), Some("00feab"));
        assert_eq!(plainly("é-A").as_deref(), Some("a"));
    }
}
