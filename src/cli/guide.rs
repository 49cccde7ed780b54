//! `onward guide`.

use clap::Args;

use super::doc_text;
use super::output::{entry, print};
use super::show::glossary;
use crate::error::{nearest, printable, Error, Result};
use crate::guide;

#[derive(Args)]
pub(super) struct Guide {
    /// Name of the guide; without it, the guides are listed.
    name: Option<String>,
}

impl Guide {
    pub(super) fn run(self) -> Result<()> {
        let Some(name) = self.name else {
            let all = guide::ALL.iter();
            let all: String = all.map(|guide| entry(guide.name, guide.about)).collect();
            return print(&all);
        };
        match guide::ALL.iter().find(|guide| guide.name == name) {
            Some(guide) if guide.name == "glossary" => print(&glossary()),
            Some(guide) => print(&doc_text::page(guide.text)),
            None => {
                let known: Vec<String> = guide::ALL.iter().map(|guide| guide.name.into()).collect();
                let near = nearest(&name, &known);
                let problem = format!("expected one of {}{near}", known.join(", "));
                Err(Error::usage(format!("guide {}", printable(&name)), problem))
            }
        }
    }
}
