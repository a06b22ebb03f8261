//! Bringing a client's request to an instance, in the words of the instance's era.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;

use super::Endpoint;
use super::lane::Lane;
use super::session::Session;
use super::wanted;
use crate::mcp::answer::VERSIONS;
use crate::mcp::deadline;
use crate::mcp::envelope::{self, CLIENT_INFO};
use crate::mcp::era::{Era, METHOD, NAME, header_name};
use crate::mcp::message::{Message, Splice, string};
use crate::mcp::{mirrored, turn};
use crate::mesh::offer::Kind;
use crate::policy::chain::{self as policy, Permitted};
use crate::proxy::Carry;
use crate::registry::Instance;
use crate::upstream::{Header, Peer, Post, Reply, SendError, Spoken, Times, status_error};

/// Who the request is from.
pub(super) enum Client<'a> {
    /// What this request says of its client: its capabilities, and the level of the log that it wants; JSON text.
    Modern {
        capabilities: &'a str,
        log_level: Option<&'a str>,
    },
    Legacy {
        session: &'a Arc<Session>,
        lane: &'a Arc<Lane>,
    },
}

impl Client<'_> {
    pub const fn era(&self) -> Era {
        match self {
            Self::Modern { .. } => Era::Modern,
            Self::Legacy { .. } => Era::Legacy,
        }
    }
}

pub(super) struct Courier<'r, 'a> {
    pub endpoint: &'r Arc<Endpoint>,
    /// The routers' word; `None` for what they are not asked about.
    pub permitted: Option<&'r Permitted<policy::Call<'a>>>,
    pub times: Times,
    pub call: &'r wanted::Call<'r>,
    pub message: &'r Message<'a>,
    pub headers: &'r HeaderMap,
    pub client: Client<'r>,
    /// Under which names the request is sent, where that is known before.
    pub names: Names,
    /// Members of `params` that take the place of the client's own: JSON text by key.
    pub more: &'r [(&'r str, &'r str)],
}

/// An answer that has begun, and the names under which the request was known there.
pub(super) struct Carried {
    pub instance: Arc<Instance>,
    pub spoken: Arc<Spoken>,
    pub reply: Reply,
    pub names: Names,
}

/// Ids in place of the client's: JSON text.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub id: Option<String>,
    pub token: Option<String>,
    /// The tool that was called: a router may have chosen another one.
    pub tool: String,
}

impl Names {
    pub fn new(number: u64, message: &Message<'_>) -> Self {
        let number = number.to_string();
        let token = message.progress_token().map(|_| number.clone());
        Self { id: Some(number), token, tool: String::new() }
    }

    /// Names of a request at a client's lane: the client's own where nobody else's can be there.
    pub fn at(lane: &Lane, message: &Message<'_>) -> Self {
        if lane.is_shared() { Self::new(lane.instance.peer.next_id(), message) } else { Self::default() }
    }
}

/// Tells an instance that a request is no longer wanted, unless it was disarmed before it is dropped.
pub(super) struct Recall {
    endpoint: Arc<Endpoint>,
    peer: Arc<Peer>,
    spoken: Arc<Spoken>,
    id: Option<String>,
}

impl Recall {
    pub fn new(endpoint: &Arc<Endpoint>, peer: &Arc<Peer>, spoken: &Arc<Spoken>, id: Option<String>) -> Self {
        Self { endpoint: Arc::clone(endpoint), peer: Arc::clone(peer), spoken: Arc::clone(spoken), id }
    }

    pub fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Recall {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (endpoint, peer, spoken) =
            (Arc::clone(&self.endpoint), Arc::clone(&self.peer), Arc::clone(&self.spoken));
        self.endpoint.tasks.spawn(async move {
            let message = envelope::cancelled(&id);
            let post = Post { id: None, token: None, headers: &[], body: &[&message] };
            if let Err(error) = peer.post(&spoken, &post, &endpoint.control_times()).await {
                tracing::debug!(error = crate::upstream::chain(&error), "cancellation not passed on");
            }
        });
    }
}

impl Carry for Courier<'_, '_> {
    type Answer = Carried;

    async fn carry(&self, instance: &Arc<Instance>) -> Result<Carried, SendError> {
        let peer = &instance.peer;
        let times = &self.times;
        match &self.client {
            Client::Legacy { lane, .. } => self.send(instance, &lane.spoken).await,
            Client::Modern { capabilities, log_level } => {
                let spoken = peer.shared(capabilities, *log_level, times).await?;
                match self.send(instance, &spoken).await {
                    // It was refused unread, so it can be sent again.
                    Err(SendError::SessionGone) => {
                        peer.forget(&spoken);
                        self.send(instance, &peer.shared(capabilities, *log_level, times).await?).await
                    }
                    other => other,
                }
            }
        }
    }
}

impl Courier<'_, '_> {
    async fn send(&self, instance: &Arc<Instance>, spoken: &Arc<Spoken>) -> Result<Carried, SendError> {
        let peer = &instance.peer;
        let bridged = self.client.era() != spoken.era;
        let shared = peer.is_process() && !peer.starts_one_for_each();
        let renames = shared || (bridged && spoken.era == Era::Legacy);
        let mut names = self.names.clone();
        if renames && names.id.is_none() {
            names = Names::new(peer.next_id(), self.message);
        }
        if bridged {
            self.tool().clone_into(&mut names.tool);
        }
        let mut splice = Splice::new(self.message.text);
        for (span, new) in &self.call.edits {
            splice.replace(span.clone(), new.as_str());
        }
        self.rename_tool(&mut splice);
        if let (Some(id), Some(own)) = (&names.id, self.message.id()) {
            splice.replace(self.message.span(own), id.as_str());
        }
        if let (Some(token), Some(own)) = (&names.token, self.message.progress_token()) {
            splice.replace(self.message.span(own.get()), token.as_str());
        }
        let left = self.put_left(&mut splice, peer);
        let rebuilt = self.rebuilt(&splice, bridged.then_some(spoken.era), left);
        let pieces = match &rebuilt {
            Some(text) => vec![text.as_bytes()],
            None => splice.pieces(),
        };
        let name = self.header_name();
        let mut headers = self.headers(spoken.era, name.as_deref());
        let mirrored = if bridged && spoken.era == Era::Modern { self.mirrored() } else { Vec::new() };
        headers.extend(mirrored.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        let id = names.id.as_deref().or_else(|| self.message.id());
        let token = names.token.as_deref().or_else(|| self.message.progress_token().map(|token| token.get()));
        let post = Post { id, token, headers: &headers, body: &pieces };
        let recall = || Recall::new(self.endpoint, peer, spoken, id.map(str::to_owned));
        // Whoever goes away before the answer begins must be heard of there.
        let armed = (names.id.is_some() && self.client.era() == Era::Modern).then(recall);
        let reply = match self.permitted {
            Some(permitted) => peer.call(permitted, spoken, &post, &self.times).await,
            None => peer.post(spoken, &post, &self.times).await,
        };
        if let Some(armed) = armed {
            armed.disarm();
        }
        let reply = reply.inspect_err(|error| {
            if error.is_late() && spoken.era == Era::Legacy {
                drop(recall());
            }
        })?;
        if let Reply::Whole(whole) = &reply
            && !(whole.status.is_success() || whole.is_json() && speaks(&whole.body))
        {
            return Err(status_error(whole));
        }
        Ok(Carried { instance: Arc::clone(instance), spoken: Arc::clone(spoken), reply, names })
    }

    /// The tool as the instance knows it.
    fn tool(&self) -> &str {
        self.permitted.map_or(&self.call.tool, Permitted::tool)
    }

    fn rename_tool<'s>(&'s self, splice: &mut Splice<'s>) {
        if self.message.method() != "tools/call" {
            return;
        }
        let Some(raw) = self.message.params().and_then(|params| params.name) else { return };
        let wanted = self.tool();
        if string(raw).as_deref() != Some(wanted) {
            splice.replace(self.message.span(raw.get()), turn::quoted(wanted));
        }
    }

    /// Puts how much time is left in the place of what the client's message says; answers what has to be put in
    /// where it says nothing, and a process cannot be told in a header.
    fn put_left(&self, splice: &mut Splice<'_>, peer: &Peer) -> Option<u64> {
        if !self.times.stated {
            return None;
        }
        let left = self.times.left(tokio::time::Instant::now());
        match self.message.meta().and_then(|meta| meta.timeout) {
            Some(own) => splice.replace(self.message.span(own.get()), left.to_string()),
            None => return peer.is_process().then_some(left),
        }
        None
    }

    /// The message written anew, where members have to be put in.
    fn rebuilt(&self, splice: &Splice<'_>, other_era: Option<Era>, left: Option<u64>) -> Option<String> {
        if self.more.is_empty() && other_era.is_none() && left.is_none() {
            return None;
        }
        let mut text = String::from_utf8(splice.to_vec()).ok()?;
        if let Some(left) = left {
            let meta = turn::meta_with(&text, &[(deadline::MEMBER, &left.to_string())]);
            text = turn::with_params(&text, &[("_meta", &meta)])?;
        }
        let meta = match (&self.client, other_era) {
            (Client::Legacy { session, .. }, Some(Era::Modern)) => Some(session.modern_meta(&text)),
            (Client::Modern { .. }, Some(Era::Legacy)) => Some(turn::legacy_meta(&text)),
            _ => None,
        };
        let mut more = self.more.to_vec();
        more.extend(meta.as_deref().map(|meta| ("_meta", meta)));
        turn::with_params(&text, &more)
    }

    /// What a modern instance wants repeated in headers, of a request that was not made for it.
    fn mirrored(&self) -> Vec<(String, String)> {
        let snapshot = self.endpoint.registry.peek();
        let service = snapshot.service(self.call.service.as_str());
        let tool = service.and_then(|service| service.offer.get(Kind::Tool, self.tool()));
        let arguments = self.message.params().and_then(|params| params.arguments);
        match (tool, arguments) {
            (Some(tool), Some(arguments)) => mirrored::headers(&tool.json, arguments.get()),
            _ => Vec::new(),
        }
    }

    fn header_name(&self) -> Option<Cow<'_, str>> {
        match self.message.method() {
            "tools/call" => Some(header_name(self.tool())),
            "completion/complete" => None,
            _ => self.call.name.as_deref().map(header_name),
        }
    }

    fn headers<'h>(&'h self, era: Era, name: Option<&'h str>) -> Vec<Header<'h>> {
        let mut headers: Vec<Header<'h>> = Vec::with_capacity(4);
        if era == Era::Modern {
            headers.push((METHOD.as_str(), self.message.method().as_bytes()));
            headers.extend(name.map(|name| (NAME.as_str(), name.as_bytes())));
        }
        let passed = self.headers.iter().filter(|(name, _)| passes(name.as_str()));
        headers.extend(passed.map(|(name, value)| (name.as_str(), value.as_bytes())));
        headers
    }
}

/// Headers of clients that are the instance's matter: trace context, and what repeats arguments.
pub(super) fn passes(name: &str) -> bool {
    name.starts_with("mcp-param-") || matches!(name, "traceparent" | "tracestate" | "baggage")
}

/// Whether a body that came with an error status is an answer in the protocol.
fn speaks(body: &[u8]) -> bool {
    matches!(crate::mcp::message::shape(body), Some(crate::mcp::message::Shape::Answer { .. }))
}

impl Session {
    /// `_meta` of a request of this client for a modern instance, with what the request says itself.
    pub(super) fn modern_meta(&self, text: &str) -> String {
        let version = format!("\"{}\"", VERSIONS[0]);
        let level = self.log_level();
        let info = turn::Members::of(&self.params).and_then(|params| params.get("clientInfo"));
        let mut more = vec![
            ("io.modelcontextprotocol/protocolVersion", version.as_str()),
            ("io.modelcontextprotocol/clientCapabilities", &*self.capabilities),
            ("io.modelcontextprotocol/clientInfo", info.unwrap_or(CLIENT_INFO)),
        ];
        more.extend(level.as_deref().map(|level| ("io.modelcontextprotocol/logLevel", level)));
        turn::meta_with(text, &more)
    }
}
