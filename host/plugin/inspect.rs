//! A look at a file before anything is compiled: is it a component, and does it ask for no more than it may have?

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use super::load::LoadError;
use super::{absent, v0_1, wasi};

/// Deeper nesting than any tool produces; it bounds the parser's own stack.
const DEPTH_MAX: usize = 64;

/// What the component imports.
///
/// # Errors
/// The first thing that keeps the component out, as a sentence for its author.
pub fn inspect(file: &[u8]) -> Result<Vec<String>, LoadError> {
    if file.is_empty() {
        return Err(LoadError::Empty);
    }
    if !file.starts_with(b"\0asm") {
        return Err(if b"\0asm".starts_with(file) { LoadError::Truncated } else { LoadError::NotWasm });
    }
    if Parser::is_core_wasm(file) {
        return Err(LoadError::CoreModule);
    }
    let mut depth = 0usize;
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload.map_err(|error| match truncated(file, &error) {
            true => LoadError::Truncated,
            false => LoadError::NotValid(error.message().to_owned()),
        })?;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(LoadError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(LoadError::NotValid(format!("it is nested deeper than {DEPTH_MAX}")));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| LoadError::NotValid(error.message().to_owned()))?;
                    check_import(import.name.name)?;
                    imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(|error| LoadError::NotValid(error.message().to_owned()))?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    check_exports(&exports)?;
    Ok(imports)
}

fn truncated(file: &[u8], error: &wasmparser::BinaryReaderError) -> bool {
    error.offset() >= file.len() || error.message().contains("unexpected end")
}

fn check_import(import: &str) -> Result<(), LoadError> {
    let Some((package, interface, version)) = parts(import) else {
        return Err(LoadError::ForbiddenImport(import.to_owned()));
    };
    if package == v0_1::PACKAGE {
        if !is_ours(version) {
            return Err(LoadError::Version(import.to_owned()));
        }
        return if v0_1::IMPORTS.contains(&interface) {
            Ok(())
        } else {
            Err(LoadError::UnknownImport(import.to_owned()))
        };
    }
    let unversioned = format!("{package}/{interface}");
    if !wasi::INTERFACES.contains(&unversioned.as_str()) && !absent::is_absent(package) {
        return Err(LoadError::ForbiddenImport(import.to_owned()));
    }
    match version.strip_prefix("0.2.") {
        Some(_) => Ok(()),
        None if version.starts_with("0.3") => Err(LoadError::AsyncAbi),
        None => Err(LoadError::ForbiddenImport(import.to_owned())),
    }
}

fn check_exports(exports: &[String]) -> Result<(), LoadError> {
    let mut kinds = 0;
    let mut lifecycle = false;
    for export in exports {
        let Some((v0_1::PACKAGE, interface, version)) = parts(export) else { continue };
        if !is_ours(version) {
            return Err(LoadError::Version(export.clone()));
        }
        lifecycle |= interface == v0_1::LIFECYCLE;
        kinds += usize::from(v0_1::KINDS.contains(&interface));
    }
    match (lifecycle, kinds) {
        (false, 0) => Err(LoadError::NotAPlugin),
        (false, _) => Err(LoadError::NoLifecycle),
        (true, 0) => Err(LoadError::NoKind),
        (true, _) => Ok(()),
    }
}

/// `package`, `interface` and `version` of `package/interface@version`.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

/// Below 1.0 the minor version is what must agree.
fn is_ours(version: &str) -> bool {
    fn minor(version: &str) -> Option<&str> {
        version.rsplit_once('.').map(|(minor, _)| minor)
    }
    minor(version) == minor(v0_1::VERSION)
}
