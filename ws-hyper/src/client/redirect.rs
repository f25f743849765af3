//! Where a redirect leads (RFC 9110 §10.2.2, RFC 3986 §5).

use http::{
    Uri,
    header::LOCATION,
    uri::{PathAndQuery, Scheme},
};
use ws_tower::ws_core::handshake::client::Refusal;

use super::{
    address::Address,
    error::{RedirectError, RedirectErrorKind},
};

/// Whether a refusal is a redirect of a `GET`.
pub(super) fn is_redirect(refusal: &Refusal) -> bool {
    matches!(refusal.status().as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The address a refusal redirects to.
pub(super) fn follow(from: &Address, refusal: Refusal) -> Result<Address, RedirectError> {
    let address = match target(from.uri(), &refusal) {
        Some(uri) => Address::redirected(&uri).ok(),
        None => None,
    };
    let Some(address) = address else {
        return Err(RedirectError::new(RedirectErrorKind::Location, refusal));
    };
    if from.is_tls() && !address.is_tls() {
        let kind = RedirectErrorKind::Downgrade(address.uri().clone());
        return Err(RedirectError::new(kind, refusal));
    }
    Ok(address)
}

fn target(base: &Uri, refusal: &Refusal) -> Option<Uri> {
    let mut lines = refusal.headers().get_all(LOCATION).into_iter();
    let (Some(location), None) = (lines.next(), lines.next()) else {
        return None;
    };
    resolve(base, location.to_str().ok()?)
}

/// Resolves a reference against the URI of the request, which has a scheme and an authority.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.trim();
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    if has_scheme(reference) {
        return reference.parse().ok();
    }
    let path = if reference.is_empty() {
        base.path_and_query()
            .map_or("/", PathAndQuery::as_str)
            .to_owned()
    } else if reference.starts_with('/') {
        without_dots(reference)
    } else if reference.starts_with('?') {
        format!("{}{reference}", base.path())
    } else {
        let (folder, _) = base.path().rsplit_once('/').unwrap_or_default();
        without_dots(&format!("{folder}/{reference}"))
    };
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    parts.scheme = Some(scheme.parse::<Scheme>().ok()?);
    Uri::from_parts(parts).ok()
}

/// RFC 3986 §3.1: a letter, then letters, digits, `+`, `-` and `.`, up to a colon.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// RFC 3986 §5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut segments = Vec::new();
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if let Some(query) = query {
        clean.push('?');
        clean.push_str(query);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_by_the_rfc() {
        let base: Uri = "http://a.example:81/b/c/d;p?q".parse().unwrap();
        // RFC 3986 §5.4, with the base's port.
        let cases = [
            ("ws://h/x", "ws://h/x"),
            ("https://h", "https://h/"),
            ("//g/y", "http://g/y"),
            ("/g", "http://a.example:81/g"),
            ("/g/../h?x=../y", "http://a.example:81/h?x=../y"),
            ("g", "http://a.example:81/b/c/g"),
            ("./g", "http://a.example:81/b/c/g"),
            ("g/", "http://a.example:81/b/c/g/"),
            ("?y", "http://a.example:81/b/c/d;p?y"),
            ("g?y#s", "http://a.example:81/b/c/g?y"),
            ("", "http://a.example:81/b/c/d;p?q"),
            ("#s", "http://a.example:81/b/c/d;p?q"),
            (".", "http://a.example:81/b/c/"),
            ("..", "http://a.example:81/b/"),
            ("../g", "http://a.example:81/b/g"),
            ("../../../g", "http://a.example:81/g"),
            (" /g ", "http://a.example:81/g"),
            ("12:3", "http://a.example:81/b/c/12:3"),
        ];
        for (reference, expected) in cases {
            let found = resolve(&base, reference).unwrap();
            assert_eq!(found.to_string(), expected, "{reference}");
        }
    }

    #[test]
    fn what_is_no_reference_leads_nowhere() {
        let base: Uri = "http://a.example/".parse().unwrap();
        for reference in ["//", "http://", "/a b", "ws+unix:///run/a.sock", "mailto:x"] {
            let uri = resolve(&base, reference);
            let address = uri.and_then(|uri| Address::redirected(&uri).ok());
            assert!(address.is_none(), "{reference}");
        }
    }
}
