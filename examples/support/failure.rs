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
        f.write_str(&causes(&*self.0))
    }
}

/// An error and its causes, as one sentence. A cause that the sentence has already is left out.
pub fn causes(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
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

    #[test]
    fn a_cause_that_is_told_already_is_not_repeated() {
        let number = "x".parse::<u8>().unwrap_err();
        let printed = causes(&Same(number));
        assert_eq!(printed, "invalid digit found in string");
    }

    #[derive(Debug)]
    struct Same(std::num::ParseIntError);

    impl fmt::Display for Same {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Error for Same {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
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
