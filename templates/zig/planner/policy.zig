//! A planner. Each instance gets calls by its weight, less what fails; put your own policy into `compile`.
//! `meshwright.zig` connects it with the contract in `wit/plugin.wit`.

const std = @import("std");
const meshwright = @import("meshwright.zig");

comptime {
    meshwright.exportLifecycle(@This());
    meshwright.exportPlanner(@This());
}

/// A plan outlives a few missed rounds.
const ttl_ms = 5000;

// The host reads this after `configure` has returned.
const there_are_none = [_]meshwright.Issue{.{ .message = .of("There are no settings.") }};

pub fn metadata() []const u8 {
    return "name = \"{{name}}\"\nversion = \"0.1.0\"\n";
}

/// Called before anything below, with `{}` when nothing is configured. Any issue refuses it.
pub fn configure(json: []const u8) []const meshwright.Issue {
    return if (std.mem.eql(u8, json, "{}")) &.{} else &there_are_none;
}

/// What is wrong, if anything is: that keeps the plugin out.
pub fn selfTest() ?[]const u8 {
    return null;
}

/// The host's own balancer follows the plan until the next one.
pub fn compile(_: u32, _: []const u8, members: []const meshwright.Member, loads: []const meshwright.Load) ?meshwright.Plan {
    if (members.len == 0) return null;
    const weights = meshwright.scratch().alloc(u32, members.len) catch @trap();
    for (weights, members) |*weight, member| {
        weight.* = @as(u32, member.weight) * (1000 - failingPermille(member.slot, loads)) / 1000;
    }
    return .{
        .strategy = .weighted,
        .value = .{ .weighted = .of(weights) },
        .ttl_ms = ttl_ms,
        .why = .of("by weight and errors"),
    };
}

fn failingPermille(slot: u32, loads: []const meshwright.Load) u32 {
    for (loads) |load| {
        if (load.slot == slot) return load.errors_permille;
    }
    return 0;
}
