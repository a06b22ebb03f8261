//! Makes `wit/REFERENCE.md` of `wit/plugin.wit`: what its comments say, interface by interface.

use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, Interface, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeOwner, World, WorldItem,
};

/// Which worlds import an interface, and which export it.
type Users<'a> = (Vec<&'a str>, Vec<&'a str>);

const HEAD: &str = "\
# The contract

Made from the comments of [`plugin.wit`](plugin.wit); the [guide](README.md) says how to begin. A plugin imports what its
world imports, exports what its world exports, and may export the interfaces of several worlds.
";

/// # Panics
/// `contract` is not WIT, or has something that the reference cannot show.
pub fn reference(contract: &str) -> String {
    let mut resolve = Resolve::default();
    resolve.push_source("plugin.wit", contract).expect("the contract is WIT");
    let resolve = &resolve;
    let mut out = HEAD.to_owned();
    out.push_str("\n| world | imports | exports |\n|---|---|---|\n");
    for (_, world) in resolve.worlds.iter().filter(|(_, world)| is_for_plugins(world)) {
        let (imports, exports) = (imports(resolve, world), interfaces(resolve, &world.exports));
        line(&mut out, format_args!("| `{}` | {} | {} |", world.name, links(&imports), links(&exports)));
    }
    for (id, interface) in resolve.interfaces.iter() {
        let name = interface.name.as_deref().expect("no interface of the contract is inline");
        line(&mut out, format_args!("\n## {name}\n\n{}", origin(resolve, id)));
        paragraph(&mut out, &interface.docs);
        write_interface(&mut out, resolve, interface);
    }
    out
}

/// `base` is only included by others, and `everything` is the host's.
fn is_for_plugins(world: &World) -> bool {
    !["base", "everything"].contains(&&*world.name)
}

fn interfaces<'a>(
    resolve: &'a Resolve,
    items: impl IntoIterator<Item = (&'a wit_parser::WorldKey, &'a WorldItem)>,
) -> Vec<(InterfaceId, &'a str)> {
    let interface = |item: &WorldItem| match item {
        WorldItem::Interface { id, .. } => Some((*id, resolve.interfaces[*id].name.as_deref()?)),
        _ => None,
    };
    items.into_iter().filter_map(|(_, item)| interface(item)).collect()
}

/// Without what is imported for its types alone: it has no functions, or they are those of another kind of plugin.
fn imports<'a>(resolve: &'a Resolve, world: &'a World) -> Vec<(InterfaceId, &'a str)> {
    let is_of_plugins = |id| {
        resolve
            .worlds
            .iter()
            .any(|(_, world)| interfaces(resolve, &world.exports).iter().any(|(of, _)| *of == id))
    };
    let mut found = interfaces(resolve, &world.imports);
    found.retain(|(id, _)| !resolve.interfaces[*id].functions.is_empty() && !is_of_plugins(*id));
    found
}

fn links(interfaces: &[(InterfaceId, &str)]) -> String {
    let links = interfaces.iter().map(|(_, name)| format!("[`{name}`](#{name})"));
    links.collect::<Vec<_>>().join(", ")
}

fn origin(resolve: &Resolve, id: InterfaceId) -> String {
    let (mut imported, mut exported): Users<'_> = Default::default();
    let has = |interfaces: Vec<(InterfaceId, &str)>| interfaces.iter().any(|(used, _)| *used == id);
    for (_, world) in resolve.worlds.iter().filter(|(_, world)| is_for_plugins(world)) {
        if has(imports(resolve, world)) {
            imported.push(&world.name);
        }
        if has(interfaces(resolve, &world.exports)) {
            exported.push(&world.name);
        }
    }
    let worlds = resolve.worlds.iter().filter(|(_, world)| is_for_plugins(world)).count();
    let of = |names: &[&str]| match names.len() {
        count if count == worlds => "every world".to_owned(),
        _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    match (&*imported, &*exported) {
        ([], []) => "Types that other interfaces use.".into(),
        (names, []) => format!("Imported by the plugin; in {}.", of(names)),
        (_, names) => format!("Exported by the plugin; in {}.", of(names)),
    }
}

fn write_interface(out: &mut String, resolve: &Resolve, interface: &Interface) {
    for function in interface.functions.values() {
        line(out, format_args!("\n### {}\n\n```wit\n{}\n```", function.name, signature(resolve, function)));
        paragraph(out, &function.docs);
    }
    for (name, id) in &interface.types {
        write_type(out, resolve, name, &resolve.types[*id]);
    }
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let params: Vec<_> = function
        .params
        .iter()
        .map(|param| format!("{}: {}", param.name, type_name(resolve, &param.ty)))
        .collect();
    let result = function.result.map_or_else(String::new, |ty| format!(" -> {}", type_name(resolve, &ty)));
    format!("{}: func({}){result}", function.name, params.join(", "))
}

fn write_type(out: &mut String, resolve: &Resolve, name: &str, ty: &TypeDef) {
    // Each part: its name, its type if it has one, and what is said of it.
    let parts: Vec<(&str, Option<String>, &Docs)> = match &ty.kind {
        TypeDefKind::Record(record) => record
            .fields
            .iter()
            .map(|field| (&*field.name, Some(type_name(resolve, &field.ty)), &field.docs))
            .collect(),
        TypeDefKind::Variant(variant) => variant
            .cases
            .iter()
            .map(|case| (&*case.name, case.ty.map(|ty| type_name(resolve, &ty)), &case.docs))
            .collect(),
        TypeDefKind::Enum(cases) => cases.cases.iter().map(|case| (&*case.name, None, &case.docs)).collect(),
        TypeDefKind::Flags(flags) => flags.flags.iter().map(|flag| (&*flag.name, None, &flag.docs)).collect(),
        TypeDefKind::Type(Type::Id(used)) => {
            let TypeOwner::Interface(owner) = resolve.types[*used].owner else { return };
            let owner = resolve.interfaces[owner].name.as_deref().expect("no interface is inline");
            line(out, format_args!("\n`{name}` is that of [`{owner}`](#{owner})."));
            return;
        }
        other => panic!("the contract has {}, which the reference cannot show", other.as_str()),
    };
    line(out, format_args!("\n### {} {name}", ty.kind.as_str()));
    paragraph(out, &ty.docs);
    if parts.iter().all(|(_, ty, docs)| ty.is_none() && docs.is_empty()) {
        let names: Vec<_> = parts.iter().map(|(name, ..)| format!("`{name}`")).collect();
        line(out, format_args!("\n{}", names.join(", ")));
        return;
    }
    let explains = parts.iter().any(|(.., docs)| !docs.is_empty());
    out.push_str(if explains { "\n| | type | |\n|---|---|---|\n" } else { "\n| | type |\n|---|---|\n" });
    for (name, ty, docs) in parts {
        let ty = ty.map_or_else(String::new, |ty| format!("`{ty}`"));
        let docs = if explains { format!(" {} |", said(docs).replace('|', "\\|")) } else { String::new() };
        line(out, format_args!("| `{name}` | {ty} |{docs}"));
    }
}

fn type_name(resolve: &Resolve, ty: &Type) -> String {
    let name = |ty: &Type| type_name(resolve, ty);
    let optional = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), name);
    let Type::Id(id) = ty else { return primitive(ty).to_owned() };
    let ty = &resolve.types[*id];
    if let Some(name) = &ty.name {
        return name.clone();
    }
    match &ty.kind {
        TypeDefKind::Option(inner) => format!("option<{}>", name(inner)),
        TypeDefKind::List(inner) => format!("list<{}>", name(inner)),
        TypeDefKind::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(name).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Result(result) => match (&result.ok, &result.err) {
            (ok, None) => format!("result<{}>", optional(ok)),
            (ok, err) => format!("result<{}, {}>", optional(ok), optional(err)),
        },
        other => panic!("the contract has {}, which the reference cannot show", other.as_str()),
    }
}

fn primitive(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext | Type::Id(_) => panic!("the contract has {ty:?}, which is no primitive"),
    }
}

/// In one line: where a comment breaks its lines means nothing.
fn said(docs: &Docs) -> String {
    docs.contents.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn paragraph(out: &mut String, docs: &Docs) {
    if !docs.is_empty() {
        line(out, format_args!("\n{}", said(docs)));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("write to text");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_reference_is_that_of_the_contract() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let contract = fs::read_to_string(folder.join("plugin.wit")).expect("read the contract");
        let wanted = super::reference(&contract);
        let path = folder.join("REFERENCE.md");
        if fs::read_to_string(&path).ok().as_deref() != Some(&*wanted) {
            fs::write(&path, wanted).expect("write the reference");
            panic!("{} was not that of the contract; it is now: look at it and commit it", path.display());
        }
    }
}
