//! Files of several that failed, while the others went well.

use crate::error::{notify, Error, Located, Result};

/// What failed; each is said once, the last one at the end.
#[derive(Default)]
pub(super) struct Failures {
    last: Option<Error>,
    /// How many have failed.
    pub count: usize,
}

impl Failures {
    /// Adds one, and prints the one before.
    pub fn add(&mut self, error: Error) {
        self.count += 1;
        if let Some(before) = self.last.replace(error) {
            say(&before);
        }
    }

    /// The error of a command that was given `all` files, such as `images`.
    ///
    /// # Errors
    /// The last of those that failed, if any has.
    pub fn finish(mut self, all: usize, files: &str) -> Result<()> {
        let count = self.count;
        match self.last.take() {
            None => Ok(()),
            Some(error) if all == 1 => Err(error),
            Some(error) => Err(error).at(|| match count {
                1 => format!("1 of {all} {files} could not be read"),
                _ => format!("{count} of {all} {files} could not be read; the last"),
            }),
        }
    }
}

impl Drop for Failures {
    /// Where another error ends the command, the last failure is printed first.
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            say(&last);
        }
    }
}

fn say(error: &Error) {
    notify(format_args!("error: {error}"));
}
