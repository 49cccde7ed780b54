//! The documentation of a plugin, as a terminal shows it.

/// The documentation comment of a plugin, in Markdown, as indented text: tables have
/// columns, links are their words, titles end with a colon.
pub(super) fn plain(doc: &str) -> String {
    let mut text = String::new();
    let mut table: Vec<Vec<String>> = Vec::new();
    for line in doc.lines() {
        // What a comment has between `///` and its text.
        let line = without_links(line.strip_prefix(' ').unwrap_or(line));
        if let Some(row) = line.strip_prefix('|') {
            let cells = row.trim_end().trim_end_matches('|').split('|');
            table.push(cells.map(|cell| cell.trim().into()).collect());
            continue;
        }
        text += &columns(&std::mem::take(&mut table));
        let line = match line.strip_prefix("# ") {
            Some(title) => format!("{title}:"),
            None => line,
        };
        text += match line.trim_end() {
            "" => "\n".into(),
            line if line.starts_with("```") => String::new(),
            line => format!("  {line}\n"),
        }
        .as_str();
    }
    text + &columns(&table)
}

/// A table in aligned columns, without the line below its head.
fn columns(table: &[Vec<String>]) -> String {
    let is_rule = |row: &[String]| row.iter().all(|cell| cell.starts_with('-'));
    let rows: Vec<_> = table.iter().filter(|row| !is_rule(row)).collect();
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &&Vec<String>| {
        let cells = row.iter().enumerate();
        let cells: String = cells
            .map(|(column, cell)| format!("{cell:<width$}  ", width = width_of(column)))
            .collect();
        format!("  {}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

/// Links, `[words](place)`, as their words.
fn without_links(line: &str) -> String {
    let Some((before, rest)) = line.split_once('[') else {
        return line.into();
    };
    let link = rest.split_once("](").and_then(|(words, rest)| {
        let (_, after) = rest.split_once(')')?;
        (!words.contains(['[', ']'])).then_some((words, after))
    });
    match link {
        Some((words, after)) => format!("{before}{words}{}", without_links(after)),
        None => format!("{before}[{}", without_links(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_text() {
        let doc = " The sum of `a[b, i]`, see [`Stack`](crate::x) and [the guide](y).\n\n \
                   | tensor | shape |\n |---|---|\n | activity | `(B, …)` |\n\n # Reference\n \
                   Hinton, 2022.";
        let expected = "  The sum of `a[b, i]`, see `Stack` and the guide.\n\n  tensor    \
                        shape\n  activity  `(B, …)`\n\n  Reference:\n  Hinton, 2022.\n";
        assert_eq!(plain(doc), expected);
        assert_eq!(plain(""), "");
    }
}
