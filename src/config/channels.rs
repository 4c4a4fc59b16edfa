//! The channels of the application's own triggers.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::protocol::{CHANNEL_BYTES_MAX, CHANNELS_MAX, Channels, is_own_channel};

/// Names of PostgreSQL channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelNames(Vec<String>);

/// Why names of channels are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChannels {
    /// PostgreSQL takes no such name.
    #[error("{0:?} is no channel: a name has 1 to {CHANNEL_BYTES_MAX} bytes")]
    Length(String),
    /// The service's own messages go over it.
    #[error("{0} is the service's own: names that begin with realtime_ are")]
    Own(String),
    /// Too many.
    #[error(
        "at most {CHANNELS_MAX} channels are listened to, HushNet's and the log's own included"
    )]
    Many,
}

impl ChannelNames {
    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl FromStr for ChannelNames {
    type Err = NotChannels;

    fn from_str(text: &str) -> Result<Self, NotChannels> {
        let names = text.split(',').map(str::trim);
        let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        for name in &names {
            if name.len() > CHANNEL_BYTES_MAX {
                return Err(NotChannels::Length((*name).to_owned()));
            }
            if is_own_channel(name) {
                return Err(NotChannels::Own((*name).to_owned()));
            }
        }
        let channels = Channels::with(names.iter().copied());
        if names.iter().any(|name| channels.find(name).is_none()) {
            return Err(NotChannels::Many);
        }
        Ok(Self(names.into_iter().map(str::to_owned).collect()))
    }
}

impl Serialize for ChannelNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_with_commas_between() {
        let channels: ChannelNames = "orders, Invoices,,".parse().unwrap();
        assert_eq!(channels.names().collect::<Vec<_>>(), ["orders", "Invoices"]);
        let none: ChannelNames = "".parse().unwrap();
        assert_eq!(none.names().count(), 0);
    }

    #[test]
    fn a_name_that_cannot_be_listened_to_is_refused() {
        let long = "x".repeat(CHANNEL_BYTES_MAX + 1);
        let many: Vec<_> = (0..=CHANNELS_MAX).map(|n| n.to_string()).collect();
        for (text, fault) in [
            (long.clone(), NotChannels::Length(long)),
            (
                "orders,realtime_control".to_owned(),
                NotChannels::Own("realtime_control".to_owned()),
            ),
            (many.join(","), NotChannels::Many),
        ] {
            assert_eq!(text.parse::<ChannelNames>(), Err(fault));
        }
    }
}
