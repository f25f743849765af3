//! The stream: frames on one side, messages on the other.
//!
//! The middle doll. [`decoder`] joins the payloads of frames to messages and judges everything
//! that takes more than one frame or the role to judge; [`encoder`] and [`outgoing`] go the other
//! way; [`prepared`] is a message encoded once for many connections; [`deflate`] makes payloads
//! smaller.

pub(crate) mod decoder;
#[cfg(feature = "deflate")]
pub(crate) mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "stream/without_deflate.rs"]
pub(crate) mod deflate;
pub(crate) mod encoder;
pub(crate) mod outgoing;
pub(crate) mod prepared;
pub(crate) mod utf8;
