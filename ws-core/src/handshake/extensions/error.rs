//! Why two ends do not agree on extensions: what a server misses in the offers, and what a client
//! finds wrong with the answer.

use std::{error::Error, fmt};

/// A server requires an extension, and the client offers none that it can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionRequired(pub(super) &'static str);

impl ExtensionRequired {
    /// The name of the extension.
    pub fn name(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ExtensionRequired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the extension {} is required, and no offer of it can be met",
            self.0
        )
    }
}

impl Error for ExtensionRequired {}

/// A server's answer is none to what the client offered. What the server said is kept short.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// An extension that was not offered.
    NotOffered(String),
    /// The same extension twice.
    Repeated(String),
    /// One of the extension's parameters.
    Parameter {
        /// The extension as it was answered, with its parameters.
        extension: String,
        /// The name of the parameter.
        parameter: String,
        /// What is wrong with it.
        problem: ParameterProblem,
    },
    /// The client requires this extension, and the server has not agreed to it.
    Required(&'static str),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered(extension) => {
                write!(f, "the extension `{extension}` was not offered")
            }
            Self::Repeated(extension) => {
                write!(f, "the extension `{extension}` was accepted before")
            }
            Self::Parameter {
                extension,
                parameter,
                problem,
            } => write!(
                f,
                "the parameter `{parameter}` of the extension `{extension}` {problem}"
            ),
            Self::Required(name) => {
                write!(
                    f,
                    "the extension {name} is required, and it has not agreed to it"
                )
            }
        }
    }
}

impl Error for AnswerError {}

/// What is wrong with a parameter of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterProblem {
    /// The extension has no such parameter.
    Unknown,
    /// It is there more than once.
    Repeated,
    /// Its value is malformed or out of range, or it has one where it must not, or none where
    /// it must.
    Value,
    /// It may be answered only if it was offered, and it was not.
    NotOffered,
    /// It was offered, and an acceptance has to repeat it.
    Missing,
    /// Its value is more than was offered.
    TooLarge,
}

impl fmt::Display for ParameterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is unknown",
            Self::Repeated => "is repeated",
            Self::Value => "has a wrong value",
            Self::NotOffered => "was not offered",
            Self::Missing => "was asked for and is missing",
            Self::TooLarge => "is larger than what was asked for",
        })
    }
}
