//! From files to a [`Config`]: the main file, what it includes, and what is left out of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::contents::{Contents, Entry, Files};
use super::expand::Sources;
use super::file::{File, Value, places};
use super::flaw::{Flaw, LeftOut};
use super::raw::{self, RawPlugin, RawProfile, RawService, Sections, Wrong, services};
use super::reload::Written;
use super::{Config, ConfigError, Overrides, ServiceConfig, scripts};
use crate::mesh::exposure::Exposure;
use crate::mesh::ids::{Name, NameError};

/// Where keys stand.
type Places = BTreeMap<String, Range<usize>>;

/// An entry whose variables are filled in, as what is made of it.
///
/// # Errors
/// Everything that is wrong with it.
fn entry<T: DeserializeOwned, U>(
    section: &str,
    entry: &Entry<'_>,
    sources: &Sources,
    make: impl FnOnce(T) -> Result<U, Vec<Wrong>>,
) -> Result<(Name, U), Vec<Flaw>> {
    let (file, key) = (entry.file, entry.key(section));
    let mut value = entry.value.clone();
    let places = places(&value);
    let unfilled = sources.fill_in(&mut value, &file.path);
    let mut flaws: Vec<Flaw> =
        unfilled.into_iter().map(|(span, why)| file.flaw(&key, Some(span), why)).collect();
    let (understood, mut misread) = file.understand(&key, value);
    flaws.append(&mut misread);
    let is_whole = flaws.is_empty();
    let name = Name::new(entry.name.get_ref());
    let misnamed = |error: &NameError| file.flaw(&key, Some(entry.name.span()), error.to_string());
    flaws.extend(name.as_ref().err().map(misnamed));
    let made = understood.map(make).transpose().unwrap_or_else(|wrongs| {
        // What goes with what is not known where something could not be read.
        let certain = wrongs.into_iter().filter(|wrong| is_whole || !wrong.is_clash);
        flaws.extend(certain.map(|wrong| flaw_of(section, entry, &places, wrong)));
        None
    });
    match (name, made) {
        (Ok(name), Some(made)) if flaws.is_empty() => Ok((name, made)),
        _ => {
            flaws.sort_by_key(|flaw| flaw.place.as_ref().map(|place| (place.line, place.column)));
            Err(flaws)
        }
    }
}

/// Where a wrong key of an entry stands; its name, when the key is missing.
fn flaw_of(section: &str, entry: &Entry<'_>, places: &Places, wrong: Wrong) -> Flaw {
    let first = wrong.key.split_once('.').map_or(wrong.key, |(first, _)| first);
    let span = places.get(first).cloned().unwrap_or_else(|| entry.name.span());
    entry.file.flaw(&format!("{}.{}", entry.key(section), wrong.key), Some(span), wrong.message)
}

/// # Errors
/// Everything that is wrong with the main file, with what would be left out beside.
pub(super) fn load(files: &Files, overrides: Overrides, sources: &Sources) -> Result<Config, ConfigError> {
    let main = &files.files[0];
    let mut contents = files.contents()?;
    contents.settle();
    let Contents { own, services, profiles, plugins, mut left_out, mut flaws } = contents;
    let own_places: Places = own
        .iter()
        .flat_map(|(section, value)| {
            places(value).into_iter().map(move |(key, span)| (format!("{section}.{key}"), span))
        })
        .collect();
    let sections = sections(main, own, sources, &mut flaws);
    let mut wrongs = Vec::new();
    let mut config =
        raw::resolve(sections, overrides, &mut wrongs).map_err(|raw::NoHome| ConfigError::NoHome)?;
    for Wrong { key, message, is_clash } in wrongs {
        let section = key.split_once('.').map_or(key, |(section, _)| section);
        // What goes with what is not known where something could not be read.
        if !is_clash || flaws.iter().all(|flaw| flaw.key != section) {
            flaws.push(main.flaw(key, own_places.get(key).cloned(), message));
        }
    }
    for profile in &profiles {
        match entry::<RawProfile, _>("profiles", profile, sources, services::profile) {
            Ok((name, profile)) => drop(config.profiles.insert(name, profile)),
            Err(mut wrong) if profile.file.path == main.path => flaws.append(&mut wrong),
            Err(wrong) => left_out.extend(LeftOut::with_all(None, wrong)),
        }
    }
    for plugin in &plugins {
        // Without what cannot be read: that is said of what is filled in.
        let (written, _) = plugin.file.understand(&plugin.key("plugins"), plugin.value.clone());
        let make = |raw: RawPlugin| raw::plugin(raw, written.as_ref()).map_err(|wrong| vec![wrong]);
        match entry("plugins", plugin, sources, make) {
            Ok((name, plugin)) => drop(config.plugins.insert(name, plugin)),
            Err(mut wrong) => flaws.append(&mut wrong),
        }
    }
    add_services(&mut config, &services, sources, &mut left_out);
    if !flaws.is_empty() {
        flaws.extend(left_out.iter().flat_map(LeftOut::flaws).cloned());
        return Err(ConfigError::Wrong(flaws));
    }
    let paths = files.files.iter().map(|file| file.path.clone());
    config.files = paths.filter(|path| !path.as_os_str().is_empty()).collect();
    config.file = config.files.first().cloned();
    config.folders.clone_from(&files.folders);
    config.written = Written::of(files);
    config.left_out = left_out;
    discover(&mut config, main, own_places.get("supervisor.scripts").cloned());
    Ok(config)
}

/// What the sections of the main file say, without what is wrong with them.
fn sections(
    main: &File,
    mut own: BTreeMap<String, Value<'_>>,
    sources: &Sources,
    flaws: &mut Vec<Flaw>,
) -> Sections {
    // What is included was read before.
    own.remove("include");
    for (section, value) in &mut own {
        let unfilled = sources.fill_in(value, &main.path).into_iter();
        flaws.extend(unfilled.map(|(span, why)| main.flaw(section, Some(span), why)));
    }
    Sections {
        server: section(main, &mut own, "server", flaws),
        stats: section(main, &mut own, "stats", flaws),
        lease: section(main, &mut own, "lease", flaws),
        health: section(main, &mut own, "health", flaws),
        calls: section(main, &mut own, "calls", flaws),
        supervisor: section(main, &mut own, "supervisor", flaws),
        sessions: section(main, &mut own, "sessions", flaws),
        limits: section(main, &mut own, "limits", flaws),
    }
}

fn discover(config: &mut Config, main: &File, at: Option<Range<usize>>) {
    let Some(folder) = config.scripts.take() else { return };
    let beside = main.path.parent().unwrap_or(Path::new(""));
    let folder = std::path::absolute(beside.join(&folder)).unwrap_or(folder);
    if let Err(message) = scripts::discover(config, &folder) {
        let flaw = main.flaw("supervisor.scripts", at, message);
        config.left_out.push(LeftOut::of(None, flaw));
    }
    config.folders.push(folder.clone());
    config.scripts = Some(folder);
}

fn section<T: DeserializeOwned + Default>(
    main: &File,
    own: &mut BTreeMap<String, Value<'_>>,
    key: &str,
    flaws: &mut Vec<Flaw>,
) -> T {
    let Some(value) = own.remove(key) else { return T::default() };
    let (understood, mut wrong) = main.understand(key, value);
    flaws.append(&mut wrong);
    // The flaws keep it from coming into force; the default only lets the rest be looked at.
    understood.unwrap_or_default()
}

/// A service as it stands in a file.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn service(
    one: &Entry<'_>,
    sources: &Sources,
    startup: Duration,
) -> Result<(Name, ServiceConfig), Vec<Flaw>> {
    entry("services", one, sources, |raw: RawService| services::service(raw, startup))
}

/// One service that is wrong is left out, and shows nothing; all others are served.
fn add_services(config: &mut Config, entries: &[Entry<'_>], sources: &Sources, left_out: &mut Vec<LeftOut>) {
    for one in entries {
        let misnamed = |message| vec![one.file.flaw(&one.key("services"), Some(one.name.span()), message)];
        let read = service(one, sources, config.startup).and_then(|(name, service)| {
            let mut instances = Vec::new();
            for index in 0..service.endpoints.len() {
                let instance = services::instance(&name, index, &service.endpoints).map_err(misnamed)?;
                if let Some(other) = config.instances.iter().find(|other| other.name == instance.name) {
                    let (name, service) = (&instance.name, &other.service);
                    return Err(misnamed(format!(
                        "its instance `{name}` has the name of one of `{service}`"
                    )));
                }
                instances.push(instance);
            }
            Ok((name, service, instances))
        });
        match read {
            Ok((name, service, instances)) => {
                config.instances.extend(instances);
                config.services.insert(name, service);
            }
            Err(flaws) => left_out.extend(LeftOut::with_all(Some(one.name.get_ref().clone()), flaws)),
        }
    }
    // What it was to hide is not known: if it registers itself, nothing of it is shown.
    for name in left_out.iter().filter_map(|left| Name::new(left.service.as_deref()?).ok()) {
        let hidden = ServiceConfig { exposure: Exposure::nothing(), ..Default::default() };
        config.services.entry(name).or_insert(hidden);
    }
}
