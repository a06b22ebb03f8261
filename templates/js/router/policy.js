// A router. It refuses the tools whose names begin as its configuration says; put your own policy into `route`. What
// is exported are the interfaces of the world `routing` in wit/plugin.wit, in JavaScript's spelling.

const DEFAULTS = { refuse: ['delete_'] };

// The configuration, from {{name}}.toml beside {{name}}.wasm.
let settings = DEFAULTS;

export const lifecycle = {
  metadata: () => 'name = "{{name}}"\nversion = "0.1.0"\n',

  // Called before anything below, with {} when nothing is configured. Throwing a list of issues refuses it.
  configure(json) {
    const read = { ...DEFAULTS, ...JSON.parse(json) };
    const issues = Object.keys(read)
      .filter((key) => !(key in DEFAULTS))
      .map((key) => ({ path: `/${key}`, message: 'There is no such setting.' }));
    if (!Array.isArray(read.refuse)) issues.push({ path: '/refuse', message: 'This must be a list of beginnings.' });
    if (issues.length > 0) throw issues;
    settings = read;
  },

  // Throwing a text keeps the plugin out.
  selfTest() {},
};

export const catalog = {
  // The services that exist, before the next decision when they changed.
  onCatalog(services) {},
};

export const router = {
  route(call) {
    if (!settings.refuse.some((prefix) => call.tool.startsWith(prefix))) {
      return { verdict: { tag: 'pass' }, why: '' };
    }
    return { verdict: { tag: 'reject', val: { reason: `\`${call.tool}\` is refused` } }, why: 'refused by {{name}}' };
  },
};
