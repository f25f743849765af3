//! The pages of the showcase, and of the applications that have a program of their own. Everything
//! a page loads comes from here.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};

use crate::applications::board;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Page {
    /// `/`: what there is.
    Index,
    /// `/echo`.
    Echo,
    /// `/data`: a plot.
    Data,
    /// `/tick`: see [`Tick`](crate::applications::tick::Tick).
    Tick,
    /// `/chat`: see [`Chat`](crate::applications::chat::Chat).
    Chat,
    /// `/board`, which leads to a new `/board/{id}`: see [`Boards`](board::Boards).
    Board,
    /// `/sensors`: see [`Sensors`](crate::applications::sensors::Sensors).
    Sensors,
    /// `/lab`: many sockets at once, against any address.
    Lab,
}

impl Page {
    /// All pages, in the order of the navigation.
    pub const ALL: [Self; 8] = [
        Self::Index,
        Self::Echo,
        Self::Data,
        Self::Tick,
        Self::Chat,
        Self::Board,
        Self::Sensors,
        Self::Lab,
    ];

    /// Where it is.
    pub fn path(self) -> &'static str {
        self.parts().0
    }

    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Index => ("/", "", include_str!("../showcase/index.html")),
            Self::Echo => ("/echo", "Echo", include_str!("../showcase/echo.html")),
            Self::Data => ("/data", "Data", include_str!("../showcase/data.html")),
            Self::Tick => ("/tick", "Tick", include_str!("../showcase/tick.html")),
            Self::Chat => ("/chat", "Chat", include_str!("../showcase/chat.html")),
            Self::Board => ("/board", "Board", include_str!("../showcase/board.html")),
            Self::Sensors => (
                "/sensors",
                "Sensors",
                include_str!("../showcase/sensors.html"),
            ),
            Self::Lab => ("/lab", "Lab", include_str!("../showcase/lab.html")),
        }
    }

    /// The document, with the head that all of them share and links to `pages`.
    fn document(self, pages: &[Self]) -> Html<String> {
        let link = |page: &Self| {
            let (path, name, _) = page.parts();
            let current = if *page == self {
                r#" aria-current="page""#
            } else {
                ""
            };
            format!(r#"<a href="{path}"{current}>{name}</a>"#)
        };
        // The mark is the link to the index.
        let links: String = pages
            .iter()
            .filter(|it| **it != Self::Index)
            .map(link)
            .collect();
        let navigation = format!(r#"<nav aria-label="Pages">{links}</nav>"#);
        let head = include_str!("../showcase/head.html").replace("<!-- nav -->", &navigation);
        Html(self.parts().2.replace("<!-- head -->\n", &head))
    }
}

/// A router with these pages, and what they load. Without an index, `/` leads to the first of them.
pub fn site(pages: &[Page]) -> Router {
    let mut router = Router::new()
        .route(
            "/style.css",
            asset("text/css", include_str!("../showcase/style.css")),
        )
        .route(
            "/page.js",
            asset("text/javascript", include_str!("../showcase/page.js")),
        )
        .route(
            "/icon.svg",
            asset("image/svg+xml", include_str!("../showcase/icon.svg")),
        );
    if let Some(first) = pages.first().filter(|it| **it != Page::Index) {
        router = router.route("/", get(Redirect::temporary(first.path())));
    }
    for page in pages {
        let document = page.document(pages);
        router = match page {
            Page::Board => router
                .route("/board", get(new_board))
                .route("/board/{id}", get(async |id| board_page(id, document))),
            page => router.route(page.path(), get(document)),
        };
    }
    router.layer(axum::middleware::map_response(guarded))
}

/// A board of one's own: it begins when somebody comes, and not here.
async fn new_board() -> Redirect {
    Redirect::to(&format!("/board/{}", board::new_id()))
}

fn board_page(Path(id): Path<String>, document: Html<String>) -> Response {
    if board::is_valid_id(&id) {
        document.into_response()
    } else {
        let wrong = "the id of a board is 1 to 64 letters, digits, `-` and `_`\n";
        (StatusCode::NOT_FOUND, wrong).into_response()
    }
}

fn asset(kind: &'static str, content: &'static str) -> axum::routing::MethodRouter {
    get(([(header::CONTENT_TYPE, kind)], content))
}

/// Has the browser see to it that a page loads nothing from elsewhere and is not shown in a frame
/// of somebody else's. Sockets may go anywhere: `/echo` and `/lab` have an address to fill in.
async fn guarded(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_the_head_and_names_itself_in_it() {
        for page in Page::ALL {
            let Html(document) = page.document(&Page::ALL);
            assert!(!document.contains("<!-- "), "{page:?}");
            for other in Page::ALL {
                let link = format!(r#"href="{}""#, other.path());
                assert!(document.contains(&link), "{page:?} to {other:?}");
            }
            let current = document.matches("aria-current").count();
            assert_eq!(current, usize::from(page != Page::Index), "{page:?}");
        }
    }
}
