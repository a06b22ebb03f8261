//! `plugin new`: a project from a template, with the contract beside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;

use super::{Verdict, WorkshopError, print};

/// The templates, as the build script found them: language, kind or `shared`, path in the project, content.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/templates.rs"));
}

const CONTRACT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/wit/plugin.wit"));
const NAME_BYTES_MAX: usize = 64;
/// In place of a kind: what a project of any kind gets.
const SHARED: &str = "shared";
/// In place of a language: what makes a component of a core module.
const CORE: &str = "core";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Rust,
    Js,
    Python,
    Go,
    C,
    Zig,
}

impl Lang {
    fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Js => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
            Self::Zig => "Zig",
        }
    }

    /// Whether its compiler makes core modules, and components are made of these.
    fn makes_core_modules(self) -> bool {
        matches!(self, Self::Go | Self::C | Self::Zig)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Router,
    Balancer,
    Planner,
    Alerter,
    Meter,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the plugin: lower-case letters, digits and `-`
    name: String,
    #[arg(long, value_enum, default_value = "rust")]
    lang: Lang,
    #[arg(long, value_enum)]
    kind: Kind,
    /// Where the project goes; must be empty or not there [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum ScaffoldError {
    #[error(
        "`{0}` is no name for a plugin; use lower-case letters, digits and single `-`, at most {NAME_BYTES_MAX}, and \
         start with a letter"
    )]
    Name(String),
    #[error("there is no template for a {kind} in {lang}; there are:\n{there}")]
    NoTemplate { lang: String, kind: String, there: String },
    #[error("`{}` is there and not empty; nothing was written. Give another place with `--dir`", .0.display())]
    Occupied(PathBuf),
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    if !is_name(&args.name) {
        return Err(ScaffoldError::Name(args.name.clone()).into());
    }
    let (lang, kind) = (word(args.lang), word(args.kind));
    if !has_template(&lang, &kind) {
        return Err(ScaffoldError::NoTemplate { lang, kind, there: there() }.into());
    }
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let occupied = match folder.read_dir() {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(ScaffoldError::Occupied(folder).into());
    }
    write(&folder.join("wit/plugin.wit"), CONTRACT.as_bytes())?;
    for (path, content) in files(args.lang, &lang, &kind) {
        // What has no placeholders in text, such as an image, is copied as it is.
        let filled = std::str::from_utf8(content).map(|text| fill(text, &args.name));
        let content = filled.as_ref().map_or(content, String::as_bytes);
        write(&folder.join(fill(path.strip_suffix(".in").unwrap_or(path), &args.name)), content)?;
    }
    print(&format!(
        "{} {kind} in {} is in {}. `README.md` there has the commands to build, check and test it.\n",
        if args.kind == Kind::Alerter { "An" } else { "A" },
        args.lang.title(),
        folder.display()
    ));
    Ok(Verdict::Good)
}

fn has_template(lang: &str, kind: &str) -> bool {
    embedded::TEMPLATES.iter().any(|file| (file.0, file.1) == (lang, kind))
}

fn files(lang: Lang, word: &str, kind: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let is_wanted = move |of: (&str, &str)| {
        of == (word, kind) || of == (word, SHARED) || (lang.makes_core_modules() && of == (CORE, SHARED))
    };
    let files = embedded::TEMPLATES.iter().filter(move |file| is_wanted((file.0, file.1)));
    files.map(|file| (file.2, file.3))
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What crates, modules and plugins may all be called.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn fill(text: &str, name: &str) -> String {
    let camel: String = name.split('-').map(|part| part[..1].to_ascii_uppercase() + &part[1..]).collect();
    text.replace("{{name}}", name)
        .replace("{{snake_name}}", &name.replace('-', "_"))
        .replace("{{CamelName}}", &camel)
}

fn there() -> String {
    let of_kinds = || embedded::TEMPLATES.iter().filter(|file| file.1 != SHARED);
    let langs: BTreeSet<&str> = of_kinds().map(|file| file.0).collect();
    let mut text = String::new();
    for lang in langs {
        let kinds: BTreeSet<&str> = of_kinds().filter(|file| file.0 == lang).map(|file| file.1).collect();
        // Writing to a string cannot fail.
        writeln!(text, "  --lang {lang:<7} --kind {}", kinds.into_iter().collect::<Vec<_>>().join("|")).ok();
    }
    text.trim_end().to_owned()
}

fn write(path: &Path, content: &[u8]) -> Result<(), ScaffoldError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, content))
        .map_err(|source| ScaffoldError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_every_language_takes_them() {
        for good in ["a", "night-watch", "v2-router"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Night", "2fast", "a_b", "a-", "-a", "a--b", "ä", "../x", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let filled = fill("{{name}} {{snake_name}} {{CamelName}} {{other}} {}", "night-watch-2");
        assert_eq!(filled, "night-watch-2 night_watch_2 NightWatch2 {{other}} {}");
    }

    #[test]
    fn there_is_a_template_in_rust_for_every_kind_and_for_all_but_meters_in_every_language() {
        let has = |lang, kind| {
            let (lang, kind) = (word(lang), word(kind));
            assert!(has_template(&lang, &kind), "{lang} {kind}");
        };
        Kind::value_variants().iter().for_each(|kind| has(Lang::Rust, *kind));
        for kind in [Kind::Router, Kind::Balancer, Kind::Planner, Kind::Alerter] {
            Lang::value_variants().iter().for_each(|lang| has(*lang, kind));
        }
    }

    #[test]
    fn a_project_gets_each_file_once() {
        for lang in Lang::value_variants() {
            for kind in Kind::value_variants().iter().map(|kind| word(*kind)) {
                let mut paths: Vec<_> = files(*lang, &word(*lang), &kind).map(|(path, _)| path).collect();
                let count = paths.len();
                paths.sort_unstable();
                paths.dedup();
                assert_eq!(paths.len(), count, "{lang:?} {kind}: {paths:?}");
            }
        }
    }
}
