//! Where the proxy of a configuration is, as far as that can be known while its file is wrong.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::raw::{self, Sections};
use super::{Config, ConfigError, Overrides};

#[derive(Debug)]
pub struct Whereabouts {
    pub data_dir: PathBuf,
    pub http_addr: SocketAddr,
    /// What is wrong with the file, of which only the beginning was read then.
    pub flaw: Option<ConfigError>,
}

impl Whereabouts {
    /// # Errors
    /// Those of [`Config::load`], where nothing names a data folder.
    pub fn of(overrides: Overrides) -> Result<Self, ConfigError> {
        let flaw = match Config::load(overrides.clone()) {
            Ok(Config { data_dir, http_addr, .. }) => return Ok(Self { data_dir, http_addr, flaw: None }),
            Err(flaw) => flaw,
        };
        // One that cannot be read says nothing; `flaw` has the reason.
        let text = overrides.path().and_then(|path| std::fs::read_to_string(path).ok());
        let said = text.map(|text| beginning(&text).server).unwrap_or_default();
        let overrides = Overrides {
            data_dir: overrides.data_dir.or(said.data_dir),
            http_addr: overrides.http_addr.or(said.http_addr),
            ..overrides
        };
        // Of sections that say nothing nothing is wrong.
        match raw::resolve(Sections::default(), overrides, &mut Vec::new()) {
            Ok(Config { data_dir, http_addr, .. }) => Ok(Self { data_dir, http_addr, flaw: Some(flaw) }),
            Err(_) => Err(flaw),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    server: Server,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Server {
    data_dir: Option<PathBuf>,
    http_addr: Option<SocketAddr>,
}

/// What the lines say that stand before the first one that is wrong.
fn beginning(text: &str) -> Said {
    let read = toml::from_str(text).or_else(|error| {
        // An error without a place leaves nothing that could be relied on.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let lines = before.rfind('\n').map_or(0, |end| end + 1);
        toml::from_str(&before[..lines])
    });
    // Whoever asks knows already that the file is wrong: not even its beginning helps then.
    let mut said: Said = read.unwrap_or_default();
    // Nothing is filled in here.
    said.server.data_dir.take_if(|folder| folder.to_string_lossy().contains("${"));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whereabouts(text: &str) -> (PathBuf, u16, bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("meshwright.toml");
        std::fs::write(&path, text).expect("write");
        let overrides = Overrides { file: Some(path), ..Overrides::default() };
        let Whereabouts { data_dir, http_addr, flaw } = Whereabouts::of(overrides).expect("a place");
        (data_dir, http_addr.port(), flaw.is_some())
    }

    #[test]
    fn a_wrong_file_still_says_where_its_proxy_is() {
        const SERVER: &str = "[server]\ndata_dir = \"/there\"\nhttp_addr = \"127.0.0.1:7001\"\n";
        let there = PathBuf::from("/there");
        assert_eq!(whereabouts(SERVER), (there.clone(), 7001, false));
        for wrong in ["x = [\n", "[services.a\n", "[lease]\nttl = 7\n"] {
            assert_eq!(whereabouts(&format!("{SERVER}{wrong}")), (there.clone(), 7001, true), "{wrong}");
        }
        let (data_dir, port, is_wrong) = whereabouts("x = [\n");
        assert!(data_dir.ends_with("meshwright") && port == 6001 && is_wrong);
        let filled = whereabouts("[server]\ndata_dir = \"${env:NOWHERE}/x\"\n[services\n");
        assert_eq!(filled.0, data_dir);
    }
}
