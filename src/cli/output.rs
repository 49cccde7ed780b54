//! Writing results to stdout.

use std::io::{ErrorKind, IsTerminal, Write};

use terminal_size::terminal_size_of;

use crate::error::{is_obeyed, printable, Error, Result};

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

/// Prints a value as indented JSON. Characters that a terminal would obey are escaped, as
/// JSON can do without a loss.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values can be written");
    print(&format!("{}\n", escaped_json(&text)))
}

fn escaped_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // Control characters outside of strings are the ends of lines.
        if c == '\n' || !is_obeyed(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped += &format!("\\u{unit:04x}");
        }
    }
    escaped
}

/// Prints CSV: names as they are for programs, and for a person's terminal with the
/// characters escaped that it would obey.
pub(super) fn print_csv(text: &str) -> Result<()> {
    match std::io::stdout().is_terminal() {
        true => print(&shown_csv(text)),
        false => print(text),
    }
}

fn shown_csv(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

/// A line of CSV (RFC 4180).
pub(super) fn csv_line<'a>(fields: impl IntoIterator<Item = &'a String>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|field| csv_field(field)).collect();
    fields.join(",") + "\n"
}

/// A field of CSV, in quotes where a reader could take it for something else.
fn csv_field(field: &str) -> String {
    let is_special = |c: char| c == ',' || c == '"' || is_obeyed(c);
    // Some readers drop the spaces around a field.
    let is_plain = field.trim().len() == field.len() && !field.contains(is_special);
    match is_plain {
        true => field.to_string(),
        false => format!("\"{}\"", field.replace('"', "\"\"")),
    }
}

/// The longest line, where the terminal is not narrower.
const WIDTH: usize = 100;

/// The columns of the terminal that stdout is, if it is one.
pub(super) fn columns() -> Option<usize> {
    let of_terminal = terminal_size_of(std::io::stdout());
    of_terminal.map(|(columns, _)| columns.0.into())
}

/// The length of the lines on stdout.
fn width() -> usize {
    columns().map_or(WIDTH, |columns| columns.clamp(40, WIDTH))
}

/// Rows in columns. Those that are too many for the width follow in further parts, each
/// of which begins with the first column.
pub(super) fn aligned(lines: &[Vec<String>], width: usize) -> String {
    let wide = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        2 + widths.max().unwrap_or(0)
    };
    let (mut parts, mut part, mut used) = (Vec::new(), vec![0], wide(0));
    for column in 1..lines[0].len() {
        if used + wide(column) > width && part.len() > 1 {
            parts.push(std::mem::replace(&mut part, vec![0]));
            used = wide(0);
        }
        used += wide(column);
        part.push(column);
    }
    parts.push(part);
    let mut text = String::new();
    for part in &parts {
        for line in lines {
            let cells = part
                .iter()
                .map(|&at| format!("  {:<1$}", line[at], wide(at) - 2));
            text += &format!("{}\n", cells.collect::<String>().trim_end());
        }
    }
    text
}

/// Wraps text into indented lines, as wide as the terminal.
pub(super) fn wrap(text: &str, indent: &str) -> String {
    wrapped(text, indent, width())
}

/// A name with its description, as a line of a list; further lines are indented.
pub(super) fn entry(name: &str, about: &str) -> String {
    entry_within(name, about, width())
}

fn entry_within(name: &str, about: &str, width: usize) -> String {
    let indent = " ".repeat(19);
    let lines = wrapped(about, &indent, width);
    let first = format!("  {name:<16} ");
    // A longer name moves its description to the next line.
    match first.len() > indent.len() {
        true => format!("{}\n{lines}", first.trim_end()),
        false => first + lines.trim_start(),
    }
}

fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = String::from(indent);
    for word in text.split_whitespace() {
        let length = line.chars().count() + word.chars().count();
        if length > width && !line.trim().is_empty() {
            lines += &format!("{}\n", line.trim_end());
            line = String::from(indent);
        }
        line += word;
        line.push(' ');
    }
    lines + &format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_field_of_csv() {
        let fields = [
            "plain",
            "a,b",
            "say \"hi\"",
            "two\nlines",
            "a\rb",
            " spaces ",
            "\u{1b}[31mred",
            "",
        ];
        let line = csv_line(&fields.map(String::from));
        let expected = "plain,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",\"a\rb\",\" spaces \",\
                        \"\u{1b}[31mred\",\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn an_entry_of_a_list_fits_the_terminal() {
        let about = "three layers of a thousand units, and a head that is trained on them";
        for (name, lines) in [("short", 4), ("a_name_of_twenty_two_", 5)] {
            let text = entry_within(name, about, 40);
            assert_eq!(text.lines().count(), lines, "{text}");
            assert!(text.lines().all(|line| line.len() <= 40), "{text}");
            let words: Vec<&str> = text.split_whitespace().skip(1).collect();
            assert_eq!(words.join(" "), about);
        }
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        let name = "a\u{1b}[2J\r\u{202e}\u{9b}1m\u{7f}\u{e0041}b";
        let line = csv_line(&[name.to_string()]);
        assert_eq!(
            shown_csv(&line),
            "\"a\\u{1b}[2J\\r\\u{202e}\\u{9b}1m\\u{7f}\\u{e0041}b\"\n"
        );
        let json = serde_json::to_string_pretty(&[name]).unwrap();
        let escaped = escaped_json(&json);
        assert!(
            !escaped.contains(|c| c != '\n' && is_obeyed(c)),
            "{escaped}"
        );
        let read: Vec<String> = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read, [name]);
    }

    #[test]
    fn a_table_that_is_too_wide_goes_on_below() {
        let lines = [["method", "rule", "test"], ["a", "contrast", "1.5%"]];
        let lines = lines.map(|line| line.map(String::from).to_vec());
        let wide = "  method  rule      test\n  a       contrast  1.5%\n";
        assert_eq!(aligned(&lines, 24), wide);
        let narrow = "  method  rule\n  a       contrast\n  method  test\n  a       1.5%\n";
        assert_eq!(aligned(&lines, 23), narrow);
        // A column that is wider than the terminal stands alone.
        assert_eq!(aligned(&lines, 3), narrow);
    }
}
