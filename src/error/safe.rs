//! Text that a terminal or a shell takes as it is meant.

/// Text from outside, such as the name of a file, with the characters escaped that a
/// terminal would obey: control characters, and those that turn the direction of a line.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| match is_obeyed(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Whether a terminal would obey a character instead of showing it.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Marks of direction, other ends of lines and characters without width.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A word of a command line, in quotes where the shell would change it.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_string();
    }
    if !word.chars().any(is_obeyed) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    // As bash, zsh and ksh read it, without a character that a terminal would obey.
    let escaped = |c: char| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if is_obeyed(c) => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.map(|byte| format!("\\x{byte:02x}")).collect()
        }
        c => c.to_string(),
    };
    format!("$'{}'", word.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_and_shown_safely() {
        assert_eq!(shell_word("idx:/a/b-1"), "idx:/a/b-1");
        assert_eq!(shell_word("a b;c"), "'a b;c'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("a\nb'\u{202e}"), r"$'a\x0ab\'\xe2\x80\xae'");
        assert_eq!(printable("a\u{1b}[2J\u{202e}ü"), "a\\u{1b}[2J\\u{202e}ü");
    }

    #[test]
    fn a_word_is_quoted_where_the_shell_would_change_it() {
        assert_eq!(shell_word("data=text:a/b-1.txt"), "data=text:a/b-1.txt");
        assert_eq!(shell_word("hidden=[100]"), "'hidden=[100]'");
        assert_eq!(shell_word("$HOME;ls"), "'$HOME;ls'");
        assert_eq!(shell_word("my runs/it's"), r"'my runs/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
