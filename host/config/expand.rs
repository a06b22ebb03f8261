//! `${…}` in values: the environment, secrets, and the words that editors use.
//!
//! | | |
//! |---|---|
//! | `${NAME}`, `${env:NAME}` | the environment variable |
//! | `${NAME:-WORD}`, `${env:NAME:-WORD}` | the same, or `WORD`, itself filled in, when it is not set or empty |
//! | `${secret:NAME}`, `${input:NAME}` | the file `NAME` in a folder of secrets |
//! | `${userHome}`, `${workspaceFolder}`, `${pathSeparator}`, `${/}` | as in editors' files |
//! | `$${` | `${` itself |

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::env_dir;
use super::file::Value;

/// Defaults within defaults.
const DEPTH_MAX: usize = 8;
/// Longest secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Permissions that no secret of the user's may have.
const OTHERS: u32 = 0o077;
/// The same for what systemd passes on: the service's user has it from an access list, whose mask stands where the
/// group's permissions are (`systemd.exec(5)`).
const OTHERS_THAN_THE_SERVICE: u32 = 0o007;

/// Where values come from.
pub(super) struct Sources {
    /// First come, first served; with the permissions that files there may not have.
    pub secrets: Vec<(PathBuf, u32)>,
    pub env: fn(&str) -> Option<String>,
}

impl Sources {
    /// The environment; secrets that systemd passes on, then those of the user.
    pub(super) fn usual() -> Self {
        let own = super::config_home().map(|home| home.join("meshwright/secrets"));
        let secrets = folders(env_dir("CREDENTIALS_DIRECTORY"), own);
        Self { secrets, env: |name| std::env::var(name).ok() }
    }

    fn secret(&self, name: &str) -> Result<String, String> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if name.is_empty() || name.starts_with('.') || !plain {
            return Err(format!(
                "`{name}` cannot be the name of a secret; use letters, digits, `_`, `-`, `.`"
            ));
        }
        let mut files = self.secrets.iter().map(|(folder, forbidden)| (folder.join(name), *forbidden));
        let Some((file, forbidden)) = files.find(|(file, _)| file.is_file()) else {
            let last = self.secrets.last();
            let place = last.map_or_else(|| name.to_owned(), |(folder, _)| shown(&folder.join(name)));
            return Err(format!(
                "there is no secret `{name}`; write it into the file {place}, with mode 600"
            ));
        };
        let failed = |error: std::io::Error| format!("the secret `{name}` cannot be read: {error}");
        let about = file.metadata().map_err(failed)?;
        if about.permissions().mode() & forbidden != 0 {
            let (mode, file) = (if forbidden == OTHERS { "600" } else { "o=" }, shown(&file));
            return Err(format!("others may read the secret `{name}`; run `chmod {mode} {file}`"));
        }
        if about.len() > SECRET_BYTES_MAX {
            return Err(format!("the secret `{name}` has more than {} KiB", SECRET_BYTES_MAX >> 10));
        }
        let text = std::fs::read_to_string(&file).map_err(failed)?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// `file` is the one in which the text stands.
    fn value(&self, inside: &str, file: &Path, depth: usize) -> Result<String, String> {
        let named = |name: &str| -> Result<String, String> {
            let (name, default) = match name.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (name, None),
            };
            let may_be = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(may_be) {
                return Err(format!(
                    "`${{{inside}}}` is nothing that can be filled in; write `${{env:NAME}}`, `${{secret:NAME}}`, or \
                     `$${{` for `${{` itself"
                ));
            }
            match (self.variable(name), default) {
                (Some(value), _) => Ok(value),
                (None, Some(default)) => {
                    Ok(self.filled(default, file, depth + 1)?.unwrap_or_else(|| default.to_owned()))
                }
                (None, None) => Err(format!(
                    "`{name}` is not set in the proxy's environment; set it, or write `${{{name}:-WORD}}`"
                )),
            }
        };
        match inside {
            "userHome" => {
                env_dir("HOME").map(|home| shown(&home)).ok_or_else(|| "`HOME` is not set".to_owned())
            }
            "workspaceFolder" => Ok(shown(&workspace(file))),
            "pathSeparator" | "/" => Ok("/".to_owned()),
            _ => match inside.split_once(':') {
                Some(("env", name)) => named(name),
                Some(("secret" | "input", name)) => self.secret(name),
                _ => named(inside),
            },
        }
    }

    /// `None` when there is nothing to fill in.
    ///
    /// # Errors
    /// What cannot be filled in, and what to do.
    pub(super) fn expand(&self, text: &str, file: &Path) -> Result<Option<String>, String> {
        self.filled(text, file, 0)
    }

    fn filled(&self, text: &str, file: &Path, depth: usize) -> Result<Option<String>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} defaults are within one another"));
        }
        if !text.contains("${") {
            return Ok(None);
        }
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = end(inside).ok_or_else(|| "a `${` has no `}` behind it".to_owned())?;
            out.push_str(&self.value(&inside[..end], file, depth)?);
            rest = &inside[end + 1..];
        }
        out.push_str(rest);
        Ok(Some(out))
    }

    /// Fills in all text in `value`. Answers where that fails, and why; keys with such text are taken out.
    pub(super) fn fill_in(&self, value: &mut Value<'_>, file: &Path) -> Vec<Unfilled> {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => match self.expand(text, file) {
                Ok(Some(expanded)) => *text = Cow::Owned(expanded),
                Ok(None) => {}
                Err(why) => return vec![(span, why)],
            },
            DeValue::Array(items) => {
                return items.iter_mut().flat_map(|item| self.fill_in(item, file)).collect();
            }
            DeValue::Table(table) => {
                let (mut unfilled, mut without) = (Vec::new(), Vec::new());
                for (key, item) in table.iter_mut() {
                    let mut found = self.fill_in(item, file);
                    if !found.is_empty() && !item.get_ref().is_table() {
                        without.push(key.get_ref().to_string());
                    }
                    unfilled.append(&mut found);
                }
                without.iter().for_each(|key| drop(table.remove(key.as_str())));
                return unfilled;
            }
            _ => {}
        }
        Vec::new()
    }
}

/// Where something cannot be filled in, and why.
pub(super) type Unfilled = (std::ops::Range<usize>, String);

/// Where the `}` is that belongs to the `${` before `inside`.
fn end(inside: &str) -> Option<usize> {
    let (mut open, mut before) = (1, [0; 2]);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            // `$${` is no reference.
            b'{' if before[1] == b'$' && before[0] != b'$' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        before = [before[1], byte];
    }
    None
}

fn folders(passed_on: Option<PathBuf>, own: Option<PathBuf>) -> Vec<(PathBuf, u32)> {
    let passed_on = passed_on.map(|folder| (folder, OTHERS_THAN_THE_SERVICE));
    passed_on.into_iter().chain(own.map(|folder| (folder, OTHERS))).collect()
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `text` with the workspace of `file` written out: it means the same in another file.
pub(super) fn pin_workspace(text: &str, file: &Path) -> String {
    const WORD: &str = "${workspaceFolder}";
    // The path stands for itself, whatever is in it.
    let folder = shown(&workspace(file)).replace("${", "$${");
    // What is split has a first piece.
    let mut pieces = text.split(WORD);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str(if out.ends_with('$') { WORD } else { &folder });
        out.push_str(piece);
    }
    out
}

/// The folder of the file, or the one around it when it is an editor's own.
pub(super) fn workspace(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_editor = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let folder = if of_editor { folder.parent().unwrap_or(folder) } else { folder };
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(folder: &Path) -> Sources {
        let env = |name: &str| match name {
            "TOKEN" => Some("t0ken".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Sources { secrets: folders(Some(folder.join("passed-on")), Some(folder.to_owned())), env }
    }

    #[test]
    fn values_are_filled_in_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("github");
        std::fs::write(&secret, "s3cret\n").expect("write");
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("chmod");
        let sources = sources(folder.path());
        let file = Path::new("/w/.vscode/mcp.json");
        for (text, expanded) in [
            ("plain $ {x} $x", None),
            ("a ${TOKEN} b ${env:TOKEN}", Some("a t0ken b t0ken")),
            ("${EMPTY:-none}${NOT:-some}${env:NOT:-}", Some("nonesome")),
            ("${secret:github}-${input:github}", Some("s3cret-s3cret")),
            ("${NOT:-${TOKEN}/${NOT:-x}} ${TOKEN:-${NOT}}", Some("t0ken/x t0ken")),
            ("${NOT:-$${} ${NOT:-{}}", Some("${ {}")),
            ("$${TOKEN} $$${TOKEN}", Some("${TOKEN} $${TOKEN}")),
            ("${workspaceFolder}${/}x", Some("/w/x")),
        ] {
            assert_eq!(sources.expand(text, file).expect(text).as_deref(), expanded, "{text}");
        }
        for (text, part) in [
            ("${NOT}", "`NOT` is not set"),
            ("${env:EMPTY}", "`EMPTY` is not set"),
            ("${TOKEN", "no `}`"),
            ("${NOT:-${TOKEN}", "no `}`"),
            ("${NOT:-${env:EMPTY}}", "`EMPTY` is not set"),
            ("${NOT${TOKEN}}", "nothing that can be filled in"),
            ("${a b}", "nothing that can be filled in"),
            ("${secret:other}", "write it into the file"),
            ("${secret:../x}", "cannot be the name"),
        ] {
            let why = sources.expand(text, file).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
        let deep = format!("{}x{}", "${NOT:-".repeat(10_000), "}".repeat(10_000));
        let why = sources.expand(&deep, file).expect_err("too deep");
        assert!(why.contains("within one another"), "{why}");
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).expect("chmod");
        let why = sources.expand("${secret:github}", file).expect_err("others may read it");
        assert!(why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn what_systemd_passes_on_may_be_readable_through_its_access_list_and_by_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("passed-on")).expect("create");
        let secret = folder.path().join("passed-on/github");
        std::fs::write(&secret, "s3cret").expect("write");
        let read = |mode| {
            std::fs::set_permissions(&secret, PermissionsExt::from_mode(mode)).expect("chmod");
            sources(folder.path()).expand("${secret:github}", Path::new("m.toml"))
        };
        assert_eq!(read(0o440).expect("its user may read it").as_deref(), Some("s3cret"));
        let why = read(0o444).expect_err("all may read it");
        assert!(why.contains("chmod o= "), "{why}");
    }
}
