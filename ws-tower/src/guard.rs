//! Guards: what stands before an acceptance, and may refuse it with any response.

use std::{future::Future, pin::Pin, sync::Arc};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};

use crate::upgrade::Refused;

/// What a guard may refuse with. Implement it for an error of your own.
///
/// | | body |
/// |---|---|
/// | `StatusCode` | its reason |
/// | `(StatusCode, &str)`, `(StatusCode, String)` | the text |
/// | `Response<String>`, or one in a box | its own |
///
/// A status of 1xx or 2xx refuses as well: nothing is accepted without a 101 of the layer's own.
pub trait IntoRefusal {
    /// The response that refuses.
    fn into_refusal(self) -> Response<String>;
}

impl IntoRefusal for StatusCode {
    fn into_refusal(self) -> Response<String> {
        (self, self.canonical_reason().unwrap_or_default()).into_refusal()
    }
}

impl IntoRefusal for (StatusCode, &str) {
    fn into_refusal(self) -> Response<String> {
        (self.0, self.1.to_owned()).into_refusal()
    }
}

impl IntoRefusal for (StatusCode, String) {
    fn into_refusal(self) -> Response<String> {
        let (status, text) = self;
        text_response(status, text)
    }
}

impl IntoRefusal for Response<String> {
    fn into_refusal(self) -> Response<String> {
        self
    }
}

impl<T: IntoRefusal> IntoRefusal for Box<T> {
    fn into_refusal(self) -> Response<String> {
        (*self).into_refusal()
    }
}

/// A response with a text for a person.
pub(crate) fn text_response(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A guard without its type.
#[derive(Clone)]
pub(crate) enum Guard {
    Async(Arc<dyn Fn(Request<()>) -> Guarded + Send + Sync>),
    Sync(Arc<SyncGuard>),
}

pub(crate) type SyncGuard = dyn Fn(&mut Request<()>) -> Result<(), Refused> + Send + Sync;

type Guarded = Pin<Box<dyn Future<Output = Result<Request<()>, Refused>> + Send>>;

impl Guard {
    pub(crate) fn new<G, E>(guard: G) -> Self
    where
        G: Fn(&mut Request<()>) -> Result<(), E> + Send + Sync + 'static,
        E: IntoRefusal,
    {
        Self::Sync(Arc::new(move |request| {
            guard(request).map_err(|refusal| Box::new(refusal.into_refusal()))
        }))
    }

    pub(crate) fn new_async<G, Fut, E>(guard: G) -> Self
    where
        G: Fn(Request<()>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Request<()>, E>> + Send + 'static,
        E: IntoRefusal,
    {
        Self::Async(Arc::new(move |request| {
            let guarded = guard(request);
            Box::pin(async {
                let refusal = |refusal: E| Box::new(refusal.into_refusal());
                guarded.await.map_err(refusal)
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_status_a_text_or_a_whole_response() {
        let status = StatusCode::UNAUTHORIZED;
        let mut own = Response::new("own".to_owned());
        *own.status_mut() = status;
        for (response, body) in [
            (status.into_refusal(), "Unauthorized"),
            ((status, "who?").into_refusal(), "who?"),
            ((status, "who?".to_owned()).into_refusal(), "who?"),
            (own.clone().into_refusal(), "own"),
            (Box::new(own).into_refusal(), "own"),
        ] {
            assert_eq!(response.status(), status);
            assert_eq!(response.body(), body);
        }
    }
}
