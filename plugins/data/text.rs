//! Data sets `text` and `fables`: windows of text, the class being the token that follows.

use std::path::Path;
use std::sync::Arc;

use onward_core::data::text::{data_set, paragraphs, read, Parts, Text};
use onward_core::data::DataSet;
use onward_core::export::Table;
use onward_core::plugin::registry::Preset;
use onward_core::{BuildContext, Error, Located, Result, Tokenizer};

/// Fables written for this project, one to a paragraph.
const FABLES: &str = include_str!("fables.txt");

onward_core::choices! {
    /// What a document is: no window crosses from one to the next.
    pub enum Document {
        /// A file.
        File = "file",
        /// What stands between blank lines.
        Paragraph = "paragraph",
    }
}

onward_core::choices! {
    /// What is done to a text before it is divided.
    pub enum Prepare {
        /// Nothing.
        None = "none",
        /// What Hinton did to Aesop's fables: short strings of 30 symbols.
        Hinton = "hinton",
    }
}

onward_core::settings! {
    /// Your own plain text, in UTF-8: an example is a window of tokens, its class the token that follows.
    ///
    /// Where no files are given for them, the test part is the last tenth of the text, and a tenth of the rest,
    /// scattered over it, validates; of 20 documents and more whole ones are taken. The tokenizer is trained on the
    /// training part alone, and what it does not know in the others is counted as unknown.
    ///
    /// `prepare = "hinton"` makes the strings of Hinton's paper of a file of fables: parted at blank lines, the title's
    /// line dropped, in lower case, white space made one space, characters outside `[a-z !,.]` deleted, the first 100
    /// characters kept, what is shorter left out. Of the first 248 strings 198 are to train, of which the last 20
    /// validate, and 50 to test; the tokenizer `char` then has the 30 symbols and none for the unknown.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022 (<https://arxiv.org/abs/2212.13345>), for `prepare`.
    pub struct TextFiles {
        /// The file; `text:FILE` for short.
        file: String = String::new();
        /// More files of the same text.
        more: Vec<String> = Vec::new();
        /// What a document is.
        document: Document = Document::File;
        /// A file that validates, instead of a part of the text.
        validation: Option<String> = None;
        /// A file to test on, instead of a part of the text.
        test: Option<String> = None;
        /// What is done to the text before it is divided.
        prepare: Prepare = Prepare::None;
        /// How many tokens an example has.
        window: usize = 10, in 1..=100_000;
        /// What text is cut into: char, word, word:N for the N most frequent, bpe:N for N pieces, or a tokenizer.json.
        tokenizer: String = "char".to_string();
        /// How many tokens the n-grams have that a test is compared with.
        ngram: usize = 6, in 1..=12;
    }
}

onward_core::settings! {
    /// Short fables in plain English, written for this project: about 23,000 characters, so that a language model can
    /// be tried without a file. Whole fables are dealt to the parts, and no window crosses from one to the next.
    ///
    /// It is far too little text to learn English from, and results on it say nothing about other texts.
    pub struct Fables {
        /// How many tokens an example has.
        window: usize = 10, in 1..=100;
        /// What text is cut into: char, word, word:N for the N most frequent, bpe:N for N pieces, or a tokenizer.json.
        tokenizer: String = "char".to_string();
        /// How many tokens the n-grams have that a test is compared with.
        ngram: usize = 6, in 1..=12;
    }
}

/// The symbols that Hinton's strings are made of.
const SYMBOLS: &str = " !,.abcdefghijklmnopqrstuvwxyz";

/// The strings of Hinton's paper.
fn hinton(text: &str) -> Result<Parts> {
    let string = |fable: String| {
        let body = fable
            .split_once('\n')
            .map_or("", |(_, body)| body)
            .to_lowercase();
        let words = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let kept: String = words
            .chars()
            .filter(|symbol| SYMBOLS.contains(*symbol))
            .collect();
        Some(kept.trim().get(..100)?.to_string())
    };
    let mut train: Vec<String> = paragraphs(text)
        .into_iter()
        .filter_map(string)
        .take(248)
        .collect();
    if train.len() < 248 {
        let problem = format!(
            "prepare=hinton needs 248 fables of 100 characters and more; found {}",
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

fn documents(files: &[&str], document: Document) -> Result<Vec<String>> {
    let mut documents = Vec::new();
    for file in files {
        let text = read(Path::new(file))?;
        match document {
            Document::File => documents.push(text),
            Document::Paragraph => documents.extend(paragraphs(&text)),
        }
    }
    Ok(documents)
}

fn of_files(settings: &TextFiles, context: &BuildContext) -> Result<DataSet> {
    if settings.file.is_empty() {
        return Err(Error::setting(
            "data.file",
            "\"\"",
            "the settings",
            "a file, as in --data text:FILE",
        ));
    }
    let files: Vec<&str> = std::iter::once(&settings.file)
        .chain(&settings.more)
        .map(String::as_str)
        .collect();
    let given = |file: &Option<String>| {
        file.as_ref()
            .map(|file| documents(&[file.as_str()], settings.document))
            .transpose()
    };
    let parts = match settings.prepare {
        Prepare::None => {
            let all = documents(&files, settings.document)?;
            Parts::new(all, given(&settings.validation)?, given(&settings.test)?)
        }
        Prepare::Hinton if settings.validation.is_some() || settings.test.is_some() => {
            return Err(usage(
                "prepare=hinton says itself what validates and tests; name no files for it".into(),
            ));
        }
        Prepare::Hinton => hinton(&documents(&files, Document::File)?.join("\n\n"))?,
    };
    let alphabet = (settings.prepare == Prepare::Hinton).then_some(SYMBOLS);
    let others = settings
        .validation
        .iter()
        .chain(&settings.test)
        .map(String::as_str);
    let named = || {
        files
            .iter()
            .copied()
            .chain(others)
            .collect::<Vec<_>>()
            .join(", ")
    };
    text(
        &parts,
        alphabet,
        &settings.tokenizer,
        settings.window,
        settings.ngram,
        context,
    )
    .at(named)
}

/// Cuts text with the tokenizer of the run that is opened, if there is one, else with a new one.
fn text(
    parts: &Parts,
    alphabet: Option<&str>,
    tokenizer: &str,
    window: usize,
    ngram: usize,
    context: &BuildContext,
) -> Result<DataSet> {
    let tokenizer = match (&context.tokenizer, alphabet, tokenizer) {
        (Some(tokenizer), _, _) => tokenizer.clone(),
        (None, Some(alphabet), "char") => Arc::new(Tokenizer::characters(alphabet)?),
        (None, _, name) => Arc::new(Tokenizer::named(name, &parts.to_train())?),
    };
    data_set(parts, Text { tokenizer, ngram }, window)
}

fn fables(settings: &Fables, context: &BuildContext) -> Result<DataSet> {
    let one_line = |fable: String| fable.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = Parts::new(
        paragraphs(FABLES).into_iter().map(one_line).collect(),
        None,
        None,
    );
    text(
        &parts,
        None,
        &settings.tokenizer,
        settings.window,
        settings.ngram,
        context,
    )
}

/// Another file is without the further files of the one before.
fn another_file(given: &mut Table, before: &mut Table) -> Result<()> {
    if given.contains_key("file") {
        for key in ["more", "validation", "test"] {
            before.remove(key);
        }
    }
    Ok(())
}

const PRESETS: &[Preset] = &[Preset {
    name: "text",
    about: "text has far more examples than pictures of the same size on disk",
    settings: "epochs = 10\nbatch = 128",
}];

onward_core::register! {
    DataSet, "text", "your own text in UTF-8, as text:FILE, cut into tokens (Hinton 2022, arXiv 2212.13345)",
    |settings: TextFiles, context| Ok(Box::new(of_files(&settings, context)?)),
    .argument("file").rewrite(another_file).presets(PRESETS)
}

onward_core::register! {
    DataSet, "fables", "short fables in English, about 23,000 characters, embedded (made for onward)",
    |settings: Fables, context| Ok(Box::new(fables(&settings, context)?)),
    .presets(PRESETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fables_are_plain_text_of_the_promised_size() {
        assert!((23_000..26_000).contains(&FABLES.len()), "{}", FABLES.len());
        assert!(FABLES
            .bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
        let fables = paragraphs(FABLES);
        assert!(fables.len() >= 60, "{}", fables.len());
        assert!(fables
            .iter()
            .all(|fable| fable.len() > 150 && fable.ends_with(['.', '"', '!', '?'])));
        let mut openings: Vec<&str> = fables.iter().map(|fable| &fable[..40]).collect();
        openings.sort();
        openings.dedup();
        assert_eq!(openings.len(), fables.len(), "a fable is there twice");
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
            "{}",
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
