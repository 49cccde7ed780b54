//! The result of a run or an evaluation, for people.

use std::path::Path;

use super::report::on_device;
use crate::data::score::Score;
use crate::data::Content;
use crate::error::{printable, shell_word};
use crate::run::summary::{Evaluation, Summary};
use crate::run::Run;

/// The scores of a finished run, its folder, and the command to try next: at most ten
/// lines. `done` epochs were complete before this process.
pub(super) fn of_run(summary: &Summary, run: &Run, done: usize) -> String {
    let mut columns = vec![("test", &summary.test)];
    columns.extend(summary.validation.iter().map(|found| ("validation", found)));
    let mut text = table(&columns);
    let last = match (done, summary.epochs.saturating_sub(done)) {
        (0, _) => String::new(),
        (_, 0) => ", complete before, evaluated".to_string(),
        (_, trained) => format!(", the last {trained}"),
    };
    text += &format!(
        "{}{last} in {}, {} parameters\n",
        count(summary.epochs, "epoch"),
        duration(summary.seconds),
        thousands(summary.parameters),
    );
    if let Some(folder) = run.folder() {
        text += &format!("run:  {}\n", printable(&folder.display().to_string()));
        text += &format!("next: {}\n", next_command(run, folder));
    }
    text
}

/// How far a run has come that was asked to stop, and the command that continues it.
pub(super) fn of_part(run: &Run) -> String {
    let mut text = format!(
        "{} of {} are complete\n",
        run.epoch(),
        count(run.epochs(), "epoch")
    );
    if let Some(folder) = run.folder() {
        let folder = folder.display().to_string();
        text += &format!("run:  {}\n", printable(&folder));
        let device = on_device(&run.device());
        text += &format!("next: onward resume {}{device}\n", shell_word(&folder));
    }
    text
}

/// The scores of one evaluation.
pub(super) fn of_evaluation(part: &str, evaluation: &Evaluation) -> String {
    let rows = table(&[(part, evaluation)]);
    format!("{rows}{}\n", count(evaluation.examples, "example"))
}

/// The error of a probe on each layer.
pub(super) fn of_layers(part: &str, scores: &[(String, Score)]) -> String {
    let width = scores
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let width = width.max("layer".len()) + 3;
    let mut text = format!("{:<width$}{part} error of a probe\n", "layer");
    for (name, score) in scores {
        text += &format!("{name:<width$}{}\n", percent(score.error));
    }
    text
}

/// A row for every readout and baseline, the preferred readout first.
fn table(columns: &[(&str, &Evaluation)]) -> String {
    let first = columns[0].1;
    let is_other = |name: &&String| **name != first.readout;
    let others = first.readouts.keys().filter(is_other);
    let names = [&first.readout].into_iter().chain(others);
    let has_bits = first.readouts.values().any(|score| score.bits.is_some());
    let mut rows = vec![(String::new(), Vec::new())];
    for (part, _) in columns {
        let unit = if has_bits { "" } else { " error" };
        rows[0].1.push(format!("{part}{unit}"));
    }
    for name in names.chain(first.baselines.keys()) {
        let score = |evaluation: &Evaluation| {
            let found = evaluation.readouts.get(name);
            Some(cell(found.or_else(|| evaluation.baselines.get(name))?))
        };
        let cells = columns.iter().map(|(_, evaluation)| score(evaluation));
        rows.push((name.clone(), cells.map(Option::unwrap_or_default).collect()));
    }
    let length = |text: &String| text.chars().count();
    let name_width = rows.iter().map(|(name, _)| length(name)).max();
    let all_cells = rows.iter().flat_map(|(_, cells)| cells);
    let cell_width = all_cells.map(length).max().unwrap_or(0) + 3;
    let name_width = name_width.unwrap_or(0) + 3;
    let line = |(name, cells): &(String, Vec<String>)| {
        let cells = cells.iter().map(|cell| format!("{cell:<cell_width$}"));
        let line = format!("{name:<name_width$}{}", cells.collect::<String>());
        line.trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

fn cell(score: &Score) -> String {
    let error = percent(score.error);
    match score.bits {
        Some(bits) => format!("{:.3} bits/char, error {error}", bits.bits_per_char),
        None => error,
    }
}

/// A fraction as a percentage, `1.25%`.
fn percent(fraction: f64) -> String {
    format!("{:.2}%", 100. * fraction)
}

fn next_command(run: &Run, folder: &Path) -> String {
    let folder = shell_word(&folder.display().to_string());
    match run.data().spec.content {
        Content::Text => format!("onward generate {folder} --prompt \"The \""),
        Content::Picture(_) => format!("onward predict {folder} IMAGE.png"),
    }
}

/// `23.1 s`, `12 min 5 s`, `3 h 20 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// A whole number in groups of three digits, `1,801,234`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::score::Bits;

    fn evaluation(readouts: &[(&str, usize, Option<f64>)], preferred: &str) -> Evaluation {
        let score = |wrong, nats: Option<f64>| {
            Score::new(wrong, 800, nats.map(|nats| Bits::new(nats, 800, 1000)))
        };
        let scores = readouts
            .iter()
            .map(|(name, wrong, nats)| (name.to_string(), score(*wrong, *nats)));
        Evaluation {
            readout: preferred.into(),
            error: 0.,
            accuracy: 1.,
            bits: None,
            examples: 800,
            readouts: scores.collect(),
            baselines: BTreeMap::new(),
        }
    }

    #[test]
    fn the_preferred_readout_is_the_first_row() {
        let test = evaluation(&[("head", 16, None), ("search", 10, None)], "search");
        let validation = evaluation(&[("head", 20, None), ("search", 12, None)], "search");
        let columns = [("test", &test), ("validation", &validation)];
        let expected = "         test error         validation error\n\
                        search   1.25%              1.50%\n\
                        head     2.00%              2.50%\n";
        assert_eq!(table(&columns), expected);
    }

    #[test]
    fn a_text_has_bits_and_baselines() {
        let mut test = evaluation(&[("head", 400, Some(1386.294))], "head");
        let baseline = Score::new(480, 800, Some(Bits::new(1386.294 * 2., 800, 1000)));
        test.baselines.insert("kneser_ney_6".into(), baseline);
        let expected = "               test\n\
                        head           2.000 bits/char, error 50.00%\n\
                        kneser_ney_6   4.000 bits/char, error 60.00%\n\
                        800 examples\n";
        assert_eq!(of_evaluation("test", &test), expected);
    }

    #[test]
    fn durations_and_numbers_are_readable() {
        assert_eq!(
            [23.14, 725., 12_000.].map(duration),
            ["23.1 s", "12 min 5 s", "3 h 20 min"]
        );
        assert_eq!(
            [7, 1234, 1_801_234].map(thousands),
            ["7", "1,234", "1,801,234"]
        );
    }
}
