//! A command line of words and of `--flag VALUE` pairs: enough for an example, no dependency.

use std::{borrow::Cow, env, ffi::OsString, fmt, ops::RangeInclusive, process, str::FromStr};

use crate::Failure;

/// The command line. What is asked for is taken out; what is left at the end was a mistake.
///
/// ```
/// use ws_examples::Arguments;
///
/// # fn main() -> Result<(), ws_examples::Failure> {
/// let line = ["echo", "--threads", "2"].map(String::from);
/// let mut arguments = Arguments::new("PROGRAM [--threads N]", line);
/// let command = arguments.word();
/// let threads: Option<usize> = arguments.value("--threads")?;
/// arguments.finish()?;
/// assert_eq!((command.as_deref(), threads), (Some("echo"), Some(2)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Arguments {
    usage: &'static str,
    left: Vec<String>,
}

impl Arguments {
    /// The command line of this process. Prints the usage and ends the process where it asks for
    /// `--help`.
    ///
    /// # Errors
    ///
    /// Names an argument that is not UTF-8.
    pub fn from_env(usage: &'static str) -> Result<Self, Failure> {
        let line: Vec<String> = env::args_os()
            .skip(1)
            .map(OsString::into_string)
            .collect::<Result<_, _>>()
            .map_err(|argument| Failure::new(format!("{} is not UTF-8", argument.display())))?;
        if line
            .iter()
            .any(|argument| argument == "--help" || argument == "-h")
        {
            println!("usage: {usage}");
            process::exit(0);
        }
        Ok(Self::new(usage, line))
    }

    /// A command line of one's own, without the program's name.
    pub fn new(usage: &'static str, line: impl IntoIterator<Item = String>) -> Self {
        let left = line.into_iter().collect();
        Self { usage, left }
    }

    /// Takes the first argument, if it is no flag: a sub-command.
    pub fn word(&mut self) -> Option<String> {
        let is_word = self
            .left
            .first()
            .is_some_and(|first| !first.starts_with('-'));
        is_word.then(|| self.left.remove(0))
    }

    /// Takes `flag` and the value behind it; `None` where the flag is absent. The last one wins. A
    /// value that begins with `--` is written `--flag=VALUE`.
    ///
    /// # Errors
    ///
    /// Names the flag when its value is missing or cannot be read.
    pub fn value<T>(&mut self, flag: &str) -> Result<Option<T>, Failure>
    where
        T: FromStr<Err: fmt::Display>,
    {
        Ok(self.values(flag)?.pop())
    }

    /// Takes `flag` and the value behind it, as often as they are there.
    ///
    /// # Errors
    ///
    /// Names the flag when a value is missing or cannot be read.
    pub fn values<T>(&mut self, flag: &str) -> Result<Vec<T>, Failure>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let mut found = Vec::new();
        let joined = format!("{flag}=");
        while let Some(place) = self
            .left
            .iter()
            .position(|argument| argument == flag || argument.starts_with(&joined))
        {
            let argument = self.left.remove(place);
            let value = match argument.strip_prefix(&joined) {
                Some(value) => Some(value.to_owned()),
                None => self
                    .left
                    .get(place)
                    .is_some_and(|value| !value.starts_with("--"))
                    .then(|| self.left.remove(place)),
            };
            let Some(value) = value else {
                return Err(Failure::new(format!(
                    "{flag} needs a value\nusage: {}",
                    self.usage
                )));
            };
            let parsed = value.parse().map_err(|error| {
                Failure::new(format!("{flag} does not take `{}`: {error}", shown(&value)))
            })?;
            found.push(parsed);
        }
        Ok(found)
    }

    /// Takes `flag` and the number behind it, which has to be within the range.
    ///
    /// # Errors
    ///
    /// Names the flag when the number is missing, cannot be read, or is too small or too large.
    pub fn number(
        &mut self,
        flag: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, Failure> {
        let number = self.value(flag)?;
        match number.filter(|it| !range.contains(it)) {
            None => Ok(number),
            Some(wrong) => {
                let (least, most) = range.into_inner();
                let sentence = format!("{flag} is from {least} to {most}, not {wrong}");
                Err(Failure::new(sentence))
            }
        }
    }

    /// Takes `flag`, which has no value; says whether it was there.
    pub fn flag(&mut self, flag: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|argument| argument != flag);
        self.left.len() < before
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// Names the first argument that nothing has asked for, and gives the usage.
    pub fn finish(self) -> Result<(), Failure> {
        match self.left.first() {
            None => Ok(()),
            Some(unknown) => Err(Failure::new(format!(
                "unknown argument `{}`\nusage: {}",
                shown(unknown),
                self.usage
            ))),
        }
    }
}

/// As many threads as a runtime is asked for: each is one of the system's, with a stack of its own.
pub const MAX_THREADS: usize = 1024;

/// An argument as it may be repeated: of a URL with a user and a password only what is behind them.
fn shown(argument: &str) -> Cow<'_, str> {
    match (argument.split_once("://"), argument.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}").into(),
        _ => argument.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_and_its_value_are_taken() {
        let mut arguments = line("--listen 127.0.0.1:0 --threads=2");
        assert_eq!(arguments.value("--threads").unwrap(), Some(2));
        assert_eq!(
            arguments.value::<String>("--listen").unwrap().unwrap(),
            "127.0.0.1:0"
        );
        assert_eq!(arguments.value::<u8>("--absent").unwrap(), None);
        arguments.finish().unwrap();
    }

    #[test]
    fn a_flag_may_be_repeated() {
        let mut arguments = line("--number 1 --other x --number=2");
        assert_eq!(arguments.values::<u8>("--number").unwrap(), [1, 2]);
        assert!(arguments.values::<u8>("--number").unwrap().is_empty());
    }

    #[test]
    fn a_value_may_look_like_a_flag_behind_an_equals_sign() {
        let mut arguments = line("--header=--x --header --flag=--v=1");
        let failure = arguments.values::<String>("--header").unwrap_err();
        assert!(format!("{failure:?}").contains("--header needs a value"));
        assert_eq!(arguments.values::<String>("--flag").unwrap(), ["--v=1"]);
        let mut arguments = line("--header=--x: y=z --flag");
        arguments.left[0] = "--header=--x: y=z".into();
        assert_eq!(
            arguments.value::<String>("--header").unwrap().unwrap(),
            "--x: y=z"
        );
    }

    #[test]
    fn the_last_of_equal_flags_wins() {
        let mut arguments = line("--threads 1 --threads 2");
        assert_eq!(arguments.value("--threads").unwrap(), Some(2));
        arguments.finish().unwrap();
    }

    #[test]
    fn a_flag_without_a_value_is_taken_wherever_it_stands() {
        let mut arguments = line("echo --tls --threads 2 --tls");
        assert!(arguments.flag("--tls"));
        assert!(!arguments.flag("--tls"));
        assert_eq!(arguments.word().as_deref(), Some("echo"));
        assert_eq!(arguments.value("--threads").unwrap(), Some(2));
        arguments.finish().unwrap();
    }

    #[test]
    fn a_word_is_no_flag() {
        assert_eq!(line("echo --threads 1").word().as_deref(), Some("echo"));
        assert_eq!(line("--threads 1").word(), None);
        assert_eq!(line("").word(), None);
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let failure = line("--lisen 127.0.0.1:0").finish().unwrap_err();
        assert_eq!(
            format!("{failure:?}"),
            "unknown argument `--lisen`\nusage: test"
        );
    }

    #[test]
    fn a_flag_without_a_value_is_named() {
        for text in ["--threads", "--threads --listen x"] {
            let failure = line(text).value::<u8>("--threads").unwrap_err();
            assert_eq!(
                format!("{failure:?}"),
                "--threads needs a value\nusage: test"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named() {
        let failure = line("--threads many").value::<u8>("--threads").unwrap_err();
        let printed = format!("{failure:?}");
        assert_eq!(
            printed,
            "--threads does not take `many`: invalid digit found in string"
        );
    }

    #[test]
    fn a_number_out_of_range_is_named_with_the_range() {
        let number = |text: &str| line(text).number("--threads", 1..=MAX_THREADS);
        assert_eq!(number("--threads 1024").unwrap(), Some(1024));
        assert_eq!(number("--other 0").unwrap(), None);
        for wrong in ["0", "1025", "18446744073709551615"] {
            let failure = number(&format!("--threads {wrong}")).unwrap_err();
            let expected = format!("--threads is from 1 to 1024, not {wrong}");
            assert_eq!(format!("{failure:?}"), expected);
        }
    }

    #[test]
    fn the_password_of_a_url_is_not_repeated() {
        let url = "redis://ann:secret@10.0.0.7";
        let unknown = line(url).finish().unwrap_err();
        let wrong = line(&format!("--threads {url}")).value::<u8>("--threads");
        for failure in [unknown, wrong.unwrap_err()] {
            let printed = format!("{failure:?}");
            assert!(printed.contains("`redis://…@10.0.0.7`"), "{printed}");
            assert!(!printed.contains("secret"), "{printed}");
        }
    }

    fn line(text: &str) -> Arguments {
        Arguments::new("test", text.split_whitespace().map(String::from))
    }
}
