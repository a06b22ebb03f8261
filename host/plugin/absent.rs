//! Files and sockets, which plugins do not have. The runtimes of Go, Python and JavaScript import them all the same,
//! used or not, so such imports are satisfied with nothing: no folder is there to begin with, and every other
//! function ends the instance with a sentence. No descriptor and no socket ever exists, hence nothing can block.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType, Val};
use wasmtime::{Result, bail};

use super::host_state::HostState;

/// Packages whose 0.2 interfaces a plugin may import, and what it is told when it calls into one.
const PACKAGES: &[(&str, &str)] = &[
    ("wasi:filesystem", "plugins have no files; what must be remembered goes into `meshwright:plugin/kv`"),
    ("wasi:sockets", "plugins have no network"),
];
/// The one function that every runtime calls at its start.
const NO_FOLDERS: &str = "get-directories";
/// Resources of `wasi:io` that these interfaces only mention: they have their type already.
const OF_IO: &[&str] = &["error", "input-stream", "output-stream", "pollable"];

/// The type of what never exists.
enum Nothing {}

pub fn is_absent(package: &str) -> bool {
    sentence(package).is_some()
}

/// What keeps `package` from being of use to a plugin.
pub fn sentence(package: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(absent, _)| *absent == package).map(|(_, sentence)| *sentence)
}

/// `linker` with all that `component` imports of what is absent.
///
/// # Errors
/// The component declares it in a way that no runtime does.
pub fn link(linker: &Linker<HostState>, component: &Component) -> Result<Linker<HostState>> {
    let mut linker = linker.clone();
    let engine = component.engine();
    for (import, item) in component.component_type().imports(engine) {
        let package = import.split('/').next().unwrap_or_default();
        let (Some(sentence), ComponentItem::ComponentInstance(interface)) = (sentence(package), item.ty)
        else {
            continue;
        };
        let mut instance = linker.instance(import)?;
        for (name, item) in interface.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) if name == NO_FOLDERS => {
                    instance.func_new(name, |_, _, _, results| match results {
                        [result] => {
                            *result = Val::List(Vec::new());
                            Ok(())
                        }
                        _ => bail!("`{NO_FOLDERS}` has one result"),
                    })?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{import}#{name}");
                    instance
                        .func_new(name, move |_, _, _, _| bail!("{sentence}, and it called `{called}`"))?;
                }
                ComponentItem::Resource(_) if !OF_IO.contains(&name) => {
                    instance.resource(name, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(linker)
}
