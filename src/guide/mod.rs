//! Guides: [training], [extending], [understanding], [several machines](machines), and a
//! [glossary]. `onward guide` prints them.

pub mod extending;
pub mod glossary;
pub mod machines;
pub mod training;
pub mod understanding;

/// A guide.
#[derive(Clone, Copy, Debug)]
pub struct Guide {
    /// Its name, as `onward guide` takes it.
    pub name: &'static str,
    /// What it says, in one line.
    pub about: &'static str,
    /// Its text, in Markdown.
    pub text: &'static str,
}

macro_rules! guides {
    ($($name:literal: $about:literal),* $(,)?) => {
        /// Every guide, in the order in which a newcomer reads them.
        pub const ALL: &[Guide] = &[$(
            Guide { name: $name, about: $about, text: include_str!(concat!($name, ".md")) },
        )*];
    };
}
guides! {
    "training": "choose an architecture, change settings, read the result",
    "extending": "a rule, layer, goodness, sampler or data set of your own",
    "understanding": "what happens in a step, and where the code of it is",
    "machines": "several processes, GPUs or machines (MPI)",
    "glossary": "the words of this project, as the papers use them",
}
