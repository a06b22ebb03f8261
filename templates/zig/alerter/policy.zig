//! An alerter. It warns about services with fewer instances than its configuration asks for; put your own policy into
//! `evaluate`. `meshwright.zig` connects it with the contract in `wit/plugin.wit`.

const std = @import("std");
const meshwright = @import("meshwright.zig");

comptime {
    meshwright.exportLifecycle(@This());
    meshwright.exportAlerter(@This());
}

/// The configuration, from `{{name}}.toml` beside `{{name}}.wasm`.
const Settings = struct {
    instances_min: u32 = 2,
};

// The host reads these after the functions that answer them have returned.
const not_understood = [_]meshwright.Issue{.{ .message = .of("The one setting is `instances_min`, a number.") }};
const wanted = [_]meshwright.Want{.{
    .series = .of("meshwright_service_instances_available"),
    .aggregate = .last,
    .window_s = 60,
}};

var settings: Settings = .{};

pub fn metadata() []const u8 {
    return "name = \"{{name}}\"\nversion = \"0.1.0\"\n";
}

/// Called before anything below, with `{}` when nothing is configured. Any issue refuses it.
pub fn configure(json: []const u8) []const meshwright.Issue {
    settings = std.json.parseFromSliceLeaky(Settings, meshwright.scratch(), json, .{}) catch return &not_understood;
    return &.{};
}

/// What is wrong, if anything is: that keeps the plugin out.
pub fn selfTest() ?[]const u8 {
    return null;
}

/// What the host has to bring along: the position in this list is a sample's `want`.
pub fn wants() []const meshwright.Want {
    return &wanted;
}

/// Returns all that holds now, each time; the host remembers what it has already told.
pub fn evaluate(_: u64, samples: []const meshwright.Sample, _: []const meshwright.Event) []const meshwright.Firing {
    const min: f64 = @floatFromInt(settings.instances_min);
    const firings = meshwright.scratch().alloc(meshwright.Firing, samples.len) catch @trap();
    var count: usize = 0;
    for (samples) |sample| {
        if (sample.value >= min) continue;
        firings[count] = .{
            .rule = .of("few-instances"),
            .severity = .warning,
            .labels = sample.labels,
            .title = .of("a service has few instances"),
            .detail = meshwright.print("{d} available, {d} wanted", .{ sample.value, min }),
            .value = sample.value,
            // A lower bound, since `resolve_at` is higher.
            .threshold = min - 1,
            .for_s = 0,
            .resolve_at = min,
        };
        count += 1;
    }
    return firings[0..count];
}
