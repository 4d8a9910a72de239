//! Finds topologies (compiled in, a file, or a folder of files) and does the command line's verbs on them.

use std::path::{Path, PathBuf};

use super::draw::draw;
use super::run::{Report, Run, run};
use super::{Drawing, Problems, Topology};

/// The topologies that the binary carries, by name.
pub const SHIPPED: [(&str, &str); 2] =
    [("spine", include_str!("../../../topologies/spine.toml")), ("clickstream", include_str!("../../../topologies/clickstream.toml"))];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no .toml file")]
    Empty { path: PathBuf },
    #[error("there is no topology {name:?}: shipped ones are {}, anything else is a path to a .toml file or a folder of them", names())]
    Unknown { name: String },
    #[error(transparent)]
    Problems(#[from] Problems),
}

fn names() -> String {
    SHIPPED.map(|(name, _)| name).join(", ")
}

/// The shipped topology of that name.
pub fn shipped(name: &str) -> Option<Result<Topology, Problems>> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(name, text)| Topology::parse(&format!("topologies/{name}.toml"), text))
}

/// A shipped topology by its name, else the file at that path.
pub fn load(name_or_path: &str) -> Result<Topology, Error> {
    let texts = texts(name_or_path)?;
    match texts.as_slice() {
        [(file, text)] => Ok(Topology::parse(file, text)?),
        several => Err(Error::Unknown { name: format!("{name_or_path} (a folder of {})", several.len()) }),
    }
}

/// (file, text) of every topology that is meant.
fn texts(name_or_path: &str) -> Result<Vec<(String, String)>, Error> {
    if let Some((name, text)) = SHIPPED.iter().find(|(known, _)| *known == name_or_path) {
        return Ok(vec![(format!("topologies/{name}.toml"), (*text).to_owned())]);
    }
    let path = Path::new(name_or_path);
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(read_error)?.collect();
        files = entries.map_err(read_error)?.into_iter().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        if files.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
    } else if !path.exists() {
        return Err(Error::Unknown { name: name_or_path.to_owned() });
    }
    let read = |file: &PathBuf| match std::fs::read_to_string(file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(source) => Err(Error::Read { path: file.clone(), source }),
    };
    files.iter().map(read).collect()
}

/// Checks every topology that is meant and says in one line each what it holds.
pub fn check(name_or_path: &str) -> Result<String, Error> {
    let mut lines = String::new();
    let mut problems = Vec::new();
    for (file, text) in texts(name_or_path)? {
        match Topology::parse(&file, &text) {
            Ok(topology) => lines.push_str(&format!(
                "{file}: ok: {} processors, {} segments, {} tests, digest {}\n",
                topology.processors.len(),
                topology.segments.len(),
                topology.tests.len(),
                &topology.digest.to_hex()[..12],
            )),
            Err(found) => problems.extend(found.0),
        }
    }
    if problems.is_empty() { Ok(lines) } else { Err(Problems(problems).into()) }
}

/// Draws a topology.
pub fn show(name_or_path: &str, drawing: Drawing) -> Result<String, Error> {
    let mut drawings = Vec::new();
    for (file, text) in texts(name_or_path)? {
        drawings.push(draw(&Topology::parse(&file, &text)?, drawing));
    }
    Ok(drawings.join("\n"))
}

/// Runs the tests of every topology that is meant.
pub fn test(name_or_path: &str, runner: &dyn Run) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    for (file, text) in texts(name_or_path)? {
        reports.push(run(&Topology::parse(&file, &text)?, &file, runner));
    }
    Ok(reports)
}
