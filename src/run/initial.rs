//! The weights that a run starts from, where they are not random.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::checkpoint;
use super::folder::MODEL;
use super::saving::of_other_names;
use crate::data::{at_home, Content, ExampleSpec};
use crate::error::{notify, printable, Error, Result};
use crate::flow::vars::Vars;

/// Sets every variable of the model that a file has under its name, and says which ones.
///
/// `path` is the folder of a run, or a file of safetensors: a model of this program, or
/// one that was written or edited elsewhere, with the names and shapes of a run's model.
///
/// # Errors
/// [`Error::Run`] if the file cannot be read, is damaged, has no variable of the network,
/// or one of another shape or with numbers that are not finite.
pub(super) fn load(path: &str, vars: &Vars, spec: &ExampleSpec) -> Result<()> {
    let path = at_home(path);
    let file = match path.is_dir() {
        true => path.join(MODEL),
        false => path,
    };
    let tensors = read(&file)?;
    if let Some(header) = checkpoint::header_of(&file) {
        if header.spec.content != Content::Text {
            of_other_names(&header.spec.classes, &spec.classes)?;
        }
    }
    if let Some(name) = checkpoint::not_finite(&tensors)? {
        let problem = format!("has numbers in {} that are not finite", printable(name));
        return Err(Error::run(file, problem));
    }
    let variables = vars.model();
    let mut random = Vec::new();
    for (name, var) in &variables {
        let Some(tensor) = tensors.get(name) else {
            random.push(name.as_str());
            continue;
        };
        if tensor.dims() != var.dims() {
            let problem = format!(
                "{name}: expected shape {:?}, that of the network, found {:?}; change the \
                 settings, or leave it out of the file",
                var.dims(),
                tensor.dims()
            );
            return Err(Error::run(file, problem));
        }
        let value = tensor.to_dtype(var.dtype())?;
        var.set(&value.to_device(var.device())?)?;
    }
    let (found, all) = (variables.len() - random.len(), variables.len());
    if found == 0 {
        let name =
            |names: &mut dyn Iterator<Item = &str>| names.min().unwrap_or("none").to_string();
        let problem = format!(
            "has no variable of this network: it has {}, expected {}",
            printable(&name(&mut tensors.keys().map(String::as_str))),
            name(&mut random.into_iter())
        );
        return Err(Error::run(file, problem));
    }
    vars.changed();
    let is_unknown = |name: &&str| variables.iter().all(|(known, _)| known != name);
    let mut unknown: Vec<&str> = tensors.keys().map(String::as_str).collect();
    unknown.retain(is_unknown);
    unknown.sort_unstable();
    let mut rest = String::new();
    // Those were measured.
    random.retain(|name| !name.starts_with(OF_DATA));
    if !random.is_empty() {
        rest += &format!("; random: {}", random.join(", "));
    }
    if !unknown.is_empty() {
        rest += &format!("; not in this network: {}", printable(&unknown.join(", ")));
    }
    if unknown.iter().any(|name| name.starts_with(OF_DATA)) {
        rest += " (that run has `standardise = true`)";
    }
    notify(format_args!(
        "{found} of {all} variables start from {}{rest}",
        file.display()
    ));
    Ok(())
}

/// The scope of what was measured on the data.
const OF_DATA: &str = "data.";

fn read(file: &Path) -> Result<HashMap<String, Tensor>> {
    if checkpoint::header_of(file).is_some() {
        let read = checkpoint::read(file);
        return read
            .map(|saved| saved.tensors)
            .map_err(|error| or_edited(error, file));
    }
    crate::disk::open(file)?; // refuses what is no regular file
    let read = candle_core::safetensors::load(file, &Device::Cpu);
    read.map_err(|error| {
        let problem = format!("is not a safetensors file: {error}");
        Error::run(file, problem)
    })
}

/// The error of a model, with what to do if its numbers were changed on purpose: then it
/// is whole and finite, and only its checksum is another one.
fn or_edited(error: Error, file: &Path) -> Error {
    let is_whole = candle_core::safetensors::load(file, &Device::Cpu)
        .is_ok_and(|tensors| matches!(checkpoint::not_finite(&tensors), Ok(None)));
    match error {
        Error::Run { path, problem } if is_whole => {
            let problem =
                format!("{problem}; if it was edited on purpose, save it without metadata");
            Error::run(path, problem)
        }
        error => error,
    }
}
