//! The bodies of the layer's own responses, in whatever type the stack has.

use std::any::Any;

use http::{
    Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

/// Makes a body of a stack's type from the text of a refusal.
///
/// [`DefaultBody`] does it for every type with a [`Default`], a `fn(String) -> B` for any.
pub trait MakeBody<B> {
    /// Turns a response with a text into one of the stack.
    fn make(&self, response: Response<String>) -> Response<B>;
}

/// Bodies that are their type's [`Default`]: empty, so that a refusal is told by its status and
/// headers alone.
///
/// A `String`, and with the feature `axum` (on by default) an axum body, gets the text as well. For
/// other types there is [`WebSocketLayer::with_body`](crate::WebSocketLayer::with_body).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultBody;

impl<B: Default + 'static> MakeBody<B> for DefaultBody {
    fn make(&self, response: Response<String>) -> Response<B> {
        let (mut parts, text) = response.into_parts();
        let mut body = B::default();
        if let Some(text) = fill(&mut body, text)
            && !text.is_empty()
        {
            // They spoke of the text.
            parts.headers.remove(CONTENT_TYPE);
            parts.headers.remove(CONTENT_LENGTH);
        }
        Response::from_parts(parts, body)
    }
}

impl<B> MakeBody<B> for fn(String) -> B {
    fn make(&self, response: Response<String>) -> Response<B> {
        response.map(self)
    }
}

/// Puts a text into a body of a known type, or gives it back.
fn fill(body: &mut dyn Any, text: String) -> Option<String> {
    if let Some(body) = body.downcast_mut::<String>() {
        *body = text;
        return None;
    }
    #[cfg(feature = "axum")]
    if let Some(body) = body.downcast_mut::<axum_core::body::Body>() {
        if !text.is_empty() {
            *body = text.into();
        }
        return None;
    }
    Some(text)
}
