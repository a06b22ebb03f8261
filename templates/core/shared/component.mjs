// Makes a component of a core module: node component.mjs CORE WIT WORLD COMPONENT [--go]
// (jco's own `embed` cannot choose one of several worlds.)
import { componentEmbed, componentNew, preview1AdapterReactorPath } from '@bytecodealliance/jco';
import { readFile, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';

const [core, wit, world, component, go] = process.argv.slice(2);
const binary = await readFile(core);
const embedded = await componentEmbed({ binary: go ? withFixedMemory(binary) : binary, witPath: resolve(wit), world });
const adapters = go ? [['wasi_snapshot_preview1', await readFile(preview1AdapterReactorPath())]] : [];
await writeFile(component, await componentNew(embedded, adapters));

// Go's allocator takes memory to grow by nobody but itself, and WASI's adapter lets it grow too: both would use the
// same pages. So the memory has all its pages from the start, and only those of the adapter are added.
function withFixedMemory(module) {
  const pages = 384;
  const adapterPages = 2;
  const memorySection = 5;
  const hasMaximum = 1;
  let at = 8;
  while (at < module.length) {
    const [size, body] = unsigned(module, at + 1);
    if (module[at] === memorySection) {
      const limits = [1, hasMaximum, ...leb(pages), ...leb(pages + adapterPages)];
      return Buffer.concat([
        module.subarray(0, at),
        Buffer.from([memorySection, ...leb(limits.length), ...limits]),
        module.subarray(body + size),
      ]);
    }
    at = body + size;
  }
  throw new Error(`${core} has no memory of its own`);
}

function unsigned(bytes, at) {
  let [value, shift] = [0, 0];
  for (;;) {
    const byte = bytes[at++];
    value |= (byte & 0x7f) << shift;
    shift += 7;
    if (byte < 0x80) return [value, at];
  }
}

function leb(value) {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}
