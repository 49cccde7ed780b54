//! The Markdown table of `onward report`.

use std::path::{Path, PathBuf};

use super::command_line::{configuration, shortest};
use super::report::{Measure, Row, Unit};
use crate::disk;
use crate::error::{notify, printable, Error, Result};

/// The shortest command that gives the configuration in a file, except for settings that
/// change only the log.
///
/// # Errors
/// As [`Config::resolve`](crate::plugin::config::Config::resolve); [`Error::Run`] if the
/// file names no architecture.
pub fn command(config: &Path) -> Result<String> {
    shortest(&configuration(config)?, config)
}

/// The lines before and after the table in a file.
const MARKS: [&str; 2] = [
    "<!-- onward report: begin -->",
    "<!-- onward report: end -->",
];

/// A Markdown table of the runs in these folders, with links relative to `base`.
///
/// A row has the run, its data, the class of its rule, epochs and seed, the validation
/// result of the readout that it chose, the test result of that readout and of the
/// others, and [`command`]. Results are errors in per cent or, for text, bits per
/// character, with those of the n-gram baselines. Runs that differ only in their seed
/// share a row: the mean and the standard deviation of their results, the results, then
/// the mean of every other readout. Rows are sorted by data and by validation result. A
/// run without a result, or with one that does not belong to its configuration, has a row
/// that says so.
pub fn table(runs: &[PathBuf], base: &Path) -> String {
    of(&Row::all(runs, base))
}

/// The table of these rows.
pub(super) fn of(rows: &[Row]) -> String {
    let mut table = String::from(
        "| run | data | rule | epochs | seed | validation | test | the command |\n|-|-|-|-|-|-|-|-|\n",
    );
    let (finished, broken): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.problem.is_none());
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in finished {
        let group = groups.iter_mut().find(|group| {
            group[0].without_seed() == row.without_seed() && group[0].changes == row.changes
        });
        let Some(group) = group else {
            groups.push(vec![row]);
            continue;
        };
        let mut known = group.iter().filter(|known| known.seed == row.seed);
        match known.next().filter(|_| row.seed.is_some()) {
            Some(known) => notify(format_args!(
                "note: {} is left out: {} has its settings and its seed",
                printable(&row.run),
                printable(&known.run)
            )),
            None => group.push(row),
        }
    }
    let validation = |group: &[&Row]| statistics(group.iter().map(|row| row.validation));
    groups.sort_by(|a, b| {
        let value = |group| validation(group).map_or(f64::INFINITY, |(mean, _)| mean.value);
        let by_data = a[0].data.cmp(&b[0].data);
        by_data.then(value(a).total_cmp(&value(b)))
    });
    table.extend(groups.iter().map(|group| line(group)));
    for row in broken {
        let problem = row.problem.as_deref().unwrap_or_default();
        let (name, problem) = (escaped(&row.run), escaped(problem));
        table += &format!("| {name} | – | – | – | – | – | no result: {problem} | – |\n");
    }
    table
}

/// The smallest and the largest of some numbers, as `3–5`.
pub(super) fn range(numbers: impl Iterator<Item = u64> + Clone) -> Option<String> {
    let (least, most) = (numbers.clone().min()?, numbers.max()?);
    Some(match least == most {
        true => least.to_string(),
        false => format!("{least}–{most}"),
    })
}

/// The row of runs that differ only in their seed.
fn line(alike: &[&Row]) -> String {
    let first = alike[0];
    let joined = |words: &dyn Fn(&Row) -> String| {
        let words: Vec<String> = alike.iter().map(|row| words(row)).collect();
        words.join(", ")
    };
    let number = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
    let names = joined(&|row| format!("[{}]({})", escaped(&row.run), target(&row.link)));
    let seeds = joined(&|row| number(row.seed));
    let validation = statistics(alike.iter().map(|row| row.validation));
    let test = statistics(alike.iter().map(|row| row.test));
    let shared = alike.iter().all(|row| row.readout == first.readout);
    let mut of = Vec::new();
    if shared {
        of.push(first.readout.clone());
    }
    if alike.len() > 1 {
        of.push(joined(&|row| {
            row.test.map_or("?".into(), |test| test.to_string())
        }));
    }
    let others = first
        .scores
        .iter()
        .filter(|(name, _)| !shared || *name != first.readout);
    // There is no mean for a readout that one of the runs lacks.
    let others = others.filter_map(|(name, _)| {
        let (mean, _) = statistics(alike.iter().map(|row| row.score(name)))?;
        Some(format!(", {mean} ({name})"))
    });
    let changes = match &first.changes[..] {
        [] => String::new(),
        changes => format!("; changed on the way: {}", escaped(&changes.join("; "))),
    };
    format!(
        "| {names} | {} | {} | {} | {seeds} | {} | {} ({}){} | {}{changes} |\n",
        escaped(&first.data),
        escaped(&first.rule_in_words()),
        range(alike.iter().filter_map(|row| row.epochs)).unwrap_or("?".into()),
        shown(validation),
        shown(test),
        of.join("; "),
        others.collect::<String>(),
        code(&first.command)
    )
}

/// The mean, and for several values the sample standard deviation; `None` if one is
/// missing.
pub(super) fn statistics(
    measures: impl ExactSizeIterator<Item = Option<Measure>>,
) -> Option<(Measure, Option<Measure>)> {
    let measures = measures.collect::<Option<Vec<_>>>()?;
    let (first, count) = (*measures.first()?, measures.len() as f64);
    let of = |value| Measure { value, ..first };
    let mean = measures.iter().map(|measure| measure.value).sum::<f64>() / count;
    let squares = measures
        .iter()
        .map(|measure| (measure.value - mean) * (measure.value - mean));
    let deviation = (squares.sum::<f64>() / (count - 1.).max(1.)).sqrt();
    Some((of(mean), (count > 1.).then_some(of(deviation))))
}

pub(super) fn shown(statistics: Option<(Measure, Option<Measure>)>) -> String {
    match statistics {
        None => "–".into(),
        Some((mean, None)) => mean.to_string(),
        Some((mean, Some(deviation))) => match deviation.unit {
            Unit::Error => format!("{mean} ± {deviation}"),
            Unit::BitsPerChar => format!("{mean} ± {:.3}", deviation.value),
        },
    }
}

/// Text in a cell of a table: nothing in it is a mark of Markdown or HTML.
pub(super) fn escaped(text: &str) -> String {
    let escaped = |c: char| match c {
        '\\' | '|' | '`' | '*' | '[' | ']' => format!("\\{c}"),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        c => c.to_string(),
    };
    printable(text).chars().map(escaped).collect()
}

/// Code in a cell of a table.
pub(super) fn code(text: &str) -> String {
    let text = printable(text).replace('|', r"\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

/// The target of a link.
fn target(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.bytes().map(escaped).collect()
}

/// Replaces the table between the two marker lines of a file.
///
/// # Errors
/// [`Error::File`]; [`Error::Data`] if the marker lines are missing.
pub fn write(path: &Path, table: &str) -> Result<()> {
    let text = disk::read_text(path)?;
    let [begin, end] = MARKS;
    let parts = text
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or_else(|| {
        Error::data(
            path,
            format!("expected two lines around the table: {begin} and {end}"),
        )
    })?;
    disk::rewrite(
        path,
        format!("{before}{begin}\n{table}{end}{after}").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_that_differ_are_a_range() {
        assert_eq!(range([3, 5, 4].into_iter()).unwrap(), "3–5");
        assert_eq!(range([3, 3].into_iter()).unwrap(), "3");
        assert_eq!(range([].into_iter()), None);
    }

    #[test]
    fn names_are_no_marks_in_a_table() {
        assert_eq!(escaped("a|b <i>*"), r"a\|b &lt;i&gt;\*");
        assert_eq!(escaped("a\nb\u{1b}[31m"), r"a\\nb\\u{1b}\[31m");
        assert_eq!(code("a|b"), r"`a\|b`");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(target("runs/a b(c).json"), "runs/a%20b%28c%29.json");
    }
}
