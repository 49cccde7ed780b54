//! Writing results to stdout.

use std::io::{ErrorKind, Write};

use crate::error::{Error, Result};

/// Prints text. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Result<()> {
    stream(text).map(drop)
}

/// Prints text and flushes it; returns `false` if the pipe is closed.
pub(super) fn stream(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Error::File {
            action: "write",
            path: "stdout".into(),
            source,
        }),
    }
}

/// The columns of the terminal that stdout is; as many as wanted where it is none.
pub(super) fn width() -> usize {
    let size = console::Term::stdout().size_checked();
    size.map_or(usize::MAX, |(_, columns)| columns.into())
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values can be written");
    print(&format!("{text}\n"))
}

/// A line of CSV (RFC 4180).
pub(super) fn csv_line<'a>(fields: impl IntoIterator<Item = &'a String>) -> String {
    let field = |field: &String| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    };
    let fields: Vec<String> = fields.into_iter().map(field).collect();
    fields.join(",") + "\n"
}
