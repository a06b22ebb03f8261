//! The proxy's own tools.

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
}
