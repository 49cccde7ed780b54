//! Guides: [training](training), [extending](extending), [understanding](understanding),
//! and a [glossary](glossary).

pub mod extending;
pub mod glossary;
pub mod training;
pub mod understanding;
