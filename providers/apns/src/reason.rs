//! Apple's reasons, each with what it means for the caller and a sentence.
//!
//! Source: "Handling notification responses from APNs" and "Handling error responses from channel management and
//! broadcast requests". The set is open: a reason that is not here is judged by its status.

/// What a reason asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The token is gone.
    Dead,
    /// The message or the token is wrong.
    Wrong,
    /// The provider token has aged.
    Expired,
    /// The credential is not accepted.
    Refused,
    /// Too many to one target.
    TargetFlooded,
    /// Too many from one application.
    ApplicationFlooded,
    /// The service is in trouble.
    Trouble,
    /// The service is about to close this connection.
    Closing,
}

use Meaning::*;

/// What the reason means, and a sentence about it.
pub fn find(reason: &str) -> Option<(Meaning, &'static str)> {
    REASONS.iter().find(|(name, ..)| *name == reason).map(|(_, meaning, sentence)| (*meaning, *sentence))
}

/// `BadDeviceToken` and `DeviceTokenNotForTopic` do not count as dead tokens: Apple gives the same answer to a good
/// token that was sent to the wrong environment or under the wrong topic, and one wrong setting would make a caller
/// delete every token it has. Only a 410 says that the token itself is gone.
const REASONS: [(&str, Meaning, &str); 43] = [
    ("BadCollapseId", Wrong, "the collapse key is longer than Apple allows"),
    ("BadDeviceToken", Wrong, "the device token is not valid, or belongs to the other environment"),
    ("BadExpirationDate", Wrong, "the expiration is not valid"),
    ("BadMessageId", Wrong, "the message id is not a UUID"),
    ("BadPriority", Wrong, "the priority is not valid"),
    ("BadTopic", Wrong, "the topic is not valid"),
    ("DeviceTokenNotForTopic", Wrong, "the device token does not belong to the topic"),
    ("DuplicateHeaders", Wrong, "a header was sent twice"),
    ("IdleTimeout", Closing, "Apple closed an idle connection"),
    ("InvalidPushType", Wrong, "the push type is not valid"),
    ("MissingDeviceToken", Wrong, "there is no device token"),
    ("MissingTopic", Wrong, "there is no topic, and the certificate does not tell one"),
    ("PayloadEmpty", Wrong, "the payload is empty"),
    ("TopicDisallowed", Wrong, "pushing to this topic is not allowed"),
    ("BadCertificate", Refused, "the certificate is not valid"),
    ("BadCertificateEnvironment", Refused, "the certificate is for the other environment"),
    ("ExpiredProviderToken", Expired, "the provider token is too old"),
    ("Forbidden", Refused, "the action is not allowed"),
    ("InvalidProviderToken", Refused, "the provider token is not valid: check key, key id and team id"),
    ("MissingProviderToken", Refused, "neither a certificate nor a provider token was sent"),
    ("UnrelatedKeyIdInToken", Refused, "the key is unrelated to the one this connection began with"),
    ("BadEnvironmentKeyIdInToken", Refused, "the key is for the other environment"),
    ("BadEnvironmentKeyInToken", Refused, "the key is for the other environment"),
    ("BadPath", Wrong, "the path of the request is not valid"),
    ("MethodNotAllowed", Wrong, "the method of the request is not POST"),
    ("ExpiredToken", Dead, "the device token has expired"),
    ("Unregistered", Dead, "the device token is no longer active for the topic"),
    ("PayloadTooLarge", Wrong, "the payload is larger than Apple allows"),
    ("TooManyProviderTokenUpdates", ApplicationFlooded, "the provider token is renewed too often"),
    ("TooManyRequests", TargetFlooded, "too many requests to the same device token"),
    ("InternalServerError", Trouble, "Apple reports an internal error"),
    ("ServiceUnavailable", Trouble, "the service is unavailable"),
    ("Service Unavailable", Trouble, "the service is unavailable"),
    ("Shutdown", Closing, "the server is shutting down"),
    ("FeatureNotEnabled", Wrong, "broadcast is not enabled for this app"),
    ("MissingChannelId", Wrong, "there is no channel id"),
    ("BadChannelId", Wrong, "the channel id is not valid"),
    ("ChannelNotRegistered", Wrong, "the channel does not exist"),
    ("BadRequestParams", Wrong, "the parameters of the request are not valid"),
    ("BadRequestPayload", Wrong, "the body of the request is not valid"),
    ("MissingPushType", Wrong, "there is no push type"),
    ("CannotCreateChannelConfig", Wrong, "the app has as many channels as Apple allows"),
    ("TopicMismatch", Refused, "the certificate or key does not cover the topic"),
];
