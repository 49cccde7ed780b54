//! The repository: its rooms, its dependencies, its documents.

mod dependencies;
mod documents;
mod structure;
