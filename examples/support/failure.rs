//! Why an example ended, written for the person in front of it.

use std::{error::Error, fmt};

/// Why an example ended: the error of its `main`.
///
/// Made from any error by `?`. The standard library prints the error of `main` with `Debug`, so
/// that is where the sentence goes, followed by its causes.
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// Makes a failure from a sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into().into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_prints_as_its_sentence() {
        let failure = Failure::new("cannot listen on nowhere");
        assert_eq!(format!("{failure:?}"), "cannot listen on nowhere");
    }

    #[test]
    fn a_failure_prints_its_causes() {
        let number = "x".parse::<u8>().unwrap_err();
        let failure = Failure::from(io::Error::other(Outer(number)));
        let printed = format!("{failure:?}");
        assert_eq!(printed, "outer: invalid digit found in string");
    }

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
}
