//! A table of runs, with the command that repeats each.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::plugin::config::{Config, Source, NO_PRESET};
use crate::plugin::registry::{self, Kind};
use crate::run::folder::{self, CONFIG, SUMMARY};

/// What changes nothing but when something is written.
const SILENT: [&str; 2] = ["evaluate_every", "checkpoint_every"];
/// Between these lines of a file a table is replaced.
const MARKS: [&str; 2] = [
    "<!-- onward report: begin -->",
    "<!-- onward report: end -->",
];

/// A Markdown table of the runs in these folders, linked to from a file in `base`.
///
/// A row has the run, its data, epochs and seed, the test part's result by the readout that it is of, then by the others
/// (errors in per cent; of text bits per character, and what counting comes to), and [`command`]. Runs that differ in
/// their seed alone share a row: the mean of their results, the results, then the mean by every readout.
///
/// # Errors
/// [`Error::File`] and [`Error::Run`] for folders without the configuration and summary of a finished run.
pub fn table(runs: &[PathBuf], base: &Path) -> Result<String> {
    let mut table =
        String::from("| run | data | epochs | seed | test | the command |\n|-|-|-|-|-|-|\n");
    let rows = runs
        .iter()
        .map(|run| Row::read(run, base))
        .collect::<Result<Vec<_>>>()?;
    // One after the other as they were named, but for those that belong together.
    let mut left: Vec<&Row> = rows.iter().collect();
    while let Some(first) = left.first().copied() {
        let (alike, others): (Vec<&Row>, Vec<&Row>) = left
            .into_iter()
            .partition(|row| row.without_seed() == first.without_seed());
        left = others;
        table += &line(first, &alike);
    }
    Ok(table)
}

/// The line of runs that are alike, of which `first` is one.
fn line(first: &Row, alike: &[&Row]) -> String {
    let joined = |words: &dyn Fn(&Row) -> String| {
        alike
            .iter()
            .map(|row| words(row))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let names = joined(&|row| format!("[{}]({})", row.name, row.link));
    let seeds = joined(&|row| row.seed.clone());
    let is_alone = alike.len() == 1;
    let result = mean(alike.iter().map(|row| row.result));
    let preferred = alike
        .iter()
        .all(|row| row.preferred == first.preferred)
        .then_some(&first.preferred);
    let results = (!is_alone).then(|| format!("mean of {}", joined(&|row| row.result.to_string())));
    let of = preferred
        .cloned()
        .into_iter()
        .chain(results)
        .collect::<Vec<_>>()
        .join("; ");
    // By a readout that one of them lacks there is no mean.
    let of_all = |name: &str| {
        alike
            .iter()
            .map(|row| row.score(name))
            .collect::<Option<Vec<_>>>()
    };
    let others = first
        .scores
        .iter()
        .filter(|(name, _)| preferred != Some(name));
    let others = others
        .filter_map(|(name, _)| Some(format!(", {} ({name})", mean(of_all(name)?.into_iter()))));
    let (others, command) = (others.collect::<String>(), &first.command);
    let Row { data, epochs, .. } = first;
    format!("| {names} | {data} | {epochs} | {seeds} | {result} ({of}){others} | `{command}` |\n")
}

fn mean(measures: impl ExactSizeIterator<Item = Measure> + Clone) -> Measure {
    let sum: f64 = measures.clone().map(|measure| measure.value).sum();
    Measure {
        value: sum / measures.len() as f64,
        bits: measures.clone().all(|measure| measure.bits),
    }
}

/// What the table says of a run.
struct Row {
    name: String,
    link: String,
    data: String,
    epochs: String,
    seed: String,
    /// The readout that the result is of.
    preferred: String,
    result: Measure,
    /// By every readout, and by counting.
    scores: Vec<(String, Measure)>,
    command: String,
}

impl Row {
    fn read(run: &Path, base: &Path) -> Result<Self> {
        let path = run.join(SUMMARY);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let missing = |what: &str| Error::Run {
            path: path.clone(),
            problem: format!("no summary of a run: no {what}"),
        };
        let summary: Json = serde_json::from_str(&text).map_err(|_| missing("JSON"))?;
        let test = &summary["test"];
        let preferred = test["readout"].as_str().ok_or_else(|| missing("readout"))?;
        let readouts = test["readouts"]
            .as_object()
            .ok_or_else(|| missing("readouts"))?;
        let result = Measure::of(readouts.get(preferred).ok_or_else(|| missing(preferred))?);
        let scores = readouts
            .iter()
            .chain(test["baselines"].as_object().into_iter().flatten());
        let wanted = configuration(&run.join(CONFIG))?;
        Ok(Self {
            name: run
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            link: path
                .strip_prefix(base)
                .unwrap_or(&path)
                .display()
                .to_string(),
            data: data(&wanted)?.unwrap_or_default(),
            epochs: summary["epochs"].to_string(),
            seed: summary["seed"].to_string(),
            preferred: preferred.into(),
            result,
            scores: scores
                .map(|(name, score)| (name.clone(), Measure::of(score)))
                .collect(),
            command: shortest(&wanted, &run.join(CONFIG))?,
        })
    }

    fn score(&self, name: &str) -> Option<Measure> {
        self.scores
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, score)| *score)
    }

    fn without_seed(&self) -> String {
        self.command.replace(&format!(" --seed {}", self.seed), "")
    }
}

/// A share of errors, or bits per character.
#[derive(Clone, Copy)]
struct Measure {
    value: f64,
    bits: bool,
}

impl Measure {
    fn of(score: &Json) -> Self {
        match score["bits_per_char"].as_f64() {
            Some(value) => Self { value, bits: true },
            None => Self {
                value: score["error"].as_f64().unwrap_or(f64::NAN),
                bits: false,
            },
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits {
            return write!(f, "{:.3} bits/char", self.value);
        }
        write!(f, "{:.2}%", 100. * self.value)
    }
}

/// Puts a table into a file, between the two lines that are there for it.
///
/// # Errors
/// [`Error::File`]; [`Error::Data`] if the lines are not there.
pub fn write(path: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let [begin, end] = MARKS;
    let parts = text
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or_else(|| Error::Data {
        file: path.into(),
        problem: format!("expected two lines to put the table between: {begin} and {end}"),
    })?;
    folder::write(
        path,
        format!("{before}{begin}\n{table}{end}{after}").as_bytes(),
    )
}

/// The shortest command that resolves to the configuration in a file, but for what changes nothing but the log; settings
/// that are newer than the file have their defaults.
///
/// # Errors
/// As [`Config::resolve`]; [`Error::Run`] if no architecture is named.
pub fn command(config: &Path) -> Result<String> {
    shortest(&configuration(config)?, config)
}

/// The configuration in a file, as complete as a run has it.
fn configuration(file: &Path) -> Result<Config> {
    let source = Source::file(file)?;
    let Some(Value::String(architecture)) = source.table.get("architecture").cloned() else {
        return Err(Error::Run {
            path: file.into(),
            problem: "names no `architecture`".into(),
        });
    };
    Config::resolve(&architecture, Some(NO_PRESET), vec![source])
}

/// The data set as a command line names it: with its argument, if it has one.
fn data(config: &Config) -> Result<Option<String>> {
    let Some(data) = &config.run.data else {
        return Ok(None);
    };
    let argument = registry::info(DataSet::KIND, &data.name)?.argument;
    let argument = argument.and_then(|key| data.settings.get(key)?.as_str());
    Ok(Some(argument.map_or(data.name.clone(), |argument| {
        format!("{}:{argument}", data.name)
    })))
}

/// The shortest command that leads to what is wanted, which stands in `file`.
fn shortest(wanted: &Config, file: &Path) -> Result<String> {
    let data = data(wanted)?;
    let info = registry::info(<dyn Architecture>::KIND, &wanted.architecture)?;
    let named = info.presets.iter().skip(1).map(|preset| Some(preset.name));
    let commands = [None].into_iter().chain(named).chain([Some(NO_PRESET)]);
    let commands = commands.filter_map(|preset| with_preset(wanted, preset, data.as_deref()));
    // With no preset every setting can be written down.
    commands.min_by_key(String::len).ok_or_else(|| Error::Run {
        path: file.into(),
        problem: "no command gives this configuration".into(),
    })
}

/// The command with this preset, if it leads to what is wanted.
fn with_preset(wanted: &Config, preset: Option<&str>, data: Option<&str>) -> Option<String> {
    let mut sources = Vec::new();
    let mut words = vec!["onward train".to_string(), wanted.architecture.clone()];
    words.extend(preset.map(|preset| format!("--preset {preset}")));
    if let Some(data) = data {
        sources.push(Source::assignment(&format!("data={data}")).ok()?);
        words.push(format!("--data {data}"));
    }
    let base = flat(
        &Config::resolve(&wanted.architecture, preset, sources.clone())
            .ok()?
            .to_table(),
        "",
    );
    let (mut last, mut names) = (Vec::new(), Vec::new());
    for (key, value) in flat(&wanted.to_table(), "") {
        if SILENT.contains(&key.as_str())
            || base
                .iter()
                .any(|(known, old)| *known == key && *old == value)
        {
            continue;
        }
        let text = plain(&value);
        let source = Source::assignment(&format!("{key}={text}")).ok()?;
        match key.as_str() {
            "epochs" | "seed" => last.push(format!("--{key} {text}")),
            // A plugin first, then its settings.
            _ if key.ends_with(".name") => {
                let key = key.trim_end_matches(".name");
                names.push((
                    Source::assignment(&format!("{key}={text}")).ok()?,
                    set(key, &text),
                ));
                continue;
            }
            _ => words.push(set(key.as_str(), &text)),
        }
        sources.push(source);
    }
    let at = usize::from(data.is_some());
    for (source, word) in names.into_iter().rev() {
        sources.insert(at, source);
        words.insert(2 + usize::from(preset.is_some()) + at, word);
    }
    words.extend(last);
    if !words.iter().any(|word| word.starts_with("--seed")) {
        words.push(format!("--seed {}", wanted.run.seed));
    }
    let found = Config::resolve(&wanted.architecture, preset, sources).ok()?;
    let audible = |config: &Config| {
        let mut settings = flat(&config.to_table(), "");
        settings.retain(|(key, _)| !SILENT.contains(&key.as_str()));
        settings
    };
    (audible(&found) == audible(wanted)).then(|| words.join(" "))
}

/// In quotes where a shell would read more into it.
fn set(key: &str, text: &str) -> String {
    let quote = if text.contains(|c: char| "[]{}\"*? ".contains(c)) {
        "'"
    } else {
        ""
    };
    format!("--set {quote}{key}={text}{quote}")
}

/// Every setting by its dotted path.
fn flat(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut settings = Vec::new();
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => settings.extend(flat(inner, &format!("{path}."))),
            Value::String(_) if path == "architecture" => (),
            value => settings.push((path, value.clone())),
        }
    }
    settings
}

/// As it is written on a command line: words bare, lists without spaces.
fn plain(value: &Value) -> String {
    match value {
        Value::String(word)
            if word
                .chars()
                .all(|c| c.is_alphanumeric() || "_-./".contains(c)) =>
        {
            word.clone()
        }
        Value::Array(values) => format!(
            "[{}]",
            values.iter().map(plain).collect::<Vec<_>>().join(",")
        ),
        value => value.to_string(),
    }
}
