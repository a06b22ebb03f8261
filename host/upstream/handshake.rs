//! Finding out how an instance is spoken to: the modern question first, the legacy handshake when it is not
//! understood.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;

use super::ask::{Answer, Ask};
use super::http::Verb;
use super::peer::{Link, Peer, Post, Spoken};
use super::reply::{Reply, Stream};
use super::stdio::Process;
use super::{SendError, Times};
use crate::mcp::era::{Era, LEGACY_VERSION, MODERN_VERSION};
use crate::mcp::{declared, envelope};
use crate::mesh::offer::About;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(default, rename = "_meta")]
    meta: Meta,
}

/// Modern results carry who answered in `_meta`.
#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: ServerInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    server_info: ServerInfo,
}

#[derive(Default, Deserialize)]
struct ServerInfo {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

impl ServerInfo {
    fn text(&self) -> String {
        format!("{} {}", self.name, self.version).trim().to_owned()
    }
}

impl Peer {
    /// How the instance is spoken to; asks it when that is not known, and starts it when it is a process. Callers
    /// that come meanwhile wait for the first one's answer.
    ///
    /// # Errors
    /// The instance cannot be spoken to; nothing but the handshake was sent.
    pub async fn ready(&self, times: &Times) -> Result<Arc<Spoken>, SendError> {
        if let Some(spoken) = self.spoken.load_full().filter(|spoken| !spoken.is_gone()) {
            return Ok(spoken);
        }
        self.awake(times).await?;
        if let Some(spoken) = self.spoken.load_full().filter(|spoken| !spoken.is_gone()) {
            return Ok(spoken);
        }
        // Not longer than a connection may take: another instance may be free meanwhile. A process takes its time.
        let patience = match self.link {
            Link::Http(_) => times.deadline.min(tokio::time::Instant::now() + times.connect),
            Link::Stdio(_) => times.deadline,
        };
        let waited = tokio::time::timeout_at(patience, self.handshake.lock()).await;
        let _guard = waited.map_err(|_| failed("another one is still under way".to_owned()))?;
        if let Some(spoken) = self.spoken.load_full().filter(|spoken| !spoken.is_gone()) {
            return Ok(spoken);
        }
        let spoken = Arc::new(self.shake_hands(times).await.map_err(before_the_call)?);
        tracing::debug!(
            era = spoken.era.as_str(),
            session = spoken.session.is_some(),
            server = spoken.server,
            "handshake done"
        );
        self.spoken.store(Some(Arc::clone(&spoken)));
        Ok(spoken)
    }

    /// A legacy session that is shared by all clients that can do the same, want the same log, and keep no session of
    /// their own. `capabilities` are those of `initialize`, `log_level` that of `logging/setLevel`; JSON text.
    ///
    /// # Errors
    /// As [`Peer::ready`].
    pub async fn shared(
        &self,
        capabilities: &str,
        log_level: Option<&str>,
        times: &Times,
    ) -> Result<Arc<Spoken>, SendError> {
        let spoken = self.ready(times).await?;
        if spoken.era == Era::Modern || capabilities == "{}" && log_level.is_none() || self.is_process() {
            return Ok(spoken);
        }
        let key = format!("{}{capabilities}", log_level.unwrap_or_default());
        if let Some(spoken) = self.by_capability().get(key.as_str()).map(Arc::clone) {
            return Ok(spoken);
        }
        let (spoken, _) = self.initialize(capabilities, None, times).await.map_err(before_the_call)?;
        if let Some(level) = log_level {
            let level = format!("\"level\":{level}");
            let ask = Ask {
                method: "logging/setLevel",
                name: None,
                members: &[level.as_bytes()],
                mirrored: &[],
                recalls: None,
            };
            // A server without a log says that it does not know the method; the client does without, too.
            self.ask_as(&spoken, &ask, times).await.map_err(before_the_call)?;
        }
        let spoken = Arc::new(spoken);
        self.keep_for(&key, &spoken);
        Ok(spoken)
    }

    /// Opens a legacy session for one client, and starts a process for it where each client gets one. `params` are
    /// those of the client's `initialize`, JSON text; its result comes back as it was. The client, or whoever speaks
    /// for it, still has to say `notifications/initialized`.
    ///
    /// # Errors
    /// As [`Peer::ready`]; and the instance's own error.
    pub async fn open(&self, params: &str, times: &Times) -> Result<(Spoken, Answer), SendError> {
        let process = match self.stdio().filter(|stdio| stdio.command.per_session) {
            Some(stdio) => Some(stdio.start_own().await?),
            None => self.start().await?,
        };
        self.greet(params, process, times).await.map_err(before_the_call)
    }

    async fn start(&self) -> Result<Option<Arc<Process>>, SendError> {
        match &self.link {
            Link::Http(_) => Ok(None),
            Link::Stdio(stdio) if stdio.command.per_session => stdio.start().await.map(Some),
            Link::Stdio(stdio) => stdio.running().map(Some),
        }
    }

    async fn shake_hands(&self, times: &Times) -> Result<Spoken, SendError> {
        let process = self.start().await?;
        // Half of the time: a server that lets what it does not know hang is asked the old way, too.
        let now = tokio::time::Instant::now();
        let deadline = now + times.deadline.saturating_duration_since(now) / 2;
        match self.discover(process.clone(), &Times { deadline, ..*times }).await? {
            Some(modern) => Ok(modern),
            None => self.initialize("{}", process, times).await.map(|(spoken, _)| spoken),
        }
    }

    /// `None` when the instance does not know the modern era. Whatever a legacy server says to a method and a
    /// version that it never heard of (400, 404, 405, -32601, -32602, a stream) means just that.
    pub(super) async fn discover(
        &self,
        process: Option<Arc<Process>>,
        times: &Times,
    ) -> Result<Option<Spoken>, SendError> {
        let modern = Spoken {
            era: Era::Modern,
            version: HeaderValue::from_static(MODERN_VERSION),
            session: None,
            process,
            legacy_too: false,
            server: String::new(),
            about: Arc::new(About::new(Era::Modern)),
        };
        let ask = Ask { method: "server/discover", name: None, members: &[], mirrored: &[], recalls: None };
        let result = match self.ask_as(&modern, &ask, times).await {
            Ok(Answer::Result(result)) => result,
            Ok(Answer::Error(_)) => return Ok(None),
            Err(SendError::Status { status, .. }) if status.as_u16() == 401 => {
                return Err(SendError::Status {
                    status,
                    detail: "the instance asks for credentials".to_owned(),
                });
            }
            Err(
                SendError::Status { .. }
                | SendError::Malformed(_)
                | SendError::ContentType(_)
                | SendError::StreamEnded
                | SendError::ProcessEnded
                | SendError::SessionGone
                | SendError::DeadlinePassed
                | SendError::FirstByteTimeout(_)
                | SendError::Broken(_),
            ) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(discovered) = serde_json::from_slice::<Discovered>(&result) else { return Ok(None) };
        if !discovered.supported_versions.iter().any(|version| version == MODERN_VERSION) {
            return Ok(None);
        }
        let about = Arc::new(declared::about(Era::Modern, &result));
        let legacy_too =
            discovered.supported_versions.iter().any(|version| version.as_str() < MODERN_VERSION);
        Ok(Some(Spoken { server: discovered.meta.server_info.text(), about, legacy_too, ..modern }))
    }

    /// A legacy session of the proxy's own, ready for use.
    pub(super) async fn initialize(
        &self,
        capabilities: &str,
        process: Option<Arc<Process>>,
        times: &Times,
    ) -> Result<(Spoken, Bytes), SendError> {
        let info = envelope::CLIENT_INFO;
        let params = format!(
            r#"{{"protocolVersion":"{LEGACY_VERSION}","capabilities":{capabilities},"clientInfo":{info}}}"#
        );
        let (spoken, answer) = self.greet(&params, process, times).await?;
        let result = match answer {
            Answer::Result(result) => result,
            Answer::Error(error) => {
                return Err(failed(String::from_utf8_lossy(&error).chars().take(200).collect()));
            }
        };
        let ready = envelope::notification("notifications/initialized");
        self.post(&spoken, &Post { id: None, token: None, headers: &[], body: &[&ready] }, times).await?;
        Ok((spoken, result))
    }

    async fn greet(
        &self,
        params: &str,
        process: Option<Arc<Process>>,
        times: &Times,
    ) -> Result<(Spoken, Answer), SendError> {
        let id = self.next_id();
        let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":"#);
        let body: [&[u8]; 3] = [head.as_bytes(), params.as_bytes(), b"}"];
        let reply = match (&self.link, &process) {
            (Link::Http(http), _) => http.exchange(Verb::Post, None, &[], &body, times).await?,
            (Link::Stdio(_), Some(process)) => {
                let events = process.request(&id.to_string(), None, &body, times).await?;
                Reply::Stream(Stream { session: None, events })
            }
            (Link::Stdio(_), None) => {
                return Err(SendError::NotSent(std::io::ErrorKind::NotConnected.into()));
            }
        };
        let session = match &reply {
            Reply::Whole(whole) => whole.session.clone(),
            Reply::Stream(stream) => stream.session.clone(),
        };
        let mut spoken = Spoken {
            era: Era::Legacy,
            version: HeaderValue::from_static(LEGACY_VERSION),
            session: None,
            process,
            legacy_too: false,
            server: String::new(),
            about: Arc::new(About::new(Era::Legacy)),
        };
        let answer = self.answer(reply, &spoken, id, times).await?;
        spoken.session = session;
        if let Answer::Result(result) = &answer {
            let initialized: Initialized = serde_json::from_slice(result)
                .map_err(|error| failed(format!("the result of `initialize` is not understood: {error}")))?;
            spoken.version = HeaderValue::try_from(&initialized.protocol_version)
                .map_err(|_| failed("the protocol version cannot be a header".to_owned()))?;
            spoken.server = initialized.server_info.text();
            spoken.about = Arc::new(declared::about(Era::Legacy, result));
        }
        Ok((spoken, answer))
    }
}

fn failed(why: String) -> SendError {
    SendError::Handshake { status: None, why }
}

/// Whatever breaks during the handshake, the call itself was not sent.
fn before_the_call(error: SendError) -> SendError {
    match error {
        SendError::Connect(_)
        | SendError::ConnectTimeout(_)
        | SendError::NotSent(_)
        | SendError::Start { .. }
        | SendError::Missing(_)
        | SendError::Down(_)
        | SendError::Resting
        | SendError::Full(_)
        | SendError::Handshake { .. } => error,
        SendError::Status { status, .. } => {
            SendError::Handshake { status: Some(status), why: super::chain(&error) }
        }
        other => failed(super::chain(&other)),
    }
}
