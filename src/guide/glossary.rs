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

/// The meaning of a word, in upper or lower case.
pub fn meaning(word: &str) -> Option<&'static str> {
    words()
        .find(|(known, _)| known.eq_ignore_ascii_case(word))
        .map(|(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_meanings_and_are_sorted() {
        let all: Vec<_> = words().map(|(word, _)| word).collect();
        assert!(all.len() >= 15, "{all:?}");
        assert!(all.is_sorted_by_key(|word| word.to_lowercase()), "{all:?}");
        assert_eq!(meaning("macs"), meaning("MACs"));
        assert!(words().all(|(_, meaning)| meaning.ends_with('.')));
        assert!(meaning("hard negative").unwrap().contains("wrong class"));
        assert_eq!(meaning("word"), None);
    }
}
