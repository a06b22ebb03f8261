//! The proxy's own tools: how they are declared, and the door to what runs them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::declared;
use crate::mesh::offer::{Item, Kind};

/// A call of one of the proxy's own tools.
#[derive(Clone, Debug)]
pub struct OwnCall {
    pub tool: OwnTool,
    /// JSON text; empty or `null` when the caller gave none.
    pub arguments: Bytes,
    /// The profile at whose address the caller is: it sees nothing else.
    pub profile: Option<String>,
    /// Who calls, by its own word.
    pub client: String,
}

/// Runs a call and answers with a `CallToolResult`, JSON text. Never fails: a failure is a result that says so.
pub type OwnTools = Arc<dyn Fn(OwnCall) -> Pin<Box<dyn Future<Output = Bytes> + Send>> + Send + Sync>;

/// One of the proxy's own tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnTool {
    ListServices,
    GetServiceInfo,
    GetServiceStatus,
    CallService,
    RegisterService,
    DeregisterService,
    Heartbeat,
    FindTools,
}

impl OwnTool {
    /// In the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::ListServices,
        Self::GetServiceInfo,
        Self::GetServiceStatus,
        Self::CallService,
        Self::RegisterService,
        Self::DeregisterService,
        Self::Heartbeat,
        Self::FindTools,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ListServices => "list_services",
            Self::GetServiceInfo => "get_service_info",
            Self::GetServiceStatus => "get_service_status",
            Self::CallService => "call_service",
            Self::RegisterService => "register_service",
            Self::DeregisterService => "deregister_service",
            Self::Heartbeat => "heartbeat",
            Self::FindTools => "find_tools",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// As clients are told of it.
    pub fn declaration(self) -> Item {
        declared::parse(Kind::Tool, self.json()).expect("the declarations below are JSON with names")
    }

    const fn json(self) -> &'static str {
        match self {
            Self::ListServices => LIST_SERVICES,
            Self::GetServiceInfo => GET_SERVICE_INFO,
            Self::GetServiceStatus => GET_SERVICE_STATUS,
            Self::CallService => CALL_SERVICE,
            Self::RegisterService => REGISTER_SERVICE,
            Self::DeregisterService => DEREGISTER_SERVICE,
            Self::Heartbeat => HEARTBEAT,
            Self::FindTools => FIND_TOOLS,
        }
    }
}

const LIST_SERVICES: &str = r#"{"name":"list_services","title":"List services","description":"Lists the services of the mesh with their state, the number of their instances and tools, and how often they were called.","inputSchema":{"type":"object","properties":{"status":{"type":"string","enum":["healthy","degraded","unavailable"],"description":"Only services in this state."}},"additionalProperties":false},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#;
const GET_SERVICE_INFO: &str = r#"{"name":"get_service_info","title":"Get service info","description":"Tells all that is known of one service: its tools with their schemas, prompts and resources, its instances with their health and the reason for it, its counts and latencies.","inputSchema":{"type":"object","properties":{"service_name":{"type":"string","description":"Name of the service, or of one of its instances."}},"required":["service_name"],"additionalProperties":false},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#;
const GET_SERVICE_STATUS: &str = r#"{"name":"get_service_status","title":"Get service status","description":"Tells in short whether a service can be called, and if not, why.","inputSchema":{"type":"object","properties":{"service_name":{"type":"string","description":"Name of the service, or of one of its instances."}},"required":["service_name"],"additionalProperties":false},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#;
const CALL_SERVICE: &str = r#"{"name":"call_service","title":"Call a service's tool","description":"Calls a tool of a service by the service's own name for it. The call is routed, balanced, retried and counted like any other.","inputSchema":{"type":"object","properties":{"target_instance":{"type":"string","description":"Name of a service, or of one instance when no other will do."},"tool_name":{"type":"string","description":"The tool's own name, without the service's."},"arguments":{"type":"object","description":"Arguments of the tool."},"timeout_ms":{"type":"integer","minimum":1,"maximum":600000,"description":"Time for the whole call."},"client":{"type":"string","description":"Who calls; calls of one client stay together."}},"required":["target_instance","tool_name"],"additionalProperties":false},"annotations":{"readOnlyHint":false,"destructiveHint":true,"openWorldHint":true}}"#;
const REGISTER_SERVICE: &str = r#"{"name":"register_service","title":"Register a service instance","description":"Registers an MCP server that listens on HTTP as an instance of a service. It has to send heartbeats. The answer holds its lease token.","inputSchema":{"type":"object","properties":{"instance_name":{"type":"string","description":"Name of the instance: letters, digits, `_`, `-`, `.`."},"port":{"type":"integer","minimum":1,"maximum":65535,"description":"Where it listens; or give `url`."},"service":{"type":"string","description":"The service that it is an instance of; its own name unless given."},"host":{"type":"string","description":"127.0.0.1 unless given."},"path":{"type":"string","description":"/mcp unless given."},"url":{"type":"string","description":"http://HOST:PORT/PATH, instead of the three."},"pid":{"type":"integer","minimum":0},"tags":{"type":"array","items":{"type":"string"}},"metadata":{"type":"object"},"zone":{"type":"string"},"weight":{"type":"integer","minimum":1,"maximum":1000},"tools":{"type":"array","items":{"type":["string","object"]},"description":"Names or declarations; when empty the instance is asked."},"lease_token":{"type":"string","description":"That of an earlier registration, to move the name."}},"required":["instance_name"]},"annotations":{"readOnlyHint":false,"destructiveHint":false,"idempotentHint":true,"openWorldHint":false}}"#;
const DEREGISTER_SERVICE: &str = r#"{"name":"deregister_service","title":"Deregister a service instance","description":"Takes an instance out of the mesh. With its last instance a service is forgotten, and what it offered.","inputSchema":{"type":"object","properties":{"instance_name":{"type":"string"},"lease_token":{"type":"string"}},"required":["instance_name"],"additionalProperties":false},"annotations":{"readOnlyHint":false,"destructiveHint":true,"idempotentHint":true,"openWorldHint":false}}"#;
const HEARTBEAT: &str = r#"{"name":"heartbeat","title":"Send a heartbeat","description":"Renews the lease of a registered instance, which is removed after two minutes of silence.","inputSchema":{"type":"object","properties":{"instance_name":{"type":"string"},"lease_token":{"type":"string"}},"required":["instance_name"],"additionalProperties":false},"annotations":{"readOnlyHint":false,"destructiveHint":false,"idempotentHint":true,"openWorldHint":false}}"#;
const FIND_TOOLS: &str = r#"{"name":"find_tools","title":"Find tools","description":"Searches the tools of all services by words from their names, descriptions and parameters. What it finds can be called by the names it gives, also when it was not listed.","inputSchema":{"type":"object","properties":{"query":{"type":"string","description":"Words for what you want to do."},"limit":{"type":"integer","minimum":1,"maximum":50,"default":10,"description":"Most tools to give back."}},"required":["query"],"additionalProperties":false},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_carry_the_names_they_are_called_by() {
        for tool in OwnTool::ALL {
            assert_eq!(&*tool.declaration().key, tool.name());
            assert_eq!(OwnTool::named(tool.name()), Some(tool));
        }
        assert!(OwnTool::FindTools.declaration().repeatable);
        assert!(!OwnTool::CallService.declaration().repeatable);
    }
}
