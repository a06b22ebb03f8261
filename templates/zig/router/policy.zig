//! A router. It refuses the tools whose names begin as its configuration says; put your own policy into `route`.
//! `meshwright.zig` connects it with the contract in `wit/plugin.wit`.

const std = @import("std");
const meshwright = @import("meshwright.zig");

comptime {
    meshwright.exportLifecycle(@This());
    meshwright.exportRouter(@This());
}

/// The configuration, from `{{name}}.toml` beside `{{name}}.wasm`.
const Settings = struct {
    refuse: []const []const u8 = &.{"delete_"},
};

// The host reads this after `configure` has returned.
const not_understood = [_]meshwright.Issue{.{ .message = .of("The one setting is `refuse`, a list of beginnings.") }};

var settings: std.json.Parsed(Settings) = undefined;
var is_configured = false;

pub fn metadata() []const u8 {
    return "name = \"{{name}}\"\nversion = \"0.1.0\"\n";
}

/// Called before anything below, with `{}` when nothing is configured. Any issue refuses it.
pub fn configure(json: []const u8) []const meshwright.Issue {
    // What the settings point to must outlive this call.
    const options: std.json.ParseOptions = .{ .allocate = .alloc_always };
    const read = std.json.parseFromSlice(Settings, std.heap.wasm_allocator, json, options) catch return &not_understood;
    if (is_configured) settings.deinit();
    settings = read;
    is_configured = true;
    return &.{};
}

/// What is wrong, if anything is: that keeps the plugin out.
pub fn selfTest() ?[]const u8 {
    return null;
}

/// The services that exist, before the next decision when they changed.
pub fn onCatalog(services: []const meshwright.Service) void {
    _ = services;
}

pub fn route(call: meshwright.Call) meshwright.Decision {
    for (settings.value.refuse) |prefix| {
        if (!std.mem.startsWith(u8, call.tool, prefix)) continue;
        return .{
            .verdict = .reject,
            .value = .{ .reject = .{ .reason = meshwright.print("`{s}` is refused", .{call.tool}) } },
            .why = .of("refused by {{name}}"),
        };
    }
    return .{};
}
