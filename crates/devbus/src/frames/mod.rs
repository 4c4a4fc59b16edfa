//! The bytes that a broker sends, cut into single messages and the rest.

mod frame;
mod nats;
mod resp;
mod splitter;
#[cfg(test)]
mod tests;

pub(crate) use self::frame::Frame;
pub(crate) use self::splitter::Splitter;
