//! Rules of the house that a compiler does not check: who imports whom, what pure code may touch, and how files look.
//!
//! The layers are the table of `ARCHITECTURE.md`; a module that is not in it yet gets a row here and there. Rules read the source as
//! text: comments, string contents and inline tests are left out where a rule is about production code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of `src/`, in reading order: its layer, and the other modules it may import.
const MODULES: &[(&str, u8, &[&str])] = &[
    ("domain", 0, &[]),
    ("identity", 1, &["domain"]),
    ("consent", 1, &["domain"]),
    ("intake", 1, &["domain", "identity", "consent"]),
    ("features", 1, &["domain", "consent"]),
    ("models", 1, &["domain", "features"]),
    ("segments", 1, &["domain", "features", "models"]),
    ("permit", 1, &["domain", "consent", "segments"]),
    ("workflow", 1, &["domain", "consent", "features", "segments", "permit"]),
    ("env", 2, &["domain"]),
    ("limits", 2, &["domain"]),
    ("log", 2, &["domain", "env"]),
    ("schema", 2, &["domain"]),
    ("state", 2, &["domain", "env"]),
    ("channels", 2, &["domain", "permit", "env"]),
    ("agents", 3, &["domain"]),
    ("stream", 4, SHELL),
    ("engine", 4, ENGINE),
    ("projections", 4, SHELL),
    ("replay", 4, REPLAY),
    ("gateway", 5, &["domain", "intake", "permit", "segments", "workflow", "channels", "env", "limits", "schema", "log", "projections"]),
    ("config", 6, ALL),
    ("app", 6, ALL),
    ("bench", 6, ALL),
    ("cli", 6, ALL),
    ("main", 6, ALL),
];

/// Layers 0 to 3: shells do not see each other, they meet through the log.
const SHELL: &[&str] =
    &["domain", "identity", "consent", "intake", "features", "models", "segments", "workflow", "env", "log", "schema", "state"];
/// Replay is the same folds over the same records, so it is the one shell that drives another's.
const REPLAY: &[&str] = &["domain", "features", "models", "segments", "env", "log", "schema", "state", "stream"];
/// The workflow processor is one more stage on the partition loop.
const ENGINE: &[&str] =
    &["domain", "consent", "intake", "segments", "workflow", "permit", "channels", "agents", "env", "log", "schema", "state", "stream"];
const ALL: &[&str] = &["*"];

const LINES_MAX: usize = 800;

struct Source {
    /// From the package's root, as `src/log/mod.rs`.
    path: String,
    text: String,
    /// Compiled for tests only.
    is_test: bool,
}

impl Source {
    /// The module of `src/` that this file belongs to.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (name != "lib").then_some(name)
    }

    fn layer(&self) -> Option<u8> {
        let module = self.module()?;
        MODULES.iter().find(|(name, ..)| *name == module).map(|(_, layer, _)| *layer)
    }

    /// (number, code) of every line that is shipped: no comments, no test modules.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let shipped = lines.take_while(move |(number, _)| !self.is_test && !self.is_test_module(*number));
        shipped.map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    /// Whether an inline `#[cfg(test)] mod tests {` begins at this line; it is always the last thing in a file.
    fn is_test_module(&self, number: usize) -> bool {
        let mut rest = self.text.lines().skip(number - 1);
        rest.next().is_some_and(|line| line.trim() == "#[cfg(test)]")
            && rest.find(|line| !line.trim_start().starts_with("#[")).is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    }
}

fn root() -> &'static Path {
    // Cargo runs tests in the package's folder. The folder they were built in may be another one: a target folder can serve several clones.
    Path::new(".")
}

/// Every text file of the tree with one of these extensions.
fn files(extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() {
                if !is_hidden && !["target", "data", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap(), is_test: false });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust() -> Vec<Source> {
    let mut sources = files(&["rs"]);
    let test_modules: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let is_in = |module: &String| source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"));
        source.is_test = source.path.starts_with("tests/") || test_modules.iter().any(is_in);
    }
    sources
}

/// The modules in files of their own that a file declares for tests only: `src/log/tests`.
fn test_modules(source: &Source) -> Vec<String> {
    let path = source.path.trim_end_matches(".rs");
    let folder = path.strip_suffix("/mod").or(path.strip_suffix("/lib")).unwrap_or(path);
    let lines = source.text.lines().zip(source.text.lines().skip(1));
    let declared =
        lines.filter(|(line, _)| line.trim() == "#[cfg(test)]").filter_map(|(_, next)| next.trim().strip_prefix("mod ")?.strip_suffix(';'));
    declared.map(|name| format!("{folder}/{name}")).collect()
}

#[track_caller]
fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// The modules named after `crate::` in a text: of `crate::log::Error` and `crate::{env::Clock, log}` alike.
fn imports(code: &str) -> BTreeSet<&str> {
    fn word(text: &str) -> &str {
        let text = text.trim_start();
        &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
    }
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            if begins && depth == 0 && !c.is_whitespace() {
                found.insert(word(&group[at..]));
                begins = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => begins = true,
                _ => {}
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_are_found_in_groups_and_paths() {
    let code = "use crate::{\n    env::{Clock, fs},\n    log,\n};\nfn f(x: crate::domain::Millis) {}";
    assert_eq!(imports(code), BTreeSet::from(["domain", "env", "log"]));
}

#[test]
fn no_module_imports_what_its_layer_may_not_see() {
    let mut found = Vec::new();
    for source in rust() {
        let Some(module) = source.module() else { continue };
        let Some((.., allowed)) = MODULES.iter().find(|(name, ..)| *name == module) else {
            found.push(format!("{}: the module {module} has no row in the table of this test", source.path));
            continue;
        };
        let code: String = source.production().map(|(_, line)| format!("{line}\n")).collect();
        let modules = imports(&code).into_iter().filter(|name| MODULES.iter().any(|(module, ..)| module == name));
        for imported in modules.filter(|name| *name != module && !allowed.contains(name) && *allowed != ALL) {
            found.push(format!("{} ({module}) imports {imported}", source.path));
        }
    }
    none("a lower layer never imports a higher one, and shells meet through the log", found);
}

#[test]
fn the_library_lists_its_modules_in_layer_order() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.trim_start().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let layers: Vec<u8> = names.iter().filter_map(|name| MODULES.iter().find(|(module, ..)| module == name)).map(|row| row.1).collect();
    assert_eq!(layers.len(), names.len(), "every module has a layer: {names:?}");
    assert!(layers.is_sorted(), "src/lib.rs is the order to read in: {names:?}");
    assert!(MODULES.iter().map(|row| row.1).is_sorted());
}

#[test]
fn pure_code_reads_no_clock_disk_or_chance() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "SystemTime",
        "Instant::now",
        "rand::",
        "rand_chacha",
        "tokio",
        "tracing::",
        "async fn",
        "std::thread",
    ];
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| source.layer().is_some_and(|layer| layer <= 1)) {
        for (number, line) in source.production() {
            found.extend(forbidden.iter().filter(|word| line.contains(**word)).map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    none("words and pure cores take time, ids, chance and data as values", found);
}

#[test]
fn the_log_touches_files_only_through_its_door() {
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| source.module() == Some("log")) {
        let direct = |line: &str| line.contains("std::fs") || line.contains("RealFs") || line.contains("SimFs");
        found.extend(source.production().filter(|(_, line)| direct(line)).map(|(number, _)| format!("{}:{number}", source.path)));
    }
    none("what bypasses env::fs is never simulated", found);
}

#[test]
fn environment_variables_are_read_in_one_place() {
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| source.layer().is_some_and(|layer| layer < 6)) {
        let reads = |line: &str| line.contains("env::var(") || line.contains("env::vars") || line.contains("env::var_os");
        found.extend(source.production().filter(|(_, line)| reads(line)).map(|(number, _)| format!("{}:{number}", source.path)));
    }
    none("settings come from config, which says where each value came from", found);
}

#[test]
fn production_code_does_not_unwrap() {
    let mut found = Vec::new();
    for source in rust().iter().filter(|source| source.path.starts_with("src/")) {
        let lines = source.production().filter(|(_, line)| line.contains(".unwrap()") || line.contains(".unwrap_err()"));
        found.extend(lines.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    none("say why it cannot fail: expect(\"reason\")", found);
}

#[test]
fn every_file_says_what_it_owns_and_stays_readable() {
    let mut found = Vec::new();
    for source in rust() {
        if !source.text.starts_with("//! ") {
            found.push(format!("{} does not begin with `//! ` and what it owns", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            found.push(format!("{} has {lines} lines, split it by verb or type before {LINES_MAX}", source.path));
        }
    }
    none("files", found);
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in parts, or this file would find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
    ];
    let mut found = Vec::new();
    for source in rust() {
        for (index, line) in source.text.lines().enumerate() {
            found.extend(marks.iter().filter(|mark| line.contains(**mark)).map(|mark| format!("{}:{}: {mark}", source.path, index + 1)));
        }
    }
    none("finish it or write an issue", found);
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = [concat!("/wo", "rk/"), concat!("/tmp/", "fw"), concat!("/home/", "user"), concat!("/ro", "ot/")];
    let mut found = Vec::new();
    for source in files(&["rs", "toml", "md", "avsc", "sql", "json", "yml", "yaml", "sh", "py", "js", "mjs"]) {
        for (index, line) in source.text.lines().enumerate() {
            found.extend(
                places.iter().filter(|place| line.contains(**place)).map(|place| format!("{}:{}: {place}", source.path, index + 1)),
            );
        }
    }
    none("the tree must work in any clone", found);
}

#[test]
fn every_test_file_is_run() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.is_dir() && path.join("mod.rs").exists() || path.extension().is_some_and(|extension| extension == "rs");
        if is_module && name != "main" && !main.contains(&format!("mod {name};")) {
            found.push(path.display().to_string());
        }
    }
    none("tests/it/main.rs has no `mod` line for", found);
}

#[test]
fn every_schema_is_compiled_in() {
    let code: String = rust().iter().filter(|source| source.module() == Some("schema")).map(|source| source.text.clone()).collect();
    let schemas = files(&["avsc"]).into_iter().filter_map(|source| {
        let name = source.path.strip_prefix("schemas/")?.strip_suffix(".avsc")?.to_owned();
        (!name.contains('/')).then_some(name)
    });
    let unused = schemas.filter(|name| !code.contains(&format!("\"{name}\"")) && !code.contains(&format!("/{name}.avsc")));
    none("schemas that no code reads", unused.collect());
}

#[test]
fn the_architecture_names_every_module() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names = library.lines().filter_map(|line| line.trim_start().strip_prefix("pub mod ")?.strip_suffix(';'));
    let missing = names.filter(|name| !text.contains(&format!("`{name}`")) && !text.contains(&format!("`{name}/`")));
    none("ARCHITECTURE.md does not name", missing.map(str::to_owned).collect());
}

#[test]
fn no_snapshot_waits_for_review() {
    let pending = files(&["new"]).into_iter().map(|source| source.path).collect();
    none("accept or reject the change", pending);
}
