//! Markdown, as a terminal shows it.

/// The documentation comment of a plugin as indented text: tables have columns, links are
/// their words, titles end with a colon.
pub(super) fn plain(doc: &str) -> String {
    // What a comment has between `///` and its text.
    let lines = doc.lines();
    rendered(
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)),
        "  ",
    )
}

/// A guide as text.
pub(super) fn page(text: &str) -> String {
    rendered(text.lines(), "")
}

fn rendered<'a>(lines: impl Iterator<Item = &'a str>, indent: &str) -> String {
    let mut text = String::new();
    let mut table: Vec<Vec<String>> = Vec::new();
    let mut code: Option<&str> = None;
    for line in lines {
        if let Some(language) = line.strip_prefix("```") {
            code = code.is_none().then_some(language);
            continue;
        }
        if let Some(language) = code {
            // The lines of an example that only its test needs.
            let is_hidden = language != "sh" && (line == "#" || line.starts_with("# "));
            if !is_hidden {
                text += format!("{indent}  {line}").trim_end();
                text += "\n";
            }
            continue;
        }
        let line = without_links(line);
        if let Some(row) = line.strip_prefix('|') {
            let cells = row.trim_end().trim_end_matches('|').split('|');
            table.push(cells.map(|cell| cell.trim().into()).collect());
            continue;
        }
        text += &columns(&std::mem::take(&mut table), indent);
        let line = match line.strip_prefix("# ") {
            Some(title) => format!("{title}:"),
            None => line,
        };
        text += match line.trim_end() {
            "" => "\n".into(),
            line => format!("{indent}{line}\n"),
        }
        .as_str();
    }
    text + &columns(&table, indent)
}

/// A table in aligned columns, without the line below its head.
fn columns(table: &[Vec<String>], indent: &str) -> String {
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
        format!("{indent}{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

/// Links, `[words](place)` and ``[`Word`]``, as their words.
fn without_links(line: &str) -> String {
    let Some((before, rest)) = line.split_once('[') else {
        return line.into();
    };
    let link = rest.split_once("](").and_then(|(words, rest)| {
        let (_, after) = rest.split_once(')')?;
        (!words.contains(['[', ']'])).then_some((words, after))
    });
    let of_code = || {
        let (words, after) = rest.split_once("`]")?;
        let is_code = words.starts_with('`') && !words[1..].contains('`');
        is_code.then(|| (&rest[..=words.len()], after))
    };
    match link.or_else(of_code) {
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

    #[test]
    fn a_guide_has_its_code_without_the_lines_of_its_test() {
        let text = "A [`Run`] does it:\n\n```rust\nlet a = [1];\n# hidden();\n```\n\n# More\n";
        let expected = "A `Run` does it:\n\n  let a = [1];\n\nMore:\n";
        assert_eq!(page(text), expected);
        assert_eq!(page("```sh\n# said\n```\n"), "  # said\n");
    }
}
