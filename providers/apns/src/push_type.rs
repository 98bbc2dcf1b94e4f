//! The `apns-push-type` header and what hangs on it.

/// What the notification is for. Apple's values, in Apple's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushType {
    Alert,
    Background,
    Complication,
    Controls,
    FileProvider,
    LiveActivity,
    Location,
    Mdm,
    PushToTalk,
    Voip,
    Widgets,
}

impl PushType {
    pub const ALL: [Self; 11] = [
        Self::Alert,
        Self::Background,
        Self::Complication,
        Self::Controls,
        Self::FileProvider,
        Self::LiveActivity,
        Self::Location,
        Self::Mdm,
        Self::PushToTalk,
        Self::Voip,
        Self::Widgets,
    ];

    /// The value of the header, and of the option `push_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Background => "background",
            Self::Complication => "complication",
            Self::Controls => "controls",
            Self::FileProvider => "fileprovider",
            Self::LiveActivity => "liveactivity",
            Self::Location => "location",
            Self::Mdm => "mdm",
            Self::PushToTalk => "pushtotalk",
            Self::Voip => "voip",
            Self::Widgets => "widgets",
        }
    }

    /// What the topic must end with beside the bundle id. An MDM topic is the certificate's own and has none.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Alert | Self::Background | Self::Mdm => "",
            Self::Complication => ".complication",
            Self::Controls => ".push-type.controls",
            Self::FileProvider => ".pushkit.fileprovider",
            Self::LiveActivity => ".push-type.liveactivity",
            Self::Location => ".location-query",
            Self::PushToTalk => ".voip-ptt",
            Self::Voip => ".voip",
            Self::Widgets => ".push-type.widgets",
        }
    }

    /// Does it do its work without any content?
    pub fn may_be_empty(self) -> bool {
        use PushType::*;
        matches!(self, Background | Complication | Controls | Location | PushToTalk | Widgets)
    }

    /// The most bytes that the payload may have when sent to a device.
    pub fn limit(self) -> usize {
        if self == Self::Voip { 5120 } else { 4096 }
    }

    /// The type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The type that a topic's suffix tells.
    pub fn of_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| !kind.suffix().is_empty() && topic.ends_with(kind.suffix()))
    }
}
