//! Data sets `text` and `fables`: windows of text, with the next token as the class.

use std::path::PathBuf;
use std::sync::Arc;

use onward_core::data::text::{
    apart, data_set, distinct, files as files_of, paragraphs, read, room_beside_counts,
    size as size_of, Parts, Passage, Reach, Text,
};
use onward_core::data::{DataSet, Room};
use onward_core::export::{Table, Value};
use onward_core::plugin::preset::Preset;
use onward_core::plugin::registry::DataKind;
use onward_core::{BuildContext, Error, Located, Result, Tokenizer};

/// Fables written for this project, one per paragraph.
const FABLES: &str = include_str!("fables.txt");

onward_core::choices! {
    /// The unit of a document. No window crosses the border of a document.
    pub enum Document {
        /// A file.
        File = "file",
        /// A paragraph between blank lines.
        Paragraph = "paragraph",
    }
}

onward_core::choices! {
    /// The preparation of a text before it is divided.
    pub enum Prepare {
        /// No preparation.
        None = "none",
        /// Hinton's preparation of Aesop's fables: short strings of 30 symbols.
        Hinton = "hinton",
    }
}

onward_core::settings! {
    /// Your own plain text in UTF-8. An example is a window of tokens, with some of the
    /// tokens before it; its class is the next token.
    ///
    /// By default the test part is the last tenth of the text, and the validation part is
    /// a tenth of the rest, scattered over it. If there are 20 documents or more, whole
    /// documents are held out. The tokenizer is trained only on the training part;
    /// unknown symbols in the other parts are counted as unknown.
    ///
    /// `prepare = "hinton"` makes the strings of Hinton's paper from a file of fables:
    /// split at blank lines, without the title line, in lower case, white space reduced
    /// to one space, characters outside `[a-z !,.]` deleted, cut after 100 characters,
    /// shorter strings left out. Of the first 248 strings, 198 are to train, of which the
    /// last 20 validate, and 50 to test. The tokenizer `char` then has the 30 symbols and
    /// no unknown token.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022
    /// (<https://arxiv.org/abs/2212.13345>), for `prepare`.
    pub struct TextFiles {
        /// A file, a folder of text files, or a pattern such as `books/*.txt`; short
        /// form: `text:FILE`.
        file: String = String::new();
        /// Additional files of the same text.
        more: Vec<String> = Vec::new();
        /// The unit of a document.
        document: Document = Document::File;
        /// A file, folder or pattern for validation, instead of a part of the text.
        validation: Option<String> = None;
        /// A file, folder or pattern for the test, instead of a part of the text.
        test: Option<String> = None;
        /// The preparation of the text before it is divided.
        prepare: Prepare = Prepare::None;
        /// The number of tokens in the window. For texts of half a megabyte and more,
        /// `nlp` chooses 10 characters, or 3 byte pairs or words, if no other network
        /// is chosen.
        window: usize = 10, in 1..=100_000;
        /// The number of tokens before the window that context inputs may show, such as
        /// `sampler.layout`. Line ends stand for those before the beginning of a document or
        /// of a part (or spaces, or the first token of the vocabulary).
        before: usize = 0, in 0..=100_000;
        /// The tokenizer: char, word, word:N for the N most frequent words, bpe:N for N
        /// byte-pair tokens, bpe for 1000 of them if the text gives as many, or a
        /// tokenizer.json. For texts of half a megabyte and more, `nlp` chooses bpe, if
        /// no other network is chosen.
        tokenizer: String = "char".to_string();
        /// The number of tokens in the n-grams of the baseline and of the mixture.
        ngram: usize = 6, in 1..=12;
        /// How often an n-gram of two tokens or more has to occur to be kept. With 2, the
        /// counts of a large text take a fraction of the memory and of the space in a run,
        /// and predict a little worse.
        ngram_least: usize = 1, in 1..=1_000_000;
    }
}

onward_core::settings! {
    /// Short fables in plain English, written for this project: about 23,000 characters,
    /// so that a language model needs no file. The parts consist of whole fables, and no
    /// window crosses the border of a fable.
    ///
    /// This is far too little text to learn English, and results on it do not transfer to
    /// other texts.
    pub struct Fables {
        /// The number of tokens in the window.
        window: usize = 10, in 1..=100;
        /// The number of tokens before the window that context inputs may show.
        before: usize = 0, in 0..=1000;
        /// The tokenizer: char, word, word:N for the N most frequent words, bpe:N for N
        /// byte-pair tokens, bpe for 1000 of them if the text gives as many, or a
        /// tokenizer.json.
        tokenizer: String = "char".to_string();
        /// The number of tokens in the n-grams of the baseline and of the mixture.
        ngram: usize = 6, in 1..=12;
    }
}

/// The symbols of Hinton's strings.
const SYMBOLS: &str = " !,.abcdefghijklmnopqrstuvwxyz";

/// The strings of Hinton's paper.
fn hinton(text: &str) -> Result<Parts> {
    let string = |fable: Passage| {
        let body = fable
            .split_once('\n')
            .map_or("", |(_, body)| body)
            .to_lowercase();
        let words = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let kept: String = words
            .chars()
            .filter(|symbol| SYMBOLS.contains(*symbol))
            .collect();
        Some(kept.trim().get(..100)?.into())
    };
    let mut train: Vec<Passage> = paragraphs(&text.into())
        .into_iter()
        .filter_map(string)
        .take(248)
        .collect();
    if train.len() < 248 {
        let problem = format!(
            "prepare=hinton: expected 248 fables of at least 100 characters, found {}",
            train.len()
        );
        return Err(usage(problem));
    }
    let test = train.split_off(198);
    let validation = train.split_off(178);
    Ok(Parts {
        train,
        validation,
        test,
    })
}

fn usage(problem: String) -> Error {
    Error::usage("data", problem)
}

/// The files that these files, folders and patterns stand for, each once.
fn all_files<'a>(given: impl IntoIterator<Item = &'a String>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        files.extend(files_of(path)?);
    }
    Ok(distinct(files))
}

fn documents(files: &[PathBuf], document: Document, room: &Room) -> Result<Vec<Passage>> {
    let mut documents = Vec::new();
    for file in files {
        let text = read(file, room)?;
        match document {
            Document::File => documents.push(text),
            Document::Paragraph => documents.extend(paragraphs(&text)),
        }
    }
    Ok(documents)
}

fn of_files(settings: &TextFiles, context: &BuildContext) -> Result<DataSet> {
    if settings.file.is_empty() {
        return Err(Error::refused(
            "data.file",
            "\"\"",
            "a file, as in --data text:FILE",
        ));
    }
    let given = || std::iter::once(&settings.file).chain(&settings.more);
    let files = all_files(given())?;
    let validation = all_files(&settings.validation)?;
    let test = all_files(&settings.test)?;
    let all = [&files[..], &validation, &test].concat();
    let (ngram, least) = (settings.ngram, settings.ngram_least);
    let room = &room_beside_counts(&all, ngram, least, context.room());
    let parts = match settings.prepare {
        Prepare::None => divided(settings, files, [&validation, &test], room)?,
        Prepare::Hinton if settings.validation.is_some() || settings.test.is_some() => {
            return Err(usage(
                "prepare=hinton has fixed parts; remove `data.validation` and `data.test`".into(),
            ));
        }
        Prepare::Hinton => {
            let texts = documents(&files, Document::File, room)?;
            let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
            hinton(&texts.join("\n\n"))?
        }
    };
    let alphabet = (settings.prepare == Prepare::Hinton).then_some(SYMBOLS);
    let named = || {
        let others = settings.validation.iter().chain(&settings.test);
        let all: Vec<&str> = given().chain(others).map(String::as_str).collect();
        all.join(", ")
    };
    let tokenized = || {
        let text = Text {
            tokenizer: tokenizer(&parts, alphabet, &settings.tokenizer, context)?,
            ngram: settings.ngram,
            least: settings.ngram_least,
        };
        let reach = Reach {
            window: settings.window,
            before: settings.before,
        };
        data_set(&parts, text, reach, room)
    };
    tokenized().at(named)
}

/// The parts of a text: those that have files of their own, and parts of the rest.
fn divided(
    settings: &TextFiles,
    files: Vec<PathBuf>,
    [validation, test]: [&[PathBuf]; 2],
    room: &Room,
) -> Result<Parts> {
    let files = apart(files, [validation, test])?;
    let read = |files: &[PathBuf]| documents(files, settings.document, room);
    let part = |files: &[PathBuf], is_given: bool| is_given.then(|| read(files)).transpose();
    let validation = part(validation, settings.validation.is_some())?;
    let test = part(test, settings.test.is_some())?;
    Ok(Parts::new(read(&files)?, validation, test))
}

/// The tokenizer of the opened run, if there is one, else a new one.
fn tokenizer(
    parts: &Parts,
    alphabet: Option<&str>,
    name: &str,
    context: &BuildContext,
) -> Result<Arc<Tokenizer>> {
    Ok(match (&context.tokenizer, alphabet, name) {
        (Some(tokenizer), _, _) => tokenizer.clone(),
        (None, Some(alphabet), "char") => Arc::new(Tokenizer::characters(alphabet)?),
        (None, _, name) => Arc::new(Tokenizer::named(name, &parts.to_train())?),
    })
}

fn fables(settings: &Fables, context: &BuildContext) -> Result<DataSet> {
    let one_line = |fable: Passage| {
        fable
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .into()
    };
    let fables = paragraphs(&FABLES.into())
        .into_iter()
        .map(one_line)
        .collect();
    let parts = Parts::new(fables, None, None);
    let text = Text {
        tokenizer: tokenizer(&parts, None, &settings.tokenizer, context)?,
        ngram: settings.ngram,
        least: 1,
    };
    let reach = Reach {
        window: settings.window,
        before: settings.before,
    };
    data_set(&parts, text, reach, &context.room())
}

/// Resets the settings of additional files when the file changes.
fn another_file(given: &mut Table, before: &mut Table) -> Result<()> {
    if given.contains_key("file") {
        for key in ["more", "validation", "test"] {
            before.remove(key);
        }
    }
    Ok(())
}

/// Whether a text is a book or a corpus, by the size of its files.
fn size(given: &Table) -> Option<(DataKind, Table)> {
    let file = given.get("file").and_then(Value::as_str)?;
    let more = given.get("more").and_then(Value::as_array);
    let more = more.into_iter().flatten().filter_map(Value::as_str);
    let bytes: Option<u64> = std::iter::once(file).chain(more).map(size_of).sum();
    let kind = match given.get("tokenizer").and_then(Value::as_str) {
        _ if bytes? < CORPUS => DataKind::Book,
        Some("char") => DataKind::Characters,
        _ => DataKind::Corpus,
    };
    Some((kind, Table::new()))
}

/// The bytes from which on a text is a corpus.
const CORPUS: u64 = 500_000;

const PRESETS: &[Preset] = &[Preset {
    name: "text",
    about: "fewer epochs and larger batches, since text has many examples",
    settings: "epochs = 10\nbatch = 128",
}];

onward_core::register! {
    DataSet, "text",
    "your own text in UTF-8 as windows of tokens, as text:FILE \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: TextFiles, context| Ok(Box::new(of_files(&settings, context)?)),
    .argument("file").paths(&["more", "validation", "test", "tokenizer"])
    .rewrite(another_file).presets(PRESETS).look(&[], size).fixed(&["tokenizer"])
}

onward_core::register! {
    DataSet, "fables",
    "short fables in English, about 23,000 characters, built in (onward, 2026)",
    |settings: Fables, context| Ok(Box::new(fables(&settings, context)?)),
    .presets(PRESETS).fixed(&["tokenizer"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fables_are_plain_text_of_the_documented_size() {
        assert!((23_000..26_000).contains(&FABLES.len()), "{}", FABLES.len());
        assert!(FABLES
            .bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
        let fables = paragraphs(&FABLES.into());
        assert!(fables.len() >= 60, "{}", fables.len());
        assert!(fables
            .iter()
            .all(|fable| fable.len() > 150 && fable.ends_with(['.', '"', '!', '?'])));
        let mut openings: Vec<&str> = fables.iter().map(|fable| &fable[..40]).collect();
        openings.sort();
        openings.dedup();
        assert_eq!(openings.len(), fables.len(), "a fable appears twice");
    }

    // Of two copies one would be trained on, and the other one tested.
    #[test]
    fn a_file_of_the_folder_that_is_named_once_more_is_in_the_text_once() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.txt", "b.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let files = all_files(&[path(""), path("b.txt")])?;
        let found = documents(&files, Document::File, &Room::default())?;
        assert_eq!(found, ["a.txt", "b.txt"].map(Passage::from));
        Ok(())
    }

    #[test]
    fn strings_are_prepared_as_described() -> Result<()> {
        let fable = |number: usize| {
            format!(
                "TITLE {number}\nThe  Fox\nsaid: \"{}—ÆON!\"\r\n\n",
                "ab, Z? ".repeat(20)
            )
        };
        let short = "TITLE\ntoo short\n\n";
        let text = (0..250).map(fable).collect::<String>();
        let parts = hinton(&format!("{short}{text}"))?;
        assert_eq!(
            (parts.train.len(), parts.validation.len(), parts.test.len()),
            (178, 20, 50)
        );
        assert!(
            parts.train[0].starts_with("the fox said ab, z ab, z ab, z"),
            "{:?}",
            parts.train[0]
        );
        assert!([parts.train, parts.validation, parts.test]
            .concat()
            .iter()
            .all(|string| string.len() == 100));
        let error = hinton(&(0..247).map(fable).collect::<String>())
            .unwrap_err()
            .to_string();
        assert!(error.contains("found 247"), "{error}");
        Ok(())
    }
}
