//! Behind a proxy.
