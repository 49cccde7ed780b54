#![doc = include_str!("glossary.md")]

const TABLE: &str = include_str!("glossary.md");

/// Every word and its meaning, in alphabetical order.
pub fn words() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = TABLE.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?, cells.next()?))
    })
}

/// A word, given in upper or lower case, and its meaning.
pub fn entry(word: &str) -> Option<(&'static str, &'static str)> {
    words().find(|(known, _)| known.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_meanings_and_are_sorted() {
        let all: Vec<_> = words().map(|(word, _)| word).collect();
        assert!(all.len() >= 15, "{all:?}");
        assert!(all.is_sorted_by_key(|word| word.to_lowercase()), "{all:?}");
        assert_eq!(entry("macs").unwrap().0, "MACs");
        assert!(words().all(|(_, meaning)| meaning.ends_with('.')));
        assert!(entry("hard negative").unwrap().1.contains("wrong class"));
        assert_eq!(entry("word"), None);
    }
}
