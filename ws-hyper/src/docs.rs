//! Guides: pages to read, without code.
//!
//! | guide | for |
//! |---|---|
//! | [`deployment`] | servers behind nginx, `HAProxy` or Caddy |

pub mod deployment;
